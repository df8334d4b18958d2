"""A symmetric matrix that is known by its products with vectors: what it tells, and how it is checked by them."""

from __future__ import annotations

import math
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from matinfo._validation import check_frobenius_norm, check_positive_semidefinite, check_trace
from matinfo.spectral.block_lanczos import BlockLanczos
from matinfo.spectral.eigensolver import eigh_psd

_SYMMETRY_PROBES = 4
"""Pairs of vectors u and v."""

_SYMMETRY_TOLERANCE = 1e-3
"""Largest accepted ``|u^T K v - v^T K u|`` over the mean of ``|K u|``, both about Frobenius norms."""

_DEFINITE_BLOCK, _DEFINITE_STEPS = 4, 16
"""Vectors and steps of the search for a negative eigenvalue where nothing else would find one."""


class SymmetricOperator(Protocol):
    """What an estimate needs to know of a symmetric positive semi-definite matrix; all in float64."""

    device: torch.device
    is_trusted: bool
    """Whether it is symmetric and positive semi-definite by construction."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def noise(self) -> float:
        """Relative rounding of the entries as they were given."""

    def matmat(self, V: Tensor) -> Tensor:
        """``K V`` for V of shape ``(n, s)``."""

    def trace(self) -> float:
        """``tr K``, exact to rounding."""

    def frobenius_squared(self) -> float | None:
        """``|K|_F^2``, exact to rounding; None where it is not cheap."""


Vetted = TypeVar("Vetted", bound=SymmetricOperator)


def rademacher(operator: SymmetricOperator, count: int, generator: torch.Generator | None) -> Tensor:
    """``(n, count)`` independent signs."""
    signs = torch.randint(0, 2, (operator.shape[0], count), generator=generator, device=operator.device)
    return (2 * signs - 1).to(operator.dtype)


def gaussian(operator: SymmetricOperator, count: int, generator: torch.Generator | None) -> Tensor:
    """``(n, count)`` independent standard normal numbers."""
    shape = (operator.shape[0], count)
    return torch.randn(shape, dtype=operator.dtype, device=operator.device, generator=generator)


def checked_moments(operator: SymmetricOperator) -> tuple[float, float | None]:
    """Trace and, where it is known, squared Frobenius norm; what cannot be positive semi-definite is refused."""
    total, squared = operator.trace(), operator.frobenius_squared()
    if not (math.isfinite(total) and (squared is None or math.isfinite(squared))):
        raise ValueError("Expected K to be finite, got an infinite or NaN entry.")
    check_trace(torch.tensor(total, dtype=torch.float64))
    if squared is not None:
        check_frobenius_norm(*torch.tensor([squared, total], dtype=torch.float64))
    return total, squared


def checked_symmetric(operator: Vetted) -> Vetted:
    """The operator, if random vectors find it symmetric and its trace credible.

    For Gaussian u and v the root mean square of ``u^T K v - v^T K u`` is ``|K - K^T|_F``, that of ``|K u|`` is
    ``|K|_F``, and ``u^T K u`` has mean ``tr K`` and variance ``2 |K|_F^2``.
    """
    V = gaussian(operator, 2 * _SYMMETRY_PROBES, _always_the_same(operator))
    image = operator.matmat(V)
    products = V.mT @ image
    gap = float((products - products.mT).square().sum() / (math.prod(products.shape) - len(products))) ** 0.5
    size = float(image.square().sum() / image.shape[1]) ** 0.5
    if gap > _SYMMETRY_TOLERANCE * size:
        raise ValueError(
            f"Expected K to be symmetric, got |K - K^T| of about {gap / size:.2g} of |K| (random probe). "
            "Symmetrise it with (K + K.T) / 2, or use Gram(features) if these are features."
        )
    check_claimed_trace(operator, float(products.diagonal().mean()), 8 * size * math.sqrt(2 / image.shape[1]))
    return operator


def check_claimed_trace(operator: SymmetricOperator, found: float, error: float) -> None:
    """Refuse a trace, which of a matrix known by products is the user's word, that is not what was found."""
    if abs(found - operator.trace()) > error:
        raise ValueError(
            f"Expected the exact trace of K, got {operator.trace():.6g}; its diagonal adds up to {found:.6g}, give or "
            f"take {error:.1g}."
        )


def check_definite(operator: SymmetricOperator) -> None:
    """Refuse a matrix in which a few Lanczos steps find a negative eigenvalue: for what takes moments alone.

    A Ritz value never lies below the smallest eigenvalue, so that no positive semi-definite matrix is refused.
    """
    if operator.is_trusted:
        return
    start = gaussian(operator, min(operator.shape[0], _DEFINITE_BLOCK), _always_the_same(operator))
    lanczos = BlockLanczos(operator.matmat, start)
    lanczos.advance(_DEFINITE_STEPS)
    ritz, _ = eigh_psd(lanczos.tridiagonal(), vectors=False)
    check_ritz_values(ritz, operator.noise)


def check_ritz_values(values: Tensor, noise: float) -> None:
    """Refuse values ``(m,)`` between the eigenvalues of a matrix of such entries of which one is clearly negative."""
    # The least tolerance is that of Noise.of. Rounded entries move an eigenvalue by about one rounding of the norm.
    check_positive_semidefinite(torch.stack(values.aminmax()), max(1e-6, 10 * noise))


def _always_the_same(operator: SymmetricOperator) -> torch.Generator:
    """So that a matrix is refused on every call or on none."""
    return torch.Generator(device=operator.device).manual_seed(0)
