"""``R^T R`` of row-wise Khatri-Rao products without the n x D matrix R.

Row i of R is ``kron(z1_i, z2_i, ...)``. Blocks of rows are formed, used and dropped, forward and backward, so that
memory is D^2 plus a few MiB. With ``T = 2 R G`` of a block, reshaped to the factors' widths, the gradient in one factor
is T contracted with the others.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from matinfo.spectral.autograd import SpectralOperation
from matinfo.spectral.eigensystem import derivatives_are_wanted, derivatives_may_follow

_BLOCK_ENTRIES = 2**22
"""Entries of R that are in memory at a time."""


def khatri_rao(factors: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """R itself, ``(..., n, d_1 d_2 ...)``."""
    return reduce(lambda A, B: (A[..., :, None] * B[..., None, :]).flatten(-2), factors)


def moment(R: Tensor, working: torch.dtype) -> Tensor:
    """``R^T R`` in a working precision; the backward is one product, in the same (near collapse float32 fails)."""
    if not derivatives_are_wanted(R) or torch.compiler.is_compiling():
        R = R.to(working)
        return R.mT @ R
    result: Tensor = _Moment.apply(R, working)
    return result


def khatri_rao_moment(factors: tuple[Tensor, ...], working: torch.dtype) -> Tensor:
    """``R^T R`` of factors ``(..., n, d_i)``: ``(..., D, D)`` in a working precision."""
    if len(factors) == 1:
        return moment(factors[0], working)
    factors = tuple([Z.to(working) for Z in factors])
    rows, width = factors[0].shape[-2], math.prod([Z.shape[-1] for Z in factors])
    batch = math.prod(torch.broadcast_shapes(*[Z.shape[:-2] for Z in factors]))
    if batch * rows * width <= 2 * _BLOCK_ENTRIES or torch.compiler.is_compiling():
        return moment(khatri_rao(factors), working)
    result: Tensor = _KhatriRaoMoment.apply(*factors)
    return result


def _blocks(factors: tuple[Tensor, ...]) -> list[slice]:
    width = math.prod([Z.shape[-1] for Z in factors])
    batch = math.prod(torch.broadcast_shapes(*[Z.shape[:-2] for Z in factors]))
    size = max(1, _BLOCK_ENTRIES // (width * batch))
    return [slice(start, start + size) for start in range(0, factors[0].shape[-2], size)]


class _Moment(SpectralOperation):
    """R -> R^T R."""

    @staticmethod
    def forward(R: Tensor, working: torch.dtype) -> Tensor:
        R = R.to(working)
        return R.mT @ R

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        R, ctx.working = inputs
        ctx.given = R.dtype
        ctx.save_for_backward(R)
        ctx.save_for_forward(R)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (R,) = ctx.saved_tensors
        G, R = grad + grad.mT, R.to(ctx.working)
        # Two transposed factors are several times slower than one; G is symmetric.
        result = (G @ R.mT).mT if R.stride(-1) != 1 else R @ G
        return result.to(ctx.given), None

    @staticmethod
    def jvp(ctx: Any, dR: Tensor, _: Any) -> Tensor:
        (R,) = ctx.saved_tensors
        half = R.to(ctx.working).mT @ dR.to(ctx.working)
        return half + half.mT


class _KhatriRaoMoment(SpectralOperation):
    """Factors -> R^T R."""

    @staticmethod
    def forward(*factors: Tensor) -> Tensor:
        total: Tensor | None = None
        for rows in _blocks(factors):
            R = khatri_rao([Z[..., rows, :] for Z in factors])
            total = R.mT @ R if total is None else total.add_(R.mT @ R)
        assert total is not None
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        factors = ctx.saved_tensors
        G = grad + grad.mT
        if derivatives_may_follow():
            T = khatri_rao(factors) @ G
            return tuple(_reduce_to(g, Z) for g, Z in zip(_contract(T, factors), factors, strict=True))
        parts = []
        for rows in _blocks(factors):
            block = tuple(Z[..., rows, :] for Z in factors)
            parts.append(_contract(khatri_rao(block) @ G, block))
        gradients = [torch.cat(list(column), -2) for column in zip(*parts, strict=True)]
        return tuple(_reduce_to(g, Z) for g, Z in zip(gradients, factors, strict=True))

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        factors = ctx.saved_tensors
        R = khatri_rao(factors)
        terms = [
            khatri_rao([*factors[:i], tangent, *factors[i + 1 :]])
            for i, tangent in enumerate(tangents)
            if tangent is not None
        ]
        dR = sum(terms[1:], terms[0])
        return R.mT @ dR + dR.mT @ R


def _contract(T: Tensor, factors: tuple[Tensor, ...]) -> list[Tensor]:
    """For each factor: T ``(..., n, D)``, seen as ``(..., n, d_1, d_2, ...)``, summed against all other factors."""
    T = T.reshape(*T.shape[:-1], *[Z.shape[-1] for Z in factors])
    letters = "abcdefghijklm"[: len(factors)]
    gradients = []
    for i, own in enumerate(letters):
        others = [k for k in range(len(factors)) if k != i]
        inputs = ",".join([f"...n{letters}", *(f"...n{letters[k]}" for k in others)])
        gradients.append(torch.einsum(f"{inputs}->...n{own}", T, *(factors[k] for k in others)))
    return gradients


def _reduce_to(gradient: Tensor, Z: Tensor) -> Tensor:
    """Sum over the batch dimensions along which Z was broadcast."""
    extra = gradient.ndim - Z.ndim
    if extra > 0:
        gradient = gradient.sum(tuple(range(extra)))
    repeated = [axis for axis in range(Z.ndim) if Z.shape[axis] == 1 != gradient.shape[axis]]
    return gradient.sum(repeated, keepdim=True) if repeated else gradient
