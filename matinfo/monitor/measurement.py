"""One observation of one layer: from rows to numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from matinfo._columns import Column
from matinfo.distributed import ShardedGram, reduce_sum
from matinfo.operands import Gram, normalize_rows
from matinfo.operands.gram import constant_column
from matinfo.rank import effective_rank
from matinfo.spectral.precision import without_autocast
from matinfo.spectrum import Spectrum, spectrum


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra of one layer over time.

    Attributes:
        steps: ``(T,)``, integers.
        eigenvalues: ``(T, m)``, descending, each row with sum 1, filled up with zeros where there were fewer rows than
            m; a row of NaN where the features were zero or not finite.

    Example:
        >>> import numpy as np
        >>> from matinfo.monitor import Spectra
        >>> Spectra(np.array([0]), np.array([[0.5, 0.5]])).eigenvalues.shape
        (1, 2)
    """

    steps: np.ndarray
    eigenvalues: np.ndarray

    @classmethod
    def of(cls, kept: list[tuple[int, Tensor]]) -> Spectra:
        """From the step and the eigenvalues of each observation."""
        width = max([len(p) for _, p in kept], default=0)
        eigenvalues = np.zeros((len(kept), width))
        for row, (_, p) in zip(eigenvalues, kept, strict=True):
            row[: len(p)] = np.nan if p[0].isnan() else p.numpy()
            row[len(p) :] = row[0] * 0.0
        return cls(np.array([step for step, _ in kept], dtype=np.int64), eigenvalues)


class Measured(NamedTuple):
    """What the rows of one layer and step gave.

    Attributes:
        values: Of the quantities; NaN where they are not defined.
        rank: Effective rank of the rows as the monitor prepares them, ``exp(H_1)``; NaN if it is not defined.
        ranks: Effective ranks without and with centring, whichever the monitor does.
        spectrum: ``(min(rows, width),)``, eigenvalues with sum 1, on the CPU; NaN if there are none.
        rows: n, of all ranks if they are taken together.
        width: d.
        problem: ``""``, ``"zero"`` or what is not finite.
    """

    values: dict[str, float]
    rank: float
    ranks: tuple[float, float]
    spectrum: Tensor
    rows: int
    width: int
    problem: str


def measure(Z: Tensor, columns: list[Column], *, center: bool, **preparation: Any) -> Measured:
    """Measure rows ``(n, d)`` without a graph, in float64; what is wrong with them is a result and no error."""
    Z = Z.cpu() if Z.device.type == "mps" else Z  # which has no float64
    with torch.no_grad(), without_autocast(Z.device):
        grams = [prepared(Z, center=centred, **preparation) for centred in (False, True)]
        gram = grams[center]
        try:
            both = [spectrum(K).double() for K in grams]
        except (RuntimeError, ValueError) as error:
            # The solver, or memory: a monitor does not end a training.
            return _without_spectrum(gram, columns, f"no spectrum ({error})")
        largest = torch.stack([S.eigenvalues[0] for S in both]).tolist()
        if not all(map(math.isfinite, largest)):
            bad = (~Z.isfinite().all(-1)).sum()
            bad = reduce_sum(bad, group=preparation["group"]) if preparation["reduce"] else bad
            rows = gram.shape[-1]
            what = f"NaN or infinity in {bad} of {rows} rows" if bad else "features too large to square"
            return _without_spectrum(gram, columns, what)
        S, missing = both[center], Z.new_tensor(math.nan, dtype=torch.float64)
        zero = largest[center] == 0
        values = [_value_or_nan(column, S, gram) if zero else column.value(S, gram) for column in columns]
        ranks = [effective_rank(s) if top > 0 else missing for s, top in zip(both, largest, strict=True)]
        *numbers, plain, centred = torch.stack([*values, *ranks]).tolist()  # one transfer
        named = {column.name: value for column, value in zip(columns, numbers, strict=True)}
        count = min(S.rows, gram.width)
        return Measured(
            named,
            (plain, centred)[center],
            (plain, centred),
            S.probabilities[:count].cpu(),
            S.rows,
            gram.width,
            "zero" if zero else "",
        )


def _value_or_nan(column: Column, S: Spectrum, gram: Gram) -> Tensor:
    """Of features that are all zero: coding rates have a value, entropies have none."""
    try:
        return column.value(S, gram) if column.spectral else S.eigenvalues.new_tensor(math.nan)
    except ValueError:
        return S.eigenvalues.new_tensor(math.nan)


def _without_spectrum(gram: Gram, columns: list[Column], problem: str) -> Measured:
    rows, width, nan = gram.shape[-1], gram.width, math.nan
    nothing = torch.full((min(rows, width),), nan, dtype=torch.float64)
    return Measured({column.name: nan for column in columns}, nan, (nan, nan), nothing, rows, width, problem)


def prepared(
    Z: Tensor, *, center: bool, normalize: bool, eps: float, reduce: bool, group: Any = None
) -> Gram:
    """The Gram matrix of rows ``(n, d)``, over all ranks if asked; columns constant to round-off become zero."""
    spread = eps
    if normalize:
        spread *= 2  # of the entry and of the norm
        Z = normalize_rows(Z)
    if center:
        Z = Z.double()
        count, total = Z.new_tensor([Z.shape[0]]), Z.sum(0)
        if reduce:
            count, total = reduce_sum(count, group=group), reduce_sum(total, group=group)
        mean = total / count
        Z = Z - mean
        variance = Z.square().sum(0)
        if reduce:
            variance = reduce_sum(variance, group=group)
        # Rounding spreads a constant column over many directions: a collapse would look like full rank. It leaves the
        # two neighbours of the constant, at most eps |mean| apart (eps is the layer's round-off, pooled rows may have a
        # lower one); numbers in an interval, and the means over tokens of them, have at most half its length as std.
        # The layer's sums round as those of any features.
        rounding = min(eps, torch.finfo(torch.float32).eps) + spread / 8
        Z = torch.where(variance <= constant_column(count, mean, rounding), 0.0, Z)
    # Pooled and centred rows are in float64, but what they hold below the layer's own round-off is noise.
    Z = Z.to(torch.float32 if eps > torch.finfo(torch.float64).eps else torch.float64)
    return ShardedGram(Z, group=group) if reduce else Gram(Z)
