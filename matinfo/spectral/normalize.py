"""Rows divided by their length, and powers of two taken out of a matrix.

With ``u = z/|z|`` the gradient is ``(g - u (u . g))/|z|``; it has a backward of its own because normalisation is most
of the cost of a small loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._validation import values_are_readable
from matinfo.spectral.autograd import SpectralOperation
from matinfo.spectral.eigensystem import derivatives_are_wanted, derivatives_may_follow
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
    if derivatives_are_wanted(Z) and (Z.is_cpu or Z.is_cuda):
        # In float64 where nothing has to wait for it, so that no derivative overflows on the way to Z.
        wide = torch.float64 if values_are_readable(Z) and Z.is_cpu else Z.dtype
        U = _scaled(Z, torch.exp2(-_half_exponent(largest)), wide)
    else:  # without float64, which not every device has
        U = Z / torch.where(largest > 0, largest, 1.0)
    squared = U.square().sum(-1, keepdim=True)
    return (U * torch.where(squared > 0, squared, 1.0).rsqrt()).to(Z.dtype)


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


def widened(Z: Tensor) -> Tensor:
    """Z in float64, with a gradient that float32 can hold where Z has subnormal numbers and float64 holds more."""
    if Z.dtype != torch.float32 or torch.compiler.is_compiling():
        return Z.double()
    result: Tensor = _Widened.apply(Z)
    return result


class _Widened(SpectralOperation):
    """float32 -> float64."""

    @staticmethod
    def forward(Z: Tensor) -> Tensor:
        return Z.double()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _held(grad, torch.float32, grad)

    @staticmethod
    def jvp(ctx: Any, dZ: Tensor) -> Tensor:
        return dZ.double()


def _held(x: Tensor, dtype: torch.dtype, source: Tensor) -> Tensor:
    """X in a dtype that cannot hold all of it; what was not finite in its source stays so.

    The derivative of a scale-free quantity grows as the scale falls. Where it is too large, a thousandth of the largest
    number comes instead, so that a thousand of them may be added.
    """
    largest = 2.0**-10 * torch.finfo(dtype).max
    return torch.where(source.isfinite(), x.clamp(-largest, largest), x).to(dtype)


def without_scale(K: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``2^-e K`` with entries of size 1 or so, and e: ``(...)`` float64, even integers, constants of differentiation.

    Zero and non-finite matrices keep their scale.
    """
    half = half_exponent(K)
    return times_power_of_four(K, -half, dtype), 2 * half


def times_power_of_two(x: Tensor, exponent: Tensor) -> Tensor:
    """``2^exponent x`` of numbers, which may exist where the power does not."""
    half = torch.exp2(exponent / 2)
    return x * half * half


def half_exponent(K: Tensor) -> Tensor:
    """Half the binary exponent of the largest entry, ``(...)``, a float64 integer."""
    return _half_exponent(K.detach().abs().amax((-2, -1)))


def _half_exponent(largest: Tensor) -> Tensor:
    largest = largest.double()
    return torch.where((largest > 0) & largest.isfinite(), largest, 1.0).log2().div(2).round()


def times_power_of_four(K: Tensor, half: Tensor, dtype: torch.dtype) -> Tensor:
    """``4^half K`` in a dtype, half of shape ``(...)``."""
    return _scaled(K, torch.exp2(half)[..., None, None], dtype)


def _scaled(K: Tensor, s: Tensor, dtype: torch.dtype) -> Tensor:
    result: Tensor = (
        _Scaled.forward(K, s, dtype) if torch.compiler.is_compiling() else _Scaled.apply(K, s, dtype)
    )
    return result


class _Scaled(SpectralOperation):
    """K, s -> K s^2 in a dtype: in two steps, because the inverse of a subnormal number does not exist."""

    @staticmethod
    def forward(K: Tensor, s: Tensor, dtype: torch.dtype) -> Tensor:
        return _held(K.double() * s * s, dtype, K)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        K, s, ctx.dtype = inputs
        ctx.given = K.dtype
        ctx.save_for_backward(s)
        ctx.save_for_forward(s)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (s,) = ctx.saved_tensors
        return _Scaled.apply(grad, s, ctx.given), None, None

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, *_: Any) -> Tensor:
        (s,) = ctx.saved_tensors
        return _Scaled.apply(dK, s, ctx.dtype)
