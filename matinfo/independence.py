"""Tests of independence: how large an information is beside what permuted samples give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinfo._checking import no_checks
from matinfo._keywords import answers_keywords
from matinfo._validation import check_choice, check_count, check_order, check_same_samples
from matinfo.dependence import hsic
from matinfo.entropy import entropy_of, joint_entropy_of
from matinfo.estimate.result import Estimate
from matinfo.operands import Gram, as_operand, as_tensor
from matinfo.spectral.eigensolver import eigh_psd

STATISTICS = ("mutual_information", "normalized_mutual_information", "dime", "hsic", "cka")

_TIES = 1e-5
"""Entropies so near to each other in nats count as equal: those of float32 eigenvalues are known to no more. A matrix
that no permutation changes must not be told from itself by rounding, and more ties make the test conservative."""

_ROUNDING = 1e-11
"""The same for sums in float64, relative to the observed value."""

_NEGLIGIBLE = 1e-9
"""Share of the trace that a low-rank factor may leave out; an entropy of order one moves by some 1e-7 nats by it."""

_DUAL_SHARE = 0.8
"""Features are worked on where their widths multiply to at most this share of n, as everywhere."""

_ROWS = 64
"""Rows that are permuted together: they stay in the processor's cache."""

_NEIGHBOURS = 5
"""Runge (2018) finds the false positives near their level from 5 to 10 neighbours."""


@dataclass(frozen=True)
class IndependenceTest:
    """What a test of independence found.

    Attributes:
        statistic: The observed value.
        p_value: ``(1 + #{permuted >= observed}) / (1 + permutations)``: under independence at most a share p of the
            tests has a p-value of p or less.
        null: The permuted values, ascending.
        effect_size: Standard deviations of the permuted values by which the observed one exceeds their mean; infinite
            where they do not vary.
        corrected: The observed value less the mean over all permutations, with the error bar that a finite number of
            them leaves. Of mutual information this is DiME.
    """

    statistic: float
    p_value: float
    null: np.ndarray
    effect_size: float
    corrected: Estimate

    def quantile(self, q: float) -> float:
        """Quantile of the permuted values, such as 0.95 for the critical value of a test at 5 %."""
        return float(np.quantile(self.null, q))


@answers_keywords
def independence_test(
    K1: Tensor | np.ndarray | Gram,
    K2: Tensor | np.ndarray | Gram,
    *,
    statistic: str = "mutual_information",
    alpha: float = 1.0,
    permutations: int = 999,
    seed: int = 0,
) -> IndependenceTest:
    """Permutation test of whether two kernel matrices share information.

    The statistic ``T(K_1, K_2)`` beside ``T(K_1, P K_2 P^T)`` for random permutations P of the samples: if row i of one
    matrix has nothing to do with row i of the other, all have the same distribution.

    Args:
        K1: Positive semi-definite matrix ``(n, n)`` as Tensor or NumPy array, or :class:`Gram`.
        K2: The same, over the same samples.
        statistic: ``"mutual_information"`` of order alpha, ``"normalized_mutual_information"`` (by the smaller
            entropy), ``"dime"`` (over these permutations), ``"hsic"`` or ``"cka"``. The first three order the
            permutations alike, hence have one p-value; so have the last two.
        alpha: Order of the entropies, in [0, inf].
        permutations: Number of permutations, >= 1. The smallest p-value is ``1/(permutations + 1)``.
        seed: Of the permutations.

    Returns:
        An :class:`IndependenceTest`.

    Raises:
        ValueError: If a matrix is refused by :func:`mutual_information` or is a batch, the orders differ, the statistic
            is unknown, or it has no value because a matrix is constant.
        TypeError: If a matrix is not real floating point.

    Notes:
        At order 2, for HSIC and CKA n^2 a permutation (1,000 of n = 2,000: 15 to 20 seconds of one core). At other
        orders the eigenvalues of one product a permutation: of smooth kernels and narrow Grams on the smaller side of
        their low-rank factors, which are found once; else of n x n matrices in float32 (n = 2,000: 11 minutes,
        extrapolated). The same approximation is made of the observed and of the permuted value, so that the p-value is
        exact.

    References:
        Gretton et al. (2007), A kernel statistical test of independence; Phipson and Smyth (2010), Permutation p-values
        should never be zero; Sanchez Giraldo, Rao and Principe (2014); Skean et al. (2023), DiME.

    Example:
        >>> import torch
        >>> from matinfo import Gram, independence_test
        >>> seed = torch.Generator().manual_seed(0)
        >>> X = torch.randn(60, 2, generator=seed)
        >>> noise = torch.randn(60, 2, generator=seed)
        >>> independence_test(Gram(X), Gram(X + noise), alpha=2, permutations=199).p_value < 0.05
        True
    """
    order = check_order(alpha)
    check_choice(statistic, "statistic", STATISTICS)
    operands = _single((K1, K2), "independence_test")
    draw = _permutations(operands[0].shape[-1], check_count(permutations, "permutations"), seed)
    with torch.no_grad(), no_checks():
        if statistic in ("hsic", "cka"):
            first, second = (_dense(K) for K in operands)
            n = first.shape[-1]
            centred = first - first.mean(0)
            centred = centred - centred.mean(1, keepdim=True)
            unit = float(n - 1) ** 2
            if statistic == "cka":
                unit *= math.sqrt(float(hsic(first, first)) * float(hsic(second, second)))
            if not unit > 0:
                raise ValueError(
                    "Expected matrices that are not constant, got one, which has no direction to align."
                )
            return _judged([x / unit for x in _inner_products(centred, second, draw)])
        entropies = [float(entropy_of(K, order)) for K in operands]
        scale = min(entropies) if statistic == "normalized_mutual_information" else 1.0
        if not scale > _NEGLIGIBLE:
            raise ValueError(
                "Expected matrices with an entropy to share, got a constant one. Use mutual_information."
            )
        found = _judged(
            [(sum(entropies) - joint) / scale for joint in _joint_entropies(operands, order, draw)],
            0.0 if order == 2 else _TIES / scale,
        )
        if statistic == "dime":
            mean = float(found.null.mean())
            return IndependenceTest(
                found.statistic - mean, found.p_value, found.null - mean, found.effect_size, found.corrected
            )
        return found


@answers_keywords
def conditional_independence_test(
    K1: Tensor | np.ndarray | Gram,
    K2: Tensor | np.ndarray | Gram,
    K3: Tensor | np.ndarray | Gram,
    *,
    groups: Tensor | np.ndarray | None = None,
    neighbours: int = _NEIGHBOURS,
    alpha: float = 1.0,
    permutations: int = 999,
    seed: int = 0,
) -> IndependenceTest:
    """Permutation test of whether two kernel matrices share information that a third does not have.

    The statistic is ``I_alpha(K_1; K_2 | K_3)``. The samples of K_1 are permuted only among those that the condition
    does not tell apart: within the groups if it is discrete, else among nearest neighbours in the feature space of K_3.

    Args:
        K1: Positive semi-definite matrix ``(n, n)`` as Tensor or NumPy array, or :class:`Gram`. It is permuted.
        K2: The same, over the same samples.
        K3: The condition.
        groups: ``(n,)`` labels of a discrete condition. Under conditional independence the p-value is then exact.
        neighbours: Of a continuous condition: how many samples, itself included, each may be exchanged with. The test
            is then approximate: few neighbours leave few permutations, many break the dependence on the condition.
        alpha: Order of the entropies, in [0, inf].
        permutations: Number of permutations, >= 1.
        seed: Of the permutations.

    Returns:
        An :class:`IndependenceTest`.

    Raises:
        ValueError: As :func:`independence_test`; also if ``groups`` does not have one label a sample.
        TypeError: If a matrix is not real floating point.

    Notes:
        Cost of :func:`independence_test`, twice.

    References:
        Runge (2018), Conditional independence testing based on a nearest-neighbor estimator of conditional mutual
        information, for local permutations; Doran, Muandet, Zhang and Schölkopf (2014) for permutations that keep the
        condition; Yu et al. (2019) for the statistic.

    Example:
        >>> import torch
        >>> from matinfo import Gram, conditional_independence_test
        >>> bits = torch.eye(2)
        >>> labels = torch.arange(40) % 2
        >>> K = Gram(bits[labels])  # once the condition is known, nothing is left to share
        >>> conditional_independence_test(K, K, K, groups=labels, alpha=2, permutations=99).p_value
        1.0
    """
    order = check_order(alpha)
    count = check_count(permutations, "permutations")
    first, second, given = _single((K1, K2, K3), "conditional_independence_test")
    n = given.shape[-1]
    if groups is not None and tuple(groups.shape) != (n,):
        raise ValueError(f"Expected groups of shape ({n},), one label a sample, got {tuple(groups.shape)}.")
    with torch.no_grad(), no_checks():
        if groups is not None:
            draw = _within_groups(np.asarray(groups), count, seed)
        else:
            draw = _among_neighbours(_dense(given), check_count(neighbours, "neighbours"), count, seed)
        constant = float(joint_entropy_of([second, given], order, "auto")) - float(entropy_of(given, order))
        permuted = list(draw)
        joints = [_joint_entropies([K, first], order, permuted) for K in (given, _product([second, given]))]
        return _judged([constant + a - b for a, b in zip(*joints, strict=True)], 0.0 if order == 2 else _TIES)


def _single(Ks: tuple[Any, ...], function: str) -> list[Any]:
    tensors = [as_tensor(K) if isinstance(K, np.ndarray) else K for K in Ks]
    operands = [as_operand(K, f"K{i}", function) for i, K in enumerate(tensors, 1)]
    check_same_samples([tuple(K.shape) for K in operands])
    if any([len(K.shape) != 2 for K in operands]):
        raise ValueError(
            f"Expected single matrices (n, n), got {tuple(operands[0].shape)}. Test one at a time."
        )
    return operands


def _dense(K: Any) -> Tensor:
    matrix: Tensor = (
        K.dense(torch.float64) if isinstance(K, Gram) else K.matrix(torch.float64).entries.double()
    )
    return matrix


def _product(operands: list[Any]) -> Any:
    if all([isinstance(K, Gram) for K in operands]):
        return operands[0] * operands[1]
    return as_operand(_dense(operands[0]) * _dense(operands[1]), "K", "independence_test")


def _judged(values: list[float], ties: float = 0.0) -> IndependenceTest:
    """The first value beside the others, of which those within ``ties`` of it count as equal."""
    observed, null = values[0], np.sort(np.array(values[1:]))
    count, excess = len(null), observed - float(null.mean())
    spread = float(null.std(ddof=1)) if count > 1 else 0.0
    slack = ties + _ROUNDING * abs(observed)
    reached = int((null >= observed - slack).sum())
    effect = (
        excess / spread if spread > slack else math.copysign(math.inf, excess) if abs(excess) > slack else 0.0
    )
    corrected = Estimate(excess, spread / math.sqrt(count), slack, count, 0)
    return IndependenceTest(observed, (1 + reached) / (1 + count), null, effect, corrected)


# --- permutations ------------------------------------------------------------------------------------------------


def _permutations(n: int, count: int, seed: int) -> Iterator[Tensor]:
    """No permutation first: the observed value is found as the others are, so that one rounding orders them all."""
    generator = torch.Generator().manual_seed(seed)
    yield torch.arange(n)
    for _ in range(count):
        yield torch.randperm(n, generator=generator)


def _within_groups(groups: np.ndarray, count: int, seed: int) -> Iterator[Tensor]:
    """Sorting by label and then by a random number puts random members of every group in the places of the group."""
    generator = np.random.default_rng(seed)
    places = np.argsort(groups, kind="stable")
    yield torch.arange(len(groups))
    for _ in range(count):
        permutation = np.empty(len(groups), dtype=np.int64)
        permutation[places] = np.lexsort((generator.random(len(groups)), groups))
        yield torch.from_numpy(permutation)


def _among_neighbours(K: Tensor, neighbours: int, count: int, seed: int) -> Iterator[Tensor]:
    """Runge's local permutations: samples in random order take a neighbour that none has taken, if there is one."""
    generator = np.random.default_rng(seed)
    n = len(K)
    lengths = K.diagonal()
    distances = lengths[:, None] + lengths - 2 * K
    distances.diagonal().fill_(-1.0)
    yield torch.arange(n)
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


# --- statistics of permuted matrices -----------------------------------------------------------------------------


def _joint_entropies(operands: list[Any], alpha: float, draw: Iterable[Tensor]) -> list[float]:
    """``H_alpha(K_1 o P K_2 P^T)`` for every permutation."""
    first, second = operands
    if alpha == 2:
        A, B = _dense(first), _dense(second)
        draws = list(draw)
        totals = [float(A.diagonal() @ B.diagonal()[p]) for p in draws]
        squares = _inner_products(A.square(), B.square(), draws)
        return [2 * math.log(t) - math.log(s) for t, s in zip(totals, squares, strict=True)]
    factors = [_low_rank(K) for K in operands]
    if factors[0].width * factors[1].width <= _DUAL_SHARE * first.shape[-1]:
        return [float(joint_entropy_of([factors[0], factors[1].reordered(p)], alpha, "auto")) for p in draw]
    single = [as_operand(_dense(K).float(), "K", "independence_test") for K in operands]
    return [float(joint_entropy_of([single[0], single[1].reordered(p)], alpha, "float32")) for p in draw]


def _low_rank(K: Any) -> Gram:
    """Features of all but a negligible share of the trace: the one decomposition of each matrix."""
    if isinstance(K, Gram) and K.width < K.shape[-1] / 8:
        return Gram(K.features(torch.float64))
    values, vectors = eigh_psd(_dense(K))
    missing = values.clamp_min(0.0).cumsum(0) <= _NEGLIGIBLE * values.sum()
    return Gram(vectors[:, ~missing] * values[~missing].sqrt())


def _inner_products(A: Tensor, B: Tensor, draw: Iterable[Tensor]) -> list[float]:
    """``<A, P B P^T>`` for every permutation P, a few rows at a time."""
    n = len(B)
    found = []
    for permutation in draw:
        p = permutation.to(B.device)
        total, columns = 0.0, p.expand(_ROWS, n)
        for start in range(0, n, _ROWS):
            rows = B[p[start : start + _ROWS]]
            block = rows.gather(1, columns[: len(rows)])
            total += float(torch.dot(A[start : start + _ROWS].reshape(-1), block.reshape(-1)))
        found.append(total)
    return found
