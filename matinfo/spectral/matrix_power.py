"""Entropies of integer order from matrix products alone.

With ``X = K/tr K``: for odd alpha ``tr X^alpha = <X^(alpha-1), X>``, whose gradient ``alpha X^(alpha-1)`` is already
there; for even alpha ``tr X^alpha = |X^(alpha/2)|_F^2``, with one or two more products for the gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._record import record
from matinfo.spectral.autograd import SpectralOperation
from matinfo.spectral.eigensystem import derivatives_may_follow

_HIGHEST_IN_FLOAT32 = 8
"""Half this power of 1/n is squared, which underflows in float32 at n = 32,000 for the next one."""


def power_entropy(K: Tensor, total: Tensor | float, alpha: int, *, side: str = "matrix") -> Tensor:
    """``(alpha log tr K - log tr K^alpha)/(alpha - 1)``, float64, for an integer alpha >= 3.

    Args:
        K: Symmetric, ``(..., n, n)``.
        total: Its trace ``(...)``, float64, as a constant (the derivative includes the trace all the same).
        alpha: The order.
        side: For the explanation.
    """
    if alpha > _HIGHEST_IN_FLOAT32:
        K = K.double()
    record("power", K, side=side)
    if not isinstance(total, Tensor):
        total = torch.scalar_tensor(total, dtype=torch.float64)
    if torch.compiler.is_compiling():
        X = K / total[..., None, None].to(K.dtype)
        tau = X.diagonal(dim1=-2, dim2=-1).double().sum(-1)
        return (alpha * tau.log() - _inner(*_halves(X, alpha)).log()) / (alpha - 1)
    value: Tensor = _PowerEntropy.apply(K, total, alpha)[0]
    return value


def _halves(X: Tensor, alpha: int) -> tuple[Tensor, Tensor]:
    """Two powers of X whose inner product is ``tr X^alpha``."""
    if alpha % 2:
        return torch.linalg.matrix_power(X, alpha - 1), X
    half = torch.linalg.matrix_power(X, alpha // 2)
    return half, half


def _inner(A: Tensor, B: Tensor) -> Tensor:
    return torch.linalg.vecdot(A, B).double().sum(-1)


class _PowerEntropy(SpectralOperation):
    """K, tr K, alpha -> (entropy, tr X^alpha, the power of X that was formed)."""

    @staticmethod
    def forward(K: Tensor, total: Tensor, alpha: int) -> tuple[Tensor, Tensor, Tensor]:
        X = K / total[..., None, None].to(K.dtype)
        A, B = _halves(X, alpha)
        trace = _inner(A, B)
        trace = torch.where(trace.isfinite(), trace, torch.nan)
        return -trace.log() / (alpha - 1), trace, A

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        K, total, ctx.alpha = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(K, total, *output[1:])
        ctx.save_for_forward(K, total, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        K, total, trace, A = ctx.saved_tensors
        alpha = ctx.alpha
        if derivatives_may_follow():
            derivative = _differentiable_derivative(K, total, alpha)
            return grad[..., None, None].to(K.dtype) * derivative, None, None
        weight = -grad * alpha / ((alpha - 1) * total * trace)
        if alpha % 2:
            result = A * weight[..., None, None].to(K.dtype)
        else:
            scaled = K * (weight / total)[..., None, None].to(K.dtype)
            rest = (
                scaled
                if alpha == 4
                else scaled
                @ torch.linalg.matrix_power(K / total[..., None, None].to(K.dtype), alpha // 2 - 2)
            )
            result = A @ rest
        ridge = (grad * alpha / ((alpha - 1) * total))[..., None].to(K.dtype)
        result.diagonal(dim1=-2, dim2=-1).add_(ridge)
        return result, None, None

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        K, total, *_rest = ctx.saved_tensors
        return (_differentiable_derivative(K, total, ctx.alpha) * dK).sum((-2, -1)).double(), None, None


def _differentiable_derivative(K: Tensor, total: Tensor, alpha: int) -> Tensor:
    scale = total[..., None, None].to(K.dtype)
    X = (K + K.mT) / (2 * scale)
    tau = X.diagonal(dim1=-2, dim2=-1).double().sum(-1)[..., None, None].to(K.dtype)
    power = torch.linalg.matrix_power(X, alpha - 1)
    trace = _inner(power, X)[..., None, None].to(K.dtype)
    identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    return (identity / tau - power / trace) * (alpha / (alpha - 1)) / scale
