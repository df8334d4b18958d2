"""Traces of functions of a matrix: exact on a sketched subspace, Hutchinson's estimator on its complement.

For an orthonormal Q that nearly spans the leading eigenvectors and a random sign vector z, with y = (I - Q Q^T) z,

    tr f(P)  =  tr Q^T f(P) Q  +  mean of  y^T f(P) y.

The mean is over what the sketch has left, so that its variance is that of the tail (Hutch++). Every quadratic form is a
Lanczos rule, hence between a Gauss and a Gauss-Radau rule. ``1, x, x^2`` are control variates on the complement: their
traces there are ``n - k``, ``tr P - tr Q^T P Q`` and ``|P|_F^2 - tr Q^T P^2 Q``, all known. Without a sketch this is
Hutchinson's estimator.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matinfo._validation import check_positive_semidefinite
from matinfo.spectral.eigensolver import eigh_psd
from matinfo.spectral.operators import SymmetricOperator
from matinfo.spectral.stochastic import (
    Lanczos,
    Rules,
    ScalarFunction,
    displacement,
    fit_of_others,
    rademacher,
    standard_error,
)

_NEGLIGIBLE = 1e-12
"""A share of ``tr P`` or ``|P|_F^2`` that a difference in float64 no longer shows to some digits."""

_BATCH = 32
"""Vectors that go through Lanczos together."""


class Sketched(NamedTuple):
    """An estimate of a trace: its value, standard error, and bounds on what the quadrature and round-off add."""

    value: float
    standard_error: float
    truncation: float
    roundoff: float


class SketchedTrace:
    """``tr f(P)`` of a matrix over its trace, from a sketch that may grow and from probes that may be added."""

    def __init__(
        self,
        operator: SymmetricOperator,
        f: ScalarFunction,
        generator: torch.Generator | None,
        *,
        iterations: int = 1,
        is_exact: bool = False,
    ) -> None:
        """Starts without sketch and probes.

        Args:
            operator: K; P is K over its trace.
            f: Function on x >= 0.
            generator: Source of the random numbers.
            iterations: Products that a sketch takes, each of which sharpens it.
            is_exact: Whether the Gauss-Radau rule is exact: f is a power of at most twice the degree.
        """
        self.operator, self.f, self.generator, self.iterations = operator, f, generator, iterations
        self.is_exact = is_exact
        self.n, self.total = operator.shape[0], operator.trace()
        squared = operator.frobenius_squared()
        self.squared = None if squared is None else squared / self.total**2
        self.basis = torch.zeros(self.n, 0, dtype=operator.dtype, device=operator.device)
        self.captured: Rules | None = None
        self.sizes: list[Tensor] = []
        self.parts: list[Rules] = []

    @property
    def width(self) -> int:
        """Number of sketch vectors."""
        return self.basis.shape[1]

    @property
    def probes(self) -> int:
        """Number of probes of the complement."""
        return sum([len(part) for part in self.sizes])

    def widen(self, width: int) -> None:
        """Sketch with ``width`` vectors in all, fewer than n. Probes of the former complement are dropped."""
        block = self._deflated(gaussian(self.operator, width - self.width, self.generator))
        for _ in range(self.iterations):
            block = self._deflated(self.operator.matmat(torch.linalg.qr(block).Q))
        joined = torch.linalg.qr(torch.cat([self.basis, torch.linalg.qr(block).Q], 1)).Q
        if not self.is_exact:  # near eigenvectors, for which few Lanczos steps will do
            joined = joined @ eigh_psd(_symmetric(joined.mT @ self.operator.matmat(joined)))[1]
        self.basis = joined
        self.sizes, self.parts, self.captured = [], [], None

    def capture(self, degree: int, rtol: float) -> None:
        """The trace on the sketch, with steps until the quadrature's relative error is at most ``rtol``."""
        parts = []
        for block in self.basis.split(_BATCH, 1):
            lanczos = Lanczos(self.operator, block)
            while lanczos.degree < degree and not lanczos.is_exhausted:
                lanczos.step()
                if lanczos.degree < 2 or self.is_exact:  # P^2 has to be exact
                    continue
                if self._gap(lanczos.rules(self.total)) <= rtol:
                    break
            parts.append(lanczos.rules(self.total))
        self.captured = Rules.joined(parts) if parts else None

    def _gap(self, rules: Rules) -> float:
        gauss, radau = self._forms(rules)
        return float((radau - gauss).abs().sum()) / 2 / max(float(radau.sum()), 1e-300)

    def probe(self, count: int, degree: int) -> None:
        """Add probes of the complement."""
        for first in range(0, count, _BATCH):
            lanczos, sizes = self.begin(min(_BATCH, count - first))
            while lanczos.degree < degree and not lanczos.is_exhausted:
                lanczos.step()
            self.add(lanczos, sizes)

    def begin(self, count: int) -> tuple[Lanczos, Tensor]:
        """A Lanczos recurrence from new probes, and their squared lengths."""
        start = self._deflated(rademacher(self.operator, count, self.generator))
        return Lanczos(self.operator, start), start.square().sum(0)

    def add(self, lanczos: Lanczos, sizes: Tensor) -> None:
        """Keep what a recurrence has found."""
        self.parts.append(lanczos.rules(self.total))
        self.sizes.append(sizes)

    def estimate(self) -> Sketched:
        """The estimate from all probes, at least two; :meth:`capture` has been called if there is a sketch."""
        rules, sizes = Rules.joined(self.parts), torch.cat(self.sizes)
        exact = [float(self.n - self.width), 1.0, self.squared]
        value = truncation = roundoff = 0.0
        every = torch.cat([part.nodes.flatten() for part in (rules, self.captured) if part is not None])
        delta = displacement(float(every.max()), self.n, self.squared, self.operator.noise)
        if self.captured is not None:
            inside = self.captured
            gauss, radau = self._forms(inside)
            value = float(((gauss + radau) / 2).sum())
            truncation = float((radau - gauss).abs().sum()) / 2
            roundoff = _roundoff(inside, torch.ones_like(gauss), self.f, delta)
            nodes, weights = inside.radau_nodes, inside.radau_weights
            exact[1] = _remaining(1.0, float((weights * nodes).sum()))
            exact[2] = (
                None if self.squared is None else _remaining(self.squared, float((weights * nodes**2).sum()))
            )
        check_positive_semidefinite(torch.stack(every.aminmax()), max(1e-6, 10 * self.operator.noise))
        gauss, radau = (sizes * form for form in self._forms(rules))
        samples = (gauss + radau) / 2 + _corrections(rules, sizes, self.f, exact)
        return Sketched(
            value=value + float(samples.mean()),
            standard_error=standard_error(samples),
            truncation=truncation + float((radau - gauss).abs().mean()) / 2,
            roundoff=roundoff + _roundoff(rules, sizes, self.f, delta) / len(sizes),
        )

    def _forms(self, rules: Rules) -> tuple[Tensor, Tensor]:
        """The Gauss and the Gauss-Radau value of each quadratic form of a unit vector."""
        radau = (rules.radau_weights * self.f(rules.radau_nodes.clamp_min(0.0))).sum(1)
        if self.is_exact:
            return radau, radau
        return (rules.weights * self.f(rules.nodes.clamp_min(0.0))).sum(1), radau

    def _deflated(self, block: Tensor) -> Tensor:
        for _ in range(2 if self.width else 0):  # twice is enough
            block = block - self.basis @ (self.basis.mT @ block)
        return block


def gaussian(operator: SymmetricOperator, count: int, generator: torch.Generator | None) -> Tensor:
    """``(n, count)`` independent standard normal numbers."""
    shape = (operator.shape[0], count)
    return torch.randn(shape, dtype=operator.dtype, device=operator.device, generator=generator)


def _remaining(whole: float, part: float) -> float | None:
    """A moment of the complement, None where it drowns in the rounding of the whole."""
    return whole - part if whole - part > _NEGLIGIBLE * whole else None


def _roundoff(rules: Rules, sizes: Tensor, f: ScalarFunction, delta: float) -> float:
    """How far the sum moves when every eigenvalue moves by ``delta``."""
    x = rules.nodes.clamp_min(0.0)
    moved = torch.maximum((f(x + delta) - f(x)).abs(), (f((x - delta).clamp_min(0.0)) - f(x)).abs())
    return float((sizes[:, None] * rules.weights * moved).sum())


def _corrections(rules: Rules, sizes: Tensor, f: ScalarFunction, exact: list[float | None]) -> Tensor:
    """What the exact moments say of each probe's sample of ``tr f(P)``, by the fit to f of the other probes.

    Args:
        rules: Rules of at least two probes.
        sizes: Squared lengths of the probes.
        f: The function.
        exact: Traces of ``1, P, P^2`` over the complement; None for one that is not to be used.
    """
    x, weights = rules.radau_nodes.clamp_min(0.0), sizes[:, None] * rules.radau_weights
    top = float(x.max()) or 1.0
    used = [j for j, moment in enumerate(exact) if moment is not None]
    powers = torch.stack([(x / top) ** j for j in used], -1)
    known = x.new_tensor([exact[j] / top**j for j in used])  # type: ignore[operator]

    moments = (weights[..., None] * powers).sum(1)
    return (fit_of_others(weights, powers, f(x)) * (known - moments)).sum(1)


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2
