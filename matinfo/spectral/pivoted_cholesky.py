"""Cholesky factorisation of a matrix that is known by its columns, one at a time, until its rank is reached."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-10
"""Pivots below this share of the largest diagonal entry are dependent on those before: dividing by them, or taking the
gradient of that, would only raise round-off."""

_ROUNDINGS = 8
"""A kernel value may be off by a few roundings: those of the distance as well as its own."""


def rank_tolerance(dtype: torch.dtype, count: int) -> float:
    """The tolerance for entries rounded to a dtype.

    Rounding moves the eigenvalues of the block of ``count`` pivots by up to ``count eps`` of the largest entry.
    """
    eps = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    return max(RANK_TOLERANCE, _ROUNDINGS * count * eps)


def select_pivots(
    column: Callable[[int], Tensor],
    diagonal: Tensor,
    count: int,
    *,
    tolerance: float = RANK_TOLERANCE,
    candidates: Tensor | None = None,
    at_random: bool = False,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Indices of independent columns, at most ``count``, each chosen by what those before have left of the diagonal.

    Args:
        column: Column of an index, ``(n,)``; asked for once for every index that is returned.
        diagonal: Diagonal of the matrix, ``(n,)``.
        count: Largest number of pivots.
        tolerance: Share of the largest diagonal entry at which a column counts as dependent.
        candidates: Indices to choose from; None for all.
        at_random: Whether to draw in proportion to the remaining diagonal instead of taking its largest entry.
        generator: For the draws.
    """
    allowed = torch.ones_like(diagonal) if candidates is None else torch.zeros_like(diagonal)
    if candidates is not None:
        allowed[candidates] = 1.0
    remaining = diagonal.clone()
    least = tolerance * float(diagonal.max())
    factor = diagonal.new_zeros(len(diagonal), count)
    chosen: list[int] = []
    while len(chosen) < count:
        open_ = remaining * allowed * (remaining > least)
        if not bool(open_.any()):
            break
        pivot = int(torch.multinomial(open_, 1, generator=generator) if at_random else open_.argmax())
        k = len(chosen)
        new = column(pivot) - factor[:, :k] @ factor[pivot, :k]
        chosen.append(pivot)
        factor[:, k] = new / new[pivot].clamp_min(least).sqrt()
        remaining = (remaining - factor[:, k].square()).clamp_min(0.0)
        remaining[pivot] = 0.0
    return chosen


def factor_of_columns(columns: Tensor, pivots: Tensor) -> Tensor:
    """F with ``F F^T = C W^{-1} C^T`` for the columns C, ``(n, m)``, and their pivot rows W. Differentiable."""
    inner = columns[pivots]
    lower = torch.linalg.cholesky((inner + inner.mT) / 2)
    return torch.linalg.solve_triangular(lower, columns.mT, upper=False).mT
