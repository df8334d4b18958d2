"""Weighted nearest neighbours as a protocol of its own: several numbers of neighbours, any feature."""

from __future__ import annotations

import argparse
from typing import Any

from trainlib import ranks
from trainlib.backbone import Backbone, load_backbone
from trainlib.cli import read_config
from trainlib.config import to_dict
from trainlib.errors import UsageError
from trainlib.evaluate import extract, knn_accuracy
from trainlib.files import write_json
from trainlib.loop import make_fabric
from trainlib.protocol import check_origins, datasets, identity, publish, result_places
from trainlib.protocol_config import KnnRunConfig
from trainlib.run import prepare_device
from trainlib.tables import grouped, of_records, spread
from trainlib.validate import require

NAME = "knn"


def measure(arguments: argparse.Namespace) -> None:
    """Carry out the command line of ``knn.py``."""
    places = result_places(arguments)
    dataset_of, configs, origins = datasets(), [], []
    for run_dir, _ in places:
        backbone = load_backbone(run_dir)
        config = read_config(arguments, KnnRunConfig()).with_source(backbone.origin.config)
        config.validate()
        for k in arguments.k:
            require(k >= 1, "--k", f"expected whole numbers of at least 1, got {k}", "use e.g. 20")
        backbone.several(config.knn.feature or "all")
        configs.append(config)
        origins.append(backbone.origin)
    prepare_device(configs[0])
    check_origins(origins)
    ranks.connect(configs[0].run.device)
    results = []
    for (run_dir, place), config, origin in zip(places, configs, origins, strict=True):
        results.append(_measure(config, arguments.k, load_backbone(run_dir), dataset_of(config, origin)))
        if not ranks.is_first():
            continue
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / f"{NAME}.json", results[-1])
    ranks.disconnect()
    if not ranks.is_first():
        return
    publish(_table(results, arguments.k), NAME, [place for _, place in places], arguments.out)


def _measure(config: KnnRunConfig, neighbours: list[int], backbone: Backbone, dataset: Any) -> dict[str, Any]:
    if max(neighbours) > dataset.size("train"):
        raise UsageError(
            "--k", f"{max(neighbours)} neighbours are more than the {dataset.size('train')} training images",
            f"choose at most {dataset.size('train')}",
        )  # fmt: skip
    fabric = make_fabric(config)
    backbone.to(fabric.device)
    dataset.to(fabric.device)

    def encode(images):
        """Each process encodes its part of the images, and gets all features."""
        with fabric.autocast():
            features = backbone(ranks.part(images))
        return {name: ranks.gather(rows) for name, rows in features.items()}

    train, train_labels = extract(encode, dataset, "train")
    test, test_labels = extract(encode, dataset, "test")
    accuracies = {
        name: {
            str(k): knn_accuracy(
                train[name], train_labels, test[name], test_labels, dataset.classes,
                neighbours=k, temperature=config.knn.temperature,
            )
            for k in neighbours
        }
        for name in backbone.several(config.knn.feature or "all")
    }  # fmt: skip
    return {**identity(backbone.origin), "protocol": to_dict(config), "accuracy_by_k": accuracies}


def _table(results: list[dict[str, Any]], neighbours: list[int]) -> str:
    """A Markdown table, a row per label and feature: mean and standard deviation over runs."""
    rows = []
    for label, group in grouped(results, lambda result: result["label"]).items():
        for feature in group[0]["accuracy_by_k"]:
            row = {"method": label, "runs": str(len(group)), "feature": feature}
            for k in neighbours:
                row[f"k = {k} %"] = spread([r["accuracy_by_k"][feature][str(k)] for r in group], 2)
            rows.append(row)
    return of_records(rows)
