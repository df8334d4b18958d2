"""The Gram matrix of rows that are gone: its order and its dual are known, its entries are not."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from matinfo._validation import check_positive
from matinfo.operands.gram import Gram
from matinfo.operands.matrix import Matrix
from matinfo.operands.side import Side


class StreamGram(Gram):
    """``Z Z^T`` of rows of which the sum ``Z^T Z`` was kept: whatever needs the factors is refused by :attr:`terms`."""

    def __init__(self, moment: Tensor, samples: int, *, is_numpy: bool = False) -> None:
        self.is_numpy = is_numpy
        self.given_dtype = torch.float64
        self.rounding = torch.finfo(torch.float64).eps
        self._moment, self._samples = moment, samples
        self._partner: StreamGram | None = None
        self._product: StreamGram | None = None

    @classmethod
    def pair(
        cls, first: Tensor, second: Tensor, joint: Tensor, samples: int, *, is_numpy: bool = False
    ) -> tuple[StreamGram, StreamGram]:
        """Two matrices over the same rows whose Hadamard product is known by its second moment."""
        A, B, product = (cls(M, samples, is_numpy=is_numpy) for M in (first, second, joint))
        A._partner, B._partner = B, A
        A._product = B._product = product
        return A, B

    @property
    def terms(self) -> tuple:  # type: ignore[override]
        """Refused: the factors of every other Gram."""
        raise TypeError(
            "Expected a quantity of the spectrum of one streamed Gram matrix, got one that needs the features or the "
            "n x n matrix itself: the rows were not kept. Products of two aligned streams come from "
            "JointAccumulator(...).grams(); for anything else use Gram(features)."
        )

    @property
    def shape(self) -> torch.Size:
        """Shape ``(n, n)`` of the matrix of all rows."""
        return torch.Size((self._samples, self._samples))

    @property
    def width(self) -> int:
        """Order of the dual."""
        return self._moment.shape[-1]

    @property
    def device(self) -> torch.device:
        """Device of the dual."""
        return self._moment.device

    @property
    def prefers_dual(self) -> bool:
        """Always: there is no other side."""
        return True

    def dual(self, dtype: torch.dtype | None = None) -> Tensor:
        """The accumulated matrix."""
        return self._moment.to(self.given_dtype if dtype is None else dtype)

    def side(self, *, precision: str = "auto", sensitive: bool = False) -> Side:
        """The accumulated matrix, in the precision that a quantity needs."""
        moment = Matrix.trusted(self._moment, torch.float64, torch.finfo(torch.float64).eps)
        side = moment.side(precision=precision, sensitive=sensitive)
        return dataclasses.replace(side, name="features", order=self._samples)

    def __mul__(self, other: Gram | float) -> Gram:
        """Hadamard product with the other stream of a JointAccumulator, or scaling by a positive number."""
        if isinstance(other, Gram):
            return self._product if self._product is not None and other is self._partner else self.terms[0]
        factor = check_positive(other, "the factor of a Gram")
        return StreamGram(self._moment * factor, self._samples, is_numpy=self.is_numpy)

    __rmul__ = __mul__
