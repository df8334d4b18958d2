"""What the evaluation protocols share: which runs, where the results go, resuming, and one table for all."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from trainlib import ranks
from trainlib.backbone import OPTION, Backbone, Origin, load_backbone
from trainlib.cli import read_config, seed_list
from trainlib.config import DataConfig, resolve, to_dict
from trainlib.data import load_dataset
from trainlib.errors import UsageError
from trainlib.files import CONFIG, SUMMARY, expand, read_json, read_table, write_atomic, write_json
from trainlib.loop import TrainingLoop, make_fabric
from trainlib.method import Method
from trainlib.run import (
    check_comparable,
    check_same,
    check_shares,
    create_run_dir,
    prepare_device,
    read_run_config,
    train,
)
from trainlib.tables import TIMES, grouped, of_records, spread

SOURCE = "source.json"
TOP = 5
# What makes the method from the configuration, and the data set that it is trained on.
Prepared = tuple[Callable[[Any], Method], Any]
NOTE = (
    "max: the best epoch, chosen on the held-out images themselves, as the published scripts report; "
    "last: after the last epoch, chosen by nothing"
)
ACCURACIES = (
    ("top1", "top-1 last"),
    ("max_top1", "top-1 max"),
    ("top5", "top-5 last"),
    ("max_top5", "top-5 max"),
)


@dataclass(frozen=True)
class Protocol:
    """What distinguishes one protocol from another."""

    config_class: type
    name: Callable[[Any], str]  # from the configuration: the name of the results
    check: Callable[[Any, Backbone], object]  # configuration against encoder; raises what does not fit
    prepare: Callable[[Any, Backbone, Any, Fabric], Prepared]
    finish: Callable[[Path, str], None] = lambda place, label: None  # pictures


@dataclass(frozen=True)
class Job:
    """One encoder, where its results go, and what is trained on it."""

    origin: Origin
    place: Path
    name: str
    config: Any
    seeds: list[int]
    weights: str

    @property
    def folder(self) -> Path:
        """Folder of the trainings."""
        return self.place / self.name

    def seed_dir(self, seed: int) -> Path:
        """Folder of one training."""
        return self.folder / f"seed{seed}"


def evaluate(protocol: Protocol, arguments: argparse.Namespace) -> None:
    """Carry out the command line of a protocol."""
    jobs = [_job(protocol, arguments, run_dir, place) for run_dir, place in result_places(arguments)]
    check_origins([job.origin for job in jobs])
    prepare_device(jobs[0].config)
    dataset_of = datasets()
    for job in jobs:  # all that can be wrong is said before any folder is made
        check_shares(job.config)
        dataset_of(job.config, job.origin)
    ranks.connect(jobs[0].config.run.device)
    ranks.agree(None)  # nobody looks for folders any more
    if ranks.is_first():
        for job in jobs:
            _create(job)
    ranks.agree(None)  # the folders are there
    results = [_evaluate(protocol, job, dataset_of) for job in jobs]
    ranks.disconnect()
    if not ranks.is_first():
        return
    text = f"{results_table(results)}\n\n{NOTE}"
    publish(text, jobs[0].name, [job.place for job in jobs], arguments.out)


def check_origins(origins: list[Origin]) -> None:
    """Refuse encoders whose results would be averaged and are unlike; say which are not finished."""
    check_comparable(OPTION, [(o.label, o.run_dir, o.config, o.epoch) for o in origins])
    for origin in origins:
        epochs = origin.config.optim.epochs
        if origin.epoch < epochs:
            print(f"note: {origin.run_dir} is at epoch {origin.epoch} of {epochs}", file=sys.stderr)


def publish(text: str, name: str, places: list[Path], out: Path | None) -> None:
    """Print the table of an evaluation and where its results are; below ``--out`` it is kept, too."""
    print(text)
    if out is not None:
        write_atomic(out / f"{name}.md", f"{text}\n".encode())
    print("results:", ", ".join(str(place / f"{name}.json") for place in places))


def result_places(arguments: argparse.Namespace) -> list[tuple[Path, Path]]:
    """Each run with the folder of its results: the run's own, or one under ``--out`` named after the run."""
    run_dirs = expand(arguments.runs)
    if len({d.resolve() for d in run_dirs}) < len(run_dirs):
        raise UsageError(OPTION, "the same run is named twice", "give each run once")
    if arguments.out is None:
        return [(d, d) for d in run_dirs]
    if len(run_dirs) == 1:
        return [(run_dirs[0], arguments.out)]
    names = [d.resolve().name for d in run_dirs]
    if len(set(names)) < len(names):  # such as mae-seed0 of two comparisons
        names = ["-".join(d.resolve().parts[-2:]) for d in run_dirs]
    if len(set(names)) < len(names):
        raise UsageError("--out", "the runs' folders have equal names", "leave --out out")
    return [(d, arguments.out / n) for d, n in zip(run_dirs, names, strict=True)]


def _job(protocol: Protocol, arguments: argparse.Namespace, run_dir: Path, place: Path) -> Job:
    backbone = load_backbone(run_dir)
    asked = resolve(read_config(arguments, protocol.config_class()).with_source(backbone.origin.config))
    seeds = seed_list(arguments.seeds, asked.run.seed)
    job = Job(backbone.origin, place, protocol.name(asked), asked, seeds, backbone.fingerprint())
    if job.folder.exists() or (place / f"{job.name}.json").exists():
        if not arguments.resume:
            raise UsageError(
                "--out", f"{place} has results of {job.name} already",
                "continue them with --resume, or choose another --out",
            )  # fmt: skip
        job = _resumed(protocol, arguments, job)
    job.config.validate()
    protocol.check(job.config, backbone)
    return job


def _resumed(protocol: Protocol, arguments: argparse.Namespace, job: Job) -> Job:
    """The job with the options that it was started with; options given anew must agree with them."""
    earlier = sorted(
        job.folder.glob(f"seed*/{CONFIG}"), key=lambda p: int(p.parent.name.removeprefix("seed"))
    )
    if not earlier:
        return job
    source = job.folder / SOURCE
    if not source.is_file() or read_table(source, weights=str)["weights"] != job.weights:
        raise UsageError(
            "--resume", f"{job.folder} was made with other weights than {job.origin.run_dir} has now",
            "choose another --out",
        )  # fmt: skip
    saved = read_run_config(earlier[0].parent, protocol.config_class)
    config = read_config(arguments, saved)
    check_same(config, saved, job.folder)
    seeds = [int(p.parent.name.removeprefix("seed")) for p in earlier]
    if arguments.seeds is not None:
        seeds = seed_list(arguments.seeds, config.run.seed)
    return dataclasses.replace(job, config=config, seeds=seeds)


def _create(job: Job) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / SOURCE, {"run": str(job.origin.run_dir), "weights": job.weights})
    for seed in job.seeds:
        if not (job.seed_dir(seed) / CONFIG).is_file():
            create_run_dir(job.seed_dir(seed), job.config.with_seed(seed))


def datasets() -> Callable[[Any, Origin], Any]:
    """What gives the data of a job, at the size that its encoder takes. The latest are kept: jobs rarely differ."""

    @functools.lru_cache(1)
    def load(data: DataConfig, batch: int) -> Any:
        return load_dataset(SimpleNamespace(data=data, optim=SimpleNamespace(batch=batch)))

    def get(config: Any, origin: Origin) -> Any:
        data = DataConfig(**dataclasses.asdict(config.data), image_size=origin.config.data.image_size)
        dataset = load(data, config.optim.batch if hasattr(config, "optim") else 1)
        if dataset.channels != origin.channels:
            raise UsageError(
                "--data", f"images of {data.data} have {dataset.channels} channels, the encoder of {origin.run_dir} "
                f"takes {origin.channels}",
                f"use the run's own data ({origin.config.data.data}) or data of the same kind",
            )  # fmt: skip
        return dataset

    return get


def _evaluate(protocol: Protocol, job: Job, dataset_of: Callable[[Any, Origin], Any]) -> dict[str, Any]:
    backbone, label = load_backbone(job.origin.run_dir), job.origin.label
    fabric = make_fabric(job.config)
    dataset = dataset_of(job.config, job.origin).to(fabric.device)
    backbone.to(fabric.device)
    prepare = functools.cache(lambda: protocol.prepare(job.config, backbone, dataset, fabric))
    heads = []
    for seed in job.seeds:
        title = f"{label} seed {job.origin.config.run.seed}, {job.name} seed {seed}"
        heads.append(fit(fabric, job.config.with_seed(seed), prepare, job.seed_dir(seed), title))
    if not ranks.is_first():
        return {}
    result = {
        **identity(job.origin),
        "protocol": to_dict(job.config),
        "weights": job.weights,
        "note": NOTE,
        "heads": heads,
    }
    write_json(job.place / f"{job.name}.json", result)
    protocol.finish(job.place, label)
    return result


def fit(
    fabric: Fabric, config: Any, prepare: Callable[[], Prepared], folder: Path, label: str
) -> dict[str, Any]:
    """Train (or continue) a classifier in ``folder`` and return its summary."""
    if (folder / SUMMARY).exists():
        return read_json(folder / SUMMARY)

    def start() -> tuple[Fabric, Method, Any]:
        make_method, dataset = prepare()
        torch.manual_seed(config.run.seed)
        return fabric, make_method(config), dataset

    def finish(loop: TrainingLoop, records: list[dict[str, Any]]) -> dict[str, Any]:
        progress = loop.progress
        return {
            "seed": config.run.seed, "features": best_and_last(records),
            "epochs": progress.epoch, "steps": progress.step, "seconds": progress.seconds,
            "cpu_seconds": progress.cpu_seconds, "threads": torch.get_num_threads(),
        }  # fmt: skip

    return train(config, folder, label, start, finish)


def accuracies(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Share in percent of the labels that are the first, and among the first five, of the classes by logit."""
    ranked = logits.topk(min(TOP, logits.shape[1]), dim=1).indices == labels[:, None]
    return {"top1": 100.0 * float(ranked[:, 0].double().mean()),
            "top5": 100.0 * float(ranked.any(1).double().mean())}  # fmt: skip


def best_and_last(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By feature the accuracies after the last epoch, and the highest after any epoch with its number."""
    measured = [r for r in records if r["kind"] == "eval" and r["epoch"] > 0]
    names = [key.removesuffix("_top1") for key in measured[-1] if key.endswith("_top1")]
    found = {}
    for name in names:
        found[name] = {key: measured[-1][f"{name}_{key}"] for key in ("top1", "top5")}
        for key in ("top1", "top5"):
            best = max(measured, key=lambda r, key=key, name=name: r[f"{name}_{key}"])
            found[name] |= {f"max_{key}": best[f"{name}_{key}"], f"max_{key}_epoch": round(best["epoch"])}
    return found


def identity(origin: Origin) -> dict[str, Any]:
    """What the results say of the encoder."""
    return {
        "run": str(origin.run_dir),
        "label": origin.label,
        "seed": origin.config.run.seed,
        "pretraining_epochs": origin.epoch,
        "pretraining_data": origin.config.data.data,
    }


def results_table(results: list[dict[str, Any]]) -> str:
    """A Markdown table, a row per label and feature.

    Several runs of a label: mean and standard deviation over runs of their means over heads. One run: over its heads.
    """
    rows = []
    for label, group in grouped(results, lambda result: result["label"]).items():
        heads = "/".join(map(str, sorted({len(result["heads"]) for result in group})))
        for feature in group[0]["heads"][0]["features"]:
            row = {"method": label, "runs": str(len(group)), "heads": heads, "feature": feature}
            for key, title in ACCURACIES:
                row[title] = spread(_values(group, lambda h, f=feature, k=key: h["features"][f][k]), 2)
            times = {title: spread(_values(group, lambda h, k=key: h[k]), 0) for key, title in TIMES}
            rows.append(row | times)
    return of_records(rows)


def _values(group: list[dict[str, Any]], read: Callable[[dict[str, Any]], float]) -> list[float]:
    per_run = [[read(head) for head in result["heads"]] for result in group]
    return per_run[0] if len(per_run) == 1 else [statistics.fmean(values) for values in per_run]
