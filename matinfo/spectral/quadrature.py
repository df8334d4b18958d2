"""Entropies from log-determinants alone: Cholesky factorisations in place of an eigendecomposition.

For ``f(x) = (x^alpha - x)/(alpha - 1)`` (``x log x`` at 1) the fit

    f(x)  ~  c x + q x^2 + sum_j v_j t_j log(1 + x/t_j),     |f(x) - fit(x)| <= delta (x^a + tau/n) on [0, 1],

a = min(alpha, 1), gives ``|tr f(P) - fit| <= delta (tr P^a + tau)`` for every spectrum of trace one: the sum over the
n eigenvalues of the bound for one of them. The weight ``x^a + tau/n`` lets the fit be worst where an eigenvalue
counts most, so that the error is relative to the trace; tau, the ``floor`` of the code, keeps it above zero at x = 0.
The fit of a matrix is ``c tr P + q |P|_F^2 + sum_j v_j t_j log det(I + P/t_j)``, and its derivative ``c I + 2 q P +
sum_j v_j t_j (t_j I + P)^{-1}`` comes from the same factors.

The bound counts what a Cholesky factorisation in float64 can add, too. The computed factor is exact for ``A + E`` with
``|E_ij| <= gamma sqrt(a_ii a_jj)``, gamma = (n+1)u (Higham 2002, theorem 10.3), A = P + t I, so that

    |log det(A + E) - log det A|  <=  gamma tr A |A^{-1}|_F  <=  gamma sqrt(n) (n + 1/t)

to first order. The nodes t_j are geometric; the weights minimise delta plus this error of rounding in one linear
program, so that they cannot grow large with alternating signs. float32 would add more than the tolerances in use, so
all of this is done in float64.
"""

from __future__ import annotations

import bisect
import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from matinfo._record import record
from matinfo._validation import values_are_readable
from matinfo.spectral.eigensystem import Noise, derivatives_are_wanted
from matinfo.spectral.entropy_function import entropy_function
from matinfo.spectral.logdet import inverse_of_sum
from matinfo.spectral.scalar import scalar
from matinfo.spectral.triangular import weighted_inverse_sum

NODES = (3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20)
"""Sizes of rules among which the smallest that is good enough is taken: each node is a Cholesky factorisation."""

_ROUNDOFF = 2.0**-53

_SMALLEST = 1e-13
"""The smallest node: float64 factors what lies above, of matrices of trace one."""

_COARSE = 1e-3
"""From this tolerance on the gradient of a large matrix on a GPU is formed in float32: its fit is no better."""

_LARGE = 4096
"""Order from which that is faster (H200, six nodes: 11 against 13 ms at 4096, 4.9 against 2.6 ms at 2048)."""

_GROUP = 2**29
"""Entries of the factors that are held at once on a GPU."""


class Rule(NamedTuple):
    """Nodes, weights ``v_j t_j``, coefficients of x and x^2, and the bound ``delta (mass + floor) + rounding``."""

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    linear: float
    square: float
    delta: float
    floor: float
    rounding: float

    def relative_error(self, value: Tensor, alpha: float, noise: float | Tensor, n: int) -> Tensor:
        """The relative error that an entropy may have.

        ``H = -log(1 + e tr f)/e``, e = alpha - 1, has the slope ``-1/(1 + e tr f) = -1/tr P^alpha`` in ``tr f``. An
        error of at most ``bound`` there is one of at most ``bound / (mass - |e| bound)`` in H, by the steepest slope
        on the way.

        ``noise`` is the mass of eigenvalues that may be negative by round-off, and count as zero in truth. They are not
        below ``-t_1``, or the factorisation would have failed, and the fit is linear there.
        """
        e = alpha - 1
        mass = torch.exp(-e * value)  # tr P^alpha
        slope = abs(self.linear + sum([w / t for w, t in zip(self.weights, self.nodes, strict=True)]))
        bound = self.delta * (mass.clamp_min(1.0) + self.floor) + self.rounding
        # A number is written on the device itself: copied there, it would be waited for.
        noise = noise.to(value.dtype) if isinstance(noise, Tensor) else torch.full_like(value, noise)
        below = n * self.nodes[0]
        bound = bound + noise.clamp_max(below) * slope
        if alpha < 1:  # eigenvalues in the noise may count or not
            bound = bound + torch.where(noise < below, n * (noise / n) ** alpha / (1 - alpha), 0.0)
        error = bound / (mass - abs(e) * bound).clamp_min(1e-300)
        return error / (value.abs() - error).clamp_min(1e-300)


def quadrature_entropy(
    K: Tensor, total: Tensor, alpha: float, rtol: float, noise: Noise, *, strict: bool, side: str = "matrix"
) -> Tensor:
    """Entropy of order 0 < alpha <= 2 to a relative error of at most ``rtol``, float64.

    Args:
        K: Positive semi-definite, ``(..., n, n)``.
        total: Its trace ``(...)``, float64, differentiable.
        alpha: The order.
        rtol: Guaranteed relative error of every batch element.
        noise: What is known of the errors of K's entries.
        strict: Whether to refuse where ``rtol`` is out of reach, instead of taking the eigenvalues.
        side: For the explanation.

    Raises:
        ValueError: If no rule reaches ``rtol``; the message says what was reached. Where the host may not look at
            values, such an element and an indefinite one are NaN instead.
    """
    n = K.shape[-1]
    P = K.double() / total[..., None, None]
    size = 2 ** max(4, math.ceil(math.log2(n)))
    coarsest = noise.entries
    if isinstance(coarsest, Tensor):  # one rule for all matrices of a batch
        coarsest = coarsest.max().item() if values_are_readable(K) and coarsest.numel() else noise.indefinite
    in_noise = 2.0 ** math.ceil(math.log2(4 * coarsest / n))  # rounded, so that few rules are needed
    if not values_are_readable(K):
        rule = fitted_rule(alpha, size, NODES[-1], max(_SMALLEST, in_noise))
        value = _evaluate(P, rule, alpha, rtol)
        certain = rule.relative_error(value.detach(), alpha, noise.entries, n) <= rtol
        record("quadrature", P, side=side, note=f"{len(rule.nodes)} nodes, without waiting")
        return torch.where(certain, value, torch.nan)
    finite = P.detach().diagonal(dim1=-2, dim2=-1).sum(-1).isfinite()
    # First as if no eigenvalue were negative by round-off, which factors of small shifts prove.
    for smallest in sorted({_SMALLEST, max(_SMALLEST, in_noise)}):
        for guess in _likely_and_smallest_entropy(P.detach()):
            rule = _rule_for(guess, alpha, size, rtol, coarsest, n, smallest)
            value = _evaluate(P, rule, alpha, rtol)
            if bool((value.isnan() & finite).any()):
                break  # not positive definite after the smallest shift
            relative = rule.relative_error(value.detach(), alpha, noise.entries, n)
            reached = float(relative.nan_to_num(0.0).max()) if relative.numel() else 0.0
            if reached <= rtol:
                note = f"{len(rule.nodes)} nodes, relative error at most {reached:.1e}"
                record("quadrature", P, side=side, note=note)
                return value
        else:
            if not strict:
                break
            raise ValueError(
                f"Expected rtol that the quadrature can guarantee here, got {rtol:g}; it reached {reached:.2g} with "
                f"{len(rule.nodes)} nodes in float64. Use method='auto' for the exact value, or a larger rtol."
            )
    # Eigenvalues tell round-off from an indefinite matrix, and refuse that.
    return entropy_function(K, total.detach(), alpha, noise, torch.float64, side=side)


def _likely_and_smallest_entropy(P: Tensor) -> tuple[float, float]:
    """One that is likely, a quarter of the way from the least to log n; and the least, which is that of order 2."""
    smallest = -2 * torch.linalg.vector_norm(P, dim=(-2, -1)).log()
    least = max(float(smallest.nan_to_num(math.inf).amin()), 0.0) if smallest.numel() else 0.0
    most = math.log(P.shape[-1])
    least = min(least, most)
    return least + (most - least) / 4, least


def _rule_for(
    value: float, alpha: float, size: int, rtol: float, noise: float, n: int, smallest: float
) -> Rule:
    """The smallest rule that is good enough if the entropy is ``value``, else the largest one."""
    entropy = torch.tensor(value, dtype=torch.float64)

    def is_good(count: int) -> bool:
        rule = fitted_rule(alpha, size, count, smallest)
        return float(rule.relative_error(entropy, alpha, noise, n)) <= 0.9 * rtol

    index = bisect.bisect_left(NODES[:-1], True, key=is_good)
    return fitted_rule(alpha, size, NODES[index], smallest)


def _evaluate(P: Tensor, rule: Rule, alpha: float, rtol: float) -> Tensor:
    trace = _fitted_trace(P, rule, rtol)
    e = alpha - 1
    return -trace if e == 0 else -torch.log1p(e * trace) / e


def _fitted_trace(P: Tensor, rule: Rule, rtol: float) -> Tensor:
    """The fit of ``tr f(P)``."""
    known, wanted = P.detach(), derivatives_are_wanted(P)
    if P.is_cuda:
        logs, inverses = _on_device(known, rule, rtol, wanted)
    else:
        logs, inverses = _one_by_one(known, rule, wanted)
    value = rule.linear * known.diagonal(dim1=-2, dim2=-1).sum(-1)
    value = value + rule.square * known.square().sum((-2, -1)) + logs
    return scalar(P, value, _derivative, _differentiable_derivative, rule, inverses) if wanted else value


def _derivative(grad: Tensor, P: Tensor, rule: Rule, inverses: Tensor) -> Tensor:
    result = inverses.double().add(P, alpha=2 * rule.square)
    result.diagonal(dim1=-2, dim2=-1).add_(rule.linear)
    return result.mul_(grad[..., None, None])


def _differentiable_derivative(P: Tensor, rule: Rule, _: Tensor) -> Tensor:
    identity = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    derivative = rule.linear * identity + 2 * rule.square * P
    for node, weight in zip(rule.nodes, rule.weights, strict=True):
        derivative = derivative + weight * inverse_of_sum(P, node)
    return derivative


def _factor(P: Tensor, node: float) -> tuple[Tensor, Tensor]:
    """The Cholesky factor of ``P + t I``, and ``log det(I + P/t)``; NaN where it is not positive definite."""
    A = P.clone()
    A.diagonal(dim1=-2, dim2=-1).add_(node)
    L, info = torch.linalg.cholesky_ex(A)
    logdet = (L.diagonal(dim1=-2, dim2=-1).square() / node).log().sum(-1)
    return L, torch.where(info == 0, logdet, torch.nan)


def _one_by_one(P: Tensor, rule: Rule, wanted: bool) -> tuple[Tensor, Tensor]:
    """The sums over the nodes of weighted log-determinants and inverses, holding one factor."""
    logs, inverses = P.new_zeros(P.shape[:-2]), torch.zeros_like(P) if wanted else P.new_empty(0)
    for node, weight in zip(rule.nodes, rule.weights, strict=True):
        L, logdet = _factor(P, node)
        logs = logs + weight * logdet
        if wanted:
            inverses = inverses + weight * torch.cholesky_inverse(L)
    return logs, inverses


def _on_device(P: Tensor, rule: Rule, rtol: float, wanted: bool) -> tuple[Tensor, Tensor]:
    """The same for a GPU: factors one by one, which is what its library does best, inverses in groups by products."""
    n = P.shape[-1]
    dtype = torch.float32 if rtol >= _COARSE and n >= _LARGE else P.dtype
    logs, inverses = P.new_zeros(P.shape[:-2]), torch.zeros_like(P, dtype=dtype) if wanted else P.new_empty(0)
    nodes = list(zip(rule.nodes, rule.weights, strict=True))
    group = max(1, _GROUP // max(P.numel(), 1))
    for start in range(0, len(nodes), group):
        factors = []
        for node, weight in nodes[start : start + group]:
            L, logdet = _factor(P, node)
            logs = logs + weight * logdet
            if wanted:
                factors.append(L.to(dtype))
        if wanted:
            weights = [weight for _, weight in nodes[start : start + group]]
            inverses += weighted_inverse_sum(torch.stack(factors, -3), weights)
    return logs, inverses


@functools.cache
def fitted_rule(alpha: float, n: int, count: int, smallest: float) -> Rule:
    """The best rule of ``count`` nodes from ``smallest`` on, for matrices of order at most n.

    The first node is ``10^(low/4) / n``, the last ``10^(high/4)``; both ends are found by walking downhill on the
    bound.
    """

    def nodes(low: int, high: int) -> np.ndarray:
        return _nodes(max(smallest, 10.0 ** (low / 4) / n), 10.0 ** (high / 4), count)

    @functools.cache
    def fit(low: int, high: int) -> Rule | None:
        first, *_, last = nodes(low, high)
        # Nodes within a factor of 4 are nearly equal columns of the linear program; no eigenvalue is above 1.
        return None if 4 * first > last or max(low, high) > 4 else _fit(alpha, n, nodes(low, high), points=60)

    def bound(ends: tuple[int, int]) -> float:
        rule = fit(*ends)
        return math.inf if rule is None else rule.delta * (1 + rule.floor) + rule.rounding

    here, best = None, (-2 * count, 0) if alpha <= 1 else (-2 * count // 3, 2)
    while best != here:
        here = best
        best = min([(here[0] + i, here[1] + j) for i, j in _STEPS], key=bound)
    rule = _fit(alpha, n, nodes(*best), points=200) or fit(*best)  # the solver may fail on the finer grid
    assert rule is not None
    return rule


# Moves of the two ends, by quarters of a decade; the first one is to stay.
_STEPS = ((0, 0), (-1, 0), (1, 0), (-3, 0), (3, 0), (0, -1), (0, 1), (0, -2), (0, 2), (1, -1), (-1, 1))


def _nodes(first: float, last: float, count: int) -> np.ndarray:
    """Geometric but for the first gap, which is wider by a third, as an optimiser of all nodes leaves it.

    (Order 1, n = 4096, five nodes: a bound of 3.5e-3 instead of 9.7e-3; the optimiser reached 3.3e-3.)
    """
    steps = np.r_[0.0, np.arange(count - 1) + 4 / 3]
    return first * (last / first) ** (steps / steps[-1])


def _fit(alpha: float, n: int, nodes: np.ndarray, points: int) -> Rule | None:
    """The weights that minimise ``delta (1 + floor) + rounding``, and the delta of a grid far finer than theirs."""
    from scipy.optimize import linprog  # takes five times as long to import as the whole of matinfo

    # tr P^a is 1 from order 1 on; below, it lies between 1 and n^(1 - alpha), and the floor is their geometric mean.
    floor = 1.0 if alpha >= 1 else n ** ((1 - alpha) / 2)
    matrix, target = _weighted_basis(np.geomspace(1e-15, 1.0, points), nodes, alpha, floor / n)
    rounding = 2 * (n + 1) * _ROUNDOFF * math.sqrt(n) * (n * nodes + 1)  # a unit of v_j; see the top, twice
    scale = np.abs(matrix).max(0)  # columns of one size, for the solver
    both = np.hstack(
        [matrix / scale, -matrix[:, 2:] / scale[2:]]
    )  # v = v_plus - v_minus, so that |v| is linear
    ones = np.ones((len(target), 1))
    cost = np.maximum(rounding / scale[2:], 1e-9)  # the solver fails on costs below its tolerance
    result = linprog(
        np.r_[0.0, 0.0, cost, cost, 1.0 + floor],
        A_ub=np.block([[both, -ones], [-both, -ones]]),
        b_ub=np.r_[target, -target],
        bounds=[(None, None)] * 2 + [(0, None)] * (2 * len(nodes) + 1),
        method="highs",
    )
    if result.x is None:
        return None
    plus, minus = result.x[2 : 2 + len(nodes)], result.x[2 + len(nodes) : -1]
    coefficients = np.r_[result.x[:2], plus - minus] / scale
    fine, goal = _weighted_basis(np.geomspace(1e-17, 1.0, 15 * points), nodes, alpha, floor / n)
    delta = float(np.abs(fine @ coefficients - goal).max())
    weights = coefficients[2:] * nodes
    return Rule(
        tuple(nodes.tolist()),
        tuple(weights.tolist()),
        float(coefficients[0]),
        float(coefficients[1]),
        delta,
        floor,
        float(rounding @ np.abs(coefficients[2:])),
    )


def _weighted_basis(
    x: np.ndarray, nodes: np.ndarray, alpha: float, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    weight = 1 / (x ** min(alpha, 1.0) + floor)
    e = alpha - 1
    f = x * np.log(x) if e == 0 else x * np.expm1(e * np.log(x)) / e
    basis = np.column_stack([x, x * x, nodes * np.log1p(x[:, None] / nodes)])
    return basis * weight[:, None], f * weight
