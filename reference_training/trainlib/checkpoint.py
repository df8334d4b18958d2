"""Checkpoints: written atomically, read without executing anything, checked against the configuration."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch

from trainlib.config import differences, from_dict, to_dict
from trainlib.errors import UsageError
from trainlib.files import write_atomic

NAME = "checkpoint.pt"
FORMAT = 1


class Progress(NamedTuple):
    """How far a run has come: finished epochs and steps, and the time spent so far in seconds.

    ``measure_seconds`` is the part of ``train_seconds`` that went into measuring batches for the training log.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    cpu_seconds: float = 0.0
    measure_seconds: float = 0.0


def save(run_dir: Path, config: Any, progress: Progress, states: dict[str, Any]) -> Path:
    """Replace the checkpoint of a run; the previous one stays until the new one is complete on disk."""
    content = {
        "format": FORMAT,
        "config": json.dumps(to_dict(config)),
        "progress": progress._asdict(),
        "states": states,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path = run_dir / NAME
    write_atomic(path, buffer.getbuffer())
    return path


def load(run_dir: Path, config: Any, *, option: str = "--resume") -> tuple[Progress, dict[str, Any]] | None:
    """Progress and states of the last checkpoint of a run, or ``None`` before the first one.

    ``option`` is the part of the command line that named the run, for the messages.

    Raises:
        UsageError: The file is damaged, or belongs to another configuration.
    """
    path = run_dir / NAME
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, saved = content["format"], from_dict(type(config), json.loads(content["config"]))
        progress, states = Progress(**content["progress"]), content["states"]
    except (
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
    ) as error:
        raise UsageError(
            option, f"{path} is damaged or not a checkpoint of this program ({type(error).__name__})",
            "put back a copy, or delete it to start the run again from its first step",
        ) from error  # fmt: skip
    if version != FORMAT:
        raise UsageError(
            option, f"{path} has format {version}, expected {FORMAT}", "use the version that wrote it"
        )
    for flag, ours, theirs in differences(config, saved):
        raise UsageError(
            option, f"{path} was written with {flag} {theirs}, the run has {flag} {ours}",
            f"use {flag} {theirs} or a fresh --out",
        )  # fmt: skip
    return progress, states
