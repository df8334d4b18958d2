"""Entropies of integer order from matrix products alone.

With ``X = K/tr K``: for odd alpha ``tr X^alpha = <X^(alpha-1), X>``, whose gradient ``alpha X^(alpha-1)`` is already
there; for even alpha ``tr X^alpha = |X^(alpha/2)|_F^2``, with one or two more products for the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._record import record
from matinfo.spectral.eigensystem import derivatives_are_wanted
from matinfo.spectral.scalar import scalar

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
    X = K.detach() / total[..., None, None].to(K.dtype)
    A, B = _halves(X, alpha)
    trace = _inner(A, B)
    trace = torch.where(trace.isfinite(), trace, torch.nan)
    value = -trace.log() / (alpha - 1)
    if not derivatives_are_wanted(K):
        return value
    return scalar(K, value, _derivative, _differentiable_derivative, A, trace, total, alpha)


def _halves(X: Tensor, alpha: int) -> tuple[Tensor, Tensor]:
    """Two powers of X whose inner product is ``tr X^alpha``."""
    if alpha % 2:
        return torch.linalg.matrix_power(X, alpha - 1), X
    half = torch.linalg.matrix_power(X, alpha // 2)
    return half, half


def _inner(A: Tensor, B: Tensor) -> Tensor:
    return torch.linalg.vecdot(A, B).double().sum(-1)


def _derivative(grad: Tensor, K: Tensor, A: Tensor, trace: Tensor, total: Tensor, alpha: int) -> Tensor:
    """``alpha/(alpha - 1) (I - X^(alpha-1)/tr X^alpha)/tr K``, from the power A of X that the value left."""
    ridge = grad * alpha / ((alpha - 1) * total)
    if alpha % 2 == 0:
        A = A @ torch.linalg.matrix_power(K / total[..., None, None].to(K.dtype), alpha // 2 - 1)
    result = A * (-ridge / trace)[..., None, None].to(K.dtype)
    result.diagonal(dim1=-2, dim2=-1).add_(ridge[..., None].to(K.dtype))
    return result


def _differentiable_derivative(K: Tensor, A: Tensor, trace: Tensor, total: Tensor, alpha: int) -> Tensor:
    scale = total[..., None, None].to(K.dtype)
    X = (K + K.mT) / (2 * scale)
    tau = X.diagonal(dim1=-2, dim2=-1).double().sum(-1)[..., None, None].to(K.dtype)
    power = torch.linalg.matrix_power(X, alpha - 1)
    trace = _inner(power, X)[..., None, None].to(K.dtype)
    identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    return (identity / tau - power / trace) * (alpha / (alpha - 1)) / scale
