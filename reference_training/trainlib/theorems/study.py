"""Training with every statement evaluated at each logged step, and the report: table, pictures, all for machines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainlib.cli import read_config
from trainlib.config import MaskedRunConfig, resolve
from trainlib.data import load_dataset
from trainlib.errors import UsageError
from trainlib.files import refuse_used, write_atomic, write_json
from trainlib.run import create_run_dir, prepare_device, train_run
from trainlib.siamese.config import SiameseRunConfig
from trainlib.theorems import masked, two_views
from trainlib.theorems.catalogue import MASKED, OPERANDS_OF, SCALES
from trainlib.theorems.pictures import draw
from trainlib.theorems.statement import PREFIX, as_log
from trainlib.theorems.verdict import Record, conclusion, judge, read_run, summary, table, violations

RESULT, TABLE = "theorems.json", "table.md"
# Short: the regularisers act from the first steps on.
MASKED_EPOCHS = {"digits": 60, "cifar10": 3, "cifar100": 3}


def instrument(config: Any, output: Any) -> dict[str, float]:
    """Value and bounds of every statement at one step: an ``Instrument`` for the training loop."""
    method = config.method.method
    if method in MASKED:
        found = masked.evaluate_common(output.features)
        for scale in SCALES:
            found |= masked.evaluate(output.features, scale, config.method.mu)
        return as_log(found)
    line: dict[str, float] = {}
    for operand in OPERANDS_OF[method]:
        pair = two_views.branches(output.views, operand, config.method.lambda_)
        line |= {f"{PREFIX}/{name}": value for name, value in two_views.facts(pair).items()}
        line |= as_log(two_views.evaluate(pair))
    return line


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
    refuse_used(out, "choose another --out")
    for config in configs.values():
        prepare_device(config)
    for name, config in configs.items():
        dataset = load_dataset(config)  # what is wrong with the data is said before a folder is made
        create_run_dir(out / name, config)
        try:
            train_run(config, dataset, out / name, instrument)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("what was trained is in its folder") from None
    return [out / name for name in configs]


def report(folders: list[Path], out: Path) -> tuple[str, list[Record]]:
    """Write ``theorems.json``, ``table.md`` and the pictures; give the table and what was violated."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("RUN", "a folder is named twice", "name each run once")
    runs = [read_run(folder) for folder in folders]
    verdicts = judge(runs)
    text = f"{table(verdicts)}\n\n{conclusion(verdicts)}"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RESULT, summary(runs, verdicts))
    write_atomic(out / TABLE, (text + "\n").encode())
    draw(runs, out)
    return text, violations(verdicts)
