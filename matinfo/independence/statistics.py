"""Random orders of the samples, and entropies and criteria of two matrices as functions of the order of one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinfo.dependence import hsic_of, hsic_of_each, without_scales
from matinfo.entropy import entropy_of
from matinfo.operands import Gram, as_operand, hadamard
from matinfo.operands.gram import DUAL_SHARE
from matinfo.operands.operator import TiledOperator, hadamard_of
from matinfo.spectral.eigensolver import eigh_psd
from matinfo.spectral.normalize import times_power_of_two
from matinfo.spectral.operator import checked_moments
from matinfo.spectrum import spectrum

NEGLIGIBLE = 1e-9
"""Share of the trace that a low-rank factor may leave out; an entropy of order one moves by some 1e-7 nats by it."""

_FLOPS = 60
"""Multiplications and additions of a matrix product in the time in which one entry is permuted and multiplied."""

_FEW = 512
"""Samples up to which such a pass takes no longer than any other call."""

NEVER_FORMED = (
    "{} needs matrices that can be formed, got one that never is. Draw some thousand rows, which suffice for a test, "
    "and form their kernel (kernels.rbf(X[rows])), or take features of it (kernels.nystrom(X), "
    "kernels.random_features(X)). independence_test has order 2, 'hsic' and 'cka' of such matrices."
)

_ROWS = 64
"""Rows that are permuted together: they stay in the processor's cache."""


def dense(K: Any) -> Tensor:
    """``(n, n)`` up to a power of two, which entropies do not see."""
    matrix: Tensor = K.matrix(torch.float64).entries.double()
    return matrix


def marginals(K: Any, orders: list[float]) -> list[float]:
    """``H_alpha(K)`` for every order."""
    if not isinstance(K, TiledOperator):
        return _entropies(K, orders)
    if orders != [2.0]:
        raise ValueError(NEVER_FORMED.format("A test of other orders than 2"))
    return [_collision_entropy(*_moments(K))]


def joint_entropies(first: Any, second: Any, orders: list[float]) -> Callable[[Tensor], list[float]]:
    """``H_alpha(K_1 o P K_2 P^T)`` for every order, as a function of the permutation P."""
    n, operands = first.shape[-1], (first, second)
    if isinstance(first, TiledOperator):
        return lambda p: [_collision_entropy(*_moments(hadamard_of([first, second.reordered(p)])))]
    width = math.prod([K.width if isinstance(K, Gram) else math.inf for K in operands])
    if orders == [2.0] and (n <= _FEW or width**2 > _FLOPS * n):
        (t1, A), (t2, B) = ((K.diagonal(), K.square()) for K in (dense(first), dense(second)))
        return lambda p: [_collision_entropy(float(t1 @ t2[p]), _inner_product(A, B, p))]
    if min(orders) < 1:
        # Small eigenvalues count: none may be left out, nor be told from zero by another rule.
        return lambda p: _entropies(hadamard([first, second.reordered(p)], sensitive=True), orders)
    K1, K2 = (_low_rank(K) for K in operands)
    if K1.width * K2.width <= DUAL_SHARE * n:
        return lambda p: _entropies(K1 * K2.reordered(p), orders)
    M1, M2 = (as_operand(dense(K).float(), "K", "independence_test") for K in operands)
    return lambda p: _entropies(hadamard([M1, M2.reordered(p)], precision="float32"), orders, "float32")


def _entropies(K: Any, orders: list[float], precision: str = "auto") -> list[float]:
    """One decomposition answers several orders; a single one may need none."""
    if len(orders) == 1:
        return [float(entropy_of(K, orders[0], precision=precision))]
    S = spectrum(K, precision=precision)
    return [float(entropy_of(S, a)) for a in orders]


def _moments(K: TiledOperator) -> tuple[float, float]:
    total, squared = checked_moments(K)
    assert squared is not None  # of matrices that are known by their entries
    return total, squared


def _collision_entropy(total: float, squared: float) -> float:
    """The entropy of order 2 from the trace and the squared norm."""
    return 2 * math.log(total) - math.log(squared)


def _low_rank(K: Any) -> Gram:
    """Features of all but a negligible share of the trace: the one decomposition of each matrix."""
    is_narrow = isinstance(K, Gram) and K.width < K.shape[-1]
    values, vectors = eigh_psd(K.dual(torch.float64) if is_narrow else dense(K))
    kept = values.clamp_min(0.0).cumsum(0) > NEGLIGIBLE * values.sum()
    if is_narrow:
        return Gram(K.features(torch.float64) @ vectors[:, kept])
    return Gram(vectors[:, kept] * values[kept].sqrt())


def criterion(first: Any, second: Any, *, normalized: bool) -> Callable[[Tensor], list[float]]:
    """HSIC, or CKA, as a function of the permutation of the second matrix."""
    n = first.shape[-1]
    by_features = all([isinstance(K, Gram) and K.is_plain for K in (first, second)])
    by_features = by_features and first.width * second.width <= _FLOPS * n
    (first, e), (second, f) = without_scales((first, second), "independence_test", "biased")
    if not (by_features or isinstance(first, TiledOperator)):
        first, second = (K.dense(torch.float64) if isinstance(K, Gram) else K for K in (first, second))
    unit, scale = float(times_power_of_two(torch.ones_like(e), e + f)), 1.0
    if normalized:
        unit, scale = 1.0, float(hsic_of_each(first, second, "biased"))
    if not isinstance(first, Tensor):
        return lambda p: [float(hsic_of(first, second.reordered(p), "biased")) / scale * unit]
    centred = first - first.mean(0)
    centred = centred - centred.mean(1, keepdim=True)
    return lambda p: [_inner_product(centred, second, p) / ((n - 1) ** 2 * scale) * unit]


def _inner_product(A: Tensor, B: Tensor, permutation: Tensor) -> float:
    """``<A, P B P^T>``, a few rows at a time."""
    n, p, total = len(B), permutation.to(B.device), 0.0
    columns = p.expand(_ROWS, n)
    for start in range(0, n, _ROWS):
        rows = B[p[start : start + _ROWS]]
        block = rows.gather(1, columns[: len(rows)])
        total += float(torch.dot(A[start : start + _ROWS].reshape(-1), block.reshape(-1)))
    return total


def of_all(n: int, count: int, seed: int) -> Iterator[Tensor]:
    """Of all n samples."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randperm(n, generator=generator)


def within_groups(groups: np.ndarray, count: int, seed: int) -> Iterator[Tensor]:
    """Sorting by label and then by a random number puts random members of every group in the places of the group."""
    generator = np.random.default_rng(seed)
    places = np.argsort(groups, kind="stable")
    for _ in range(count):
        permutation = np.empty(len(groups), dtype=np.int64)
        permutation[places] = np.lexsort((generator.random(len(groups)), groups))
        yield torch.from_numpy(permutation)


def among_neighbours(K: Tensor, neighbours: int, count: int, seed: int) -> Iterator[Tensor]:
    """Runge's local permutations: samples in random order take a neighbour that none has taken, if there is one."""
    generator = np.random.default_rng(seed)
    n = len(K)
    lengths = K.diagonal()
    distances = lengths[:, None] + lengths - 2 * K
    distances.diagonal().fill_(-1.0)
    near = distances.topk(min(neighbours, n), largest=False).indices.cpu().numpy()
    for _ in range(count):
        order = generator.permutation(n)
        choices = generator.permuted(near, axis=1).tolist()
        taken, permutation = [False] * n, np.empty(n, dtype=np.int64)
        for i in order.tolist():
            chosen = next((j for j in choices[i] if not taken[j]), choices[i][0])
            taken[chosen] = True
            permutation[i] = chosen
        yield torch.from_numpy(permutation)
