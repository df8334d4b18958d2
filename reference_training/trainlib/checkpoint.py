"""Checkpoints: written atomically, read without executing anything, checked against a digest and the configuration."""

from __future__ import annotations

import hashlib
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
PREVIOUS = "checkpoint.previous.pt"  # the one before, for when the last one is damaged
FORMAT = 2


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
    """Write the checkpoint of a run; the last one becomes the previous one, and that is what is lost."""
    content = {"config": json.dumps(to_dict(config)), "progress": progress._asdict(), "states": states}
    inner, outer = io.BytesIO(), io.BytesIO()
    torch.save(content, inner)
    body = inner.getbuffer()
    sealed = {"format": FORMAT, "sha256": hashlib.sha256(body).hexdigest()}
    torch.save(sealed | {"content": torch.frombuffer(body, dtype=torch.uint8)}, outer)
    path = run_dir / NAME
    if path.exists():
        path.replace(run_dir / PREVIOUS)  # until the next line is done, the previous one is the last
    try:
        write_atomic(path, outer.getbuffer())
    except OSError:
        if (run_dir / PREVIOUS).exists():
            (run_dir / PREVIOUS).replace(path)
        raise
    return path


def load(run_dir: Path, config: Any, *, option: str = "--resume") -> tuple[Progress, dict[str, Any]] | None:
    """Progress and states of the last checkpoint of a run, or ``None`` before the first one.

    ``option`` is the part of the command line that named the run, for the messages.

    Raises:
        UsageError: The file is damaged, or belongs to another configuration.
    """
    path = run_dir / NAME
    if not path.exists():  # a crash between the two renamings of ``save`` leaves the previous one only
        path = run_dir / PREVIOUS
    if not path.exists():
        return None
    try:
        content = unseal(path)
        saved = from_dict(type(config), json.loads(content["config"]))
        progress, states = Progress(**content["progress"]), content["states"]
    except _DAMAGES as error:
        before = run_dir / PREVIOUS
        remedy = (
            f"move {before} (the checkpoint before) into its place" if before.exists() else "put back a copy"
        )
        raise UsageError(
            option, f"{path} is damaged or not a checkpoint of this program ({type(error).__name__})",
            f"{remedy}, or delete it to start the run again from its first step",
        ) from error  # fmt: skip
    for flag, ours, theirs in differences(config, saved):
        raise UsageError(
            option, f"{path} was written with {flag} {theirs}, the run has {flag} {ours}",
            f"use {flag} {theirs} or a fresh --out",
        )  # fmt: skip
    return progress, states


_DAMAGES = (
    RuntimeError, EOFError, pickle.UnpicklingError, LookupError, TypeError, ValueError, AttributeError, OSError,
    AssertionError,  # torch asserts while it restores a tensor
)  # fmt: skip


def unseal(path: Path) -> dict[str, Any]:
    """What ``save`` sealed: configuration, progress and states of a file whose digest is that of its content."""
    sealed = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(sealed, dict) or sealed["format"] != FORMAT:
        raise ValueError(f"not of format {FORMAT}")
    body = sealed["content"].numpy().tobytes()
    if hashlib.sha256(body).hexdigest() != sealed["sha256"]:
        raise ValueError("the digest is not that of the content")
    return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
