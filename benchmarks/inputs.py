"""The tensors of the cases, reproducible from a seed."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.lru_cache(maxsize=2)  # neighbouring cases share it; the largest are not kept for long
def kernel_matrix(n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """RBF Gram matrix of Gaussian points in 16 dimensions: unit diagonal, full rank, no repeated eigenvalues."""
    X = torch.randn(n, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(n)).to(device)
    squared = X.square().sum(1)
    distance = squared[:, None] + squared[None, :] - 2 * (X @ X.mT)
    K = torch.exp(-distance.clamp_min(0.0) / 32.0)
    K = (K + K.mT) / 2
    K.fill_diagonal_(1.0)
    return K.to(dtype)


def features(
    n: int, d: int, *, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Tensor:
    """Rows of length one whose directions have variances that fall like 1/k, as learned features do."""
    Z = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    Z = Z * torch.arange(1, d + 1, dtype=torch.float64).rsqrt()
    return torch.nn.functional.normalize(Z, dim=1).to(device=device, dtype=dtype)


def labels(n: int, classes: int) -> Tensor:
    """Balanced class labels."""
    return torch.arange(n) % classes
