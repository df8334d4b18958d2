"""``tr A (log A - log B) - tr A + tr B`` with first and second derivatives in both arguments.

Value. With ``W_ij = (q_i . r_j)^2`` for the eigenvectors q of A and r of B,

    D = sum_ij W_ij mu_j psi((lam_i - mu_j)/mu_j),     psi(x) = (1+x) log(1+x) - x >= 0,

a sum of non-negative terms: nothing cancels when A is close to B.

Derivatives. ``dD/dA = log A - log B`` and ``dD/dB = I - Dlog_B[A]``. For the second derivative in B, with
``log B = int_0^inf [1/(1+t) - (B+t)^-1] dt``,

    D^2 log_B[E, G] = -int_0^inf R (E R G + G R E) R dt,     R = (B + t)^-1,

by the trapezoidal rule in log t, whose terms have one sign in B's eigenbasis; second divided differences, which
cancel, are never formed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo.spectral import compiled
from matinfo.spectral.autograd import SpectralOperation, refusal
from matinfo.spectral.eigensystem import Noise, derivatives_are_wanted, eigensystem
from matinfo.spectral.functions import Tsallis
from matinfo.spectral.trace_function import THIRD_ORDER, Gradient

_FLOOR = 16 * torch.finfo(torch.float64).eps
"""Smaller eigenvalues, relative to the largest, are the solver's round-off; log and its derivative are finite here."""

_TINY = 1e-150
"""For the zero matrix; products of two eigenvalues must exist."""

_SUPPORT = torch.finfo(torch.float64).eps ** 0.5
"""Share of the trace of A in the null space of B from which the entropy is infinite: less may be rounding."""

_LOG = Tsallis(1.0)  # its derivative is log x + 1


def relative_entropy(A: Tensor, B: Tensor, *noises: Noise) -> Tensor:
    """Bregman form of the relative entropy of float64 matrices ``(..., n, n)``; inf outside the support.

    The noises, of A and of B, say which negative eigenvalues are round-off.
    """
    wanted = derivatives_are_wanted(A) or derivatives_are_wanted(B)
    systems = [
        part
        for K, noise in zip((A, B), noises, strict=True)
        for part in eigensystem(K, noise, vectors=True, side="matrix")
    ]
    value = _bregman_value(*systems)
    if not wanted:
        return value
    if torch.compiler.is_compiling():
        dA, dB = _partial_derivatives(A.detach(), B.detach(), *systems, nested=False)
        return compiled.linearized(value, (A, dA), (B, dB))
    result: Tensor = _RelativeEntropy.apply(A, B, value, *systems)
    return result


def _floored(eigenvalues: Tensor) -> Tensor:
    return torch.maximum(eigenvalues, _FLOOR * eigenvalues[..., -1:]).clamp_min(_TINY)


def _psi(x: Tensor) -> Tensor:
    """``(1+x) log(1+x) - x`` for x >= -1, by its series where that cancels."""
    small = x.abs() < 1e-2
    y = torch.where(small, x, 0.0)
    series = torch.zeros_like(y)
    for k in range(9, 1, -1):  # sum_{k>=2} (-1)^k x^k / (k (k-1))
        series = series * y + (1.0 if k % 2 == 0 else -1.0) / (k * (k - 1))
    return torch.where(small, series * y * y, torch.special.xlog1py(1 + x, x) - x)


def _bregman_value(lam: Tensor, Q: Tensor, mu_raw: Tensor, R: Tensor) -> Tensor:
    positive = lam.clamp_min(0.0)
    mu = _floored(mu_raw)
    W = (Q.mT @ R).square()
    x = (positive[..., :, None] - mu[..., None, :]) / mu[..., None, :]
    value = (W * mu[..., None, :] * _psi(x)).sum((-2, -1))
    outside = (W * positive[..., :, None] * (mu_raw < mu)[..., None, :]).sum((-2, -1))
    return torch.where(outside > _SUPPORT * positive.sum(-1), torch.inf, value)


class _RelativeEntropy(SpectralOperation):
    """A, B with their relative entropy and eigensystems -> the relative entropy."""

    @staticmethod
    def forward(A: Tensor, B: Tensor, value: Tensor, lam: Tensor, Q: Tensor, mu: Tensor, R: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        A, B, _, *systems = ctx.saved_tensors
        dA, dB = _partial_derivatives(A, B, *systems)
        return grad[..., None, None] * dA, grad[..., None, None] * dB, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, A_t: Tensor | None, B_t: Tensor | None, *_: Any) -> Tensor:
        A, B, _, *systems = ctx.saved_tensors
        dA, dB = _partial_derivatives(A, B, *systems)
        terms = [(d * t).sum((-2, -1)) for d, t in ((dA, A_t), (dB, B_t)) if t is not None]
        return sum(terms[1:], terms[0])


def _partial_derivatives(
    A: Tensor, B: Tensor, lam: Tensor, Q: Tensor, mu: Tensor, R: Tensor, *, nested: bool = True
) -> tuple[Tensor, Tensor]:
    """dD/dA and dD/dB; differentiable once more when ``nested``."""
    log_derivative = _LogDerivative.apply if nested else _LogDerivative.forward
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    logs = [_log(K, x, V, nested=nested) for K, x, V in ((A, lam, Q), (B, mu, R))]
    return logs[0] - logs[1], identity - log_derivative(A, B, mu, R)


def _log(K: Tensor, eigenvalues: Tensor, Q: Tensor, *, nested: bool) -> Tensor:
    """``log K + I``, with eigenvalues floored: the derivative of ``tr K log K``."""
    x = _floored(eigenvalues)
    gradient = Gradient.apply if nested else Gradient.forward
    result: Tensor = gradient(K, torch.ones_like(x[..., 0]), x, torch.zeros_like(x[..., :1]), Q, _LOG)
    return result


class _LogDerivative(SpectralOperation):
    """E, K -> Dlog_K[E]; linear and self-adjoint in E, once more differentiable in K."""

    @staticmethod
    def forward(E: Tensor, K: Tensor, lam: Tensor, Q: Tensor) -> Tensor:
        x = _floored(lam)
        phi = _LOG.divided_difference(x[..., :, None], x[..., None, :])
        E = (E + E.mT) / 2
        return Q @ (phi * (Q.mT @ E @ Q)) @ Q.mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        E, K, lam, Q = ctx.saved_tensors
        return (
            _LogDerivative.apply(grad, K, lam, Q),
            _SecondLogDerivative.apply(E, grad, K, lam, Q),
            None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, dE: Tensor | None, dK: Tensor | None, *_: Any) -> Tensor:
        E, K, lam, Q = ctx.saved_tensors
        linear = torch.zeros_like(K) if dE is None else _LogDerivative.apply(dE, K, lam, Q)
        return linear if dK is None else linear + _SecondLogDerivative.apply(E, dK, K, lam, Q)


class _SecondLogDerivative(SpectralOperation):
    """E, G, K -> D^2 log_K[E, G]; not differentiable."""

    @staticmethod
    def forward(E: Tensor, G: Tensor, K: Tensor, lam: Tensor, Q: Tensor) -> Tensor:
        x = _floored(lam)
        E, G = (Q.mT @ ((M + M.mT) / 2) @ Q for M in (E, G))
        s, step = _nodes(x)
        total = torch.zeros_like(E + G)
        for t in s.exp():
            r = 1 / (x + t)
            middle = (E * r[..., None, :]) @ G
            middle = middle + middle.mT
            total = total + (step * t) * r[..., :, None] * middle * r[..., None, :]
        return -(Q @ total @ Q.mT)

    backward = jvp = refusal(THIRD_ORDER)


def _nodes(x: Tensor) -> tuple[Tensor, float]:
    """Nodes in log t, far enough beyond the eigenvalues for the tails ``t`` and ``1/t^2`` to be below roundoff."""
    finite = torch.where(x.isfinite() & (x > 0), x, 1.0)
    low, high = float(finite.min().log()) - 40.0, float(finite.max().log()) + 22.0
    count = int((high - low) / 0.7) + 1
    s = torch.linspace(low, high, count, dtype=x.dtype, device=x.device)
    return s, (high - low) / (count - 1)
