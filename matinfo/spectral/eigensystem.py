"""The eigensystem of a positive semi-definite matrix as a constant of differentiation, and what its errors are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from matinfo._checking import checks_are_on
from matinfo._validation import check_positive_semidefinite, is_transformed, values_are_readable
from matinfo.spectral import compiled
from matinfo.spectral.eigensolver import eigh_psd

HALF = 1e-4
"""Between the rounding of float32 and that of half precision."""


def column(x: Tensor | float) -> Tensor | float:
    """A number for each matrix, ``(...)``, as ``(..., 1)`` beside its eigenvalues; a number stays one."""
    return x[..., None] if isinstance(x, Tensor) else x


class Noise(NamedTuple):
    """What is known about the errors in a matrix: eigenvalues up to :meth:`cut` cannot be told from zero.

    ``solver`` multiplies the largest eigenvalue, ``entries`` the mean diagonal entry, a number ``(...)`` for each
    matrix of a batch where these differ; ``indefinite`` is the relative size from which a negative eigenvalue is an
    error of the user's.
    """

    solver: float
    entries: float | Tensor
    indefinite: float

    @classmethod
    def of(
        cls,
        n: int,
        working: torch.dtype,
        given: torch.dtype | float,
        peak: float | Tensor = 1.0,
        spread: float | None = None,
    ) -> Noise:
        """For a matrix of order n solved in ``working``, with entries rounded to ``given`` (or by that much).

        ``peak`` is the largest diagonal entry over their mean. Entries rounded by u move eigenvalues by about u times
        the norm of the longest row, and no row of K is longer than ``sqrt(max_i K_ii tr K)``.

        Entries rounded by u/2 move no eigenvalue by more than ``spread u/2`` of the largest; None stands for sqrt(n).
        """
        solver = (16 if working == torch.float64 else 4) * torch.finfo(working).eps
        eps = given if isinstance(given, float) else torch.finfo(given).eps
        # Twice that in half precision. Where u is small more is allowed, for what the sums behind them have lost.
        spread = math.sqrt(n) if spread is None else spread
        indefinite = max(1e-6, (spread if eps > HALF else n) * eps)
        return cls(solver, (n * peak) ** 0.5 * eps, indefinite)

    def cut(self, x: Tensor) -> Tensor:
        """For non-negative ascending eigenvalues ``(..., n)`` in any scale: ``(..., 1)``."""
        return self.solver * x[..., -1:] + self.of_entries(x.mean(-1, keepdim=True))

    def rank(self, x: Tensor) -> Tensor:
        """Number of float64 eigenvalues ``(..., n)``, in any order, that can be told from zero; NaN if they are NaN."""
        top, mean = x.amax(-1, keepdim=True), x.clamp_min(0.0).mean(-1, keepdim=True)
        cut = torch.maximum(self.solver * top + self.of_entries(mean), x.shape[-1] * math.ulp(1.0) * top)
        return torch.where(top[..., 0].isnan(), torch.nan, (x > cut).double().sum(-1))

    def of_entries(self, mean: Tensor | float) -> Tensor | float:
        """The share of the entries, given the mean of the eigenvalues ``(..., 1)``."""
        return mean * column(self.entries)


def derivatives_are_wanted(K: Tensor) -> bool:
    """Whether some transform may ask for a derivative of the result (if unsure: yes)."""
    if torch.is_grad_enabled() and K.requires_grad:
        return True
    if torch.compiler.is_compiling():
        return False
    return is_transformed(K) or torch.autograd.forward_ad._current_level >= 0


def derivatives_may_follow() -> bool:
    """Inside a backward: whether its result may be differentiated again, so that it needs a graph of its own."""
    return torch.is_grad_enabled() or torch.autograd.forward_ad._current_level >= 0


def eigensystem(K: Tensor, noise: Noise, *, vectors: bool, side: str) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and eigenvectors (empty unless wanted) of ``(..., n, n)``, without derivatives.

    Raises:
        ValueError: If an eigenvalue is negative beyond ``noise.indefinite``.
    """
    if torch.compiler.is_compiling():
        return compiled.eigh_psd(K, vectors=vectors)
    if is_transformed(K):
        # The share of the entries may be a tensor of the same transform, and the check does not look at it.
        eigenvalues, Q = _Eigensystem.apply(K, noise._replace(entries=0.0), vectors, side)
        return eigenvalues, Q
    eigenvalues, Q = eigh_psd(K, vectors=vectors, side=side)
    if not values_are_readable(K):
        negative = eigenvalues[..., :1] < -noise.indefinite * eigenvalues[..., -1:].abs()
        eigenvalues = torch.where(negative, torch.nan, eigenvalues)
    elif checks_are_on():
        check_positive_semidefinite(eigenvalues, noise.indefinite)
    return eigenvalues, Q


class _Eigensystem(torch.autograd.Function):
    """For ``torch.func``: gets the plain tensors out of the transforms."""

    @staticmethod
    def forward(K: Tensor, noise: Noise, vectors: bool, side: str) -> tuple[Tensor, Tensor]:
        return eigensystem(K, noise, vectors=vectors, side=side)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple:
        return None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, K: Tensor, noise: Noise, vectors: bool, side: str) -> tuple:
        return _Eigensystem.apply(K.movedim(in_dims[0], 0), noise, vectors, side), (0, 0)
