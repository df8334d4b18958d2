"""``L^{-1} B L^{-T}`` with ``W = L L^T``: one matrix in the coordinates in which another is the identity."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._record import record


def whitened(B: Tensor, W: Tensor) -> Tensor:
    """B where W is the identity: its eigenvalues are those of ``W^{-1/2} B W^{-1/2}``, without a root of W.

    Symmetric ``(..., n, n)``, W positive definite (NaN where it is not); differentiable to every order.
    """
    record("cholesky", W, side="features")
    L, info = torch.linalg.cholesky_ex(W)
    L = torch.where((info == 0)[..., None, None], L, torch.nan)
    half = torch.linalg.solve_triangular(L, B, upper=False)
    full = torch.linalg.solve_triangular(L, half.mT, upper=False)
    return (full + full.mT) / 2
