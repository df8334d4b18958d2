"""One run from a configuration to a folder of results."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from trainlib import checkpoint, ranks
from trainlib.config import MaskedRunConfig, differences, from_dict, to_dict
from trainlib.environment import ENVIRONMENT, environment
from trainlib.errors import UsageError
from trainlib.evaluate import evaluate_features
from trainlib.files import CONFIG, SUMMARY, new_folder, read_json, read_summary, write_json
from trainlib.logs import NAME as LOG
from trainlib.logs import read_metrics
from trainlib.loop import Instrument, TrainingLoop, make_fabric
from trainlib.method import Method
from trainlib.siamese.config import SiameseRunConfig


def prepare_device(config) -> None:
    """Set the number of threads and refuse a device or a precision that is not there."""
    run = config.run
    if run.threads:
        torch.set_num_threads(run.threads)
    torch.set_float32_matmul_precision("high" if getattr(run, "tf32", True) else "highest")
    available = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[run.device]:
        raise UsageError("--device", f"this PyTorch finds no {run.device} device", "use --device cpu or auto")
    if run.precision == "16" and not (
        run.device == "cuda" or (run.device == "auto" and torch.cuda.is_available())
    ):
        raise UsageError("--precision", "fp16 training needs a CUDA device", "use --precision 32 or bf16")


def check_shares(config) -> None:
    """Refuse a batch that the processes cannot share evenly."""
    processes = ranks.started()
    if config.optim.batch % processes:
        raise UsageError(
            "--batch",
            f"{config.optim.batch} images cannot be shared evenly by {processes} processes",
            f"use a multiple of {processes}",
        )


def create_run_dir(run_dir: Path, config) -> None:
    """A new folder with the resolved configuration."""
    new_folder(run_dir)
    write_json(run_dir / CONFIG, to_dict(config))


def read_pretraining_config(run_dir: Path, option: str) -> Any:
    """The configuration of a pre-training run of any kind; ``option`` is how the command line calls the folder."""
    path, remedy = run_dir / CONFIG, "name the --out of a pre-training run"
    if not run_dir.is_dir():
        raise UsageError(option, f"there is no folder {run_dir}", remedy)
    if not path.is_file():
        raise UsageError(option, f"{run_dir} is neither a run nor a comparison (it has no {CONFIG})", remedy)
    values = read_json(path)
    for config_class in (MaskedRunConfig, SiameseRunConfig):
        with contextlib.suppress(ValueError, TypeError):
            return from_dict(config_class, values)
    problem = f"{path} is not the configuration of a pre-training run that this version knows"
    raise UsageError(option, problem, remedy)


def read_run_config(run_dir: Path, cls: type) -> Any:
    """The configuration saved with a run."""
    path = run_dir / CONFIG
    if not path.is_file():
        raise UsageError(
            "--resume",
            f"{run_dir} is not a run folder (it has no {CONFIG})",
            "name the --out of an earlier run",
        )
    return configuration(path, cls, read_json(path))


def configuration(path: Path, cls: type, values: Any) -> Any:
    """The configuration of class ``cls`` that a file holds."""
    try:
        return from_dict(cls, values)
    except (ValueError, TypeError) as error:
        raise UsageError(
            "--resume", f"{path} is not a configuration of this program ({error})", "start a fresh --out"
        ) from error


def check_same(config, saved, run_dir: Path) -> None:
    """Refuse to resume a run with options that differ from its own."""
    for flag, ours, theirs in differences(config, saved):
        raise UsageError(
            "--resume", f"{run_dir} was started with {flag} {theirs}, not {ours}", f"leave {flag} out"
        )


def refuse_twins(option: str, runs: Iterable[tuple[str, int, Path]]) -> None:
    """Refuse one run given twice, of which a mean would be taken: equal label and seed, even in two folders."""
    seen: dict[tuple[str, int], Path] = {}
    for label, seed, folder in runs:
        if (label, seed) in seen:
            problem = f"{folder} and {seen[label, seed]} are both {label} with seed {seed}"
            raise UsageError(option, problem, "give each run once")
        seen[label, seed] = folder


def check_comparable(option: str, runs: list[tuple[str, Path, Any, int | None]]) -> None:
    """Refuse runs of equal label whose mean would be one of unlike recipes or of one run twice.

    A run is given by its label, folder, configuration, and finished epochs where they must be equal.
    """
    first: dict[str, tuple[Path, Any, int | None]] = {}
    for label, folder, config, epoch in runs:
        other, theirs_config, other_epoch = first.setdefault(label, (folder, config, epoch))
        unlike = differences(config, theirs_config.with_seed(config.run.seed))
        if not unlike and epoch != other_epoch:
            unlike = [("epoch", epoch, other_epoch)]
        for flag, ours, theirs in unlike:
            raise UsageError(
                option, f"{folder} has {flag} {ours}, {other} has {theirs}, and both are {label}",
                "name only runs of one recipe",
            )  # fmt: skip
    refuse_twins(option, ((label, config.run.seed, folder) for label, folder, config, _ in runs))


def train(
    config, run_dir: Path, label: str, start: Callable[[], tuple[Fabric, Method, Any]],
    finish: Callable[[TrainingLoop, list[dict[str, Any]]], dict[str, Any]], instrument: Instrument | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train in a folder, or continue there, and return the summary, which is also saved there.

    ``start`` makes what is trained and its data, once it is known that nothing in the folder is damaged. ``finish``
    gives the entries of the summary that this kind of training has, from its log.
    """
    saved, records = checkpoint.load(run_dir, config), read_metrics(run_dir)
    trained = saved is not None and saved[0].epoch >= config.optim.epochs
    # What is still to come leaves records.
    if trained and not any(r["kind"] in ("train", "stopped") for r in records):
        raise UsageError(
            str(run_dir / LOG), "it has no record of the training that the checkpoint comes from", "put back a copy"
        )  # fmt: skip
    if ranks.is_first():
        write_json(run_dir / ENVIRONMENT, environment())
    fabric, method, dataset = start()
    loop = TrainingLoop(fabric, config, method, dataset, run_dir, label, instrument)
    method.prepare(dataset)
    summary = {}
    try:
        loop.restore()
        loop.run()
        if ranks.is_first():
            summary = finish(loop, read_metrics(run_dir))
            write_json(run_dir / SUMMARY, summary)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("continue with --resume") from None
    ranks.agree(None)  # the others wait for the files
    return summary


def train_run(config, dataset, run_dir: Path, instrument: Instrument | None = None) -> dict[str, Any]:
    """Train (or continue) a pre-training run, evaluate, draw, and return its summary."""
    if (run_dir / SUMMARY).exists():
        return read_summary(run_dir)

    def start() -> tuple[Fabric, Method, Any]:
        torch.manual_seed(config.run.seed)
        method = config.build(dataset.channels, dataset.classes)
        fabric = make_fabric(config, skips_parameters=method.skips_parameters)
        dataset.to(fabric.device)
        return fabric, method, dataset

    def finish(loop: TrainingLoop, records: list[dict[str, Any]]) -> dict[str, Any]:
        print(f"{loop.label}: measuring the features of all images", file=sys.stderr, flush=True)
        measured = loop.measure()
        features = evaluate_features(loop.encode, dataset, config.run.rank_images)
        features = {name: measured.get(name, {}) | values for name, values in features.items()}
        loop.method.draw_pictures(dataset, config, records, run_dir)
        rank_images = min(config.run.rank_images, dataset.size("test"))
        return run_summary(config, loop.progress, records, features, rank_images) | loop.method.summarize(
            records
        )

    return train(config, run_dir, f"{config.label()} seed {config.run.seed}", start, finish, instrument)


def run_summary(
    config, progress: checkpoint.Progress, records: list[dict[str, Any]], features: dict[str, dict[str, float]],
    rank_images: int,
) -> dict[str, Any]:  # fmt: skip
    """What every pre-training run says of itself: what it is, how long it took, what its features are worth."""
    last, seconds = [r for r in records if r["kind"] == "train"][-1], max(1e-9, progress.train_seconds)
    return {
        "label": config.label(),
        "method": to_dict(config)["method"],
        "data": config.data.data,
        "seed": config.run.seed,
        "epochs": progress.epoch,
        "steps": progress.step,
        "loss": last["loss"],
        "online_probe_accuracy": 100 * last["probe_accuracy"],
        "features": features,
        "rank_images": rank_images,
        "seconds": progress.seconds,
        "train_seconds": progress.train_seconds,
        "cpu_seconds": progress.cpu_seconds,
        "measure_percent": 100 * progress.measure_seconds / seconds,
        "images_per_second": progress.step * config.optim.batch / seconds,
    }
