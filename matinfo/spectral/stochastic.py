"""Stochastic Lanczos quadrature with exact control variates, and brackets for what the quadrature misses.

For a Rademacher vector z, ``z^T f(P) z`` has mean ``tr f(P)``. Lanczos turns it into ``n sum_j tau_j f(theta_j)``, a
Gauss rule. The same rules give ``z^T z``, ``z^T P z`` and ``z^T P^2 z`` exactly, whose means ``n``, ``tr P`` and
``|P|_F^2`` are known, so that ``f`` less its best fit by ``1, x, x^2`` is all that has to be estimated.

Where ``f^(2m)`` and ``f^(2m+1)`` have opposite signs on x > 0, the Gauss rule of m nodes and the Gauss-Radau rule with
another node at 0 lie on the two sides of the true quadratic form. For powers and ``x log x`` this is so for
``2m > alpha``; for integer alpha >= 2 both are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from matinfo._validation import check_positive_semidefinite
from matinfo.spectral.eigensolver import eigh_psd
from matinfo.spectral.operators import SymmetricOperator

ScalarFunction = Callable[[Tensor], Tensor]

_ROUNDOFF = 16 * torch.finfo(torch.float64).eps
"""By how much of the largest eigenvalue the recurrence may displace an eigenvalue."""


class Lanczos:
    """Lanczos recurrences from several vectors at once, each with a basis of its own, fully reorthogonalised."""

    def __init__(self, operator: SymmetricOperator, start: Tensor) -> None:
        """Starts from the columns of ``(n, s)``."""
        self.operator = operator
        self._length = torch.linalg.vector_norm(start, dim=0)
        vectors = (start / self._length).mT
        self._basis = vectors[:, None, :].contiguous()
        self.degree = 0
        self.diagonal = start.new_zeros(start.shape[1], 0, dtype=torch.float64)
        self.off_diagonal = self.diagonal  # entry j joins steps j and j+1

    def step(self) -> None:
        """One product with the operator. A recurrence that is exhausted goes on with zero vectors."""
        m = self.degree
        vectors = self._basis[:, m]
        images = self.operator.matmat(vectors.mT.contiguous()).mT
        diagonal = (vectors * images).sum(-1).double()
        basis = self._basis[:, : m + 1]
        for _ in range(2):  # twice is enough
            images = images - torch.einsum("smn,sm->sn", basis, torch.einsum("smn,sn->sm", basis, images))
        norm = torch.linalg.vector_norm(images, dim=-1)
        self.diagonal = torch.cat([self.diagonal, diagonal[:, None]], 1)
        scale = self.diagonal.abs().amax(1)
        exhausted = norm.double() <= 32 * torch.finfo(images.dtype).eps * scale
        norm = torch.where(exhausted, 0.0, norm)
        self.off_diagonal = torch.cat([self.off_diagonal, norm[:, None].double()], 1)
        self.degree += 1
        self._store(torch.where(exhausted[:, None], 0.0, images / torch.where(exhausted, 1.0, norm)[:, None]))

    def _store(self, vectors: Tensor) -> None:
        s, capacity, n = self._basis.shape
        if self.degree == capacity:
            grown = self._basis.new_empty(s, 2 * capacity, n)
            grown[:, :capacity] = self._basis
            self._basis = grown
        self._basis[:, self.degree] = vectors

    @property
    def is_exhausted(self) -> bool:
        """Whether every rule is exact already."""
        return self.degree > 0 and not bool((self.off_diagonal[:, -1] > 0).any())

    def rules(self, total: float) -> Rules:
        """The Gauss and Gauss-Radau rules for the matrix divided by its trace, ``total``."""
        T = self._tridiagonal()
        extended = torch.nn.functional.pad(T, (0, 1, 0, 1))
        last = self.off_diagonal[:, -1]
        extended[:, -1, -2] = extended[:, -2, -1] = last
        extended[:, -1, -1] = self._radau_entry(total)  # no eigenvalue exceeds the trace
        nodes, weights = _nodes_and_weights(T)
        radau_nodes, radau_weights = _nodes_and_weights(extended)
        return Rules(nodes / total, weights, radau_nodes / total, radau_weights)

    def _tridiagonal(self) -> Tensor:
        inner = self.off_diagonal[:, :-1]
        return torch.diag_embed(self.diagonal) + torch.diag_embed(inner, 1) + torch.diag_embed(inner, -1)

    def applied(self, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``f(K) z`` for every start vector z, ``(n, s)``; f gets the nodes of each with their weights, ``(s, m)``."""
        nodes, vectors = eigh_psd(self._tridiagonal())
        first = vectors[:, 0, :]
        coefficients = (vectors * (f(nodes, first.square()) * first)[:, None, :]).sum(-1)
        return self._length * torch.einsum("sm,smn->ns", coefficients, self._basis[:, : self.degree])

    def first_images(self) -> Tensor:
        """``K z`` for every start vector, known after one step."""
        vectors = self.diagonal[:, :1] * self._basis[:, 0] + self.off_diagonal[:, :1] * self._basis[:, 1]
        return (self._length[:, None] * vectors).mT

    def _radau_entry(self, ceiling: float) -> Tensor:
        """The corner that makes the extended matrix singular: ``beta_m^2`` over the last pivot of LDL^T.

        It cannot exceed the largest eigenvalue except by round-off of a vanishing pivot.
        """
        entry = torch.zeros_like(self.diagonal[:, 0])
        for a, b in zip(self.diagonal.unbind(1), self.off_diagonal.unbind(1), strict=True):
            pivot = (a - entry).clamp_min(0.0)
            squared = b.square()
            entry = torch.where(
                squared < ceiling * pivot, squared / torch.where(pivot > 0, pivot, 1.0), ceiling
            )
            entry = torch.where(b > 0, entry, 0.0)
        return entry


class Rules(NamedTuple):
    """Nodes and weights, ``(s, m)`` each for Gauss and ``(s, m + 1)`` for Gauss-Radau; the weights sum to one."""

    nodes: Tensor
    weights: Tensor
    radau_nodes: Tensor
    radau_weights: Tensor

    @classmethod
    def joined(cls, parts: list[Rules]) -> Rules:
        """The rules of several batches of probes; shorter ones get nodes of no weight."""
        return cls(*[_stack(list(columns)) for columns in zip(*parts, strict=True)])

    def over(self, scale: float) -> Rules:
        """The rules of the matrix divided by ``scale``."""
        return Rules(self.nodes / scale, self.weights, self.radau_nodes / scale, self.radau_weights)


def _stack(columns: list[Tensor]) -> Tensor:
    width = max([column.shape[1] for column in columns])
    pad = torch.nn.functional.pad
    return torch.cat([pad(column, (0, width - column.shape[1])) for column in columns])


def _nodes_and_weights(T: Tensor) -> tuple[Tensor, Tensor]:
    nodes, vectors = eigh_psd(T)
    return nodes, vectors[:, 0, :].square()


class TraceEstimate(NamedTuple):
    """An estimate of a trace: its value, standard error, and bounds on what the quadrature and round-off add."""

    value: float
    standard_error: float
    truncation: float
    roundoff: float
    samples: Tensor
    """What each probe says, ``(s,)``; the value is their mean."""


def estimate_trace(
    rules: Rules,
    f: ScalarFunction,
    n: int,
    squared: float | None,
    *,
    total: float = 1.0,
    noise: float = 0.0,
) -> TraceEstimate:
    """Estimate ``tr f(P)`` from the rules of at least two probes.

    The fit that is taken out of probe i is that of the other probes, so that the mean stays exact.

    Args:
        rules: Nodes on the scale of P.
        f: The function, on x >= 0.
        n: Order of the matrix.
        squared: ``|P|_F^2``; None to fit by ``1, x`` only.
        total: ``tr P``.
        noise: Relative rounding of the entries of P. It moves the eigenvalues by ``noise |P|_F / sqrt(n)`` in the root
            mean square (Hoffman and Wielandt).
    """
    check_positive_semidefinite(torch.stack(rules.nodes.aminmax()), max(1e-6, 10 * noise))
    x, weights = rules.nodes.clamp_min(0.0), rules.weights
    top = x.max()
    powers = torch.stack([torch.ones_like(x), x / top, (x / top).square()][: 2 if squared is None else 3], -1)
    exact = [float(n), total / float(top), (squared or 0.0) / float(top) ** 2][: powers.shape[-1]]

    values = f(x)
    gauss = (weights * values).sum(1)
    moments = (weights[..., None] * powers).sum(1)
    fit = fit_of_others(weights, powers, values)
    correction = (fit * (x.new_tensor(exact) - n * moments)).sum(1)

    width = n * ((rules.radau_weights * f(rules.radau_nodes.clamp_min(0.0))).sum(1) - gauss)
    samples = n * gauss + width / 2 + correction
    delta = displacement(float(top), n, total**2 if squared is None else squared, noise)
    moved = torch.maximum((f(x + delta) - values).abs(), (f((x - delta).clamp_min(0.0)) - values).abs())
    return TraceEstimate(
        value=float(samples.mean()),
        standard_error=standard_error(samples),
        truncation=float(width.abs().mean()) / 2,
        roundoff=n * float((weights * moved).sum(1).mean()),
        samples=samples,
    )


def standard_error(samples: Tensor) -> float:
    """Standard error of the mean of samples that three coefficients were fitted to, ``(s,)`` of any size.

    Deviations are squared over the largest of them: traces of high powers are tiny, and their squares would be zero.
    """
    deviations = samples - samples.mean()
    size = float(deviations.abs().max()) or 1.0
    spread = float((deviations / size).square().sum())
    return size * math.sqrt(spread / degrees_of_freedom(len(samples)) / len(samples))


def displacement(top: float, n: int, squared: float | None, noise: float) -> float:
    """By how much rounding moves eigenvalues: of the recurrence, and in the root mean square of the entries."""
    return _ROUNDOFF * top + noise * math.sqrt((squared or 1.0) / n)


def fit_of_others(weights: Tensor, powers: Tensor, values: Tensor) -> Tensor:
    """Least squares of ``values`` by ``powers`` over the nodes of all probes but one, for each, ``(s, i)``."""
    normal = torch.einsum("sm,smi,smj->sij", weights, powers, powers)
    right = torch.einsum("sm,smi,sm->si", weights, powers, values)
    others = torch.linalg.pinv(normal.sum(0) - normal, rtol=1e-10, hermitian=True)
    return (others @ (right.sum(0) - right)[..., None])[..., 0]


def degrees_of_freedom(probes: int) -> int:
    """What the three fitted coefficients leave; without this 20 probes cover less than they should."""
    return max(1, probes - 3)


def half_width(standard_error: float, bias: float, probes: int, confidence: float) -> float:
    """Of a confidence interval: Student's quantile times the standard error, plus the bias; no probes, no spread."""
    from scipy.special import stdtrit  # a good part of the time that importing matinfo would take

    spread = stdtrit(degrees_of_freedom(probes), (1 + confidence) / 2) * standard_error if probes else 0.0
    return float(spread + bias)


def rademacher(operator: SymmetricOperator, count: int, generator: torch.Generator | None) -> Tensor:
    """``(n, count)`` independent signs."""
    shape = (operator.shape[0], count)
    signs = torch.randint(0, 2, shape, generator=generator, device=operator.device)
    return (2 * signs - 1).to(operator.dtype)
