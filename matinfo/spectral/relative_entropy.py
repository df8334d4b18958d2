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
from matinfo.spectral.eigensolver import check_positive_semidefinite, eigh_psd
from matinfo.spectral.functions import Tsallis
from matinfo.spectral.trace_function import _THIRD_ORDER, _batch_first, derivatives_are_wanted

_FLOOR = 16 * torch.finfo(torch.float64).eps
_SUPPORT = torch.finfo(torch.float64).eps ** 0.5
_INDEFINITE = 1e-6
_LOG = Tsallis(1.0)  # its derivative is log x + 1


def relative_entropy(A: Tensor, B: Tensor) -> Tensor:
    """Bregman form of the relative entropy of float64 matrices ``(..., n, n)``; inf outside the support."""
    if torch.compiler.is_compiling():
        return _compiled_relative_entropy(A, B)
    if derivatives_are_wanted(A) or derivatives_are_wanted(B):
        value: Tensor = _RelativeEntropy.apply(A, B)[0]
        return value
    return _RelativeEntropy.forward(A, B)[0]


def _eigensystem(K: Tensor) -> tuple[Tensor, Tensor]:
    eigenvalues, Q = eigh_psd(K)
    check_positive_semidefinite(eigenvalues, _INDEFINITE)
    return eigenvalues, Q


def _floored(eigenvalues: Tensor) -> Tensor:
    return torch.maximum(eigenvalues, _FLOOR * eigenvalues[..., -1:])


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


def _compiled_relative_entropy(A: Tensor, B: Tensor) -> Tensor:
    (lam, Q), (mu, R) = compiled.eigh_psd(A), compiled.eigh_psd(B)
    dA = _MatrixLog.forward(A, lam, Q) - _MatrixLog.forward(B, mu, R)
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    dB = identity - _LogDerivative.forward(A.detach(), B, mu, R)
    return compiled.linearized(_bregman_value(lam, Q, mu, R), (A, dA), (B, dB))


class _RelativeEntropy(torch.autograd.Function):
    """A, B -> D and the two eigensystems."""

    @staticmethod
    def forward(A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        systems = (*_eigensystem(A), *_eigensystem(B))
        return _bregman_value(*systems), *systems

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.save_for_forward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        dA, dB = _partial_derivatives(*ctx.saved_tensors)
        return grad[..., None, None] * dA, grad[..., None, None] * dB

    @staticmethod
    def jvp(ctx: Any, A_t: Tensor | None, B_t: Tensor | None) -> tuple:
        dA, dB = _partial_derivatives(*ctx.saved_tensors)
        terms = [(d * t).sum((-2, -1)) for d, t in ((dA, A_t), (dB, B_t)) if t is not None]
        return sum(terms[1:], terms[0]), None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, A: Tensor, B: Tensor) -> tuple:
        A, B = (_batch_first(K, dim, info.batch_size) for K, dim in zip((A, B), in_dims, strict=True))
        return _RelativeEntropy.apply(A, B), (0, 0, 0, 0, 0)


def _partial_derivatives(
    A: Tensor, B: Tensor, lam: Tensor, Q: Tensor, mu: Tensor, R: Tensor
) -> tuple[Tensor, Tensor]:
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    dA = _MatrixLog.apply(A, lam, Q) - _MatrixLog.apply(B, mu, R)
    dB = identity - _LogDerivative.apply(A, B, mu, R)
    return dA, dB


class _MatrixLog(torch.autograd.Function):
    """log K, with eigenvalues floored."""

    @staticmethod
    def forward(K: Tensor, lam: Tensor, Q: Tensor) -> Tensor:
        return (Q * _floored(lam).log()[..., None, :]) @ Q.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return _LogDerivative.apply(grad, *ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, *_: Any) -> Tensor:
        return _LogDerivative.apply(dK, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Tensor) -> tuple[Tensor, int]:
        moved = [_batch_first(t, dim, info.batch_size) for t, dim in zip(args, in_dims, strict=True)]
        return _MatrixLog.apply(*moved), 0


class _LogDerivative(torch.autograd.Function):
    """E, K -> Dlog_K[E]; linear and self-adjoint in E, once more differentiable in K."""

    @staticmethod
    def forward(E: Tensor, K: Tensor, lam: Tensor, Q: Tensor) -> Tensor:
        x = _floored(lam)
        phi = _LOG.divided_difference(x[..., :, None], x[..., None, :])
        E = (E + E.mT) / 2
        return Q @ (phi * (Q.mT @ E @ Q)) @ Q.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        E, K, lam, Q = ctx.saved_tensors
        return _LogDerivative.apply(grad, K, lam, Q), _SecondLogDerivative.apply(E, grad, K, lam, Q), None, None

    @staticmethod
    def jvp(ctx: Any, dE: Tensor | None, dK: Tensor | None, *_: Any) -> Tensor:
        E, K, lam, Q = ctx.saved_tensors
        linear = 0.0 if dE is None else _LogDerivative.apply(dE, K, lam, Q)
        return linear if dK is None else linear + _SecondLogDerivative.apply(E, dK, K, lam, Q)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Tensor) -> tuple[Tensor, int]:
        moved = [_batch_first(t, dim, info.batch_size) for t, dim in zip(args, in_dims, strict=True)]
        return _LogDerivative.apply(*moved), 0


class _SecondLogDerivative(torch.autograd.Function):
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

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        raise NotImplementedError(_THIRD_ORDER)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Tensor:
        raise NotImplementedError(_THIRD_ORDER)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Tensor) -> tuple[Tensor, int]:
        moved = [_batch_first(t, dim, info.batch_size) for t, dim in zip(args, in_dims, strict=True)]
        return _SecondLogDerivative.apply(*moved), 0


def _nodes(x: Tensor) -> tuple[Tensor, float]:
    """Nodes in log t, far enough beyond the eigenvalues for the tails ``t`` and ``1/t^2`` to be below roundoff."""
    finite = torch.where(x.isfinite() & (x > 0), x, 1.0)
    low, high = float(finite.min().log()) - 40.0, float(finite.max().log()) + 22.0
    count = int((high - low) / 0.7) + 1
    s = torch.linspace(low, high, count, dtype=x.dtype, device=x.device)
    return s, (high - low) / (count - 1)
