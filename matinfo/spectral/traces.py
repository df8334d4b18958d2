"""Trace, single eigenvalues, the largest one, and the numerical rank."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._validation import values_are_readable
from matinfo.spectral.eigensystem import Noise, derivatives_are_wanted, eigensystem
from matinfo.spectral.first_order import followed
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
    if wanted:
        eigenvalues = followed(
            K,
            eigenvalues,
            lambda dK, Q: ((Q.mT @ dK) * Q.mT).sum(-1),
            lambda gradient, Q: (Q * gradient[..., None, :]) @ Q.mT,
            Q,
        )
    return eigenvalues.double().flip(-1)


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
            return _largest(K, value, torch.outer(pair.vector, pair.vector)) if wanted else value
    eigenvalues, Q = eigensystem(K, noise, vectors=wanted, side=side)
    top = eigenvalues[..., -1].double()
    return _largest(K, top, _projector(eigenvalues, Q)) if wanted else top


def _projector(eigenvalues: Tensor, Q: Tensor) -> Tensor:
    """The projector on the eigenspace of the largest eigenvalue, divided by its dimension."""
    width = 1e-10 if Q.dtype == torch.float64 else 1e-6
    near = eigenvalues >= (1 - width) * eigenvalues[..., -1:]
    share = near.to(Q.dtype) / near.sum(-1, keepdim=True) + 0.0 * eigenvalues
    return (Q * share[..., None, :]) @ Q.mT


def _largest(K: Tensor, top: Tensor, projector: Tensor) -> Tensor:
    return followed(
        K,
        top,
        lambda dK, projector: (projector * dK).sum((-2, -1)).double(),
        lambda gradient, projector: gradient[..., None, None].to(projector.dtype) * projector,
        projector,
    )


def numerical_rank(K: Tensor, noise: Noise, *, side: str = "matrix") -> Tensor:
    """Number of eigenvalues above the noise, float64, without a derivative; NaN for non-finite input."""
    return noise.rank(eigensystem(K, noise, vectors=False, side=side)[0].double())
