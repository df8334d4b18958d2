"""The Gram matrix of rows that are gone: its order and its dual are known, its entries are not."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from matinfo._validation import check_positive
from matinfo.operands.any_gram import AnyGram
from matinfo.operands.matrix import Matrix
from matinfo.operands.side import Side
from matinfo.spectral.traces import trace


class StreamGram(AnyGram):
    """``Z Z^T`` of rows of which the sum ``Z^T Z`` was kept."""

    given_dtype = torch.float64
    rounding = torch.finfo(torch.float64).eps
    remedy = (
        "A streamed Gram matrix has the quantities of its spectrum; others need the features or the n x n matrix, and "
        "the rows were not kept. Products of two aligned streams come from JointAccumulator(...).grams(); for anything "
        "else use Gram(features)."
    )

    def __init__(self, moment: Tensor, samples: int, *, is_numpy: bool = False) -> None:
        self.is_numpy = is_numpy
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

    def __getattr__(self, name: str) -> Any:
        """Asked only for what it does not have, such as the features that a function of one's own looks for."""
        raise AttributeError(f"Expected a Gram of features, which has {name!r}. {self.remedy}")

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

    def smaller(self) -> Tensor:
        """The accumulated matrix: there is no other side."""
        return self._moment

    def side(self, *, precision: str = "auto", sensitive: bool = False) -> Side:
        """The accumulated matrix, in the precision that a quantity needs."""
        moment = Matrix.trusted(self._moment, self.given_dtype, self.rounding)
        side = moment.side(precision=precision, sensitive=sensitive)
        return dataclasses.replace(side, name="features", order=self._samples)

    def trace(self) -> Tensor:
        """``tr K``, float64."""
        return trace(self._moment)

    def times(self, factor: Tensor | float) -> StreamGram:
        """K times a positive number."""
        return StreamGram(self._moment * factor, self._samples, is_numpy=self.is_numpy)

    def __mul__(self, other: AnyGram | float) -> StreamGram:
        """Hadamard product with the other stream of a JointAccumulator, or scaling by a positive number."""
        if hasattr(other, "matmat"):  # an operator, which says what it multiplies
            return NotImplemented
        if not isinstance(other, AnyGram):
            return self.times(check_positive(other, "the factor of a Gram"))
        if self._product is None or other is not self._partner:
            raise TypeError(f"Expected the two streams of one JointAccumulator. {self.remedy}")
        return self._product

    __rmul__ = __mul__
