"""Spectral quantities that need no eigenvectors, or only the top ones: trace, Frobenius norm, extremes, rank."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from matinfo._record import record
from matinfo.spectral import compiled
from matinfo.spectral.eigensolver import check_positive_semidefinite, eigh_psd
from matinfo.spectral.trace_function import Noise, derivatives_are_wanted


def trace(K: Tensor) -> Tensor:
    """``tr K``, float64."""
    return K.diagonal(dim1=-2, dim2=-1).double().sum(-1)


def frobenius_squared(K: Tensor, *, side: str = "matrix") -> Tensor:
    """``sum K_ij^2``, float64, differentiable to every order."""
    record("frobenius", K, side=side)
    if torch.compiler.is_compiling():
        return K.square().sum(-1).double().sum(-1)
    value: Tensor = _FrobeniusSquared.apply(K)
    return value


class _FrobeniusSquared(torch.autograd.Function):
    """Row norms first: a float32 norm over the whole matrix accumulates sequentially and loses three digits."""

    generate_vmap_rule = True

    @staticmethod
    def forward(K: Tensor) -> Tensor:
        return torch.linalg.vector_norm(K, dim=-1).double().square().sum(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (K,) = ctx.saved_tensors
        return (2 * grad)[..., None, None].to(K.dtype) * K

    @staticmethod
    def jvp(ctx: Any, dK: Tensor) -> Tensor:
        (K,) = ctx.saved_tensors
        return 2 * (K * dK).sum(-1).double().sum(-1)


def spectrum(K: Tensor, noise: Noise, *, side: str = "matrix") -> Tensor:
    """Eigenvalues in descending order, non-negative, float64, with their first derivative.

    At repeated eigenvalues only symmetric functions of the result have a derivative, and theirs is right.
    """
    if torch.compiler.is_compiling():
        eigenvalues, Q = compiled.eigh_psd(K)
        eigenvalues = eigenvalues + ((Q.mT @ (K - K.detach())) * Q.mT).sum(-1)
    elif derivatives_are_wanted(K):
        eigenvalues = _Eigenvalues.apply(K, side)[0]
    else:
        eigenvalues = eigh_psd(K, vectors=False, side=side)[0]
    check_positive_semidefinite(eigenvalues.detach(), noise.indefinite)
    return eigenvalues.double().flip(-1).clamp_min(0.0)


class _Eigenvalues(torch.autograd.Function):
    """K -> (eigenvalues, eigenvectors); first order only."""

    @staticmethod
    def forward(K: Tensor, side: str) -> tuple[Tensor, Tensor]:
        return eigh_psd(K, side=side)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (Q,) = ctx.saved_tensors
        return (Q * grad[..., None, :]) @ Q.mT, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, K: Tensor, side: str) -> tuple:
        return _Eigenvalues.apply(K.movedim(in_dims[0], 0), side), (0, 0)


def largest_eigenvalue(K: Tensor, noise: Noise, *, side: str = "matrix") -> Tensor:
    """``lambda_max``, float64; the gradient is the projector on its eigenspace over the multiplicity.

    That is the subgradient of least norm: it does not depend on the basis the solver happened to choose. First
    order only.
    """
    if torch.compiler.is_compiling():
        top, projector = _top(*compiled.eigh_psd(K))
        return compiled.linearized(top, (K, projector))
    if derivatives_are_wanted(K):
        top, _, eigenvalues = _Largest.apply(K, side)
    else:
        eigenvalues = eigh_psd(K, vectors=False, side=side)[0]
        top = eigenvalues[..., -1].double()
    check_positive_semidefinite(eigenvalues.detach(), noise.indefinite)
    return top


def _top(eigenvalues: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue and the projector on its eigenspace divided by its dimension."""
    width = 1e-10 if Q.dtype == torch.float64 else 1e-6
    near = eigenvalues >= (1 - width) * eigenvalues[..., -1:]
    share = near.to(Q.dtype) / near.sum(-1, keepdim=True) + 0.0 * eigenvalues
    return eigenvalues[..., -1].double(), (Q * share[..., None, :]) @ Q.mT


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(K: Tensor, side: str) -> tuple[Tensor, Tensor, Tensor]:
        eigenvalues, Q = eigh_psd(K, side=side)
        return *_top(eigenvalues, Q), eigenvalues

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.mark_non_differentiable(output[1], output[2])
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        (projector,) = ctx.saved_tensors
        return grad[..., None, None].to(projector.dtype) * projector, None

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, _: Any) -> tuple[Tensor, None, None]:
        (projector,) = ctx.saved_tensors
        return (projector.double() * dK.double()).sum((-2, -1)), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, K: Tensor, side: str) -> tuple:
        return _Largest.apply(K.movedim(in_dims[0], 0), side), (0, 0, 0)


def numerical_rank(K: Tensor, noise: Noise, *, side: str = "matrix") -> Tensor:
    """Number of eigenvalues above the noise, float64, without a derivative; NaN for non-finite input."""
    if torch.compiler.is_compiling():
        eigenvalues = compiled.eigh_psd(K, vectors=False)[0].double()
    else:
        eigenvalues = eigh_psd(K, vectors=False, side=side)[0].double()
    check_positive_semidefinite(eigenvalues, noise.indefinite)
    cut = torch.maximum(
        noise.cut(K.detach(), eigenvalues), K.shape[-1] * math.ulp(1.0) * eigenvalues[..., -1:]
    )
    count = (eigenvalues > cut).double().sum(-1)
    return torch.where(eigenvalues[..., -1].isnan(), torch.nan, count)
