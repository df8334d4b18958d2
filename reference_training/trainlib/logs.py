"""The training log: JSON lines, mirrored to TensorBoard."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from trainlib.errors import UsageError
from trainlib.files import write_atomic

NAME = "metrics.jsonl"


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """All records of a run; a last line that a crash cut short is left out.

    Raises:
        UsageError: A line before it is not a record.
    """
    path = run_dir / NAME
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if _is_record(record):
            records.append(record)
        elif number < len(lines) or line.endswith(b"\n"):
            raise UsageError(
                str(path), f"line {number} is damaged (not a record of the training log)",
                "put back a copy, or delete the line",
            )  # fmt: skip
    return records


def _is_record(record: Any) -> bool:
    """Whether a line has what every reader counts on: its kind, step and epoch, and in training the loss."""
    needed = {"step": int, "epoch": (int, float)}
    if not isinstance(record, dict) or record.get("kind") not in ("train", "eval", "stopped"):
        return False
    if record["kind"] == "train":
        needed["loss"] = float
    numbers = [v for k, v in record.items() if k not in ("kind", "reason")]
    return all(isinstance(record.get(k), t) for k, t in needed.items()) and all(
        isinstance(v, int | float) for v in numbers
    )


class NullLog:
    """For processes that do not write."""

    def write(self, kind: str, **values: Any) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    close = sync


class MetricsLog:
    """Appends records to ``metrics.jsonl``. After a resume, records later than the checkpoint are dropped."""

    def __init__(self, run_dir: Path, *, step: int, tensorboard: bool) -> None:
        self.path = run_dir / NAME
        kept = [r for r in read_metrics(run_dir) if r["step"] <= step] if step else []
        write_atomic(self.path, "".join(json.dumps(r) + "\n" for r in kept).encode())
        self._file = open(self.path, "a")  # noqa: SIM115 (closed by close)
        self._board = _board(run_dir / "tensorboard", step) if tensorboard else None

    def write(self, kind: str, *, step: int, epoch: float, **values: float | str) -> None:
        """One record: ``kind`` is ``train``, ``eval`` or ``stopped``."""
        record = {"kind": kind, "step": step, "epoch": round(epoch, 6), **values}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if not isinstance(value, str):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def sync(self) -> None:
        """Bring what was written to the disk (before a checkpoint that counts on it)."""
        os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close both logs."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, step: int):
    with warnings.catch_warnings():  # the writer's own imports warn about their dependencies
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(folder), purge_step=step + 1 if step else 0)
