"""The tests: a statistic beside what permuted samples give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor

from matinfo._checking import no_checks
from matinfo._keywords import answers_keywords
from matinfo._validation import check_choice, check_count, check_order, check_same_samples
from matinfo.entropy import entropy_of, joint_entropy_of
from matinfo.estimate.result import Estimate
from matinfo.independence.statistics import (
    NEGLIGIBLE,
    NEVER_FORMED,
    among_neighbours,
    criterion,
    dense,
    joint_entropies,
    marginals,
    of_all,
    within_groups,
)
from matinfo.operands import Gram, Matrix, as_operands, as_tensor, hadamard
from matinfo.operands.operator import TiledOperator, tiled_operator

STATISTICS = ("mutual_information", "normalized_mutual_information", "dime", "hsic", "cka")

_TIES = 1e-5
"""Entropies so near to each other in nats count as equal: those of float32 eigenvalues are known to no more. A matrix
that no permutation changes must not be told from itself by rounding, and more ties make the test conservative."""

_ROUNDING = 1e-11
"""The same for sums in float64, relative to the observed value."""

_NEIGHBOURS = 5
"""Runge (2018) finds the false positives near their level from 5 to 10 neighbours."""


Draws: TypeAlias = Sequence[Tensor]
Progress: TypeAlias = Callable[[Draws], Iterable[Tensor]]


@dataclass(frozen=True)
class IndependenceTest:
    """What a test of independence found.

    Attributes:
        statistic: The observed value.
        p_value: ``(1 + #{permuted >= observed}) / (1 + permutations)``: under independence at most a share p of the
            tests has a p-value of p or less. NaN, as all that follows, if a value is not finite.
        null: The permuted values, ascending.
        null_mean: Their mean: the chance level.
        null_std: Their standard deviation; zero for a single one.
        effect_size: Standard deviations of the permuted values by which the observed one exceeds their mean; infinite
            where they vary by no more than rounding.
        corrected: The observed value less the mean over all permutations, with the error bar that a finite number of
            them leaves. Of mutual information this is DiME.
    """

    statistic: float
    p_value: float
    null: np.ndarray = field(repr=False)
    null_mean: float
    null_std: float
    effect_size: float
    corrected: Estimate

    def quantile(self, q: float) -> float:
        """Quantile of the permuted values, such as 0.95 for the critical value of a test at 5 %."""
        return float(np.quantile(self.null, q))


@overload
def independence_test(
    K1: Tensor | np.ndarray | Gram | TiledOperator,
    K2: Tensor | np.ndarray | Gram | TiledOperator,
    *,
    statistic: str = ...,
    alpha: float = ...,
    permutations: int = ...,
    seed: int = ...,
    progress: Progress | None = ...,
) -> IndependenceTest: ...


@overload
def independence_test(
    K1: Tensor | np.ndarray | Gram | TiledOperator,
    K2: Tensor | np.ndarray | Gram | TiledOperator,
    *,
    statistic: str = ...,
    alpha: Sequence[float],
    permutations: int = ...,
    seed: int = ...,
    progress: Progress | None = ...,
) -> list[IndependenceTest]: ...


@answers_keywords
def independence_test(
    K1: Tensor | np.ndarray | Gram | TiledOperator,
    K2: Tensor | np.ndarray | Gram | TiledOperator,
    *,
    statistic: str = "mutual_information",
    alpha: float | Sequence[float] = 1.0,
    permutations: int = 999,
    seed: int = 0,
    progress: Progress | None = None,
) -> IndependenceTest | list[IndependenceTest]:
    """Permutation test of whether two kernel matrices share information.

    The statistic ``T(K_1, K_2)`` beside ``T(K_1, P K_2 P^T)`` for random permutations P of the samples: if row i of one
    matrix has nothing to do with row i of the other, all have the same distribution.

    Args:
        K1: Positive semi-definite matrix ``(n, n)`` as Tensor or NumPy array, a :class:`Gram`, or, for order 2, HSIC
            and CKA, a :class:`~matinfo.estimate.KernelOperator` (or products and sums of these).
        K2: The same, over the same samples.
        statistic: ``"mutual_information"`` of order alpha, ``"normalized_mutual_information"`` (by the smaller
            entropy), ``"dime"`` (over these permutations), ``"hsic"`` or ``"cka"``. The first three order the
            permutations alike, hence have one p-value; so have the last two.
        alpha: Order of the entropies, in [0, inf]; or several, which one decomposition a permutation answers.
        permutations: Number of permutations, >= 1. The smallest p-value is ``1/(permutations + 1)``.
        seed: Of the permutations.
        progress: What to pass the permutations through, such as ``tqdm.tqdm``; None for nothing.

    Returns:
        An :class:`IndependenceTest`; for a sequence of orders a list, one each, over the same permutations.

    Raises:
        ValueError: If a matrix is refused by :func:`mutual_information` or is a batch, the orders differ, the statistic
            is unknown, or it has no value because a matrix is constant; for a matrix that is never formed also if the
            statistic needs eigenvalues.
        TypeError: If a matrix is not real floating point.

    Notes:
        At order 2, for HSIC and CKA n^2 a permutation (1,000 of n = 2,000: some 14 seconds of one core); of narrow
        Grams less, and of a matrix that is never formed all of its tiles. At other orders the eigenvalues of one
        product a permutation: of smooth kernels and narrow Grams on the smaller side of their low-rank factors, which
        are found once; else of n x n matrices in float32 (n = 2,000: 11 minutes, extrapolated); below order one of the
        matrices as they are. The same approximation is made of the observed and of the permuted value, so that the
        p-value is exact. Informations that differ by 1e-5 nats or less, all that float32 eigenvalues know, count as
        equal but at order 2: where all of them are that small (features far from the origin, whose kernel is nearly
        constant) p is 1. Centre such features, or take order 2. Of matrices that are not finite p is NaN.

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
    several = isinstance(alpha, Sequence | np.ndarray)
    orders = [check_order(a) for a in (alpha if isinstance(alpha, Sequence | np.ndarray) else [alpha])]
    if not orders:
        raise ValueError("Expected at least one order alpha, got none.")
    check_choice(statistic, "statistic", STATISTICS)
    first, second = _single((K1, K2), "independence_test")
    draws = list(of_all(first.shape[-1], check_count(permutations, "permutations"), seed))
    if not (first.is_finite() and second.is_finite()):
        unknown = [_judged(np.full(1 + len(draws), math.nan))] * len(orders)
        return unknown if several else unknown[0]
    if statistic not in ("hsic", "cka"):
        _check_definite([first, second])
    with torch.no_grad(), no_checks():
        if statistic in ("hsic", "cka"):
            hsic = criterion(first, second, normalized=statistic == "cka")
            tests = [_judged(_values(hsic, draws, progress)[0])] * len(orders)
            return tests if several else tests[0]
        alone = np.array([marginals(K, orders) for K in (first, second)])
        joint = _values(joint_entropies(first, second, orders), draws, progress)
    normalized = statistic == "normalized_mutual_information"
    scales = alone.min(0) if normalized else np.ones(len(orders))
    if not (scales > NEGLIGIBLE).all():
        raise ValueError(
            "Expected matrices with an entropy to share, got a constant one. Use mutual_information."
        )
    tests = [
        _judged((total - joints) / scale, ties=_ties(orders) / scale)
        for total, joints, scale in zip(alone.sum(0), joint, scales, strict=True)
    ]
    if statistic == "dime":
        tests = [
            replace(found, statistic=found.corrected.value, null=found.null - found.null_mean, null_mean=0.0)
            for found in tests
        ]
    return tests if several else tests[0]


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
    progress: Progress | None = None,
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
        progress: What to pass the permutations through, such as ``tqdm.tqdm``; None for nothing.

    Returns:
        An :class:`IndependenceTest`.

    Raises:
        ValueError: As :func:`independence_test`; also if ``groups`` does not have one label a sample, or a matrix is
            never formed.
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
    if not all([K.is_finite() for K in (first, second, given)]):
        return _judged(np.full(1 + count, math.nan))
    _check_definite([first, second, given])
    if isinstance(given, TiledOperator):
        raise ValueError(NEVER_FORMED.format("A conditional test"))
    n = given.shape[-1]
    if groups is not None and not isinstance(groups, Tensor):
        groups = np.asarray(groups)
    if groups is not None and tuple(groups.shape) != (n,):
        raise ValueError(f"Expected groups of shape ({n},), one label a sample, got {tuple(groups.shape)}.")
    with torch.no_grad(), no_checks():
        if groups is not None:
            draws = list(within_groups(np.asarray(groups), count, seed))
        else:
            draws = list(among_neighbours(dense(given), check_count(neighbours, "neighbours"), count, seed))
        constant = float(joint_entropy_of([second, given], order, "auto")) - float(entropy_of(given, order))
        pair = hadamard([second, given], precision="float64")
        alone, both = (joint_entropies(K, first, [order]) for K in (given, pair))
        difference = _values(lambda p: [constant + alone(p)[0] - both(p)[0]], draws, progress)[0]
        return _judged(difference, ties=_ties([order]))


def _single(Ks: tuple[Any, ...], function: str) -> list[Any]:
    """The operands, all of them operators if one is never formed; rows of all ranks in one place."""
    if any([isinstance(K, TiledOperator) for K in Ks]):
        operands: list[Any] = [tiled_operator(K, function) for K in Ks]
    else:
        given = as_operands(tuple(map(as_tensor, Ks)), function)
        operands = [K.gathered() if isinstance(K, Gram) else K for K in given]
    check_same_samples([tuple(K.shape) for K in operands])
    if any([len(K.shape) != 2 for K in operands]):
        raise ValueError(
            f"Expected single matrices (n, n), got {tuple(operands[0].shape)}. Test one at a time."
        )
    return operands


def _check_definite(operands: list[Any]) -> None:
    """Once, before the permutations, which cannot make a matrix indefinite, go without checks."""
    for K in operands:
        if isinstance(K, Matrix):
            K.side().definite(thorough=True)


def _ties(orders: list[float]) -> float:
    """Entropies of order 2 come from sums in float64, where they are asked for alone."""
    return 0.0 if orders == [2.0] else _TIES


def _judged(values: np.ndarray, ties: float = 0.0) -> IndependenceTest:
    """The first value beside the others, of which those within ``ties`` of it count as equal."""
    observed, null = float(values[0]), np.sort(values[1:])
    count, nan = len(null), math.nan
    if not np.isfinite(values).all():  # NaN compares as smaller than everything, and would be significant
        unknown = Estimate(nan, nan, nan, count, 0)
        return IndependenceTest(observed, nan, null, nan, nan, nan, unknown)
    size = float(np.abs(values).max()) or 1.0  # squares of the deviations must exist
    mean, deviations = size * float((null / size).mean()), null / size
    excess = observed - mean
    spread = size * float(deviations.std(ddof=1)) if count > 1 else 0.0
    slack = ties + _ROUNDING * abs(observed)
    reached = int((null >= observed - slack).sum())
    effect = (
        excess / spread if spread > slack else math.copysign(math.inf, excess) if abs(excess) > slack else 0.0
    )
    corrected = Estimate(excess, spread / math.sqrt(count), slack, count, 0)
    return IndependenceTest(observed, (1 + reached) / (1 + count), null, mean, spread, effect, corrected)


def _values(
    statistic: Callable[[Tensor], Sequence[float]], draws: Draws, progress: Progress | None
) -> np.ndarray:
    """``(orders, 1 + draws)``: the statistic, which has an entry an order, as observed and for each permutation."""
    # The observed value is found as the others are, so that one rounding orders them all.
    draws = [torch.arange(len(draws[0])), *draws]
    return np.array([statistic(p) for p in (progress(draws) if progress else draws)]).T
