"""The largest eigenvalue by block Lanczos with full reorthogonalisation, or None where it is not clear-cut.

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
from matinfo.spectral.eigensolver import eigh_psd

SMALLEST_ORDER = 512
"""Below this a decomposition is as fast: at 256 the search takes up to three times as long where the spectrum is flat,
at 512 from a fifth (decaying spectra) to 1.2 times (flat ones)."""

_BLOCK = 4
_STEPS = 20
_CLEARANCE = 1e-3


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
    block = torch.randn(K.shape[-1], _BLOCK, dtype=K.dtype, device=K.device, generator=generator)
    basis = block[:, :0]
    image = block[:, :0]
    for step in range(_STEPS):
        for _ in range(2):  # twice is enough
            block = block - basis @ (basis.mT @ block)
        block, triangle = torch.linalg.qr(block)
        basis = torch.cat([basis, block], 1)
        image = torch.cat([image, K @ block], 1)
        block = image[:, -_BLOCK:]
        exhausted = bool(triangle.diagonal().abs().min() < 1e-6 * triangle.abs().max()) if step else False
        if step < 2 and not exhausted:
            continue
        ritz, Y = eigh_psd(_symmetric(basis.mT @ image))
        theta, y = ritz[-1], Y[:, -1]
        residual = (image @ y - theta * (basis @ y)).norm()
        if bool(residual <= tolerance * theta):
            if bool(ritz[-2] > (1 - _CLEARANCE) * theta):
                return None
            record("lanczos", K, side=side, note=f"{step + 1} steps of {_BLOCK}")
            return TopPair(theta, basis @ y)
        if exhausted:
            return None
    return None


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2
