"""What a stochastic estimate needs to know of a matrix, and matrices of which a few rows at a time are computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from matinfo._validation import check_count
from matinfo.spectral.frobenius import frobenius_squared

UNIT_ROUNDOFF = torch.finfo(torch.float64).eps / 2


class SymmetricOperator(Protocol):
    """A symmetric positive semi-definite matrix known by its products."""

    name: str
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def noise(self) -> float:
        """Relative rounding of the entries as they were given."""

    def matmat(self, V: Tensor) -> Tensor:
        """``K V`` for V of shape ``(n, s)``, float64."""

    def trace(self) -> float:
        """``tr K``, exact to rounding."""

    def frobenius_squared(self) -> float | None:
        """``|K|_F^2``, exact to rounding; None where it is not cheap."""


class TiledOperator:
    """A matrix of which a few rows at a time are computed, used and forgotten."""

    name = "tiles"
    dtype = torch.float64
    noise = UNIT_ROUNDOFF
    tile: int

    def __init__(self, n: int, tile: int | None, device: torch.device) -> None:
        self.shape = (n, n)
        self.tile = max(1, min(n, 2**23 // n)) if tile is None else min(n, check_count(tile, "tile"))
        self.device = device
        self._moments: tuple[float, float] | None = None

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of the matrix, ``(stop - start, n)``."""
        raise NotImplementedError

    def tiles(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Row range, column range and entries of blocks that make up the matrix; ranges of rows ascend."""
        n = self.shape[0]
        for start in range(0, n, self.tile):
            stop = min(start + self.tile, n)
            yield slice(start, stop), slice(0, n), self.rows(start, stop)

    def matmat(self, V: Tensor) -> Tensor:
        """``K V``."""
        product = torch.zeros_like(V)
        for rows, columns, block in self.tiles():
            product[rows] += block @ V[columns].to(block.dtype)
        return product

    def trace(self) -> float:
        """``tr K``."""
        return self._exact_moments()[0]

    def frobenius_squared(self) -> float:
        """``|K|_F^2``."""
        return self._exact_moments()[1]

    def _exact_moments(self) -> tuple[float, float]:
        """Trace and squared norm in one pass over the tiles."""
        if self._moments is None:
            total, squared = 0.0, 0.0
            for rows, columns, block in self.tiles():
                total += float(block.diagonal(rows.start - columns.start).double().sum())
                squared += float(frobenius_squared(block))
            self._moments = total, squared
        return self._moments


def refuse_batch(shape: tuple[int, ...] | torch.Size) -> None:
    """Accept the shape of one matrix."""
    if len(shape) != 2:
        raise ValueError(
            f"Expected one matrix (n, n), got shape {tuple(shape)}. Call it for each batch element."
        )
