"""A number for each matrix, with derivatives that are known in closed form.

The value of an entropy, a trace or a log-determinant comes from a solver that has no derivatives, or that would take
many times as long with them. Where the derivative ``G = dF/dK`` is known, two ways to it are enough:

- the cheap one, ``gradient G``, for the backward that nobody differentiates: nearly all of them;
- a differentiable one, a function of K itself, where a second derivative may follow, and in forward mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from matinfo.spectral import compiled
from matinfo.spectral.autograd import SpectralOperation, keep, kept
from matinfo.spectral.eigensystem import derivatives_may_follow


def scalar(
    K: Tensor,
    value: Tensor | float,
    cheap: Callable[..., Tensor],
    differentiable: Callable[..., Tensor],
    *constants: Any,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """A value that was computed of K off the graph, on the graph of K.

    Args:
        K: ``(..., n, n)``.
        value: F(K), ``(...)``, float64; it may be a number if K is one matrix whose values may be read.
        cheap: ``(gradient (...), K, *constants)`` to ``gradient dF/dK`` in the dtype of K, which need not be
            differentiable.
        differentiable: ``(K, *constants)`` to ``dF/dK``, itself differentiable with respect to K.
        constants: Tensors and others that either of them needs.
        dtype: Of the result (while compiling: float64).
    """
    if torch.compiler.is_compiling():
        assert isinstance(value, Tensor)  # no values are read there
        return compiled.linearized(value, (K, cheap(torch.ones_like(value), K.detach(), *constants)))
    result: Tensor = _Scalar.apply(K, value, dtype, cheap, differentiable, *constants)
    return result


def rounded(value: Tensor | float, dtype: torch.dtype) -> Tensor:
    """A tensor of its own in that dtype."""
    if isinstance(value, Tensor):
        return value.to(dtype, copy=True)
    return torch.scalar_tensor(value, dtype=dtype)


class _Scalar(SpectralOperation):
    @staticmethod
    def forward(K: Tensor, value: Tensor | float, dtype: torch.dtype, *_: Any) -> Tensor:
        return rounded(value, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        keep(ctx, inputs[0], *inputs[2:])  # the value only if the derivatives ask for it, among the constants

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        K, _, cheap, differentiable, *constants = kept(ctx)
        if derivatives_may_follow():
            result = grad[..., None, None].to(K.dtype) * differentiable(K, *constants)
        else:
            result = cheap(grad, K, *constants)
        return result, None, None, None, None, *[None for _ in constants]

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, *_: Any) -> Tensor:
        K, dtype, _, differentiable, *constants = kept(ctx)
        return (differentiable(K, *constants) * dK).sum((-2, -1), dtype=torch.float64).to(dtype)
