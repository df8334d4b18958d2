"""What every Gram matrix tells, whether its rows are at hand, on other ranks, or gone."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from matinfo._validation import check_positive
from matinfo.operands.side import Side
from matinfo.spectral.frobenius import frobenius_squared

G = TypeVar("G", bound="AnyGram")


class AnyGram:
    """``K = Z Z^T`` of n rows and ``width`` columns: its smaller side, what follows from that, and multiples of it.

    Hadamard products are as far as they are known; entries, sums and the rows themselves are those of a
    :class:`~matinfo.Gram`.
    """

    __array_ufunc__ = None  # so that NumPy scalars leave c * K to __rmul__
    is_numpy: bool
    """Whether results are to be NumPy's, as the rows were."""
    given_dtype: torch.dtype
    """Dtype of the rows; it decides the working precision."""
    rounding: float
    """Relative rounding of the rows, the coarsest of all that went into them."""
    remedy = "Pass the features themselves, not their Gram."

    @property
    def shape(self) -> torch.Size:
        """Shape ``(..., n, n)`` of the matrix."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Number of columns of Z, and order of the dual ``Z^T Z``."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Device of what is known."""
        raise NotImplementedError

    def smaller(self) -> Tensor:
        """The cheaper one to factor of K and its dual; dtype of the rows, at least float32."""
        raise NotImplementedError

    def side(self, *, precision: str = "auto", sensitive: bool = False) -> Side:
        """The same at a safe scale, in the precision that a quantity needs, with what is known of its errors."""
        raise NotImplementedError

    def trace(self) -> Tensor:
        """``tr K``, ``(...)``, float64."""
        raise NotImplementedError

    def frobenius_squared(self) -> Tensor:
        """``|K|_F^2``, ``(...)``, float64."""
        return frobenius_squared(self.smaller())

    def times(self: G, factor: Tensor | float) -> G:
        """K times a positive number; numbers ``(...)`` for a batch may have a gradient."""
        raise NotImplementedError

    def __truediv__(self: G, other: float) -> G:
        """Division by a positive number."""
        return self.times(1 / check_positive(other, "the divisor of a Gram"))

    def __repr__(self) -> str:
        """Shape, width and dtype."""
        return f"Gram(n={self.shape[-1]}, width={self.width}, batch={tuple(self.shape[:-2])}, dtype={self.given_dtype})"

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        """An error: the array would hold the object, not its entries."""
        raise TypeError(
            "A Gram is not an array. Use Gram(features).dense() for the matrix that it stands for."
        )
