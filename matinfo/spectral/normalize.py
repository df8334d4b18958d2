"""Rows divided by their length, with a backward of its own: normalisation is most of the cost of a small loss.

With ``u = z/|z|`` the gradient is ``(g - u (u . g))/|z|``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._validation import values_are_readable
from matinfo.spectral.autograd import SpectralOperation
from matinfo.spectral.eigensystem import derivatives_may_follow
from matinfo.spectral.precision import at_least_float32, norms_are_safe


def normalize_rows(Z: Tensor) -> Tensor:
    """Rows divided by their l2 norm; zero rows stay zero with zero gradient. At least float32, never overflowing."""
    Z = Z.to(at_least_float32(Z.dtype))
    if not torch.compiler.is_compiling() and values_are_readable(Z) and not Z.is_cuda and Z.numel():
        length = torch.linalg.vector_norm(Z.detach(), dim=-1, keepdim=True)
        if norms_are_safe(length):
            result: Tensor = _Normalize.apply(Z, length)
            return result
    largest = Z.detach().abs().amax(-1, keepdim=True)
    Z = Z / torch.where(largest > 0, largest, 1.0)
    squared = Z.square().sum(-1, keepdim=True)
    return Z * torch.where(squared > 0, squared, 1.0).rsqrt()


class _Normalize(SpectralOperation):
    """Rows, with their lengths as constants -> rows of length one."""

    @staticmethod
    def forward(Z: Tensor, length: Tensor) -> Tensor:
        return Z / length

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output, inputs[1])
        ctx.save_for_forward(inputs[0], output, inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        Z, u, length = ctx.saved_tensors
        if derivatives_may_follow():
            return _project(grad, u, (Z * u).sum(-1, keepdim=True)), None
        return _project(grad, u, length), None

    @staticmethod
    def jvp(ctx: Any, dZ: Tensor, _: Any) -> Tensor:
        Z, u, _length = ctx.saved_tensors
        return _project(dZ, u, (Z * u).sum(-1, keepdim=True))


def _project(x: Tensor, u: Tensor, length: Tensor) -> Tensor:
    return torch.addcmul(x, u, torch.linalg.vecdot(u, x)[..., None], value=-1) / length
