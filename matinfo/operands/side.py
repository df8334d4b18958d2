"""What a quantity works on: the smaller of the two matrices with one spectrum, in the precision that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matinfo._checking import checks_are_on
from matinfo._validation import values_are_readable
from matinfo.spectral.definite import cholesky_failure, krylov_is_semidefinite, probe
from matinfo.spectral.eigensystem import Noise, column, eigensystem
from matinfo.spectral.traces import trace

SMALL = 64
"""Up to this order a comparison of all entries and a Cholesky factorisation cost no more than a few products."""


def is_readable(x: Tensor) -> bool:
    """Whether a Python branch may depend on the values of ``x`` without waiting for a device."""
    return x.is_cpu and values_are_readable(x)


def constant_trace(K: Tensor) -> Tensor | float:
    """``tr K`` of K without a graph, float64; of one matrix whose values may be read, a number."""
    # Each operation on a tensor that holds one number takes some microseconds, a tenth of a small eigendecomposition.
    total = trace(K)
    return total.item() if K.ndim == 2 and is_readable(K) else total


# Of a named tuple, torch 2.6 cannot compile the property; a frozen one takes twice as long to make.
@dataclass(slots=True)
class Side:
    """The matrix to factor, in which precision, which side it is, and what is known of its errors.

    Attributes:
        given: The matrix, perhaps in another precision than it is to be worked on in.
        dtype: Working precision.
        name: ``"matrix"``, ``"samples"`` or ``"features"``.
        noise: Errors of its eigenvalues.
        order: Order of the operand; the matrix is smaller when it is the dual.
        total: Its trace, see :func:`constant_trace`.
        exponent: The operand is ``2^exponent`` times this; None for 0.
        image: ``given probe`` where that is known, see :mod:`matinfo.spectral.definite`.
    """

    given: Tensor
    dtype: torch.dtype
    name: str
    noise: Noise
    order: int
    total: Tensor | float
    exponent: Tensor | None = None
    image: Tensor | None = None

    @property
    def matrix(self) -> Tensor:
        """The matrix in its working precision."""
        return self.given.to(self.dtype)

    def definite(self, *, thorough: bool) -> Tensor:
        """Check of definiteness for routes without eigenvalues.

        The rule is that of every route: no eigenvalue below ``-noise.indefinite`` times the largest. On the CPU doubt
        is settled by the eigenvalues themselves; elsewhere an indefinite matrix becomes NaN. Matrices that were made of
        features are not looked at.

        Args:
            thorough: Whether the route costs n^3 anyway, so that Cholesky may decide; else, beyond small orders, a few
                products, which see what :mod:`matinfo.spectral.definite` says.

        Returns:
            The matrix in its working precision.

        Raises:
            ValueError: If it is not positive semi-definite.
        """
        K, single = self.given.to(self.dtype), isinstance(self.total, float)
        if self.name != "matrix" or not checks_are_on():
            return K
        x, tolerance, readable = K.detach(), self.noise.indefinite, single or is_readable(K)
        if thorough or x.shape[-1] <= SMALL:
            # The largest eigenvalue is no less than the mean of the diagonal, and no more than the norm.
            size = self.total / x.shape[-1] if readable else 2 * torch.linalg.vector_norm(x, dim=(-2, -1))
            failure = cholesky_failure(x, tolerance * column(size))
            fine: Any = failure.item() == 0 if single else failure == 0
        else:
            image = self.image
            if image is None or image.dtype != x.dtype:
                image = x @ probe(x.shape[-1], x.dtype, x.device)
            fine = krylov_is_semidefinite(x, image, tolerance, single=single)
        if not readable:
            indefinite = ~fine & x.isfinite().all(-1).all(-1)
            return torch.where(indefinite[..., None, None], torch.nan, K)
        if not (fine if single else fine.all()):
            eigensystem(x, self.noise, vectors=False, side="matrix")
        return K
