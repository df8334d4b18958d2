"""An array in a file: what it is called, its shape, and its rows in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from matinfo.cli.errors import InputError, printable

BATCH_ENTRIES = 2**20
"""Entries of a batch unless its rows are given: 8 MiB in float64."""


_ROUNDED = {
    "float8": torch.bfloat16,  # the coarsest that there is arithmetic for
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


class Batch(NamedTuple):
    """Rows ``(m, d)`` in float64, and how many rows, or bytes, of the file that was."""

    rows: np.ndarray
    progress: int


@dataclass(frozen=True)
class Source:
    """A two-dimensional array in a file.

    ``rows`` is None where only reading tells. ``read(m)`` yields all rows, m at a time, and may be called again.
    """

    file: Path
    key: str | None
    rows: int | None
    columns: int
    dtype: str
    read: Callable[[int], Iterator[Batch]]
    names: tuple[str, ...] = ()
    """Names of the columns, where they have any."""
    size: int | None = None
    """Bytes, where progress is in bytes and not in rows."""

    @property
    def name(self) -> str:
        """File and key, as they can be printed."""
        return printable(self.file.name if self.key is None else f"{self.file.name}:{self.key}")

    @property
    def path(self) -> str:
        """As name, with the folder, for errors."""
        return printable(str(self.file) if self.key is None else f"{self.file}:{self.key}")

    @property
    def total(self) -> int | None:
        """Its progress when all is read; None where only reading tells."""
        return self.size or self.rows

    @property
    def given_dtype(self) -> torch.dtype:
        """The coarsest dtype in which its numbers were rounded, before batches made float64 of them."""
        return next((dtype for name, dtype in _ROUNDED.items() if name in self.dtype), torch.float64)

    def batch_rows(self, asked: int | None) -> int:
        """Rows of a batch."""
        return asked or max(1, BATCH_ENTRIES // self.columns)


class Contents(NamedTuple):
    """The arrays of a file, and what was left out of it."""

    sources: list[Source]
    notes: list[str]


def usable(arrays: Iterable[Callable[[], Source]]) -> Contents:
    """The arrays that can be used, with notes on those that are left out."""
    sources, notes = [], []
    for array in arrays:
        try:
            sources.append(array())
        except InputError as error:
            notes.append(f"Left out: {error}")
    return Contents(sources, notes)


def check_shape(name: str, shape: tuple[int, ...], *, matrix: bool = False) -> tuple[int, int]:
    """Accept ``(n, d)`` with entries, and ``(n, n)`` for a matrix."""
    wanted = "a matrix (n, n)" if matrix else "features (n, d), one row a sample"
    if len(shape) != 2:
        if len(shape) < 2:
            remedy = "reshape it, e.g. x.reshape(-1, d)."
        else:
            remedy = f"pool or flatten it, e.g. x.reshape(-1, {shape[-1]}) or x.mean(1)."
        raise InputError(f"{name}: expected {wanted}, got shape {shape}; {remedy}")
    if 0 in shape:
        raise InputError(f"{name}: expected {wanted}, got an empty array of shape {shape}.")
    if matrix and shape[0] != shape[1]:
        raise InputError(f"{name}: expected {wanted}, got shape {shape}. For features use --kind features.")
    return int(shape[0]), int(shape[1])


def check_dtype(name: str, dtype: np.dtype) -> None:
    """Accept real numbers."""
    if dtype.hasobject:
        raise InputError(
            f"{name}: holds Python objects, which would have to be unpickled; that can run code and is never done. "
            "Save an array of numbers: np.save(file, np.asarray(x, dtype=np.float32))."
        )
    if dtype.names is not None:
        remedy = "Make columns of its fields: numpy.lib.recfunctions.structured_to_unstructured(x)."
    elif dtype.kind == "c":
        remedy = COMPLEX
    elif dtype.kind in "mM":
        remedy = "Make numbers of times, e.g. (x - x[0]) / np.timedelta64(1, 's'), or leave them out."
    else:
        remedy = "Convert it, e.g. x.astype(np.float32)."
    if dtype.kind not in "fiub":
        raise InputError(f"{name}: expected real numbers, got dtype {str(dtype)[:60]}. {remedy}")


COMPLEX = (
    "Features: put real and imaginary parts side by side, np.hstack([x.real, x.imag]). A Hermitian matrix: "
    "np.block([[x.real, -x.imag], [x.imag, x.real]]) has each of its eigenvalues twice, so that entropies are log 2 "
    "larger and ranks twice as large."
)


def slices(rows: int, step: int) -> Iterator[slice]:
    """Consecutive blocks of rows."""
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def as_rows(array: np.ndarray) -> np.ndarray:
    """Float64, in memory of its own."""
    return np.array(array, dtype=np.float64)
