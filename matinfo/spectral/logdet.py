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
from matinfo.spectral import compiled
from matinfo.spectral.autograd import SpectralOperation
from matinfo.spectral.eigensystem import derivatives_are_wanted


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
    if torch.compiler.is_compiling():
        value, L = _LogDet.forward(K.detach(), mu)
        return compiled.linearized(value, (K, torch.cholesky_inverse(L)))
    result: Tensor = (_LogDet.apply if derivatives_are_wanted(K) else _LogDet.forward)(K, mu)[0]
    return result


def inverse_of_sum(K: Tensor, mu: float) -> Tensor:
    """``(mu I + K)^{-1}``, differentiable to every order."""
    result: Tensor = _Inverse.apply(K, _LogDet.forward(K.detach(), mu)[1])
    return result


class _LogDet(SpectralOperation):
    """K -> (log det (mu I + K), its Cholesky factor)."""

    @staticmethod
    def forward(K: Tensor, mu: float) -> tuple[Tensor, Tensor]:
        A = K.clone()
        A.diagonal(dim1=-2, dim2=-1).add_(mu)
        L, info = torch.linalg.cholesky_ex(A)
        logdet = 2 * L.diagonal(dim1=-2, dim2=-1).double().log().sum(-1)
        if info.ndim == 0 and info.is_cpu and values_are_readable(info) and info.item() == 0:
            return logdet, L  # one look in place of two operations
        return logdet.masked_fill(info != 0, torch.nan), L

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        K, _ = inputs
        _, L = output
        ctx.mark_non_differentiable(L)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(K, L)
        ctx.save_for_forward(K, L)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
        K, L = ctx.saved_tensors
        return grad[..., None, None].to(K.dtype) * _Inverse.apply(K, L), None

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, _: Any) -> tuple[Tensor, None]:
        K, L = ctx.saved_tensors
        return (_Inverse.apply(K, L).double() * dK.double()).sum((-2, -1)), None


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
