"""One pass over the rows of an array, and the operand that they leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from matinfo._streams import constant_column
from matinfo.cli.arguments import Options
from matinfo.cli.errors import InputError, about
from matinfo.cli.progress import batches
from matinfo.cli.source import Source, check_shape
from matinfo.coding_rate import matrix_tcr, tcr
from matinfo.operands import Gram, Operand, normalize_rows
from matinfo.plot.operands import spectrum_of
from matinfo.rank import rankme
from matinfo.spectrum import Spectrum
from matinfo.streaming import CovarianceAccumulator

Moment = Callable[[], "Tensor | str"]


@dataclass(frozen=True)
class Measured:
    """An array that has been read: its operand K, what K does not tell, and the spectrum of K."""

    source: Source
    K: Operand
    rows: int
    skipped: int
    spectrum: Spectrum
    coding_rate: float
    rankme: float | None
    moment: Moment
    """The second moment ``(d, d)`` of the rows, or why there is none."""
    notes: list[str] = field(default_factory=list)


def measure(source: Source, options: Options) -> Measured:
    """Read an array as what ``--kind`` says it is."""
    with about(source.path):
        return _matrix(source, options) if options.kind == "matrix" else _features(source, options)


def _matrix(source: Source, options: Options) -> Measured:
    if source.rows is not None:
        check_shape(source.path, (source.rows, source.columns), matrix=True)
    _check_memory(source, source.columns, source.columns, options)
    K = torch.from_numpy(load(source, options))
    check_shape(source.path, tuple(K.shape), matrix=True)
    S = spectrum_of(K, "renyi_entropy")
    rate = float(matrix_tcr(K, options.mu))
    return Measured(source, K, len(K), 0, S, rate, None, lambda: "is a matrix over samples")


def _features(source: Source, options: Options) -> Measured:
    few = source.rows is not None and source.rows <= source.columns
    measured = _in_memory(source, options) if few else _streamed(source, options)
    if source.rows == source.columns and _looks_like_a_kernel(measured.source, options):
        measured.notes.append(
            f"{source.name} is square, symmetric and positive semi-definite: if it is a kernel or Gram matrix, use "
            "--kind matrix."
        )
    return measured


def _streamed(source: Source, options: Options) -> Measured:
    _check_memory(source, source.columns, source.columns, options)
    stream = CovarianceAccumulator(
        source.columns, center=options.center, normalize=options.normalize, nan=options.nan
    )
    for rows in checked_rows(source, options):
        stream.update(torch.from_numpy(rows))
    _check_rows_left(source, stream.count, stream.skipped)
    K = stream.gram()
    return Measured(
        source,
        K,
        stream.count,
        stream.skipped,
        spectrum_of(K, ""),
        float(stream.tcr(options.mu)),
        float(stream.rankme()),
        stream.second_moment,
    )


def _in_memory(source: Source, options: Options) -> Measured:
    assert source.rows is not None
    _check_memory(source, source.rows, source.columns, options)
    given = load(source, options)
    good = np.isfinite(given).all(1)
    _check_rows_left(source, int(good.sum()), int((~good).sum()))
    Z = prepared(given[good], options)
    K = Gram(Z)

    def moment() -> Tensor | str:
        size = 8 * source.columns**2
        if size > options.memory:
            return f"its {source.columns} columns need a matrix of {size / 2**30:.1f} GiB, more than --memory"
        return Z.mT @ Z

    S = spectrum_of(K, "")
    return Measured(
        source,
        K,
        len(Z),
        int((~good).sum()),
        S,
        float(tcr(Z, options.mu)),
        float(rankme(Z)),
        moment,
    )


def load(source: Source, options: Options) -> np.ndarray:
    """All rows in one array, not finite ones included where those are to be left out later."""
    parts = list(checked_rows(source, options))
    return np.concatenate(parts) if len(parts) != 1 else parts[0]


def prepared(rows: np.ndarray, options: Options) -> Tensor:
    """Rows of unit length, then without their mean, as far as asked for."""
    Z = torch.from_numpy(rows)
    if options.normalize:
        Z = normalize_rows(Z)
    return _centered(Z) if options.center else Z


def _centered(Z: Tensor) -> Tensor:
    """Rows less their mean, columns that are constant up to round-off zero: as CovarianceAccumulator has them."""
    mean = Z.mean(0)
    mean = mean + (Z - mean).mean(0)  # what the first mean was rounded by
    Z = Z - mean
    roundoff = constant_column(len(Z), mean, torch.finfo(Z.dtype).eps)
    return torch.where(Z.square().sum(0) <= roundoff, 0.0, Z)


def checked_rows(source: Source, options: Options) -> Iterator[np.ndarray]:
    """Batches of rows; one that is not finite is an error that says where, unless they are to be skipped."""
    start = 0
    for batch in batches(source, options):
        if options.nan == "error" and not np.isfinite(batch.rows).all():
            bad = np.flatnonzero(~np.isfinite(batch.rows).all(1))
            remedy = (
                "Use --nan skip to leave such rows out."
                if options.kind == "features"
                else "Repair the matrix."
            )
            more = f" (and {len(bad) - 1} more soon after)" if len(bad) > 1 else ""
            raise InputError(
                f"{source.path}: row {start + int(bad[0])}, counted from 0, holds NaN or infinity{more}. {remedy}"
            )
        start += len(batch.rows)
        yield batch.rows


def _check_rows_left(source: Source, rows: int, skipped: int) -> None:
    if rows == 0:
        reason = f"all {skipped} hold NaN or infinity" if skipped else "there is none"
        raise InputError(f"{source.path}: expected rows of numbers, but {reason}.")


def _check_memory(source: Source, rows: int, columns: int, options: Options) -> None:
    size = 8 * rows * columns
    if size > options.memory:
        raise InputError(
            f"{source.path}: needs an array of {rows} x {columns} in memory, {size / 2**30:.1f} GiB, more than "
            f"--memory {options.memory / 2**30:g}. Project the features to fewer columns, or raise --memory."
        )


def _looks_like_a_kernel(source: Source, options: Options) -> bool:
    Z = np.concatenate([batch.rows for batch in source.read(source.batch_rows(options.batch_rows))])
    scale = np.abs(Z).max()
    if not np.isfinite(scale) or np.abs(Z - Z.T).max() > 1e-6 * scale or (Z.diagonal() <= 0).any():
        return False
    try:
        spectrum_of(Z, "")
    except ValueError:
        return False
    return True
