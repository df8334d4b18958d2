"""One pass over the rows of an array, and the spectrum that they leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinfo.cli.arguments import Options
from matinfo.cli.errors import InputError, about
from matinfo.cli.progress import batches, say
from matinfo.cli.source import Source, check_shape
from matinfo.operands import Gram, Operand, as_matrix, rounded_in
from matinfo.operands.gram import prepared_rows
from matinfo.spectrum import Spectrum, spectrum
from matinfo.streaming import CovarianceAccumulator

SLOW_ORDER = 3000
"""Order of a matrix whose decomposition takes some ten seconds: worth a word to whoever waits."""


@dataclass(frozen=True)
class Measured:
    """An array that has been read."""

    source: Source
    options: Options
    """Those that it was read with: above the memory limit they ask for a sample of the rows."""
    K: Operand
    S: Spectrum
    Z: Tensor | None
    """The rows, where all of them are in memory."""
    rows: int
    skipped: int
    total: int
    """Rows of the file, drawn or not."""
    moment: Callable[[], Tensor | str]
    """The second moment ``(d, d)`` of the rows, or why there is none."""
    notes: list[str] = field(default_factory=list)
    sample: dict[str, Any] = field(default_factory=dict)
    """Rows ``R`` of a stream, and how many, once a measure has asked for rows."""


class _TooLarge(Exception):
    """The array needs more memory than is allowed; ``rows`` of it would fit."""

    def __init__(self, rows: int, size: float) -> None:
        self.rows, self.size = rows, size


def measure(source: Source, options: Options) -> Measured:
    """Read an array as what ``--kind`` says it is; a sample of its rows where memory does not allow for all."""
    read = _matrix if options.kind == "matrix" else _features
    with about(source.path):
        try:
            measured = read(source, options)
        except _TooLarge as error:
            limit = f"{error.size / 2**30:.1f} GiB, more than --memory {options.memory / 2**30:g}"
            if options.rows is not None or error.rows < 2:
                raise InputError(
                    f"{source.path}: needs {limit}. Project the features to fewer columns, or raise --memory."
                ) from None
            measured = read(source, replace(options, rows=error.rows))
            drawn = f"{measured.rows} of them were drawn at random (--rows, --seed)"
            measured.notes.append(f"{source.name}: all rows would take {limit}: {drawn}.")
        if measured.skipped:
            total = measured.rows + measured.skipped
            what = f"{measured.skipped} of {total} rows hold NaN or infinity and were left out"
            measured.notes.insert(0, f"{source.name}: {what}.")
        return measured


def _matrix(source: Source, options: Options) -> Measured:
    if source.rows is not None:
        check_shape(source.path, (source.rows, source.columns), matrix=True)
    K = as_matrix(matrix(source, options), "K", "report")
    order, no_moment = K.shape[-1], lambda: "is a matrix over samples"
    return Measured(
        source, options, K, _spectrum(K, order, options), None, order, 0, source.columns, no_moment
    )


def _spectrum(K: Operand, order: int, options: Options) -> Spectrum:
    if order > SLOW_ORDER:
        say(f"decomposing a matrix of order {order}", options)
    return spectrum(K)


def as_given(rows: np.ndarray, source: Source) -> Tensor:
    """Rows as a tensor that knows how the file has rounded them: that is no eigenvalue, and no column that varies."""
    return rounded_in(source.given_dtype, torch.from_numpy(rows))


def matrix(source: Source, options: Options) -> Tensor:
    """A matrix over samples, or its part over a sample of them."""
    order = source.columns
    count = min(order, options.rows or order)
    if 8 * count**2 > options.memory:
        raise _TooLarge(math.isqrt(int(options.memory / 8)), 8 * count**2)
    chosen = _smallest(np.random.default_rng(options.seed).random(order), count)
    parts, start = [], 0
    for rows in Rows(source, options):
        here = chosen[(chosen >= start) & (chosen < start + len(rows))]
        parts.append(rows[np.ix_(here - start, chosen)])
        start += len(rows)
    check_shape(source.path, (start, order), matrix=True)
    return as_given(np.concatenate(parts), source)


def _features(source: Source, options: Options) -> Measured:
    width, count, head = source.columns, 0, []
    read = Rows(source, options)
    batches_left = iter(read)
    for rows in batches_left:
        head.append(rows)
        count += len(rows)
        if 8 * min(count, width) * width > options.memory:
            raise _TooLarge(int(options.memory / 8 / width), 8 * min(source.rows or width, width) * width)
        if count > width:
            break
    if not head:
        raise InputError(f"{source.path}: expected rows of numbers, but there is none.")
    notes = _odd_columns(source, head[0])
    if count <= width:
        return _in_memory(source, options, np.concatenate(head), read.total, notes)
    stream = CovarianceAccumulator(width, center=options.center, normalize=options.normalize, nan=options.nan)
    for rows in chain(head, batches_left):
        stream.update(as_given(rows, source))
    _check_rows_left(source, stream.count, stream.skipped)
    K, count, moment = stream.gram(), stream.count, stream.second_moment
    S = _spectrum(K, width, options)
    return Measured(source, options, K, S, None, count, stream.skipped, read.total, moment, notes)


def _in_memory(source: Source, options: Options, given: np.ndarray, total: int, notes: list[str]) -> Measured:
    good = np.isfinite(given).all(1)
    _check_rows_left(source, int(good.sum()), int((~good).sum()))
    Z = prepared_rows(as_given(given[good], source), options.center, options.normalize)

    def moment() -> Tensor | str:
        size = 8 * source.columns**2
        if size > options.memory:
            return f"its {source.columns} columns need a matrix of {size / 2**30:.1f} GiB, more than --memory"
        return Z.mT @ Z

    if (
        len(given) == source.columns
        and options.rows is None
        and _looks_like_a_kernel(as_given(given, source))
    ):
        notes.append(
            f"{source.name} is square, symmetric and positive semi-definite: if it is a kernel or Gram matrix, use "
            "--kind matrix."
        )
    K, skipped = Gram(Z), len(given) - len(Z)
    S = _spectrum(K, len(Z), options)
    return Measured(source, options, K, S, Z, len(Z), skipped, total, moment, notes)


class Rows:
    """Batches of the rows of a source, or one of ``options.rows`` of them; and how many there are, once they are read.

    Drawn are the rows with the smallest random numbers: one pass, whatever the number of rows, and the same rows of two
    files of one length. A row that is not finite is an error that says where, unless such rows are to be skipped.
    """

    def __init__(self, source: Source, options: Options) -> None:
        self.source, self.options, self.total = source, options, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        count = self.options.rows
        if count is None:
            yield from self._checked()
            return
        random = np.random.default_rng(self.options.seed)
        keys, kept = np.empty(0), np.empty((0, self.source.columns))
        for rows in self._checked():
            drawn = random.random(len(rows))
            new = drawn < (keys.max() if len(keys) == count else 1.0)
            if new.any():
                keys, kept = np.concatenate([keys, drawn[new]]), np.concatenate([kept, rows[new]])
                chosen = _smallest(keys, count)
                keys, kept = keys[chosen], kept[chosen]
        if len(kept):
            yield kept

    def _checked(self) -> Iterator[np.ndarray]:
        for batch in batches(self.source, self.options):
            if self.options.nan == "error" and not np.isfinite(batch.rows).all():
                bad = np.flatnonzero(~np.isfinite(batch.rows).all(1))
                features = self.options.kind == "features"
                remedy = "Use --nan skip to leave such rows out." if features else "Repair the matrix."
                more = f" (and {len(bad) - 1} more soon after)" if len(bad) > 1 else ""
                raise InputError(
                    f"{self.source.path}: row {self.total + int(bad[0])}, counted from 0, holds NaN or infinity{more}. "
                    f"{remedy}"
                )
            self.total += len(batch.rows)
            yield batch.rows


def _smallest(keys: np.ndarray, count: int) -> np.ndarray:
    """Where the smallest are, in their order in the file."""
    return np.sort(np.argsort(keys, kind="stable")[:count])


def _check_rows_left(source: Source, rows: int, skipped: int) -> None:
    if rows == 0:
        reason = f"all {skipped} hold NaN or infinity" if skipped else "there is none"
        raise InputError(f"{source.path}: expected rows of numbers, but {reason}.")


def _odd_columns(source: Source, rows: np.ndarray) -> list[str]:
    """A note on columns of whole numbers beside ones with fractions: an index or a label may be among the features."""
    some = rows[np.isfinite(rows).all(1)][:1000]
    varies = (some != some[:1]).any(0)
    whole = varies & (some % 1 == 0).all(0)
    if len(some) < 8 or not 0 < whole.sum() <= 3 or whole.sum() * 2 > varies.sum():
        return []
    names = ", ".join(source.names[i] if source.names else str(i) for i in np.flatnonzero(whole))
    remedy = f"leave it out with --drop {names}" if source.names else "leave it out before saving"
    what = f"column {names} holds whole numbers, others hold fractions"
    return [f"{source.name}: {what}. If it is an index or a label, {remedy}."]


def _looks_like_a_kernel(Z: Tensor) -> bool:
    scale = Z.abs().max()
    if not scale.isfinite() or (Z - Z.T).abs().max() > 1e-6 * scale or bool((Z.diagonal() <= 0).any()):
        return False
    try:
        spectrum(Z)
    except ValueError:
        return False
    return True
