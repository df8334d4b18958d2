"""The largest eigenvalue by block Lanczos, or None where it is not clear-cut.

A block of four vectors sees an eigenvalue of multiplicity up to four. The result is used only if the top Ritz value
has converged and stands clear of the second one; otherwise the caller decomposes the matrix, so that the gradient at
a multiple eigenvalue is always the projector on the whole eigenspace.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from matinfo._record import record
from matinfo.spectral.block_lanczos import BlockLanczos
from matinfo.spectral.eigensolver import eigh_psd

SMALLEST_ORDER = 512
"""Below this a decomposition is as fast: at 256 the search takes up to three times as long where the spectrum is flat,
at 512 from a fifth (decaying spectra) to 1.2 times (flat ones)."""

_BLOCK = 4
_STEPS = 20
"""Together 80 products of K with a vector: what has not converged by then is left to a decomposition."""

_CLEARANCE = 1e-3
"""Ritz values relatively nearer than this may be one eigenvalue, whose projector takes all of its space."""


class TopPair(NamedTuple):
    """The largest eigenvalue and its unit eigenvector."""

    value: Tensor
    vector: Tensor


def top_pair(K: Tensor, *, side: str = "matrix") -> TopPair | None:
    """Largest eigenpair of one positive semi-definite matrix ``(n, n)``, without derivatives.

    Stops when ``|K u - theta u| <= tol theta`` with tol = 1e-6 in float32 and 1e-10 in float64; the relative error of
    theta is then at most tol, and in fact ``tol^2`` over the relative gap.
    """
    K = K.detach()
    if not math.isfinite(K.sum().item()):
        return None
    tolerance = 1e-10 if K.dtype == torch.float64 else 1e-6
    generator = torch.Generator(device=K.device).manual_seed(0)
    start = torch.randn(K.shape[-1], _BLOCK, dtype=K.dtype, device=K.device, generator=generator)
    lanczos = BlockLanczos(lambda V: K @ V, start)
    while lanczos.degree < _STEPS and not lanczos.is_exhausted:
        lanczos.step()
        if lanczos.degree < 3 and not lanczos.is_exhausted:
            continue
        ritz, Y = eigh_psd(lanczos.tridiagonal())
        if not bool(lanczos.residuals(Y[:, -1:]) <= tolerance * ritz[-1]):
            continue
        if len(ritz) > 1 and bool(ritz[-2] > (1 - _CLEARANCE) * ritz[-1]):
            return None
        record("lanczos", K, side=side, note=f"{lanczos.degree} steps of {_BLOCK}")
        return TopPair(ritz[-1], lanczos.basis[:, : len(ritz)] @ Y[:, -1])
    return None
