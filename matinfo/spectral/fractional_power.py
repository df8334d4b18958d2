"""``K^s`` for s > 0 as a matrix, with its exact first derivative at repeated eigenvalues.

    d K^s = Q (Phi o (Q^T dK Q)) Q^T,    Phi_ij = (x_i^s - x_j^s) / (x_i - x_j)

(Daleckii and Krein). Eigenvalues in the noise are zero. Between two of them Phi is taken as zero, so that for s < 1,
where the true derivative is infinite there, the derivative along directions that keep the rank is the right one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo.spectral.eigensystem import Noise, derivatives_are_wanted, eigensystem
from matinfo.spectral.first_order import followed
from matinfo.spectral.functions import Power


def fractional_power(K: Tensor, s: float, noise: Noise, *, side: str) -> Tensor:
    """``K^s`` of positive semi-definite ``(..., n, n)`` in float64; s = 0 is the projector on the range."""
    eigenvalues, Q = eigensystem(K, noise, vectors=True, side=side)
    x, Q = eigenvalues.double().clamp_min(0.0), Q.double()
    x = torch.where(x > noise.cut(x), x, 0.0 * x)
    power = torch.where(x > 0, torch.where(x > 0, x, 1.0) ** s, 0.0 * x)
    value = (Q * power[..., None, :]) @ Q.mT
    if s == 0 or not derivatives_are_wanted(K):
        return value
    return followed(K, value, _derivative, _derivative, x, Q, s)


def _derivative(E: Tensor, x: Tensor, Q: Tensor, s: float) -> Tensor:
    """The derivative of ``K^s`` in direction E; linear and self-adjoint in E."""
    # Power(s + 1) has derivative (s + 1) x^s, and its divided difference is that of this derivative.
    phi = Power(s + 1).divided_difference(x[..., :, None], x[..., None, :]) / (s + 1)
    E = (E + E.mT).to(Q.dtype) / 2
    return Q @ (phi * (Q.mT @ E @ Q)) @ Q.mT
