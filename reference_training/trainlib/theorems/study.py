"""Training with every statement evaluated at each logged step."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainlib.cli import read_config
from trainlib.config import MaskedRunConfig, resolve
from trainlib.data import load_dataset
from trainlib.files import new_folder
from trainlib.run import create_run_dir, prepare_device, train_run
from trainlib.siamese.config import SiameseRunConfig
from trainlib.theorems.instrument import MASKED, instrument

MASKED_EPOCHS = {
    "digits": 60,
    "cifar10": 3,
    "cifar100": 3,
}  # short: the regularisers act from the first steps on


def configurations(arguments: argparse.Namespace, methods: list[str]) -> dict[str, Any]:
    """The resolved and checked configuration of each method, from the options that were given."""
    found = {}
    for name in methods:
        config_class = MaskedRunConfig if name in MASKED else SiameseRunConfig
        given = dict(vars(arguments))
        if name in MASKED:
            for of_two_views in ("model.projector_width", "method.lambda_"):
                given.pop(of_two_views, None)
            data = given.get("data.data", "digits")
            given.setdefault("optim.epochs", MASKED_EPOCHS.get(data))
        config = read_config(argparse.Namespace(**{"run.tensorboard": False, **given}), config_class())
        config = resolve(config.with_method(name))
        config.validate()
        found[name] = config
    return found


def train(configs: dict[str, Any], out: Path) -> list[Path]:
    """Train each configuration into ``out/NAME``."""
    new_folder(out)
    for config in configs.values():
        prepare_device(config)
    for name, config in configs.items():
        dataset = load_dataset(config)  # what is wrong with the data is said before a folder is made
        create_run_dir(out / name, config)
        train_run(config, dataset, out / name, instrument)
    return [out / name for name in configs]
