"""Values that come with a first derivative and no second one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from matinfo.spectral.autograd import SpectralOperation, kept, refusal

_FIRST_ORDER_ONLY = (
    "This quantity (an estimate; or single eigenvalues, singular values or powers of matrices: alpha=inf, rankme, "
    "spectrum_js, sandwiched_mutual_information) has a first derivative only; beyond it there is none where "
    "eigenvalues repeat, or we do not give it. Use a finite alpha, e.g. renyi_entropy(Gram(features)), or "
    "mutual_information."
)


class FirstOrder(SpectralOperation):
    """K -> 1, refusing to be differentiated: marks a derivative that has none of its own."""

    @staticmethod
    def forward(K: Tensor) -> Tensor:
        return K.new_ones(())

    backward = jvp = refusal(_FIRST_ORDER_ONLY)


def followed(
    K: Tensor,
    value: Tensor,
    change: Callable[..., Tensor],
    adjoint: Callable[..., Tensor],
    *constants: Tensor | float,
) -> Tensor:
    """A value that was computed of K off the graph, on the graph of K.

    With dK it changes by ``change(dK, *constants)``; the gradient of K is ``adjoint(gradient, *constants)``.

    Returns:
        The value.
    """
    if torch.compiler.is_compiling():  # see matinfo.spectral.compiled
        return value.detach() + change(K - K.detach(), *constants)
    result: Tensor = _Followed.apply(K, value, change, adjoint, *constants)
    return result


class _Followed(SpectralOperation):
    @staticmethod
    def forward(K: Tensor, value: Tensor, change: Any, adjoint: Any, *constants: Any) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        K, _, _, adjoint, *constants = kept(ctx)
        gradient = adjoint(grad, *constants).to(K.dtype) * FirstOrder.apply(K)
        return gradient, None, None, None, *[None for _ in constants]

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, *_: Any) -> Tensor:
        K, _, change, _, *constants = kept(ctx)
        return change(dK, *constants) * FirstOrder.apply(K)
