"""Information of several matrices too large to multiply, with error bars."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from matinfo._deferred import entropies_of
from matinfo._keywords import answers_keywords
from matinfo._validation import check_positive, check_same_samples
from matinfo.dependence import dime
from matinfo.entropy import conditional_entropy, joint_entropy, renyi_entropy
from matinfo.estimate.estimator import Entropy, Quadrature, check_arguments, expected_vectors, solve
from matinfo.estimate.result import Estimate
from matinfo.information import (
    conditional_mutual_information,
    dual_total_correlation,
    mutual_information,
    total_correlation,
)
from matinfo.operands.operator import (
    GramOperator,
    hadamard_of,
    tiled_operator,
)
from matinfo.spectral.operator import check_definite, checked_moments
from matinfo.spectral.precision import without_autocast

if TYPE_CHECKING:
    from matinfo.estimate.entropy import Estimable

_QUANTITIES: tuple[Callable[..., Any], ...] = (
    joint_entropy,
    conditional_entropy,
    mutual_information,
    conditional_mutual_information,
    total_correlation,
    dual_total_correlation,
    dime,
)

_EXACT_WIDTH = 1024
"""Features so few have their exact entropy in less time than a few probes take."""

_FEWEST = 12
"""Vectors that leave enough probes beside a sketch for a standard error. Where no term has more effective eigenvalues
(``exp H_2``) than there are vectors, half of these are spent on a sketch of each (Hutch++): of 11 such it left a tenth
of the error, of 5 a sixtieth."""


@answers_keywords
def estimate_information(
    quantity: Callable[..., Any],
    *Ks: Estimable,
    alpha: float = 1.0,
    atol: float | None = None,
    probes: int | None = None,
    degree: int | None = None,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Estimate:
    """Joint entropies and what is made of them, from matrix-vector products alone, with error bars.

    ``sum_i c_i H_alpha(K_i)`` over the Hadamard products K_i that the quantity adds up, e.g.
    ``H(K_1) + H(K_2) - H(K_1 o K_2)`` for :func:`matinfo.mutual_information`. No n x n matrix is formed. Every term is
    estimated from the same random vectors, so that errors which the terms have in common cancel.

    Args:
        quantity: One of :func:`matinfo.joint_entropy`, :func:`matinfo.conditional_entropy`,
            :func:`matinfo.mutual_information`, :func:`matinfo.conditional_mutual_information`,
            :func:`matinfo.total_correlation`, :func:`matinfo.dual_total_correlation` and :func:`matinfo.dime`.
        *Ks: Positive semi-definite matrices ``(n, n)`` over the same samples: Tensor, NumPy array,
            :class:`~matinfo.Gram`, :class:`KernelOperator`, SciPy sparse matrix, or products and sums of these,
            in any mixture.
        alpha: Order, 0 < alpha < inf.
        atol: Accepted half-width of the 95 % interval in nats. Probes and degree are then raised until it is met.
        probes: Number of random vectors, at least 2 (default 32); with ``atol`` the most allowed (default 1024).
        degree: Number of Lanczos steps, as in :func:`estimate_entropy`; with ``atol`` the most allowed (default 128).
        generator: Source of the random vectors, on the device of the matrices; None for torch's own. ``dime`` draws its
            permutations from it too.
        **options: Further arguments of the quantity: ``permutations`` of ``dime``, ``base``.

    Returns:
        An :class:`Estimate`, in nats (or the base asked for).

    Raises:
        ValueError: If a matrix is refused by :func:`estimate_entropy`, the orders differ, or a number is not positive.
        TypeError: If the quantity is not one of those named, or a matrix is a ``LinearOperator``, whose entries are not
            known.

    Warns:
        RuntimeWarning: If ``atol`` was not reached; ``converged`` is then False and the error is that reached.

    Notes:
        For each term ``degree`` products with it for each probe, n^2 each; alpha = 2 needs no probes, only the entries
        once. Kernels of one kind (RBF, Laplacian) multiply into one kernel of the joined columns, Grams whose widths
        multiply to at most n/2 are products of features (row-wise Khatri-Rao) by blocks of rows, everything else is
        multiplied block by block. Terms of at most 1,024 features are exact. Memory: O(n 32 degree).

    References:
        Ubaru, Chen and Saad (2017), Fast estimation of tr(f(A)) via stochastic Lanczos quadrature; Khatri and Rao
        (1968). Common random numbers: Glasserman and Yao (1992).

    Example:
        >>> import torch
        >>> from matinfo import mutual_information
        >>> from matinfo.estimate import KernelOperator, estimate_information
        >>> seed = torch.Generator().manual_seed(0)
        >>> X = torch.randn(2000, 2, generator=seed)
        >>> Y = X + 0.5 * torch.randn(2000, 2, generator=seed)
        >>> A, B = KernelOperator(X, bandwidth=1.0), KernelOperator(Y, bandwidth=1.0)
        >>> found = estimate_information(mutual_information, A, B, atol=0.02, generator=seed)
        >>> found.converged and found.error() <= 0.02
        True
    """
    order = check_arguments(alpha, probes, degree)
    if atol is not None:
        check_positive(atol, "atol")
    if quantity not in _QUANTITIES:
        names = ", ".join([function.__name__ for function in _QUANTITIES])
        raise TypeError(
            f"Expected a quantity that is a sum of entropies, one of {names}, "
            f"got {getattr(quantity, '__name__', quantity)}."
        )
    if quantity is dime:
        options.setdefault("generator", generator)
    with torch.no_grad():
        operators = [tiled_operator(K, "estimate_information") for K in Ks]
        check_same_samples([K.shape for K in operators])
        total, matrices = entropies_of(quantity.__wrapped__, operators, alpha=order, **options)  # type: ignore[attr-defined]
    with torch.no_grad(), without_autocast(operators[0].device):
        exact, bias = 0.0, 0.0  # of the terms that need no estimate
        terms: list[Entropy] = []
        for product, weight in total.weights.items():
            if not weight:
                continue
            K = hadamard_of([matrices[i] for i in product])
            checked_moments(K)
            term = Entropy(K, order, weight)
            if order == 2 and term.collision is not None:
                check_definite(K)
                exact += weight * term.collision
            elif isinstance(K, GramOperator) and K.gram.width <= min(_EXACT_WIDTH, K.shape[0]):
                exact += weight * float(renyi_entropy(K.gram, order, precision="float64"))
            else:
                terms.append(term)
                continue
            bias += abs(weight) * term.rounding
        if not terms:
            return Estimate(exact, 0.0, bias, 0, 0)
        goal = None if atol is None else lambda _: atol - bias
        vectors = expected_vectors(probes, atol)
        sketch = vectors >= _FEWEST and all(
            [math.exp(term.collision or math.inf) <= vectors for term in terms]
        )
        sampler = Quadrature(terms, generator, degree=degree, goal=goal, sketch=sketch)
        found = solve(sampler, probes)
        found = replace(found, value=found.value + exact, bias_bound=found.bias_bound + bias)
        return found.judged(f"atol={atol or 0:g}", 1.0, None if atol is None else lambda _: atol)
