"""Training a fleet, with everything that it writes: folders, logs, measurements, checkpoints."""

from __future__ import annotations

import io
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainlib import checkpoint, deadline
from trainlib.checkpoint import Progress
from trainlib.environment import ENVIRONMENT, environment
from trainlib.errors import UsageError
from trainlib.files import CONFIG, SUMMARY, write_atomic, write_json
from trainlib.fleet.fleet import MEASUREMENTS, Fleet
from trainlib.fleet.lane import say
from trainlib.logs import MetricsLog
from trainlib.masked import MaskedMethod
from trainlib.optim import learning_rate, make_optimizer
from trainlib.run import create_run_dir, run_summary

SPECTRA = "spectra.npz"  # of a run: eigenvalues of its features at every measurement


def train_fleet(
    fleet: Fleet, configs: list[Any], folders: list[Path], *, record: dict[str, Any] | None = None,
    measurements: int = MEASUREMENTS, checkpoints: bool = True,
) -> None:  # fmt: skip
    """Train the fleet's runs, or continue them from the checkpoints in their folders.

    Args:
        fleet: Of configurations that differ from ``configs`` in the schedule at most.
        configs: Resolved configurations, which differ in method and seed only.
        folders: The runs' folders.
        record: What else to note with the environment.
        measurements: How often the features are measured, at even distances up to the last epoch.
        checkpoints: Whether the runs' checkpoints are written at the end, and when the time of ``deadline`` is over.

    Raises:
        PausedError: The time is over; the same call continues.
    """
    for run, config, folder in zip(fleet.runs, configs, folders, strict=True):
        run.config, run.folder = config, folder
        if not (folder / CONFIG).is_file():
            create_run_dir(folder, config)
        write_json(folder / ENVIRONMENT, environment() | {"fleet": record})
    say(f"{len(configs)} runs together: {record}")
    done = _restore(fleet)
    epochs, spent = configs[0].optim.epochs, done.train_seconds
    stops = {round(epochs * (i + 1) / measurements) for i in range(measurements)}
    written, since = done.epoch, time.monotonic()
    for epoch in range(done.epoch, epochs):
        fleet.train_epoch(epoch)
        finished = epoch + 1
        stop = finished < epochs and deadline.passed()
        if finished not in stops and not stop:
            continue
        fleet.wait()
        spent, since = spent + time.monotonic() - since, time.monotonic()
        _write(fleet, written, finished, spent, last=finished == epochs, measured=finished in stops)
        say(
            f"epoch {finished}/{epochs}: {spent:.0f} s of training, measured in {time.monotonic() - since:.1f} s"
        )
        written = finished
        if checkpoints and (stop or finished == epochs):
            _save(fleet, Progress(finished, finished * fleet.lanes[0].steps, spent, spent))
        if stop:
            raise deadline.PausedError
        since = time.monotonic()


def _save(fleet: Fleet, progress: Progress) -> None:
    """Each run's checkpoint, as an ordinary run writes it."""
    lane = fleet.lanes[0]
    for run in fleet.runs:
        torch._foreach_copy_(lane.tensors(), run.state)
        states = {
            "model": lane.module.state_dict(), "optimizer": lane.optimizer.state_dict(), "precision": {},
        }  # fmt: skip
        checkpoint.save(run.folder, run.config, progress, states)


def _restore(fleet: Fleet) -> Progress:
    """Read the runs' checkpoints into their tensors, if every run has one."""
    found = [checkpoint.load(run.folder, run.config) for run in fleet.runs]
    if any(f is None for f in found):
        return Progress()
    first, epoch = fleet.runs[0].folder, found[0][0].epoch
    for run, (progress, _) in zip(fleet.runs, found, strict=True):
        if progress.epoch != epoch:  # killed between two runs' checkpoints: the epochs would be counted wrong
            raise UsageError(
                str(run.folder), f"its checkpoint is of epoch {progress.epoch}, that of {first} of {epoch}",
                f"move the later ones' {checkpoint.PREVIOUS} into the place of {checkpoint.NAME}",
            )  # fmt: skip
    lane = fleet.lanes[0]
    for run, (_, states) in zip(fleet.runs, found, strict=True):
        module = MaskedMethod(run.config, fleet.dataset.channels, fleet.dataset.classes)
        module.load_state_dict(states["model"])
        own = [p for group in make_optimizer(module, run.config.optim).param_groups for p in group["params"]]
        moments = [
            states["optimizer"]["state"][i][name]
            for i in range(len(own)) for name in ("exp_avg", "exp_avg_sq", "step")
        ]  # fmt: skip
        given = [p.data for p in own] + moments
        run.state = [
            t.to(like.device, like.dtype).clone() for t, like in zip(given, lane.tensors(), strict=True)
        ]
        if (run.folder / SPECTRA).is_file():
            with np.load(run.folder / SPECTRA) as arrays:
                run.spectra = dict(arrays)
    return found[0][0]


def _write(fleet: Fleet, before: int, finished: int, seconds: float, *, last: bool, measured: bool) -> None:
    """The log since the last writing, the measurements, and at the end the summaries."""
    steps, batch, test_images = fleet.lanes[0].steps, fleet.lanes[0].batch, fleet.dataset.size("test")
    speed = finished * steps * batch * len(fleet.runs) / max(1e-9, seconds)
    for run in fleet.runs:
        numbers = torch.stack(run.history).double().cpu().tolist()
        run.history.clear()
        log = MetricsLog(run.folder, step=before * steps, tensorboard=False)
        names = fleet.lanes[0].names
        train: dict[str, float] = {}
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in run.state)
        for epoch, values in enumerate(numbers, before + 1):
            if not all(map(math.isfinite, values)) or (epoch == finished and not finite):
                reason = "the loss or a weight is not finite"
                log.write("stopped", step=epoch * steps, epoch=epoch, reason=reason)
                break
            train = dict(zip(names, values, strict=True))
            rate = learning_rate(run.config.optim, epoch)
            log.write("train", step=epoch * steps, epoch=epoch, lr=rate, images_per_second=speed, **train)
        else:
            found = fleet.measure(run, finished, last=last) if measured else {}
            if found:
                flat = {f"{kind}_{k}": v for kind, own in found.items() for k, v in own.items()}
                log.write("eval", step=finished * steps, epoch=finished, **flat)
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **run.spectra)
            write_atomic(run.folder / SPECTRA, buffer.getvalue())
            if last:
                share = seconds / len(fleet.runs)
                progress = Progress(finished, finished * steps, share, share, share)
                summary = run_summary(run.config, progress, [train | {"kind": "train"}], found, test_images)
                summary["reconstruction"] = train["reconstruction"]
                write_json(run.folder / SUMMARY, summary)
        log.close()
