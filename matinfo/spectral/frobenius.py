"""The Frobenius norm and what follows from it alone: order two, in O(n^2)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from matinfo._record import record
from matinfo._validation import values_are_readable
from matinfo.spectral.autograd import SpectralOperation
from matinfo.spectral.eigensystem import derivatives_are_wanted
from matinfo.spectral.rows import row_products, rows_are_faster
from matinfo.spectral.scalar import rounded, scalar


def frobenius_squared(K: Tensor) -> Tensor:
    """``sum K_ij^2`` of ``(..., n, m)``, float64, differentiable to every order."""
    record("frobenius", K)
    if torch.compiler.is_compiling():
        return _sum_of_squares(K)
    value: Tensor = _FrobeniusSquared.apply(K)
    return value


def collision_entropy(
    K: Tensor, total: Tensor | float, *, dtype: torch.dtype = torch.float64, side: str = "matrix"
) -> Tensor:
    """``2 log tr K - log |K|_F^2``, differentiable to every order; NaN for non-finite input.

    Args:
        K: Symmetric, ``(..., n, n)``, of a scale at which squares of its entries exist.
        total: Its trace ``(...)``, float64, as a constant (the derivative includes the trace all the same); a number
            if K is one matrix whose values may be read.
        dtype: Of the result, rounded from float64 (while compiling: float64).
        side: For the explanation.
    """
    record("frobenius", K, side=side)
    squared: Tensor | float
    value: Tensor | float
    if isinstance(total, float):
        squared = _squared_norm(K.detach())
        value = math.log(total * total / squared) if 0 < squared < math.inf else math.nan
    else:
        squared = _sum_of_squares(K.detach())
        value = (total * total / squared).log() + 0 * squared  # infinity is not a number here
    if not derivatives_are_wanted(K):
        return rounded(value, dtype)
    return scalar(K, value, _derivative, _differentiable_derivative, total, squared, dtype=dtype)


def _norm(K: Tensor) -> Tensor:
    """``|K|_F`` by rows, float64: a float32 norm over a large matrix adds one by one and loses three digits."""
    if K.ndim == 2 and K.shape[-1] <= _SMALL:
        return torch.linalg.vector_norm(K, dtype=torch.float64)
    return torch.linalg.vector_norm(torch.linalg.vector_norm(K, dim=-1), dim=-1, dtype=torch.float64)


def _sum_of_squares(K: Tensor) -> Tensor:
    return _norm(K).square()


def _squared_norm(K: Tensor) -> float:
    """The same of one matrix whose values may be read."""
    rows = K if K.stride(-1) == 1 else K.mT  # columns are as good
    if rows_are_faster(rows):
        return row_products(rows, rows).sum(dtype=torch.float64).item()
    norm: float = _norm(K).item()
    return norm**2


_SMALL = 64
"""Up to this order the conversion to float64 costs less than another operation."""


def _robust_sum_of_squares(K: Tensor) -> Tensor:
    """The same, again in float64 where float32 squares may have over- or underflowed."""
    squared = _sum_of_squares(K)
    return squared if _is_representable(squared, K.dtype) else _sum_of_squares(K.double())


_SAFE = {torch.float32: (1e-24, 1e24), torch.float64: (1e-280, 1e280)}
"""A sum of squares in this range has lost none that matters to subnormal numbers, and has an inverse."""


def _is_representable(squared: Tensor, dtype: torch.dtype) -> bool:
    """Whether the squared norms and their inverses are far inside the range of the dtype (where that can be read)."""
    if squared.is_cuda or squared.numel() == 0 or not values_are_readable(squared):
        return True
    low, high = squared.aminmax()
    return _SAFE[dtype][0] < low.item() and high.item() < _SAFE[dtype][1]


class _FrobeniusSquared(SpectralOperation):
    @staticmethod
    def forward(K: Tensor) -> Tensor:
        return _robust_sum_of_squares(K)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (K,) = ctx.saved_tensors
        return (2 * grad)[..., None, None].to(K.dtype) * K

    @staticmethod
    def jvp(ctx: Any, dK: Tensor) -> Tensor:
        (K,) = ctx.saved_tensors
        return 2 * (K * dK).sum(-1).double().sum(-1)


def _derivative(grad: Tensor, K: Tensor, total: Tensor | float, squared: Tensor | float) -> Tensor:
    """``2 I/tr K - 2 K/|K|_F^2``."""
    if isinstance(squared, float) and values_are_readable(grad):
        weight = 2 * grad.item()
        result = K * (-weight / squared)
        result.diagonal().add_(weight / total)
        return result
    grad = 2 * grad
    result = K * (-grad / squared)[..., None, None].to(K.dtype)
    result.diagonal(dim1=-2, dim2=-1).add_((grad / total)[..., None].to(K.dtype))
    return result


def _differentiable_derivative(K: Tensor, *_: Any) -> Tensor:
    K = (K + K.mT) / 2  # so that the second derivative is symmetric too
    total = K.diagonal(dim1=-2, dim2=-1).double().sum(-1)
    inverse = _FrobeniusSquared.apply(K).rsqrt()[..., None, None]
    identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    unit = K * inverse.to(K.dtype)
    return (2 / total)[..., None, None].to(K.dtype) * identity - unit * (2 * inverse).to(K.dtype)
