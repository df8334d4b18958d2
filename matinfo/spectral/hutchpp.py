"""Hutch++: traces exact on a sketched subspace, Hutchinson's estimator on its complement.

For an orthonormal Q that nearly spans the leading eigenvectors and a random sign vector z, with y = (I - Q Q^T) z,

    tr f(P)  =  tr Q^T f(P) Q  +  mean of  y^T f(P) y.

The mean is over what the sketch has left, so that its variance is that of the tail (Meyer, Musco, Musco and Woodruff
2021). Every quadratic form is a Lanczos rule, hence between a Gauss and a Gauss-Radau rule (Ubaru, Chen and Saad 2017).
``1, x, x^2`` are control variates on the complement: their traces there are ``n - k``, ``tr P - tr Q^T P Q`` and
``|P|_F^2 - tr Q^T P^2 Q``, all known. Without a sketch this is Hutchinson's estimator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from matinfo.spectral.block_lanczos import BlockLanczos, Rules
from matinfo.spectral.eigensolver import eigh_psd
from matinfo.spectral.operator import SymmetricOperator, check_claimed_trace, check_ritz_values

ScalarFunction = Callable[[Tensor], Tensor]

BATCH = 32
"""Vectors that share one basis: wider blocks save no products of kernels, and their eigenproblems grow as the cube."""

_NEGLIGIBLE = 1e-12
"""A share of ``tr P`` or ``|P|_F^2`` that a difference in float64 no longer shows to some digits."""

_ROUNDOFF = 16 * torch.finfo(torch.float64).eps
"""By how much of the largest eigenvalue the recurrence may displace an eigenvalue."""

_FITTED = 3
"""Coefficients of the control variates, that many fewer degrees of freedom: else 20 probes cover less than stated."""

_TAILS = 2
"""Quadratic forms that a few eigenvalues dominate have heavier tails than normal numbers; an excess kurtosis of 2
halves the degrees of freedom of their variance. Without this 91 to 93 of 100 intervals held on decaying spectra."""


class TraceEstimate(NamedTuple):
    """An estimate of a trace: its value, and bounds on what the quadrature and round-off add."""

    value: float
    samples: Tensor
    """What each probe says, ``(s,)``; the value is their mean."""
    truncation: float
    roundoff: float


class SketchedTrace:
    """``tr f(P)`` of a matrix over its trace, from a sketch that may grow and from probes that may be added."""

    def __init__(self, operator: SymmetricOperator, *, iterations: int = 1, is_power: bool = False) -> None:
        """Starts without sketch and probes.

        Args:
            operator: K; P is K over its trace.
            iterations: Products that a sketch takes, each of which sharpens it.
            is_power: Whether f is a power of at most twice the degree, for which the Gauss-Radau rule is exact.
        """
        self.operator, self.iterations, self.is_power = operator, iterations, is_power
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

    def widen(self, start: Tensor) -> None:
        """Sketch with the columns of ``(n, s)`` besides those that there are. Probes so far are dropped."""
        block = self._deflated(start)
        for _ in range(self.iterations):
            block = self._deflated(self.operator.matmat(torch.linalg.qr(block).Q))
        joined = torch.linalg.qr(torch.cat([self.basis, torch.linalg.qr(block).Q], 1)).Q
        if not self.is_power:  # near eigenvectors, for which few Lanczos steps will do
            projected = joined.mT @ self.operator.matmat(joined)
            joined = joined @ eigh_psd((projected + projected.mT) / 2)[1]
        self.basis = joined
        self.sizes, self.parts, self.captured = [], [], None

    def capture(self, f: ScalarFunction, degree: int, rtol: float) -> None:
        """The trace on the sketch, with steps until the quadrature's relative error is at most ``rtol``."""
        parts = []
        for block in self.basis.split(BATCH, 1):
            lanczos = self.recurrence(block)
            while lanczos.degree < degree and not lanczos.is_exhausted:
                lanczos.step()
                if lanczos.degree < 2 or self.is_power:  # P^2 has to be exact
                    continue
                gauss, radau = self._forms(lanczos.rules(self.total), f)
                if float((radau - gauss).abs().sum()) / 2 <= rtol * abs(float(radau.sum())):
                    break
            parts.append(lanczos.rules(self.total))
        self.captured = Rules.joined(parts)

    def recurrence(self, start: Tensor) -> BlockLanczos:
        """A recurrence from given vectors."""
        return BlockLanczos(self.operator.matmat, start)

    def begin(self, signs: Tensor) -> tuple[BlockLanczos, Tensor]:
        """A recurrence from what probes have outside the sketch, and the squared lengths of that."""
        start = self._deflated(signs)
        return self.recurrence(start), start.square().sum(0)

    def add(self, lanczos: BlockLanczos, sizes: Tensor) -> None:
        """Keep what a recurrence has found."""
        self.parts.append(lanczos.rules(self.total))
        self.sizes.append(sizes)

    @property
    def largest_node(self) -> float:
        """The largest eigenvalue of P that the recurrences have found, from below."""
        return max([float(part.nodes.max()) for part in [*self.parts, self.captured] if part is not None])

    def estimate(self, f: ScalarFunction, scale: float = 1.0) -> TraceEstimate:
        """``tr f(P/scale)`` from at least two probes; :meth:`capture` has been called if there is a sketch."""
        rules, sizes = Rules.joined(self.parts).over(scale), torch.cat(self.sizes)
        squared = None if self.squared is None else self.squared / scale**2
        exact: list[float | None] = [float(self.n - self.width), 1 / scale, squared]
        value = truncation = roundoff = 0.0
        inside = None if self.captured is None else self.captured.over(scale)
        every = torch.cat([part.nodes.flatten() for part in (rules, inside) if part is not None])
        check_ritz_values(every * (scale * self.total), self.operator.noise)  # an error quotes those of K
        delta = displacement(
            float(every.max()), self.n, scale**-2 if squared is None else squared, self.operator.noise
        )
        if inside is not None:
            gauss, radau = self._forms(inside, f)
            value = float(((gauss + radau) / 2).sum())
            truncation = float((radau - gauss).abs().sum()) / 2
            roundoff = float((inside.weights * moved(f, inside.nodes, delta)).sum())
            nodes, weights = inside.radau_nodes, inside.radau_weights
            exact[1] = _remaining(1 / scale, float((weights * nodes).sum()))
            exact[2] = _remaining(squared, float((weights * nodes**2).sum()))
        gauss, radau = (sizes * form for form in self._forms(rules, f))
        samples = (gauss + radau) / 2 + _corrections(rules, sizes, f, exact)
        return TraceEstimate(
            value=value + float(samples.mean()),
            samples=value + samples,
            truncation=truncation + float((radau - gauss).abs().mean()) / 2,
            roundoff=roundoff + float((sizes * (rules.weights * moved(f, rules.nodes, delta)).sum(1)).mean()),
        )

    def _forms(self, rules: Rules, f: ScalarFunction) -> tuple[Tensor, Tensor]:
        """The Gauss and the Gauss-Radau value of each quadratic form of a unit vector."""
        radau = (rules.radau_weights * f(rules.radau_nodes.clamp_min(0.0))).sum(1)
        if self.is_power:
            return radau, radau
        return (rules.weights * f(rules.nodes.clamp_min(0.0))).sum(1), radau

    def _deflated(self, block: Tensor) -> Tensor:
        for _ in range(2 if self.width else 0):  # as in BlockLanczos.step
            block = block - self.basis @ (self.basis.mT @ block)
        return block


def _remaining(whole: float | None, part: float) -> float | None:
    """A moment of the complement, None where it drowns in the rounding of the whole."""
    return whole - part if whole is not None and whole - part > _NEGLIGIBLE * whole else None


def moved(f: ScalarFunction, x: Tensor, delta: float) -> Tensor:
    """How far ``f(x)`` moves when x moves by ``delta``."""
    x = x.clamp_min(0.0)
    return torch.maximum((f(x + delta) - f(x)).abs(), (f((x - delta).clamp_min(0.0)) - f(x)).abs())


def _corrections(rules: Rules, sizes: Tensor, f: ScalarFunction, exact: list[float | None]) -> Tensor:
    """What the exact moments say of each probe's sample of ``tr f(P)``, by the fit to f of the other probes.

    The fit that is taken out of a probe does not know it, so that the mean stays without bias.

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


def fit_of_others(weights: Tensor, powers: Tensor, values: Tensor) -> Tensor:
    """Least squares of ``values`` by ``powers`` over the nodes of all probes but one, for each, ``(s, i)``."""
    normal = torch.einsum("sm,smi,smj->sij", weights, powers, powers)
    right = torch.einsum("sm,smi,sm->si", weights, powers, values)
    others = torch.linalg.pinv(normal.sum(0) - normal, rtol=1e-10, hermitian=True)
    return (others @ (right.sum(0) - right)[..., None])[..., 0]


def displacement(top: float, n: int, squared: float | None, noise: float) -> float:
    """By how much rounding moves eigenvalues: of the recurrence, and in the root mean square of the entries.

    Entries that are off by ``noise`` move the eigenvalues by ``noise |P|_F / sqrt(n)`` in the root mean square (Hoffman
    and Wielandt 1953).
    """
    return _ROUNDOFF * top + noise * math.sqrt((squared or 1.0) / n)


def degrees_of_freedom(probes: int) -> float:
    """Of the standard error of so many probes, for Student's quantile."""
    return max(1.0, (probes - _FITTED) / _TAILS)


def standard_error(samples: Tensor) -> float:
    """Standard error of the mean of samples that three coefficients were fitted to, ``(s,)`` of any size.

    Deviations are squared over the largest of them: traces of high powers are tiny, and their squares would be zero.
    """
    deviations = samples - samples.mean()
    size = float(deviations.abs().max()) or 1.0
    spread = float((deviations / size).square().sum())
    return size * math.sqrt(spread / max(1, len(samples) - _FITTED) / len(samples))


def exact_spectrum(operator: SymmetricOperator) -> tuple[Tensor, float]:
    """All eigenvalues of P, and by how much rounding moves them: for as many probes as rows."""
    n = operator.shape[0]
    K = operator.matmat(torch.eye(n, dtype=operator.dtype, device=operator.device))
    eigenvalues, _ = eigh_psd((K + K.mT) / 2, vectors=False)
    check_ritz_values(eigenvalues, operator.noise)
    found = float(K.diagonal().sum())
    check_claimed_trace(operator, found, 1e-5 * found)
    x = eigenvalues.clamp_min(0.0) / operator.trace()
    return x, displacement(float(x[-1]), n, float(x.square().sum()), operator.noise)
