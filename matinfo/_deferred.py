"""Formulas run on matrices that are too large: what entropies they add up, written down and not computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class EntropySum:
    """``sum_i c_i H(K_i1 o K_i2 o ...)``: what a formula makes of entropies, with the matrices by their numbers."""

    weights: dict[tuple[int, ...], float]

    def __add__(self, other: EntropySum) -> EntropySum:
        weights = dict(self.weights)
        for product, weight in other.weights.items():
            weights[product] = weights.get(product, 0.0) + weight
        return EntropySum(weights)

    def __mul__(self, factor: float) -> EntropySum:
        return EntropySum({product: factor * weight for product, weight in self.weights.items()})

    __rmul__ = __mul__

    def __neg__(self) -> EntropySum:
        return self * -1.0

    def __sub__(self, other: EntropySum) -> EntropySum:
        return self + -other

    def __truediv__(self, divisor: float) -> EntropySum:
        return self * (1 / divisor)


class Deferred:
    """A Hadamard product of numbered matrices, in whose place formulas put its entropy as an :class:`EntropySum`."""

    def __init__(self, matrices: list[Any], product: tuple[int, ...]) -> None:
        self.matrices, self.product = matrices, tuple(sorted(product))
        self.shape: tuple[int, int] = matrices[product[0]].shape
        self.device: torch.device = matrices[product[0]].device

    def __mul__(self, other: Deferred) -> Deferred:
        return Deferred(self.matrices, self.product + other.product)

    def reordered(self, order: torch.Tensor) -> Deferred:
        """The matrix over the samples in another order, with a number of its own."""
        (number,) = self.product
        self.matrices.append(self.matrices[number].reordered(order))
        return Deferred(self.matrices, (len(self.matrices) - 1,))

    def entropy(self) -> EntropySum:
        """The entropy, to be computed later."""
        return EntropySum({self.product: 1.0})


def entropies_of(
    formula: Callable[..., Any], matrices: list[Any], **options: Any
) -> tuple[EntropySum, list[Any]]:
    """What a formula adds up, and the matrices that the numbers stand for, those that it made itself included."""
    matrices = list(matrices)
    operands = [Deferred(matrices, (i,)) for i in range(len(matrices))]
    return formula(*operands, **options), matrices
