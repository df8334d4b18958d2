"""Singular values of features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._record import record
from matinfo.spectral.autograd import SpectralOperation
from matinfo.spectral.first_order import FirstOrder


def singular_values(Z: Tensor) -> Tensor:
    """Singular values of float64 ``(..., n, d)`` in descending order, those in the round-off 0.

    First derivative only.
    """
    record("svd", Z, side="features")
    sigma: Tensor = _SingularValues.apply(Z)[0]
    cut = 16 * torch.finfo(torch.float64).eps * sigma.detach()[..., :1]
    return torch.where(sigma > cut, sigma, 0.0 * sigma)


def singular_system(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin singular value decomposition (sigma, U, V^T), without derivatives; sigma is NaN where Z is not finite."""
    finite = Z.isfinite().all(-1).all(-1)
    U, sigma, Vh = torch.linalg.svd(torch.where(finite[..., None, None], Z, 0.0), full_matrices=False)
    return torch.where(finite[..., None], sigma, torch.nan), U, Vh


class _SingularValues(SpectralOperation):
    """Z -> (sigma, U, V^T) with d sigma_i = u_i^T dZ v_i; non-finite batch elements give NaN."""

    @staticmethod
    def forward(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return singular_system(Z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.mark_non_differentiable(output[1], output[2])
        ctx.save_for_backward(inputs[0], *output[1:])
        ctx.save_for_forward(inputs[0], *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> Tensor:
        Z, U, Vh = ctx.saved_tensors
        return (U * grad[..., None, :]) @ Vh * FirstOrder.apply(Z)

    @staticmethod
    def jvp(ctx: Any, dZ: Tensor) -> tuple[Tensor, None, None]:
        Z, U, Vh = ctx.saved_tensors
        return (U * (dZ @ Vh.mT)).sum(-2) * FirstOrder.apply(Z), None, None
