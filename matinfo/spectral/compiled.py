"""What ``torch.compile`` sees instead of the nested autograd functions, which Dynamo cannot trace.

The eigensolver, whose checks and retries depend on values, becomes one opaque operator. A differentiable scalar F(K)
with known gradient G becomes ``F + <G, K - K>`` with F, G and the second K held constant: right in value and in first
derivative. There is no second derivative, and ahead-of-time compiled graphs refuse to be differentiated twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo.spectral import eigensolver


@torch.library.custom_op("matinfo::eigh_psd", mutates_args=())
def _eigh_psd(K: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    eigenvalues, Q = eigensolver.eigh_psd(K, vectors=vectors)
    return eigenvalues, Q.contiguous()


@_eigh_psd.register_fake
def _(K: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    return K.new_empty(K.shape[:-1]), K.new_empty(K.shape if vectors else (0,))


def eigh_psd(K: Tensor, *, vectors: bool = True) -> tuple[Tensor, Tensor]:
    """:func:`matinfo.spectral.eigensolver.eigh_psd` as one opaque operator."""
    eigenvalues, Q = torch.ops.matinfo.eigh_psd(K.detach(), vectors)
    return eigenvalues, Q


def linearized(value: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """``value`` with the gradient G in K for each pair (K, G)."""
    value = value.detach()
    for K, gradient in pairs:
        value = value + (gradient.detach() * (K - K.detach())).sum((-2, -1)).double()
    return value
