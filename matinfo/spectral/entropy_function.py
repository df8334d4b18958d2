"""``log tr((K/tr K)^alpha) / (1 - alpha)`` as one differentiable function of a positive semi-definite matrix.

With ``p = eig(K)/tr K`` and ``e = alpha - 1`` the derivative is

    dH/dK = Q diag(h) Q^T / tr K,      h_i = -(alpha/e) expm1(e (log p_i + H)),      h_i = -(log p_i + H) at e = 0,

trace term included, without cancellation at any order, and at the price of one matrix product. When a second
derivative may follow (``create_graph``), the same gradient is put together from :mod:`matinfo.spectral.trace_function`
instead: with s = tr K held constant, ``tau = tr K/s`` (1 in value) and the Tsallis trace T,

    H = log tau - log1p(e T/tau)/e,         s dH/dK = -F/S + I (tau + alpha T)/(tau S),     S = tau + e T,

or, away from alpha = 1, with the power trace S and s = lambda_max, so that no power over- or underflows,

    H = (log S - alpha log tau)/(1 - alpha),        s dH/dK = (F/S - alpha I/tau)/(1 - alpha).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._validation import values_are_readable
from matinfo.spectral.eigensystem import Noise, column, derivatives_are_wanted, eigensystem
from matinfo.spectral.first_order import followed
from matinfo.spectral.functions import Power, Tsallis
from matinfo.spectral.scalar import scalar
from matinfo.spectral.trace_function import Gradient, trace_of_known

_NEAR_ONE = 0.25
"""Orders closer than this to 1 use the Tsallis form, the others the power form."""

_TIE = 1e-10
"""Largest eigenvalues that are relatively closer than this are one, of higher multiplicity."""


def entropy_function(
    K: Tensor,
    total: Tensor | float,
    alpha: float,
    noise: Noise,
    working: torch.dtype,
    *,
    dtype: torch.dtype = torch.float64,
    side: str,
) -> Tensor:
    """Entropy of order 0 < alpha < inf.

    Args:
        K: ``(..., n, n)``, floating point.
        total: Its trace ``(...)``, float64, as a constant (the derivative includes the trace all the same); a number
            if K is one matrix whose values may be read.
        alpha: The order.
        noise: Which eigenvalues cannot be told from zero; below alpha = 1 they count as zero.
        working: Precision of the eigensolver, float32 or float64.
        dtype: Of the result, rounded from float64 (while compiling: float64).
        side: For the explanation.
    """
    wanted = derivatives_are_wanted(K)
    eigenvalues, Q = eigensystem(K.detach().to(working), noise, vectors=wanted, side=side)
    p = eigenvalues.double().clamp_min(0.0) / column(total)
    top = p.tolist()[-1] if isinstance(total, float) else p[..., -1:]
    cut = noise.solver * top + noise.of_entries(1 / p.shape[-1])
    if alpha < 1:
        p = torch.where(p <= cut, 0.0, p)
    value = entropy_of_probabilities(p, alpha)
    if not wanted:
        return value.to(dtype)
    known = value, p, cut, Q, total, alpha
    return scalar(K, value, _derivative, _differentiable_derivative, *known, dtype=dtype)


def entropy_of_eigenvalues(x: Tensor, alpha: float, noise: Noise) -> Tensor:
    """Rényi entropy of order 0 <= alpha <= inf of non-negative eigenvalues ``(..., m)``, descending, float64.

    What :func:`matinfo.renyi_entropy` says of the matrix that they are of, with the same first derivative (none at
    alpha = 0); ties of the largest share the derivative at alpha = inf.
    """
    known = x.detach()
    if alpha == 0:
        return noise.rank(known).log()
    total = known.sum(-1)
    p = known / total[..., None]
    cut = noise.cut(p.flip(-1))
    if alpha == math.inf:
        value = -p[..., 0].log()
    else:
        value = entropy_of_probabilities(torch.where(p <= cut, 0.0, p) if alpha < 1 else p, alpha)
    if not derivatives_are_wanted(x):
        return value
    gradient = _weights(1 / total[..., None], value, p, cut, alpha, tie=max(_TIE, 2 * noise.solver))
    return followed(
        x,
        value,
        lambda dx, gradient: (gradient * dx).sum(-1),
        lambda weight, gradient: weight[..., None] * gradient,
        gradient,
    )


def shannon_entropy(p: Tensor) -> Tensor:
    """``-sum p log p`` of ``(..., n)``, whose zeros have a zero derivative; NaN stays NaN."""
    return torch.special.entr(torch.where(p > 0, p, 1.0) + 0.0 * p).sum(-1)


def entropy_of_probabilities(p: Tensor, alpha: float) -> Tensor:
    """Rényi entropy of probabilities ``(..., n)``, free of cancellation at every order 0 < alpha < inf."""
    e = alpha - 1
    if e == 0:
        return torch.special.entr(p).sum(-1)
    if abs(e) <= _NEAR_ONE:
        return -torch.log1p(e * Tsallis(alpha).value(p).sum(-1)) / e
    top = p.amax(-1, keepdim=True)
    return -(alpha * top[..., 0].log() + Power(alpha).value(p / top).sum(-1).log()) / e


def _weights(
    scale: Tensor | float,
    value: Tensor,
    p: Tensor,
    cut: Tensor | float,
    alpha: float,
    tie: float = _TIE,
) -> Tensor:
    """``scale h``, with h the derivative of the entropy by each eigenvalue, times the trace."""
    if alpha == math.inf:
        top = p.amax(-1, keepdim=True)
        ties = (p >= (1 - tie) * top).double()
        return (1 - ties / (ties.sum(-1, keepdim=True) * top)) * scale
    e = alpha - 1
    projects = Power(alpha).projects_null_space
    deviation = (p.clamp_min(cut) if projects else p).log() + (column(value) if value.ndim else value)
    h = deviation * -scale if e == 0 else torch.expm1(e * deviation) * (-alpha / e * scale)
    return h * (p > cut) if projects else h


def _derivative(
    grad: Tensor,
    K: Tensor,
    value: Tensor,
    p: Tensor,
    cut: Tensor | float,
    Q: Tensor,
    total: Tensor | float,
    alpha: float,
) -> Tensor:
    readable = isinstance(total, float) and values_are_readable(grad)
    h = _weights(grad.item() / total if readable else column(grad / total), value, p, cut, alpha)
    h = h.to(Q.dtype)
    return ((Q * (h.unsqueeze(-2) if h.ndim > 1 else h)) @ Q.mT).to(K.dtype)


def _differentiable_derivative(
    K: Tensor,
    value: Tensor,
    p: Tensor,
    cut: Tensor | float,
    Q: Tensor,
    total: Tensor | float,
    alpha: float,
) -> Tensor:
    given, K = K.dtype, K.to(Q.dtype)
    cut, total = (torch.as_tensor(x, dtype=p.dtype, device=p.device) for x in (cut, total))
    e = alpha - 1
    f: Tsallis | Power
    if abs(e) <= _NEAR_ONE:
        f, s, x, cut = Tsallis(alpha), total, p, cut
    else:
        f, s, x, cut = Power(alpha), total * p[..., -1], p / p[..., -1:], cut / p[..., -1:]
    tau = K.diagonal(dim1=-2, dim2=-1).double().sum(-1) / s
    T = trace_of_known(K, s, x, cut, Q, f)
    F = Gradient.apply(K, s, x, cut, Q, f)
    if isinstance(f, Tsallis):
        S = tau + e * T
        factor, ridge = -1 / (S * s), (tau + alpha * T) / (tau * S * s)
    else:
        factor, ridge = -1 / (e * T * s), alpha / (e * tau * s)
    identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    derivative = factor[..., None, None].to(K.dtype) * F + ridge[..., None, None].to(K.dtype) * identity
    return derivative.to(given)
