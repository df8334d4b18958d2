"""``tr f(K/s)`` with exact first and second derivatives at any spectrum.

Algebra. With ``K/s = Q diag(x) Q^T``,

    d  tr f(K/s)    = <f'(K/s), dK> / s,                      f'(K/s) = Q diag(f'(x)) Q^T
    d  f'(K/s)      = Q (Phi o (Q^T dK Q)) Q^T / s,           Phi_ij  = (f'(x_i) - f'(x_j)) / (x_i - x_j)

(Daleckii and Krein). No gap between eigenvalues is ever divided by: ``Phi`` comes from the closed forms of
:mod:`matinfo.spectral.functions`. The scale ``s`` is a constant of the differentiation.

Structure. Nested functions, because a backward that used saved eigenpairs directly would have a zero second derivative
without saying so: :func:`trace_of_known` -> ``Gradient`` -> ``_Hessian``. The last one is linear and self-adjoint in
its argument; a third derivative with respect to K is refused.

Null space. Where ``f'`` diverges at 0 (orders up to 1.25), eigenvalues up to ``cut`` are given the mean derivative
``h0 = sum x f'(x) / sum x``, so that the gradient of a trace-normalised quantity vanishes there. For a matrix that
comes from features any choice gives the same gradient with respect to the features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo.spectral.autograd import SpectralOperation, keep, kept, refusal
from matinfo.spectral.eigensystem import Noise, derivatives_are_wanted, eigensystem
from matinfo.spectral.functions import SpectralFunction
from matinfo.spectral.scalar import scalar


def trace_function(K: Tensor, f: SpectralFunction, *, noise: Noise, side: str) -> Tensor:
    """``tr f(K)`` of a batch of positive semi-definite matrices ``(..., n, n)``, float64, shape ``(...)``."""
    wanted = derivatives_are_wanted(K)
    eigenvalues, Q = eigensystem(K, noise, vectors=wanted, side=side)
    x = eigenvalues.double().clamp_min(0.0)
    if not wanted:
        return f.value(x).sum(-1)
    return trace_of_known(K, torch.ones_like(x[..., 0]), x, noise.cut(x), Q, f)


def trace_of_known(K: Tensor, s: Tensor, x: Tensor, cut: Tensor, Q: Tensor, f: SpectralFunction) -> Tensor:
    """``tr f(K/s)`` given the eigensystem of K/s."""
    return scalar(K, f.value(x).sum(-1), _cheap, _differentiable, s, x, cut, Q, f)


def _cheap(
    grad: Tensor, K: Tensor, s: Tensor, x: Tensor, cut: Tensor, Q: Tensor, f: SpectralFunction
) -> Tensor:
    return ((grad / s)[..., None, None].to(Q.dtype) * Gradient.forward(K, s, x, cut, Q, f)).to(K.dtype)


def _differentiable(K: Tensor, s: Tensor, *known: Any) -> Tensor:
    derivative: Tensor = Gradient.apply(K, s, *known)
    return derivative / s[..., None, None].to(derivative.dtype)


def gradient_weights(x: Tensor, cut: Tensor, f: SpectralFunction) -> Tensor:
    """``f'(x)``, with the mean derivative on the null space where the function asks for it; NaN stays NaN."""
    if not f.projects_null_space:
        return f.derivative(x)
    above = x > cut
    h = f.derivative(torch.where(above, x, 1.0))
    mass = torch.where(above, x, 0.0)
    h0 = (mass * h).sum(-1, keepdim=True) / mass.sum(-1, keepdim=True)
    return torch.where(above, h, h0) + 0.0 * x


def _divided_differences(x: Tensor, cut: Tensor, f: SpectralFunction) -> Tensor:
    """``Phi``, with 0 between two null directions and the plain quotient between null and range."""
    a, b = x[..., :, None], x[..., None, :]
    if not f.projects_null_space:
        return f.divided_difference(a, b)
    h = gradient_weights(x, cut, f)
    above = x > cut
    both = above[..., :, None] & above[..., None, :]
    one = above[..., :, None] ^ above[..., None, :]
    phi = f.divided_difference(torch.where(both, a, 1.0), torch.where(both, b, 1.0))
    larger = torch.where(one, torch.maximum(a, b), 1.0)
    sign = torch.where(above[..., :, None], 1.0, -1.0)
    mixed = sign * (h[..., :, None] - h[..., None, :]) / larger
    return torch.where(both, phi, torch.where(one, mixed, 0.0))


class Gradient(SpectralOperation):
    """The matrix f'(K/s). K enters only to carry the graph; the eigensystem is its own."""

    @staticmethod
    def forward(K: Tensor, s: Tensor, x: Tensor, cut: Tensor, Q: Tensor, f: SpectralFunction) -> Tensor:
        return (Q * gradient_weights(x, cut, f).to(Q.dtype)[..., None, :]) @ Q.mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        K, *rest = kept(ctx)
        return _Hessian.apply(grad, Guard.apply(K), *rest), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, *_: Any) -> Tensor:
        K, *rest = kept(ctx)
        return _Hessian.apply(dK, Guard.apply(K), *rest)


class _Hessian(SpectralOperation):
    """E -> derivative of f'(K/s) in direction E; linear and self-adjoint in E."""

    @staticmethod
    def forward(
        E: Tensor, K: Tensor, s: Tensor, x: Tensor, cut: Tensor, Q: Tensor, f: SpectralFunction
    ) -> Tensor:
        phi = (_divided_differences(x, cut, f) / s[..., None, None]).to(Q.dtype)
        E = (E + E.mT) / 2
        return Q @ (phi * (Q.mT @ E @ Q)) @ Q.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        keep(ctx, *inputs[1:])  # linear in the first

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        K, *rest = kept(ctx)
        refused = torch.zeros_like(K)  # goes to Guard, which raises if anybody asks for it
        return _Hessian.apply(grad, K, *rest), refused, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dE: Tensor, *_: Any) -> Tensor:
        return _Hessian.apply(dE, *kept(ctx))


THIRD_ORDER = (
    "matinfo's spectral quantities have first and second derivatives; a third derivative with respect to the matrix "
    "was asked for. Use alpha=2 or a coding rate, which are differentiable to every order."
)


class Guard(SpectralOperation):
    """K -> K, refusing the third derivative: a node of its own, so that only a real request for it raises."""

    @staticmethod
    def forward(K: Tensor) -> Tensor:
        return K.view_as(K)

    backward = jvp = refusal(THIRD_ORDER)
