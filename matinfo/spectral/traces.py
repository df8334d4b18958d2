"""Trace, single eigenvalues, the largest one, and the numerical rank."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._validation import values_are_readable
from matinfo.spectral import compiled
from matinfo.spectral.autograd import SpectralOperation
from matinfo.spectral.eigensystem import Noise, derivatives_are_wanted, eigensystem
from matinfo.spectral.lanczos import top_pair


def trace(K: Tensor) -> Tensor:
    """``tr K``, float64."""
    return K.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=torch.float64)


def spectrum(K: Tensor, noise: Noise, *, side: str = "matrix") -> Tensor:
    """Eigenvalues in descending order, non-negative, float64, with their first derivative.

    At repeated eigenvalues only symmetric functions of the result have a derivative, and theirs is right. Those that
    came out negative, by round-off, are set to zero and keep their derivative.
    """
    wanted = derivatives_are_wanted(K)
    eigenvalues, Q = eigensystem(K, noise, vectors=wanted, side=side)
    eigenvalues = eigenvalues.clamp_min(0.0)
    if wanted and torch.compiler.is_compiling():
        eigenvalues = eigenvalues + ((Q.mT @ (K - K.detach())) * Q.mT).sum(-1)
    elif wanted:
        eigenvalues = _Eigenvalues.apply(K, eigenvalues, Q)
    return eigenvalues.double().flip(-1)


class _Eigenvalues(SpectralOperation):
    """K with its eigensystem -> its eigenvalues; first order only."""

    @staticmethod
    def forward(K: Tensor, eigenvalues: Tensor, Q: Tensor) -> Tensor:
        return eigenvalues.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        K, _, Q = inputs
        ctx.save_for_backward(K, Q)
        ctx.save_for_forward(K, Q)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        K, Q = ctx.saved_tensors
        return (Q * grad[..., None, :]) @ Q.mT * FirstOrder.apply(K), None, None

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, *_: Any) -> Tensor:
        K, Q = ctx.saved_tensors
        return ((Q.mT @ dK) * Q.mT).sum(-1) * FirstOrder.apply(K)


class FirstOrder(SpectralOperation):
    """K -> 1, refusing to be differentiated: marks a derivative that has none of its own."""

    @staticmethod
    def forward(K: Tensor) -> Tensor:
        return K.new_ones(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise NotImplementedError(_FIRST_ORDER_ONLY)

    @staticmethod
    def jvp(ctx: Any, dK: Tensor) -> Tensor:
        raise NotImplementedError(_FIRST_ORDER_ONLY)


_FIRST_ORDER_ONLY = (
    "This quantity (single eigenvalues, singular values or powers of matrices: alpha=inf, rankme, spectrum_js, "
    "sandwiched_mutual_information) has a first derivative only; beyond it there is none where eigenvalues repeat, or "
    "we do not give it. Use a finite alpha, e.g. effective_rank(Gram(features)), or mutual_information."
)


def largest_eigenvalue(K: Tensor, noise: Noise, *, lanczos: bool = False, side: str = "matrix") -> Tensor:
    """``lambda_max``, float64; the gradient is the projector on its eigenspace over the multiplicity.

    That is the subgradient of least norm: it does not depend on the basis the solver happened to choose. First
    order only.
    """
    wanted = derivatives_are_wanted(K)
    if lanczos and K.ndim == 2 and values_are_readable(K):
        pair = top_pair(K, side=side)
        if pair is not None:
            value = pair.value.double()
            return _Largest.apply(K, value, torch.outer(pair.vector, pair.vector)) if wanted else value
    eigenvalues, Q = eigensystem(K, noise, vectors=wanted, side=side)
    if not wanted:
        return eigenvalues[..., -1].double()
    top, projector = _top(eigenvalues, Q)
    if torch.compiler.is_compiling():
        return compiled.linearized(top, (K, projector))
    result: Tensor = _Largest.apply(K, top, projector)
    return result


def _top(eigenvalues: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue and the projector on its eigenspace divided by its dimension."""
    width = 1e-10 if Q.dtype == torch.float64 else 1e-6
    near = eigenvalues >= (1 - width) * eigenvalues[..., -1:]
    share = near.to(Q.dtype) / near.sum(-1, keepdim=True) + 0.0 * eigenvalues
    return eigenvalues[..., -1].double(), (Q * share[..., None, :]) @ Q.mT


class _Largest(SpectralOperation):
    """K with its top eigenvalue and projector -> the eigenvalue; first order only."""

    @staticmethod
    def forward(K: Tensor, top: Tensor, projector: Tensor) -> Tensor:
        return top.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        K, _, projector = inputs
        ctx.save_for_backward(K, projector)
        ctx.save_for_forward(K, projector)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        K, projector = ctx.saved_tensors
        return grad[..., None, None].to(K.dtype) * projector * FirstOrder.apply(K), None, None

    @staticmethod
    def jvp(ctx: Any, dK: Tensor, *_: Any) -> Tensor:
        K, projector = ctx.saved_tensors
        return (projector * dK).sum((-2, -1)).double() * FirstOrder.apply(K)


def numerical_rank(K: Tensor, noise: Noise, *, side: str = "matrix") -> Tensor:
    """Number of eigenvalues above the noise, float64, without a derivative; NaN for non-finite input."""
    return noise.rank(eigensystem(K, noise, vectors=False, side=side)[0].double())
