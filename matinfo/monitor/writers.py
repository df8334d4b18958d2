"""Where records go: a writer is any callable that takes a record, a plain dict."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from matinfo._extras import needs

Record: TypeAlias = dict[str, Any]
Writer: TypeAlias = Callable[[Record], object]

RESERVED = ("step", "layer", "rows", "width", "event")
"""Columns of a record that are no quantities."""


def scalars(record: Record, prefix: str) -> dict[str, float]:
    """The finite quantities of a record as ``<prefix>/<layer>/<quantity>``, as trackers have them."""
    name = f"{prefix}/{record['layer'] or 'model'}"
    return {
        f"{name}/{column}": value
        for column, value in record.items()
        if column not in RESERVED and math.isfinite(value)
    }


class CSVWriter:
    """Records as lines of a CSV file: step, layer, rows, width, one column a quantity, event.

    Args:
        path: The file; its folder is made. A file with the same columns is continued, after a
            :meth:`Monitor.load_state_dict` from the step of that state on, so that a resumed run leaves no line twice.

    Raises:
        ValueError: At the first record, if the file is there and has other columns.

    Notes:
        Every line is flushed, so that a killed run loses none. NaN is written as ``nan``.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from matinfo.monitor import CSVWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = CSVWriter(Path(folder) / "ranks.csv")
        ...     writer({"step": 0, "layer": "head", "effective_rank": 3.5})
        ...     writer.close()
        ...     print((Path(folder) / "ranks.csv").read_text())
        step,layer,effective_rank
        0,head,3.5
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._file: Any = None

    def __call__(self, record: Record) -> None:
        """Write one line."""
        if self._file is None:
            self._open(list(record))
        csv.writer(self._file, lineterminator="\n").writerow(record.values())
        self._file.flush()

    def rewind(self, step: int) -> None:
        """Drop the lines of this step, the next that will be written, and of later ones."""
        self.close()
        if not self.path.exists():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
        kept = lines[:1] + [line for line in lines[1:] if line and line[0].isdigit() and int(line[0]) < step]
        partial = self.path.with_name(self.path.name + ".part")
        with partial.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(kept)
        partial.replace(self.path)

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy opens the file anew."""
        return {**vars(self), "_file": None}

    def _open(self, columns: list[str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        known: list[str] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                known = next(csv.reader(file), [])
        if known and known != columns:
            raise ValueError(
                f"Expected {self.path} to have the columns {columns}, got {known}. "
                "Use another path for other quantities."
            )
        cut = known and not self.path.read_bytes().endswith(b"\n")  # by a full disk, say
        self._file = self.path.open("a", newline="", encoding="utf-8")
        if cut:
            self._file.write("\n")
        if not known:
            csv.writer(self._file, lineterminator="\n").writerow(columns)


class TensorBoardWriter:
    """Records as scalars ``<prefix>/<layer>/<quantity>`` of TensorBoard, events as text.

    Args:
        log_dir: Folder of the event files, or a ``SummaryWriter`` that is yours to close.
        prefix: First part of the names.

    Raises:
        ModuleNotFoundError: If tensorboard is not installed.

    Notes:
        After :meth:`Monitor.load_state_dict` later scalars of the same folder are hidden (``purge_step``). Values that
        are not finite are left out.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from matinfo.monitor import TensorBoardWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = TensorBoardWriter(folder)
        ...     writer({"step": 0, "layer": "head", "effective_rank": 3.5})
        ...     writer.close()
        ...     len(list(Path(folder).glob("events.*")))
        1
    """

    def __init__(self, log_dir: Any, *, prefix: str = "matinfo") -> None:
        summary_writer = _summary_writer_class()
        self.prefix = prefix
        self._folder = None if isinstance(log_dir, summary_writer) else str(log_dir)
        self._purge_step: int | None = None
        self._summary: Any = None if self._folder is not None else log_dir

    def __call__(self, record: Record) -> None:
        """Write the scalars of one record."""
        if self._summary is None:
            self._summary = _summary_writer_class()(self._folder, purge_step=self._purge_step)
        for name, value in scalars(record, self.prefix).items():
            self._summary.add_scalar(name, value, record["step"])
        if record.get("event"):
            name = f"{self.prefix}/{record['layer'] or 'model'}/event"
            self._summary.add_text(name, record["event"], record["step"])
        self._summary.flush()

    def rewind(self, step: int) -> None:
        """Hide what was written of this step, the next that will be written, and of later ones."""
        if self._folder is not None:
            self.close()
            self._purge_step = step

    def __getstate__(self) -> dict[str, Any]:
        """A copy opens an event file of its own; a ``SummaryWriter`` that was given cannot be copied."""
        return {**vars(self), "_summary": None if self._folder is not None else self._summary}

    def close(self) -> None:
        """Close the event file, unless it belongs to a ``SummaryWriter`` that was given."""
        if self._folder is not None and self._summary is not None:
            self._summary.close()
            self._summary = None


class WandbWriter:
    """Records as values ``<prefix>/<layer>/<quantity>`` of a run of Weights and Biases.

    Args:
        run: What ``wandb.init`` returns; yours to finish.
        prefix: First part of the names.

    Notes:
        The training step is logged as ``<prefix>/step``, and W&B draws the values against it: its own counter belongs
        to the rest of the training. Values that are not finite are left out.

    Example:
        >>> from matinfo.monitor import WandbWriter
        >>> class Run:  # wandb.init(mode="offline")
        ...     define_metric = lambda self, name, **options: None
        ...     log = lambda self, values: print(values)
        >>> WandbWriter(Run())({"step": 0, "layer": "head", "effective_rank": 3.5})
        {'matinfo/step': 0, 'matinfo/head/effective_rank': 3.5}
    """

    def __init__(self, run: Any, *, prefix: str = "matinfo") -> None:
        self.run, self.prefix = run, prefix
        run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")

    def __call__(self, record: Record) -> None:
        """Log one record."""
        self.run.log({f"{self.prefix}/step": record["step"], **scalars(record, self.prefix)})


class MLflowWriter:
    """Records as metrics ``<prefix>/<layer>/<quantity>`` of an MLflow run, at the step of the observation.

    Args:
        run_id: Of the run; None for the active one.
        prefix: First part of the names.

    Raises:
        ModuleNotFoundError: If mlflow is not installed, at the first record.

    Notes:
        Values that are not finite are left out. ``pip install mlflow-skinny`` is enough to write.

    Example:
        >>> from matinfo.monitor import MLflowWriter
        >>> writers = [MLflowWriter()]  # Monitor(model, "encoder", writers=writers)
    """

    def __init__(self, run_id: str | None = None, *, prefix: str = "matinfo") -> None:
        self.run_id, self.prefix = run_id, prefix

    def __call__(self, record: Record) -> None:
        """Log one record."""
        with needs("mlflow", "MLflowWriter", "trackers"):
            import mlflow
        mlflow.log_metrics(scalars(record, self.prefix), step=record["step"], run_id=self.run_id)


def _summary_writer_class() -> type:
    with needs("tensorboard", "TensorBoardWriter", "monitor"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter
