"""Singular values of features."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._record import record
from matinfo.spectral.first_order import followed


def singular_values(Z: Tensor) -> Tensor:
    """Singular values of float64 ``(..., n, d)`` in descending order, those in the round-off 0; NaN if Z is not finite.

    First derivative only, ``d sigma_i = u_i^T dZ v_i``.
    """
    record("svd", Z, side="features")
    known, U, Vh = singular_system(Z.detach())
    sigma = followed(
        Z,
        known,
        lambda dZ, U, Vh: (U * (dZ @ Vh.mT)).sum(-2),
        lambda gradient, U, Vh: (U * gradient[..., None, :]) @ Vh,
        U,
        Vh,
    )
    cut = 16 * torch.finfo(torch.float64).eps * known[..., :1]
    return torch.where(known > cut, sigma, 0.0 * sigma)


def singular_system(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin singular value decomposition (sigma, U, V^T), without derivatives; sigma is NaN where Z is not finite."""
    finite = Z.isfinite().all(-1).all(-1)
    U, sigma, Vh = torch.linalg.svd(torch.where(finite[..., None, None], Z, 0.0), full_matrices=False)
    return torch.where(finite[..., None], sigma, torch.nan), U, Vh
