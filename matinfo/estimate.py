"""Entropies of matrices too large to factor, or even to form, with error bars."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from matinfo._validation import check_count, check_frobenius_norm, check_order, check_positive, check_trace
from matinfo.operands import Gram
from matinfo.spectral.functions import Power, Tsallis
from matinfo.spectral.operators import KernelOperator, SymmetricOperator, as_operator
from matinfo.spectral.precision import without_autocast
from matinfo.spectral.stochastic import (
    Lanczos,
    Rules,
    TraceEstimate,
    degrees_of_freedom,
    estimate_trace,
    rademacher,
)

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix
    from scipy.sparse.linalg import LinearOperator

    Estimable: TypeAlias = Tensor | np.ndarray | Gram | KernelOperator | LinearOperator | sparray | spmatrix

__all__ = ["Estimate", "KernelOperator", "estimate_entropy"]

_CONFIDENCE = 0.95
_PROBES, _MOST_PROBES = 32, 1024
_DEGREE, _HIGHEST_DEGREE = 24, 128

_FIRST_PROBES = 16
"""With a tolerance: enough to judge the standard error by."""

_SMALLEST = 0.01
"""Relative errors of smaller entropies, in nats, are relative to this: they may be zero."""

_NEAR_ONE = 0.25
"""So near to order one the entropy is found from ``(x^alpha - x)/(alpha - 1)``, farther away from ``x^alpha``."""

_BATCH = 32
"""Probes that go through Lanczos together: their bases take ``n * batch * degree`` numbers."""


@dataclass(frozen=True)
class Estimate:
    """An estimated quantity with its error.

    Attributes:
        value: The estimate, in nats.
        standard_error: Standard error of the mean over the probes, with three degrees of freedom fewer than probes.
        bias_bound: Bound on the error that more probes would not remove: the truncated quadrature and round-off.
        probes: Number of random vectors, 0 where the value is exact.
        degree: Number of Lanczos steps for each, 0 where the value is exact.
        converged: Whether ``rtol`` was reached; True if none was asked for.
    """

    value: float
    standard_error: float
    bias_bound: float
    probes: int
    degree: int
    converged: bool = True

    def error(self, confidence: float = _CONFIDENCE) -> float:
        """Half the width of the confidence interval: Student's quantile times the standard error, plus the bias."""
        if not 0 < confidence < 1:
            raise ValueError(f"Expected confidence in (0, 1), got {confidence}.")
        spread = (
            stdtrit(degrees_of_freedom(self.probes), (1 + confidence) / 2) * self.standard_error
            if self.probes
            else 0.0
        )
        return float(spread + self.bias_bound)

    def interval(self, confidence: float = _CONFIDENCE) -> tuple[float, float]:
        """The confidence interval, ``value`` plus and minus :meth:`error`."""
        error = self.error(confidence)
        return self.value - error, self.value + error


def estimate_entropy(
    K: Estimable,
    alpha: float = 1.0,
    *,
    rtol: float | None = None,
    probes: int | None = None,
    degree: int | None = None,
    generator: torch.Generator | None = None,
    trace: float | None = None,
) -> Estimate:
    """Matrix-based Rényi entropy from matrix-vector products alone, with error bars.

    ``H_alpha(K) = log(tr((K/tr K)^alpha)) / (1 - alpha)``, and ``-tr(P log P)``, P = K/tr K, for alpha = 1, where the
    trace is the mean of ``z^T f(P) z`` over random signs z, each by a Lanczos quadrature. ``tr P`` and ``|P|_F`` are
    exact, and only what they do not explain is estimated.

    Args:
        K: One positive semi-definite matrix ``(n, n)``: Tensor, NumPy array, :class:`~matinfo.Gram`,
            :class:`KernelOperator`, SciPy sparse matrix or ``LinearOperator``.
        alpha: Order, 0 < alpha < inf.
        rtol: Accepted relative half-width of the 95 % interval (of entropies below 0.01 nats: relative to
            that). Probes and degree are then raised until it is met.
        probes: Number of random vectors, at least 2 (default 32); with ``rtol`` the most allowed (default 1024).
        degree: Number of Lanczos steps (default 24), raised to ``alpha/2 + 1`` and never above n; with ``rtol`` the
            most allowed (default 128).
        generator: Source of the random signs, on the device of K; None for torch's own.
        trace: The exact trace, for a ``LinearOperator`` and only there.

    Returns:
        An :class:`Estimate`, in nats, with Python numbers.

    Raises:
        ValueError: If K is not one square symmetric matrix with finite positive trace, has a clearly negative
            eigenvalue, the given trace is clearly wrong, alpha is outside (0, inf), or a number is not positive.
        TypeError: If K is not real floating point.

    Warns:
        RuntimeWarning: If ``rtol`` was not reached; ``converged`` is then False and the error is that reached.

    Notes:
        ``probes * degree`` products with K and O(n probes degree^2) flops, O(n 32 degree) memory. alpha = 2 needs no
        probes where the norm is known. ``bias_bound`` is half the distance of two quadrature rules that lie on either
        side of the truth, plus what rounding of the entries and of the recurrence can do: for alpha < 1, a singular
        matrix and entries in single precision the latter dominates. All work is in float64. Negative eigenvalues
        within round-off count as zero. No gradient. Below some thousand rows :func:`matinfo.renyi_entropy` is exact
        and as fast.

    References:
        Golub and Meurant (1994), Matrices, moments and quadrature; Ubaru, Chen and Saad (2017), Fast estimation of
        tr(f(A)) via stochastic Lanczos quadrature.

    Example:
        >>> import torch
        >>> from matinfo.estimate import KernelOperator, estimate_entropy
        >>> X = torch.linspace(0, 50, 1000, dtype=torch.float64)[:, None]
        >>> seed = torch.Generator().manual_seed(0)
        >>> estimate = estimate_entropy(KernelOperator(X, bandwidth=1.0), rtol=0.05, generator=seed)
        >>> estimate.converged and estimate.error() <= 0.05 * estimate.value
        True
    """
    order = check_order(alpha)
    if order in (0, math.inf):
        raise ValueError(
            f"Expected alpha in (0, inf), got {order:g}. It takes the rank or lambda_max: use renyi_entropy."
        )
    if rtol is not None:
        check_positive(rtol, "rtol")
    if check_count(2 if probes is None else probes, "probes") < 2:
        raise ValueError(f"Expected probes >= 2, got {probes}: one has no standard error.")
    check_count(1 if degree is None else degree, "degree")
    with torch.no_grad():
        operator = as_operator(K, total=trace)
        with without_autocast(operator.device):
            estimator = _Estimator(operator, order, generator)
            if order == 2 and estimator.squared is not None:
                return Estimate(estimator.collision, 0.0, estimator.rounding, 0, 0)
            if rtol is None:
                return estimator.fixed(probes or _PROBES, degree or _DEGREE)
            return estimator.adaptive(rtol, probes or _MOST_PROBES, degree or _HIGHEST_DEGREE)


class _Estimator:
    """One matrix and order, with the probes gathered so far."""

    def __init__(self, operator: SymmetricOperator, alpha: float, generator: torch.Generator | None) -> None:
        self.operator, self.alpha, self.generator = operator, alpha, generator
        self.n = operator.shape[0]
        self.total = operator.trace()
        squared = operator.frobenius_squared()
        if not (math.isfinite(self.total) and (squared is None or math.isfinite(squared))):
            raise ValueError("Expected K to be finite, got an infinite or NaN entry.")
        check_trace(torch.tensor(self.total, dtype=torch.float64))
        if squared is not None:
            check_frobenius_norm(*torch.tensor([squared, self.total], dtype=torch.float64))
        self.squared = None if squared is None else squared / self.total**2
        self.rounding = 16 * operator.noise * (1 + math.log(self.n))
        self.is_power = abs(alpha - 1) > _NEAR_ONE
        self.parts: list[Rules] = []

    @property
    def collision(self) -> float:
        """The entropy of order two, or 0 where it is not known."""
        return 0.0 if self.squared is None else max(0.0, -math.log(self.squared))

    def fixed(self, probes: int, degree: int) -> Estimate:
        degree = self._allowed(degree)
        self._gather(probes, degree)
        return self._estimate(degree)

    def adaptive(self, rtol: float, most_probes: int, highest: int) -> Estimate:
        """First the degree, on a few probes, so that truncation takes a quarter of the tolerance; then the probes."""
        estimate = self._choose_degree(rtol, min(_FIRST_PROBES, most_probes), self._allowed(highest))
        while not self._meets(estimate, rtol) and estimate.probes < most_probes:
            left = _tolerance(rtol, estimate.value) - estimate.bias_bound
            if left <= 0:
                break
            spread = estimate.error() - estimate.bias_bound
            wanted = math.ceil(1.1 * estimate.probes * (spread / left) ** 2)
            wanted = min(max(wanted, estimate.probes + 4), 4 * estimate.probes, most_probes)
            self._gather(wanted - estimate.probes, estimate.degree)
            estimate = self._estimate(estimate.degree)
        if self._meets(estimate, rtol):
            return estimate
        reached = estimate.error() / max(abs(estimate.value), 1e-300)
        warnings.warn(
            f"Expected rtol={rtol:g}, reached {reached:.2g} with {estimate.probes} probes of degree "
            f"{estimate.degree} (standard error {estimate.standard_error:.2g}, bias bound "
            f"{estimate.bias_bound:.2g}). Allow more probes or a higher degree, or give K in float64.",
            RuntimeWarning,
            stacklevel=3,
        )
        return Estimate(**{**vars(estimate), "converged": False})

    def _meets(self, estimate: Estimate, rtol: float) -> bool:
        return estimate.error() <= _tolerance(rtol, estimate.value)

    def _allowed(self, degree: int) -> int:
        """Below ``alpha/2 + 1`` the two rules are no bracket; above n there is nothing left."""
        return min(max(degree, math.ceil(self.alpha / 2) + 1), self.n)

    def _choose_degree(self, rtol: float, probes: int, highest: int) -> Estimate:
        lanczos = self._start(probes)
        least = self._allowed(1)
        while True:
            lanczos.step()
            if lanczos.degree < least and not lanczos.is_exhausted:
                continue
            self.parts = [lanczos.rules(self.total)]
            trace = self._trace()
            target = max(
                _tolerance(rtol, self._entropy(trace.value)) / self._slope(trace) / 4, trace.roundoff / 4
            )
            if trace.truncation <= target or lanczos.is_exhausted or lanczos.degree >= highest:
                return self._estimate(lanczos.degree)

    def _start(self, probes: int) -> Lanczos:
        return Lanczos(self.operator, rademacher(self.operator, probes, self.generator))

    def _gather(self, probes: int, degree: int) -> None:
        for first in range(0, probes, _BATCH):
            lanczos = self._start(min(_BATCH, probes - first))
            while lanczos.degree < degree and not lanczos.is_exhausted:
                lanczos.step()
            self.parts.append(lanczos.rules(self.total))

    def _trace(self) -> TraceEstimate:
        f = Power(self.alpha) if self.is_power else Tsallis(self.alpha)
        return estimate_trace(
            Rules.joined(self.parts), f.value, self.n, self.squared, noise=self.operator.noise
        )

    def _estimate(self, degree: int) -> Estimate:
        trace = self._trace()
        value = self._entropy(trace.value)
        bias = trace.truncation + trace.roundoff
        ends = [self._entropy(trace.value + shift) for shift in (bias, -bias)]
        return Estimate(
            value=value,
            standard_error=trace.standard_error * self._slope(trace),
            bias_bound=max([abs(end - value) for end in ends]) + self.rounding,
            probes=sum([len(part.nodes) for part in self.parts]),
            degree=degree,
        )

    def _entropy(self, trace: float) -> float:
        """The entropy of a trace of ``f``, kept between its exact bounds in terms of n and the order two."""
        e = self.alpha - 1
        if e == 0:
            value = -trace
        else:
            mass = trace if self.is_power else 1 + e * trace
            log_mass = (math.log(mass) if self.is_power else math.log1p(e * trace)) if mass > 0 else -math.inf
            value = -log_mass / e
        lowest, highest = self.collision, math.log(self.n)
        if self.alpha > 2 and self.squared is not None:  # p-norms decrease in p
            lowest, highest = self.collision * self.alpha / (2 * e), self.collision
        return min(max(value, lowest), highest)

    def _slope(self, trace: TraceEstimate) -> float:
        """``|dH/d tr f|``: the inverse of ``tr P^alpha``, over ``|alpha - 1|`` for powers."""
        e = self.alpha - 1
        return math.exp(e * self._entropy(trace.value)) / (abs(e) if self.is_power else 1.0)


def _tolerance(rtol: float, value: float) -> float:
    return rtol * max(abs(value), _SMALLEST)
