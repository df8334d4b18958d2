"""The entropy of one matrix from probes gathered until the error is small enough."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from matinfo._validation import check_count, check_order
from matinfo.estimate.result import Estimate
from matinfo.spectral.block_lanczos import BlockLanczos
from matinfo.spectral.functions import Power, Tsallis
from matinfo.spectral.operators import KernelOperator, SymmetricOperator, checked_moments
from matinfo.spectral.stochastic import Lanczos, Rules, TraceEstimate, estimate_trace, rademacher

_FIRST_PROBES = 16
"""With a tolerance: enough to judge the standard error by."""

_SMALLEST = 0.01
"""Relative errors of smaller entropies, in nats, are relative to this: they may be zero."""

_NEAR_ONE = 0.25
"""So near to order one the entropy is found from ``(x^alpha - x)/(alpha - 1)``, farther away from ``x^alpha``."""

_LARGEST_EXPONENT = 700.0
"""Where ``tr (P/scale)^alpha`` is lost in its scatter its inverse may be larger than ``exp`` of this."""

_BATCH = 32
"""Probes that go through Lanczos together: their bases take ``n * batch * degree`` numbers."""


class Estimator:
    """One matrix and order, with the probes gathered so far."""

    def __init__(
        self,
        operator: SymmetricOperator,
        alpha: float,
        generator: torch.Generator | None,
        block: bool | None = None,
    ) -> None:
        self.operator, self.alpha, self.generator = operator, alpha, generator
        self.block = isinstance(operator, KernelOperator) if block is None else block
        self.n = operator.shape[0]
        self.total, squared = checked_moments(operator)
        self.squared = None if squared is None else squared / self.total**2
        self.rounding = 16 * operator.noise * (1 + math.log(self.n))
        self.is_power = abs(alpha - 1) > _NEAR_ONE
        self.f = Power(alpha) if self.is_power else Tsallis(alpha)
        self.parts: list[Rules] = []
        self.scale = 1.0

    @property
    def collision(self) -> float:
        """The entropy of order two, or 0 where it is not known."""
        return 0.0 if self.squared is None else max(0.0, -math.log(self.squared))

    def fixed(self, probes: int, degree: int) -> Estimate:
        """As many probes and steps as asked for."""
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
            least = _FIRST_PROBES if self.block else 4  # the rules of small blocks are less exact
            wanted = min(max(wanted, estimate.probes + least), 4 * estimate.probes, most_probes)
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
        lanczos = self._recurrence(self._signs(probes))
        least = self._allowed(1)
        while True:
            lanczos.step()
            if lanczos.degree < least and not lanczos.is_exhausted:
                continue
            self.parts = [lanczos.rules(self.total)]
            trace = self._trace()
            target = max(
                _tolerance(rtol, self._entropy(trace.value)) / self._slope(trace.value) / 4,
                trace.roundoff / 4,
            )
            if trace.truncation <= target or lanczos.is_exhausted or lanczos.degree >= highest:
                return self._estimate(lanczos.degree)

    def _signs(self, probes: int) -> Tensor:
        return rademacher(self.operator, probes, self.generator)

    def _recurrence(self, start: Tensor) -> Lanczos | BlockLanczos:
        return BlockLanczos(self.operator, start) if self.block else Lanczos(self.operator, start)

    def _gather(self, probes: int, degree: int) -> None:
        for first in range(0, probes, _BATCH):
            start = self._signs(min(_BATCH, probes - first))
            lanczos = self._recurrence(start)
            while lanczos.degree < degree and not lanczos.is_exhausted:
                lanczos.step()
            self._keep(lanczos, start)

    def _keep(self, lanczos: Lanczos | BlockLanczos, start: Tensor) -> None:
        self.parts.append(lanczos.rules(self.total))

    def _trace(self) -> TraceEstimate:
        """``tr f(P)``, of powers ``tr (P/scale)^alpha``: that of P itself underflows at high orders."""
        rules = Rules.joined(self.parts)
        self.scale = self._scale(rules)
        squared = None if self.squared is None else self.squared / self.scale**2
        return estimate_trace(
            rules.over(self.scale),
            self.f.value,
            self.n,
            squared,
            total=1 / self.scale,
            noise=self.operator.noise,
        )

    def _scale(self, rules: Rules) -> float:
        """What eigenvalues are divided by before they are raised to a power: the largest node."""
        top = float(rules.nodes.max())
        return top if self.is_power and top > 0 else 1.0

    def _estimate(self, degree: int) -> Estimate:
        trace = self._trace()
        value = self._entropy(trace.value)
        bias = trace.truncation + trace.roundoff
        ends = [self._entropy(trace.value + shift) for shift in (bias, -bias)]
        return Estimate(
            value=value,
            standard_error=trace.standard_error * self._slope(trace.value),
            bias_bound=max([abs(end - value) for end in ends]) + self.rounding,
            probes=sum([len(part.nodes) for part in self.parts]),
            degree=degree,
        )

    def _entropy(self, trace: float) -> float:
        """The entropy of what :meth:`_trace` finds, between its exact bounds in terms of n and the order two."""
        e = self.alpha - 1
        if e == 0:
            value = -trace
        elif self.is_power:
            value = -(math.log(trace) + self._log_unit) / e if trace > 0 else math.copysign(math.inf, e)
        else:
            value = -(math.log1p(e * trace) if 1 + e * trace > 0 else -math.inf) / e
        lowest, highest = self.collision, math.log(self.n)
        if self.alpha > 2 and self.squared is not None:  # p-norms decrease in p
            lowest, highest = self.collision * self.alpha / (2 * e), self.collision
        return min(max(value, lowest), highest)

    @property
    def _log_unit(self) -> float:
        """Logarithm of ``tr P^alpha`` over what :meth:`_trace` gives for powers."""
        return self.alpha * math.log(self.scale)

    def _slope(self, trace: float) -> float:
        """``|dH/d tr f|``: the inverse of ``tr P^alpha``, for powers in units of the scale and over ``|alpha - 1|``."""
        e = self.alpha - 1
        exponent = e * self._entropy(trace)
        if not self.is_power:
            return math.exp(exponent)
        return math.exp(min(exponent + self._log_unit, _LARGEST_EXPONENT)) / abs(e)

    def _signed_slope(self, trace: float) -> float:
        return self._slope(trace) if self.is_power and self.alpha < 1 else -self._slope(trace)


def _tolerance(rtol: float, value: float) -> float:
    return rtol * max(abs(value), _SMALLEST)


def check_arguments(alpha: float, probes: int, degree: int) -> float:
    """Accept an order in (0, inf), at least two probes and one step."""
    order = check_order(alpha)
    if order in (0, math.inf):
        raise ValueError(
            f"Expected alpha in (0, inf), got {order:g}. It takes the rank or lambda_max: use renyi_entropy."
        )
    if check_count(probes, "probes") < 2:
        raise ValueError(f"Expected probes >= 2, got {probes}: one has no standard error.")
    check_count(degree, "degree")
    return order
