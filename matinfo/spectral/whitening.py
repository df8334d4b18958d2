"""Whitening by Cholesky factors: of features by their covariance, of one matrix by another."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._record import record
from matinfo._validation import values_are_readable


def whitened_features(Z: Tensor, shrinkage: float) -> Tensor:
    """``(Z - mean) L^{-T}`` with ``L L^T = (1 - shrinkage) Cov + shrinkage I``, for float64 ``(n, d)``, n >= 2.

    Raises:
        ValueError: On the CPU, if the covariance is singular; elsewhere the result is NaN then.
    """
    size = Z.detach().abs().amax()
    # Squares must exist. Without shrinkage the scale of the features does not matter, small or large.
    size = torch.where(size > 0, size, 1.0) if shrinkage == 0 else size.clamp(min=1.0)
    U = Z / size
    U = U - U.mean(0)
    covariance = (1 - shrinkage) * (U.mT @ U / (len(U) - 1))
    covariance = covariance + shrinkage / size / size * torch.eye(U.shape[1], dtype=U.dtype, device=U.device)
    L, info = torch.linalg.cholesky_ex(covariance)
    # A factor of round-off whitens nothing.
    pivots = L.detach().diagonal()
    singular = (info > 0) | (pivots.amin() <= 1e-7 * pivots.amax())
    if values_are_readable(Z) and Z.device.type == "cpu" and bool(U.isfinite().all()) and bool(singular):
        raise ValueError(
            f"Expected features of full rank, got a singular covariance of {len(U)} samples in {U.shape[1]} "
            "dimensions. Pass more samples than dimensions, or shrinkage > 0."
        )
    white = torch.linalg.solve_triangular(L, U.mT, upper=False).mT
    return torch.where(singular, torch.nan, white)


def whitened_matrix(B: Tensor, W: Tensor) -> Tensor:
    """``L^{-1} B L^{-T}`` with ``W = L L^T``: B in coordinates in which W is the identity.

    Its eigenvalues are those of ``W^{-1/2} B W^{-1/2}``, without a root of W. Symmetric ``(..., n, n)``, W positive
    definite (NaN where it is not); differentiable to every order.
    """
    record("cholesky", W, side="features")
    L, info = torch.linalg.cholesky_ex(W)
    L = torch.where((info == 0)[..., None, None], L, torch.nan)
    half = torch.linalg.solve_triangular(L, B, upper=False)
    full = torch.linalg.solve_triangular(L, half.mT, upper=False)
    return (full + full.mT) / 2
