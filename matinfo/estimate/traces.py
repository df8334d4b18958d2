"""Traces of powers and log-determinants of matrices too large to factor, with error bars."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from matinfo._keywords import answers_keywords
from matinfo._validation import check_choice, check_count, check_positive
from matinfo.estimate.estimator import SMALLEST, Exchangeable, Quadrature, Trace, expected_vectors, solve
from matinfo.estimate.result import Estimate
from matinfo.operands.operator import as_operator, smaller_operator
from matinfo.spectral.functions import Power
from matinfo.spectral.operator import SymmetricOperator, check_definite, checked_moments
from matinfo.spectral.precision import without_autocast

if TYPE_CHECKING:
    from matinfo.estimate.entropy import Estimable

_METHODS = ("auto", "hutchinson", "hutch++")

_FLAT_POWER, _FLAT_LOG = 1 / 2, 1 / 4
"""Share of the n eigenvalues that, if so many are effective, leaves nothing to a sketch; a logarithm is flatter."""

_MANY = 16
"""Effective eigenvalues a vector above which a sketch catches little."""

_FEWEST = 6
"""Fewer vectors have no honest standard error: half of them may be the sketch, and three coefficients are fitted."""

_LEAST_TRACE = torch.finfo(torch.float64).tiny / torch.finfo(torch.float64).eps
"""Of smaller traces float64 does not keep all digits: what they are the sum of is subnormal."""


@answers_keywords
def estimate_trace_power(
    K: Estimable,
    power: int,
    *,
    rtol: float | None = None,
    probes: int | None = None,
    method: str = "auto",
    generator: torch.Generator | None = None,
    trace: float | None = None,
) -> Estimate:
    """Trace of an integer power of a normalised matrix from matrix-vector products alone, with error bars.

    ``tr (K/tr K)^p``, in ``[n^(1 - p), 1]``. The entropy of order p is ``log(value)/(1 - p)``, and ``tr K^p`` is
    ``tr(K)^p`` times the value.

    Args:
        K: One positive semi-definite matrix ``(n, n)``: Tensor, NumPy array, :class:`~matinfo.Gram`,
            :class:`~matinfo.estimate.KernelOperator`, SciPy sparse matrix or ``LinearOperator``.
        power: Exponent p, an integer >= 2.
        rtol: Accepted relative half-width of the 95 % interval. Vectors are then added until it is met.
        probes: Number of random vectors, at least 6 (default 32); with ``rtol`` the most allowed (default 1024).
            As many as rows make the value exact.
        method: ``"hutchinson"``, random signs, corrected by the exact ``tr K`` and ``|K|_F``; ``"hutch++"``, half
            of the vectors span the leading eigenvectors, where the trace is exact, and the others see the rest in the
            same way; ``"xtrace"``, the exchangeable Nyström estimator; or ``"auto"``.
        generator: Source of the random vectors, on the device of K; None for torch's own.
        trace: The exact trace, for a ``LinearOperator`` and only there.

    Returns:
        An :class:`~matinfo.estimate.Estimate`, a pure number. ``probes`` counts the vectors that the standard error
        rests on, without those of the sketch; ``degree`` the products that each took.

    Raises:
        ValueError: If K is not one square symmetric matrix with finite positive trace, is clearly indefinite, the
            given trace is clearly wrong, the power or the number of probes too small, the method unknown, or the trace
            of the power below 1e-292, which float64 cannot hold to all digits.
        TypeError: If K is not real floating point.

    Warns:
        RuntimeWarning: If ``rtol`` was not reached; ``converged`` is then False and the error is that reached.

    Notes:
        Products with K for each vector: ``p/2`` for Hutchinson, p for XTrace, ``3p/4`` on the mean for Hutch++, halves
        rounded up; no quadrature error. p = 2 needs no probes where the norm is known. ``"auto"`` goes by the
        effective number of eigenvalues ``r = (tr K)^2/|K|_F^2`` and the number of vectors (64 for a tolerance):
        XTrace for r below half of it, Hutchinson for r above n/2 or sixteen times it, else Hutch++. The error of
        XTrace is the jackknife's, which errs on the large side. ``bias_bound`` is round-off. All work is in float64.
        No gradient. For the entropy of an integer order p >= 3 this needs p/2 to p products a vector,
        :func:`~matinfo.estimate.estimate_entropy` 24; and where K has few effective eigenvalues XTrace and Hutch++
        are more accurate by orders of magnitude.

    References:
        Meyer, Musco, Musco and Woodruff (2021), Hutch++; Epperly, Tropp and Webber (2024), XTrace; Epperly and Tropp
        (2024), Efficient error and variance estimation for randomized matrix computations.

    Example:
        >>> import torch
        >>> from matinfo.estimate import KernelOperator, estimate_trace_power
        >>> X = torch.linspace(0, 50, 1000, dtype=torch.float64)[:, None]
        >>> seed = torch.Generator().manual_seed(0)
        >>> estimate = estimate_trace_power(KernelOperator(X, bandwidth=1.0), 3, rtol=0.02, generator=seed)
        >>> estimate.converged and estimate.error() <= 0.02 * estimate.value
        True
    """
    check_count(power, "power", 2, "the first is one by definition")
    _check_arguments(rtol, probes, method, (*_METHODS, "xtrace"))
    with torch.no_grad():
        operator = smaller_operator(as_operator(K, function="estimate_trace_power", total=trace))
        with without_autocast(operator.device):
            total, squared = checked_moments(operator)
            if power == 2 and squared is not None:
                check_definite(operator)
                value = squared / total**2
                return Estimate(value, 0.0, 16 * operator.noise * value, 0, 0)
            goal = None if rtol is None else lambda value: rtol * max(value, 0.0)
            chosen = _chosen(operator, method, power, expected_vectors(probes, rtol))
            term = Trace(operator, Power(power).value, power=power, iterations=math.ceil(power / 2))
            if chosen == "xtrace":
                found = solve(Exchangeable(term, power, generator, goal=goal), probes)
            else:
                found = solve(Quadrature([term], generator, goal=goal, sketch=chosen == "hutch++"), probes)
            if not found.value > _LEAST_TRACE:
                raise ValueError(
                    f"Expected a power whose trace float64 can hold, got {power}: the estimate is {found.value:.3g}. "
                    "Use estimate_entropy, which works with its logarithm."
                )
            return found.judged(f"rtol={rtol or 0:g}", found.value, goal)


@answers_keywords
def estimate_tcr(
    K: Estimable,
    mu: float = 1.0,
    *,
    rtol: float | None = None,
    probes: int | None = None,
    degree: int | None = None,
    method: str = "auto",
    generator: torch.Generator | None = None,
    trace: float | None = None,
) -> Estimate:
    """Total coding rate of a matrix from matrix-vector products alone, with error bars.

    ``TCR_mu(K) = log det(mu I + K) = n log mu + tr log(I + K/mu)``, as :func:`matinfo.matrix_tcr`; only the trace is
    estimated.

    Args:
        K: One positive semi-definite matrix ``(n, n)``, as in :func:`estimate_trace_power`; not normalised.
        mu: Ridge, > 0.
        rtol: Accepted half-width of the 95 % interval relative to ``tr log(I + K/mu)`` (of traces below 0.01 nats:
            relative to that). Vectors and Lanczos steps are then added until it is met.
        probes: Number of random vectors, at least 6 (default 32); with ``rtol`` the most allowed (default 1024).
            As many as rows make the value exact.
        degree: Number of Lanczos steps, at least 2 (default 24), never above n; with ``rtol`` the most allowed (default
            128).
        method: ``"hutchinson"``, ``"hutch++"`` or ``"auto"``, as in :func:`estimate_trace_power`.
        generator: Source of the random vectors, on the device of K; None for torch's own.
        trace: The exact trace, for a ``LinearOperator`` and only there.

    Returns:
        An :class:`~matinfo.estimate.Estimate`, in nats. ``probes`` counts the vectors that the standard error rests on.

    Raises:
        ValueError: If K is not one square symmetric matrix with finite positive trace, is clearly indefinite, the
            given trace is clearly wrong, mu or another number too small, or the method unknown.
        TypeError: If K is not real floating point.

    Warns:
        RuntimeWarning: If ``rtol`` was not reached; ``converged`` is then False and the error is that reached.

    Notes:
        At most ``degree`` products with K for each vector and O(n degree^2) flops, O(n 32 degree) memory. ``"auto"`` is
        Hutchinson where ``(tr K)^2/|K|_F^2`` is above n/4 or sixteen times the number of vectors (tolerance: 64),
        else Hutch++. Its sketch is rotated to approximate eigenvectors, which take few steps. ``bias_bound`` is half
        the distance of two quadrature rules on either side of the truth, plus round-off. All work is in float64. No
        gradient. Below some thousand rows :func:`matinfo.matrix_tcr` is exact and as fast, and so it is for a Gram of
        few features. XTrace is not offered: it takes the matrix function of a block, and loses at every size measured.

    References:
        Ubaru, Chen and Saad (2017); Meyer, Musco, Musco and Woodruff (2021), Hutch++; Persson, Cortinovis and
        Kressner (2022), Improved variants of the Hutch++ algorithm for trace estimation.

    Example:
        >>> import torch
        >>> from matinfo.estimate import KernelOperator, estimate_tcr
        >>> X = torch.linspace(0, 50, 1000, dtype=torch.float64)[:, None]
        >>> seed = torch.Generator().manual_seed(0)
        >>> estimate = estimate_tcr(KernelOperator(X, bandwidth=1.0), mu=1.0, rtol=0.02, generator=seed)
        >>> estimate.converged and estimate.error() <= 0.02 * estimate.value
        True
    """
    check_positive(mu, "mu", "log det(mu I + K) of a singular K is -inf at mu = 0.")
    _check_arguments(rtol, probes, method, _METHODS)
    check_count(2 if degree is None else degree, "degree", 2, "|K|_F would not be exact")
    with torch.no_grad():
        given = as_operator(K, function="estimate_tcr", total=trace)
        operator = smaller_operator(given)
        with without_autocast(operator.device):
            scale = checked_moments(operator)[0] / mu
            goal = None if rtol is None else lambda value: rtol * max(value, SMALLEST)
            term = Trace(operator, lambda x: torch.log1p(scale * x))
            sketch = _chosen(operator, method, None, expected_vectors(probes, rtol)) == "hutch++"
            sampler = Quadrature([term], generator, degree=degree, goal=goal, sketch=sketch)
            found = solve(sampler, probes)
            found = found.judged(f"rtol={rtol or 0:g}", max(found.value, SMALLEST), goal)
            return replace(found, value=found.value + given.shape[0] * math.log(mu))


def _chosen(operator: SymmetricOperator, method: str, power: int | None, probes: int) -> str:
    """The method by the participation ratio ``r = (tr K)^2 / |K|_F^2``, the effective number of eigenvalues.

    XTrace for a power of fewer effective eigenvalues than half the vectors; Hutchinson where so many of the n
    eigenvalues matter that a sketch catches little; else Hutch++.
    """
    squared = operator.frobenius_squared()
    if method != "auto" or squared is None:
        return "hutch++" if method == "auto" else method
    ratio = operator.trace() ** 2 / squared
    if power is not None and ratio <= probes / 2:
        return "xtrace"
    most = min((_FLAT_LOG if power is None else _FLAT_POWER) * operator.shape[0], _MANY * probes)
    return "hutchinson" if ratio > most else "hutch++"


def _check_arguments(rtol: float | None, probes: int | None, method: str, methods: tuple[str, ...]) -> None:
    if rtol is not None:
        check_positive(rtol, "rtol")
    check_count(
        _FEWEST if probes is None else probes, "probes", _FEWEST, "fewer have no honest standard error"
    )
    check_choice(method, "method", methods)
