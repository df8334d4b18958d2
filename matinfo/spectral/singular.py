"""Singular values of features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._record import record
from matinfo._validation import check_trace
from matinfo.spectral.autograd import SpectralOperation
from matinfo.spectral.eigensystem import Noise
from matinfo.spectral.traces import spectrum, trace


def singular_values(Z: Tensor) -> Tensor:
    """Singular values of ``(..., n, d)`` in descending order, float64; those in the round-off are 0.

    float32 (and half) features go through the float64 Gram matrix of the smaller side, which resolves them to the
    roundoff of float32; float64 features need a decomposition of Z itself. First derivative only.
    """
    if Z.dtype == torch.float64:
        check_trace(Z.detach().square().sum((-2, -1)), "features")
        record("svd", Z, side="features")
        sigma: Tensor = _SingularValues.apply(Z)[0]
        cut = 16 * torch.finfo(torch.float64).eps * sigma.detach()[..., :1]
        return torch.where(sigma > cut, sigma, 0.0 * sigma)
    wide = Z.shape[-1] > Z.shape[-2]
    Z = Z.double()
    K = Z @ Z.mT if wide else Z.mT @ Z
    check_trace(trace(K.detach()), "features")
    noise = Noise.of(K.shape[-1], torch.float64, torch.float64)
    squared = spectrum(K, noise, side="samples" if wide else "features")
    above = squared > noise.cut(squared.detach().flip(-1))
    return torch.where(above, torch.where(above, squared, 1.0).sqrt(), 0.0 * squared)


class _SingularValues(SpectralOperation):
    """Z -> (sigma, U, V^T) with d sigma_i = u_i^T dZ v_i; non-finite batch elements give NaN."""

    @staticmethod
    def forward(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        finite = Z.isfinite().all(-1).all(-1)
        U, sigma, Vh = torch.linalg.svd(torch.where(finite[..., None, None], Z, 0.0), full_matrices=False)
        return torch.where(finite[..., None], sigma, torch.nan), U, Vh

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.mark_non_differentiable(output[1], output[2])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> Tensor:
        U, Vh = ctx.saved_tensors
        return (U * grad[..., None, :]) @ Vh
