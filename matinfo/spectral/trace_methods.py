"""A trace by a named method: with a fixed number of random vectors, or with as many as a tolerance takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from matinfo._validation import check_positive_semidefinite
from matinfo.spectral.eigensolver import eigh_psd
from matinfo.spectral.hutchpp import SketchedTrace, gaussian
from matinfo.spectral.operators import SymmetricOperator
from matinfo.spectral.stochastic import ScalarFunction, displacement, half_width
from matinfo.spectral.xtrace import exchangeable_trace, power_images

METHODS = ("auto", "hutchinson", "hutch++")
POWER_METHODS = (*METHODS, "xtrace")

_FIRST = 16
"""Vectors of the first round: enough to judge a standard error by."""

_EXPECTED = 64
"""Vectors that a tolerance may be expected to take, for the choice of the method."""

_FLAT = {"power": 1 / 2, "log": 1 / 4}
"""Share of the n eigenvalues that, if so many are effective, leaves nothing to a sketch."""

_MANY = 16
"""Effective eigenvalues a vector above which a sketch catches little."""

_EXACT_ENOUGH = 1e-8
"""Relative error of the quadrature on the sketch where no tolerance is given."""


class Found(NamedTuple):
    """An estimate of a trace; probes are the vectors that the standard error rests on."""

    value: float
    standard_error: float
    bias: float
    probes: int
    degree: int

    def error(self) -> float:
        """Half the width of the 95 % interval."""
        return half_width(self.standard_error, self.bias, self.probes, 0.95)


class Problem(NamedTuple):
    """``tr f(P)`` for P = K over its trace, f a power or else an operator monotone function with ``f(0) = 0``."""

    operator: SymmetricOperator
    f: ScalarFunction
    power: int | None
    degree: int
    generator: torch.Generator | None

    @property
    def n(self) -> int:
        """Order of the matrix."""
        return self.operator.shape[0]

    @property
    def exact_degree(self) -> int | None:
        """Lanczos steps after which the Gauss-Radau rule is exact for a power."""
        return None if self.power is None else min(max(2, math.ceil(self.power / 2)), self.n)


Goal = Callable[[float], float]
"""The accepted half-width of the interval around a value."""


def solve(problem: Problem, method: str, probes: int, goal: Goal | None) -> Found:
    """The trace by one of :data:`POWER_METHODS`, with ``probes`` vectors or, for a goal, with at most so many.

    With as many vectors as the matrix has rows its eigenvalues cost no more products.
    """
    if probes >= problem.n and (goal is None or problem.n <= _FIRST):
        return _exact(problem)
    if method == "auto":
        method = choice(problem, probes if goal is None else min(probes, _EXPECTED))
    most = min(probes, problem.n)
    found = (
        _exchangeable(problem, most, goal) if method == "xtrace" else _sketched(problem, method, most, goal)
    )
    if goal is not None and found.error() > goal(found.value) and probes >= problem.n:
        return _exact(problem)
    return found


def choice(problem: Problem, probes: int) -> str:
    """The method by the participation ratio ``r = (tr K)^2 / |K|_F^2``, the effective number of eigenvalues.

    XTrace for a power of fewer effective eigenvalues than half the vectors; Hutchinson where so many of the n
    eigenvalues matter that a sketch catches little, which is earlier for a logarithm, being flatter; else Hutch++.
    """
    squared = problem.operator.frobenius_squared()
    if squared is None:
        return "hutch++"
    ratio = problem.operator.trace() ** 2 / squared
    if problem.power is not None and ratio <= probes / 2:
        return "xtrace"
    return (
        "hutchinson" if ratio > problem.n * _FLAT["log" if problem.power is None else "power"] else "hutch++"
    )


def _exact(problem: Problem) -> Found:
    operator = problem.operator
    identity = torch.eye(problem.n, dtype=operator.dtype, device=operator.device)
    K = operator.matmat(identity)
    eigenvalues, _ = eigh_psd((K + K.mT) / 2, vectors=False)
    check_positive_semidefinite(eigenvalues, max(1e-6, 10 * operator.noise))
    x = eigenvalues.clamp_min(0.0) / operator.trace()
    value = problem.f(x)
    delta = displacement(float(x[-1]), problem.n, float(x.square().sum()), operator.noise)
    moved = torch.maximum(
        (problem.f(x + delta) - value).abs(), (problem.f((x - delta).clamp_min(0.0)) - value).abs()
    )
    return Found(float(value.sum()), 0.0, float(moved.sum()), 0, 0)


# --- Hutchinson and Hutch++ --------------------------------------------------------------------------------------


def _sketched(problem: Problem, method: str, probes: int, goal: Goal | None) -> Found:
    iterations = 2 if problem.power is None else math.ceil(problem.power / 2)
    trace = SketchedTrace(
        problem.operator,
        problem.f,
        problem.generator,
        iterations=iterations,
        is_exact=problem.power is not None,
    )
    share = 0.5 if method == "hutch++" else 0.0
    count = probes if goal is None else min(2 * _FIRST, probes)
    degree = _open(problem, trace, share, count, goal)
    found = _read(trace, degree)
    while goal is not None and found.error() > goal(found.value):
        left = goal(found.value) - found.bias
        room = probes - trace.width - found.probes
        if left <= 0 or room <= 0:
            break
        wanted = math.ceil(1.1 * found.probes * ((found.error() - found.bias) / left) ** 2)
        if share and wanted > 2 * found.probes and 4 * trace.width <= probes:
            degree = _open(problem, trace, share, 4 * trace.width, goal)
        else:
            trace.probe(min(max(wanted - found.probes, 4), 3 * found.probes, room), degree)
        found = _read(trace, degree)
    return found


def _open(problem: Problem, trace: SketchedTrace, share: float, count: int, goal: Goal | None) -> int:
    """Sketch with a share of ``count`` vectors, probe with the others; the degree that this took."""
    rtol = _EXACT_ENOUGH if goal is None else goal(1.0) / 8
    width = int(share * count)
    if width:
        trace.widen(width)
        trace.capture(problem.exact_degree or problem.degree, 0.0 if problem.power else rtol)
    if goal is None or problem.power is not None:
        degree = problem.exact_degree or problem.degree
        trace.probe(count - width, degree)
        return degree
    lanczos, sizes = trace.begin(min(count - width, _FIRST))
    while True:
        lanczos.step()
        if lanczos.degree < 2:
            continue
        trace.parts, trace.sizes = [], []
        trace.add(lanczos, sizes)
        estimate = trace.estimate()
        target = max(goal(estimate.value) / 4, estimate.roundoff / 4)
        if estimate.truncation <= target or lanczos.is_exhausted or lanczos.degree >= problem.degree:
            return lanczos.degree


def _read(trace: SketchedTrace, degree: int) -> Found:
    estimate = trace.estimate()
    return Found(
        estimate.value, estimate.standard_error, estimate.truncation + estimate.roundoff, trace.probes, degree
    )


# --- XTrace ------------------------------------------------------------------------------------------------------


def _exchangeable(problem: Problem, probes: int, goal: Goal | None) -> Found:
    assert problem.power is not None
    operator = problem.operator
    columns: list[tuple[Tensor, Tensor]] = []
    count = probes if goal is None else min(_FIRST, probes)
    while True:
        block = gaussian(operator, count, problem.generator)
        columns.append((block, power_images(operator, block, problem.power)))
        vectors, images = (torch.cat(parts, 1) for parts in zip(*columns, strict=True))
        estimate = exchangeable_trace(vectors, images)
        bias = _power_roundoff(operator, problem.power, estimate.value)
        found = Found(estimate.value, estimate.standard_error, bias, vectors.shape[1], problem.power)
        count = min(found.probes, probes - found.probes)
        if goal is None or count == 0 or found.error() <= goal(found.value):
            return found


def _power_roundoff(operator: SymmetricOperator, power: int, value: float) -> float:
    """What eigenvalues that are off by their rounding do to ``tr P^p``, by its derivative ``p tr P^(p-1)``."""
    squared = operator.frobenius_squared()
    size = 1.0 if squared is None else math.sqrt(squared) / operator.trace()
    delta = (operator.noise / math.sqrt(operator.shape[0]) + torch.finfo(torch.float64).eps) * size
    at_most = max(value, 0.0) ** (
        (power - 2) / (power - 1)
    )  # tr P^(p-1): log tr P^p is convex in p, 0 at p = 1
    return power * delta * at_most
