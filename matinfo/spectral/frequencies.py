"""Random frequencies whose cosines average to a kernel: draws from the kernel's Fourier transform (Bochner)."""

from __future__ import annotations

import torch
from torch import Tensor


def normal_frequencies(d: int, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """``(d, count)`` standard normal numbers: ``E cos(w . x) = exp(-|x|^2/2)``."""
    return torch.randn(d, count, dtype=torch.float64, generator=generator, device=device)


def orthogonal_frequencies(
    d: int, count: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """The same, each column by itself, but orthogonal within blocks of d columns."""
    blocks = []
    for first in range(0, count, d):
        width = min(d, count - first)
        Q, R = torch.linalg.qr(normal_frequencies(d, d, generator, device))
        signs = torch.where(R.diagonal() < 0, -1.0, 1.0).double()  # uniform over the orthogonal group
        lengths = torch.linalg.vector_norm(normal_frequencies(d, width, generator, device), dim=0)
        blocks.append((Q * signs)[:, :width] * lengths)
    return torch.cat(blocks, 1)


def cauchy_frequencies(d: int, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """``(d, count)`` standard Cauchy numbers: ``E cos(w . x) = exp(-|x|_1)``."""
    uniform = torch.rand(d, count, dtype=torch.float64, generator=generator, device=device)
    return torch.tan(torch.pi * (uniform - 0.5))
