"""Training of a classifier on the engine of ``loop.py``: accuracy on held-out images in place of spectra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from trainlib import checkpoint, ranks
from trainlib.environment import ENVIRONMENT, environment
from trainlib.files import SUMMARY, read_json, write_json
from trainlib.logs import read_metrics
from trainlib.loop import TrainingLoop, whole_batch
from trainlib.method import Method

TOP = 5
# What makes the method from the configuration, and the data set that it is trained on.
Prepared = tuple[Callable[[Any], Method], Any]


def accuracies(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Share in percent of the labels that are the first, and among the first five, of the classes by logit."""
    ranked = logits.topk(min(TOP, logits.shape[1]), dim=1).indices == labels[:, None]
    return {"top1": 100.0 * float(ranked[:, 0].double().mean()),
            "top5": 100.0 * float(ranked.any(1).double().mean())}  # fmt: skip


class SupervisedLoop(TrainingLoop):
    """The training loop for methods whose ``measure`` gives the accuracies of each feature."""

    def _log_step(self, step: int, epoch: float, rate: float, speed: float, output) -> None:
        self._expect_finite()
        values = {name: float(value) for name, value in whole_batch(output).logs.items()}
        self.log.write("train", step=step, epoch=epoch, lr=rate, images_per_second=speed, **values)
        shown = {f"{kind} top-1": self._last[kind]["top1"] for kind in self._last}
        self.display.update(step, loss=values["loss"], images_per_second=speed, **shown)

    def _measure(self, epoch: int) -> None:
        if not ranks.is_first():
            return
        self._last = self.measure()
        values = {f"{kind}_{k}": v for kind, own in self._last.items() for k, v in own.items()}
        self.log.write("eval", step=self.progress.step, epoch=epoch, **values)

    _last: dict[str, dict[str, float]] = {}  # noqa: RUF012 (replaced, never changed)


def fit(
    fabric: Fabric, config: Any, prepare: Callable[[], Prepared], folder: Path, label: str
) -> dict[str, Any]:
    """Train (or continue) in ``folder``; return the summary, which is also saved there."""
    if (folder / SUMMARY).exists():
        return read_json(folder / SUMMARY)
    checkpoint.load(folder, config)  # damaged files are refused before anything is changed
    read_metrics(folder)
    if ranks.is_first():
        write_json(folder / ENVIRONMENT, environment())
    make_method, dataset = prepare()
    torch.manual_seed(config.run.seed)
    loop = SupervisedLoop(fabric, config, make_method(config), dataset, folder, label)
    loop.restore()
    progress = loop.run()
    if not ranks.is_first():
        ranks.agree(None)
        return {}
    summary = {
        "seed": config.run.seed,
        "features": best_and_last(read_metrics(folder)),
        "epochs": progress.epoch,
        "steps": progress.step,
        "seconds": progress.seconds,
        "cpu_seconds": progress.cpu_seconds,
        "threads": torch.get_num_threads(),
    }
    write_json(folder / SUMMARY, summary)
    ranks.agree(None)  # the others wait for the files
    return summary


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
