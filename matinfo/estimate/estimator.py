"""How many random vectors and Lanczos steps an error takes: one loop for entropies, traces and their differences.

A *probe* z is a vector of random signs: the mean of ``z^T f(P) z`` over probes is ``tr f(P)``. Each such form is a
Lanczos quadrature of some steps, its *degree* (Ubaru, Chen and Saad 2017). A *sketch* spans the leading eigenvectors,
on which the trace is computed and not sampled (Hutch++, ``spectral/hutchpp.py``). Two errors come of it: the scatter
of the probes, which falls as one over the root of their number, and the *truncation* of the quadrature, which falls
with the degree. Truncation and round-off together are the *bias*, which no number of probes lowers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from matinfo._validation import check_count, check_in
from matinfo.estimate.result import Estimate
from matinfo.spectral.block_lanczos import BlockLanczos
from matinfo.spectral.functions import Power, Tsallis
from matinfo.spectral.hutchpp import (
    BATCH,
    ScalarFunction,
    SketchedTrace,
    exact_spectrum,
    moved,
    standard_error,
)
from matinfo.spectral.operator import SymmetricOperator, gaussian, rademacher
from matinfo.spectral.xtrace import exchangeable_trace, power_images, power_roundoff

Goal = Callable[[float], float]
"""The accepted half-width of the 95 % interval around a value."""

PROBES, MOST_PROBES = 32, 1024
"""Random vectors by default, and the most that a tolerance may take by default."""

DEGREE, HIGHEST_DEGREE = 24, 128
"""The same for Lanczos steps."""

_FIRST = 16
"""Probes of the first round: enough to judge a standard error by. Rules of smaller blocks are less exact."""

_EXPECTED = 64
"""Vectors that a tolerance may be expected to take."""

SMALLEST = 0.01
"""Relative errors of smaller entropies and log-determinants, in nats, are relative to this: they may be zero."""

_NEAR_ONE = 0.25
"""So near to order one the entropy is found from ``(x^alpha - x)/(alpha - 1)``, farther away from ``x^alpha``."""

_LARGEST_EXPONENT = 700.0
"""The slope of an entropy is an inverse trace; where that is lost in its scatter, float64 may overflow (709)."""


class Reading(NamedTuple):
    """What the probes say of a term: all in its unit."""

    value: float
    deviations: Tensor
    """Of each probe from the mean, ``(s,)``."""
    truncation: float
    bias: float


class Trace:
    """``tr f(P)`` for P = K over its trace, and the degree that it takes.

    ``steps`` is the degree at which the rule is exact, None if there is none; ``least`` is where the search begins.
    """

    weight = 1.0
    """Of this term in the sum that is estimated."""
    captured = 1e-8
    """Relative error of the quadrature on the sketch where no tolerance is given."""

    def __init__(
        self, operator: SymmetricOperator, f: ScalarFunction, *, power: int | None = None, iterations: int = 2
    ) -> None:
        """For an integer ``power`` the rules are exact after half as many steps."""
        self.operator, self.f = operator, f
        self.n = operator.shape[0]
        self.steps = None if power is None else min(max(2, math.ceil(power / 2)), self.n)
        self.least = self.steps or min(2, self.n)
        self.degree = self.least
        self.trace = SketchedTrace(operator, iterations=iterations, is_power=power is not None)

    def keep(self, lanczos: BlockLanczos, signs: Tensor, sizes: Tensor) -> None:
        """Take in what a recurrence has found."""
        self.trace.add(lanczos, sizes)

    def read(self) -> Reading:
        """The estimate from all probes so far."""
        found = self.trace.estimate(self.f)
        bias = found.truncation + found.roundoff
        return Reading(found.value, found.samples - found.value, found.truncation, bias)

    def exact(self) -> tuple[float, float]:
        """The value from all eigenvalues, and its bias."""
        x, delta = exact_spectrum(self.operator)
        return float(self.f(x).sum()), float(moved(self.f, x, delta).sum())


class Entropy(Trace):
    """``weight * H_alpha(K)`` by ``tr (P/scale)^alpha``: that of P itself underflows at high orders."""

    captured = 1e-5

    def __init__(self, operator: SymmetricOperator, alpha: float, weight: float = 1.0) -> None:
        self.alpha, self.weight = alpha, weight
        self.is_power = abs(alpha - 1) > _NEAR_ONE
        self.function = Power(alpha) if self.is_power else Tsallis(alpha)
        power = int(alpha) if alpha >= 2 and alpha == int(alpha) else None
        super().__init__(operator, self.function.value, power=power)
        # The truncation is half the gap of the Gauss and the Gauss-Radau rule. They enclose the quadratic form if the
        # derivatives of x^alpha in their remainders have opposite signs, which takes alpha/2 + 1 steps.
        if power is None:
            self.least = min(math.ceil(alpha / 2) + 1, self.n)
        self.rounding = 16 * operator.noise * (1 + math.log(self.n))
        self.scale = 1.0

    @property
    def collision(self) -> float | None:
        """The entropy of order two, None where it is not known."""
        return None if self.trace.squared is None else max(0.0, -math.log(self.trace.squared))

    def read(self) -> Reading:
        found = self.trace.estimate(self.f, self.rescaled(self.trace.largest_node))
        slope = self.weight * self.slope(found.value)
        value, bias = self._bounded(found.value, found.truncation + found.roundoff)
        return Reading(value, slope * (found.samples - found.value), abs(slope) * found.truncation, bias)

    def exact(self) -> tuple[float, float]:
        x, delta = exact_spectrum(self.operator)
        scale = self.rescaled(float(x[-1]))
        change = float(moved(self.f, x / scale, delta / scale).sum())
        return self._bounded(float(self.f(x / scale).sum()), change)

    def rescaled(self, top: float) -> float:
        """The scale of powers: the largest eigenvalue, as far as it is known."""
        self.scale = top if self.is_power and top > 0 else 1.0
        return self.scale

    def _bounded(self, trace: float, bias: float) -> tuple[float, float]:
        """The weighted entropy of a trace, and what a bias of the trace makes of it."""
        value = self.entropy(trace)
        ends = [self.entropy(trace + shift) for shift in (bias, -bias)]
        worst = max([abs(end - value) for end in ends]) + self.rounding
        return self.weight * value, abs(self.weight) * worst

    def entropy(self, trace: float) -> float:
        """The entropy of a trace in units of the scale, between its exact bounds in terms of n and the order two."""
        e = self.alpha - 1
        if e == 0:
            value = -trace
        elif self.is_power:
            value = -(math.log(trace) + self._log_unit) / e if trace > 0 else math.copysign(math.inf, e)
        else:
            value = -(math.log1p(e * trace) if 1 + e * trace > 0 else -math.inf) / e
        lowest, highest = self.collision or 0.0, math.log(self.n)
        if self.alpha > 2 and self.collision is not None:  # p-norms decrease in p
            lowest, highest = self.collision * self.alpha / (2 * e), self.collision
        return min(max(value, lowest), highest)

    def slope(self, trace: float) -> float:
        """``dH/d tr f``: the inverse of ``tr P^alpha``, for powers in units of the scale and over ``1 - alpha``."""
        e = self.alpha - 1
        exponent = e * self.entropy(trace)
        if not self.is_power:
            return -math.exp(exponent)
        return -math.exp(min(exponent + self._log_unit, _LARGEST_EXPONENT)) / e

    @property
    def _log_unit(self) -> float:
        """Logarithm of ``tr P^alpha`` over ``tr (P/scale)^alpha``."""
        return self.alpha * math.log(self.scale)


class Quadrature:
    """Lanczos quadrature of a sum of terms, all from the same probes so that errors cancel; with or without sketch."""

    def __init__(
        self,
        terms: Sequence[Trace],
        generator: torch.Generator | None,
        *,
        degree: int | None = None,
        goal: Goal | None = None,
        sketch: bool = False,
    ) -> None:
        """Takes ``degree`` steps, for a goal at most so many; a sketch takes half of the vectors."""
        self.terms, self.generator, self.goal, self.sketch = terms, generator, goal, sketch
        self.first = 2 * _FIRST if sketch else _FIRST
        self.least = degree if degree and goal is None else 0
        self.highest = degree or (DEGREE if goal is None else HIGHEST_DEGREE)

    def open(self, count: int) -> None:
        """The first ``count`` vectors."""
        width, goal = count // 2 if self.sketch else 0, self.goal
        if width:
            start = gaussian(self.terms[0].operator, width - self.terms[0].trace.width, self.generator)
            for term in self.terms:
                rtol = term.captured if goal is None else goal(1.0) / 8 / len(self.terms)
                term.trace.widen(start)
                term.trace.capture(term.f, term.steps or max(term.least, self.highest), rtol)
        first = min(count - width, BATCH if goal is None else _FIRST)
        signs = self._signs(first)
        for term in self.terms:
            self._choose_degree(term, signs, math.sqrt(first / (count - width)))
        if goal is None:
            self._add(count - width - first)

    def grow(self, wanted: int, most: int) -> bool:
        """Towards ``wanted`` probes, with at most ``most`` vectors in all; False if nothing is left to do."""
        width, probes = self.terms[0].trace.width, self._probes
        # Far from the goal a wider sketch, which lowers the variance, buys more than further probes.
        if self.sketch and wanted > 2 * probes and 4 * width <= most:
            self.open(4 * width)
            return True
        count = min(max(wanted - probes, _FIRST), 3 * probes, most - width - probes)
        self._add(count)
        return count > 0

    def read(self) -> Estimate:
        """The estimate so far."""
        readings = [term.read() for term in self.terms]
        return Estimate(
            value=sum([reading.value for reading in readings]),
            standard_error=standard_error(torch.stack([reading.deviations for reading in readings]).sum(0)),
            bias_bound=sum([reading.bias for reading in readings]),
            probes=self._probes,
            degree=max([term.degree for term in self.terms]),
        )

    @property
    def _probes(self) -> int:
        return sum([len(part) for part in self.terms[0].trace.sizes])

    def _signs(self, count: int) -> Tensor:
        return rademacher(self.terms[0].operator, count, self.generator)

    def _choose_degree(self, term: Trace, signs: Tensor, share: float) -> None:
        """Steps until truncation is a quarter of the goal or, without one, an eighth of the standard error to come.

        The latter is ``share`` times that of these first probes. Below a quarter of the round-off steps gain nothing.
        """
        goal = self.goal
        lanczos, sizes = term.trace.begin(signs)
        lanczos.advance(term.steps or max(term.least, self.least))
        while True:
            term.trace.parts, term.trace.sizes = [], []
            term.keep(lanczos, signs, sizes)
            if term.steps or lanczos.is_exhausted or lanczos.degree >= self.highest:
                break
            reading = term.read()
            error = (
                share * standard_error(reading.deviations) / 8 if goal is None else goal(reading.value) / 4
            )
            rounding = (reading.bias - reading.truncation) / 4
            if reading.truncation <= max(error / len(self.terms), rounding):
                break
            lanczos.step()
        term.degree = lanczos.degree

    def _add(self, count: int) -> None:
        for first in range(0, count, BATCH):
            signs = self._signs(min(BATCH, count - first))
            for term in self.terms:
                lanczos, sizes = term.trace.begin(signs)
                lanczos.advance(term.degree)
                term.keep(lanczos, signs, sizes)


class Exchangeable:
    """XTrace of a power, from one block of vectors that doubles."""

    first = _FIRST

    def __init__(
        self, term: Trace, power: int, generator: torch.Generator | None, *, goal: Goal | None
    ) -> None:
        self.terms, self.operator, self.power = [term], term.operator, power
        self.generator, self.goal = generator, goal
        self.columns: list[tuple[Tensor, Tensor]] = []

    def open(self, count: int) -> None:
        block = gaussian(self.operator, count, self.generator)
        self.columns.append((block, power_images(self.operator, block, self.power)))

    def grow(self, wanted: int, most: int) -> bool:
        probes = sum([block.shape[1] for block, _ in self.columns])
        if probes == most:
            return False
        self.open(min(probes, most - probes))
        return True

    def read(self) -> Estimate:
        probes, images = (torch.cat(parts, 1) for parts in zip(*self.columns, strict=True))
        found = exchangeable_trace(probes, images)
        bias = power_roundoff(self.operator, self.power, found.value)
        return Estimate(found.value, found.standard_error, bias, probes.shape[1], self.power)


def solve(sampler: Quadrature | Exchangeable, probes: int | None) -> Estimate:
    """An estimate with ``probes`` vectors or, for a goal, with at most so many.

    With as many vectors as the matrix has rows its eigenvalues cost no more products, and leave no scatter.
    """
    terms, goal, n = sampler.terms, sampler.goal, sampler.terms[0].n
    most = probes or (PROBES if goal is None else MOST_PROBES)
    if n <= (most if goal is None else min(most, _FIRST)):
        return _exact(terms)
    sampler.open(most if goal is None else min(sampler.first, most))
    found = sampler.read()
    while goal is not None and found.error() > goal(found.value):
        # The scatter falls as 1/sqrt(probes) into what the bias leaves of the goal; a tenth more, as it is an estimate.
        left = goal(found.value) - found.bias_bound
        wanted = found.probes * ((found.error() - found.bias_bound) / left) ** 2 if left > 0 else math.inf
        if wanted == math.inf or not sampler.grow(math.ceil(1.1 * wanted), min(most, n)):
            return _exact(terms) if n <= most else found
        found = sampler.read()
    return found


def _exact(terms: Sequence[Trace]) -> Estimate:
    values, biases = zip(*[term.exact() for term in terms], strict=True)
    return Estimate(sum(values), 0.0, sum(biases), 0, 0)


def expected_vectors(probes: int | None, tolerance: float | None) -> int:
    """How many vectors are to be expected, for the choice of a method."""
    return probes or PROBES if tolerance is None else min(probes or MOST_PROBES, _EXPECTED)


def check_arguments(alpha: float, probes: int | None, degree: int | None) -> float:
    """Accept an order in (0, inf), at least two probes and one step."""
    order = check_in(alpha, "alpha", "(0, inf)", "0 and inf take the rank and lambda_max: use renyi_entropy.")
    check_count(2 if probes is None else probes, "probes", 2, "one has no standard error")
    check_count(1 if degree is None else degree, "degree")
    return order
