"""Prototypes: directions with which normalised projections are compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Prototypes(nn.Module):
    """Cosines with ``count`` learned directions (a linear layer with weight normalisation and unit gain)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, width) / width**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Cosines ``(..., B, count)`` of features ``(..., B, width)``."""
        return normalize(features, dim=-1) @ normalize(self.weight, dim=-1).mT


@torch.no_grad()
def spherical_kmeans(
    rows: Tensor, count: int, generator: torch.Generator, iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """Directions ``(count, d)`` and assignments ``(N,)`` of unit rows, by Lloyd's iterations from random rows.

    A cluster that loses all its rows keeps its direction.
    """
    chosen = torch.randperm(len(rows), generator=generator)[:count]
    centres = rows[chosen.to(rows.device)].clone()
    for _ in range(iterations):
        nearest = (rows @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        filled = sums.norm(dim=1, keepdim=True) > 0
        centres = torch.where(filled, normalize(sums, dim=1), centres)
    return centres, (rows @ centres.T).argmax(1)
