"""``log det(mu I + K)`` by Cholesky, with a backward that costs one inverse.

    d log det A = <A^{-1}, dA>,    d A^{-1} = -A^{-1} dA A^{-1}

so the gradient is ``cholesky_inverse`` of the factor that the value already needed: one third of the work of
differentiating through the factorisation, and differentiable to every order because the inverse is built from
differentiable products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._record import record
from matinfo._validation import values_are_readable
from matinfo.spectral.autograd import SpectralOperation
from matinfo.spectral.eigensystem import derivatives_are_wanted
from matinfo.spectral.scalar import scalar


def logdet_shifted(K: Tensor, mu: float, *, side: str = "matrix") -> Tensor:
    """``log det(mu I + K)`` of positive semi-definite ``(..., n, n)``; NaN where it is not positive definite.

    Args:
        K: The matrices, float32 or float64; the lower triangle is read.
        mu: Positive ridge.
        side: For the explanation.

    Returns:
        ``(...)``, float64.
    """
    record("cholesky", K, side=side)
    return logdet_of_sum(K, mu)


def logdet_of_sum(K: Tensor, mu: float) -> Tensor:
    """:func:`logdet_shifted` as a building block of something larger."""
    wanted = derivatives_are_wanted(K)
    value, L = _factor(K.detach() if wanted else K, mu)
    return scalar(K, value, _derivative, _Inverse.apply, L) if wanted else value


def inverse_of_sum(K: Tensor, mu: float) -> Tensor:
    """``(mu I + K)^{-1}``, differentiable to every order."""
    result: Tensor = _Inverse.apply(K, _factor(K.detach(), mu)[1])
    return result


def _factor(K: Tensor, mu: float) -> tuple[Tensor, Tensor]:
    """``log det(mu I + K)`` and its Cholesky factor."""
    A = K.clone()
    A.diagonal(dim1=-2, dim2=-1).add_(mu)
    L, info = torch.linalg.cholesky_ex(A)
    logdet = 2 * L.diagonal(dim1=-2, dim2=-1).double().log().sum(-1)
    if info.ndim == 0 and info.is_cpu and values_are_readable(info) and info.item() == 0:
        return logdet, L  # one look in place of two operations
    return logdet.masked_fill(info != 0, torch.nan), L


def _derivative(grad: Tensor, K: Tensor, L: Tensor) -> Tensor:
    return grad[..., None, None].to(L.dtype) * torch.cholesky_inverse(L)


class _Inverse(SpectralOperation):
    """K -> (mu I + K)^{-1} from the Cholesky factor of the sum."""

    @staticmethod
    def forward(K: Tensor, L: Tensor) -> Tensor:
        return torch.cholesky_inverse(L)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        inverse = _Inverse.apply(*ctx.saved_tensors)
        return -inverse @ ((grad + grad.mT) / 2) @ inverse, None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor, _: Any) -> Tensor:
        inverse = _Inverse.apply(*ctx.saved_tensors)
        return -inverse @ ((dA + dA.mT) / 2) @ inverse
