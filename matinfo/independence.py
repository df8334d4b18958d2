"""Tests of independence: how large an information is beside what permuted samples give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor

from matinfo._checking import no_checks
from matinfo._keywords import answers_keywords
from matinfo._validation import check_choice, check_count, check_order, check_same_samples
from matinfo.dependence import hsic_of, without_scales
from matinfo.entropy import entropy_of, joint_entropy_of
from matinfo.estimate.result import Estimate
from matinfo.operands import Gram, Matrix, as_operand, as_operands, as_tensor, hadamard
from matinfo.operands.gram import DUAL_SHARE
from matinfo.operands.operator import TiledOperator, checked_moments, hadamard_of, tiled_operator
from matinfo.spectral.eigensolver import eigh_psd
from matinfo.spectral.normalize import times_power_of_two
from matinfo.spectrum import spectrum

STATISTICS = ("mutual_information", "normalized_mutual_information", "dime", "hsic", "cka")

_TIES = 1e-5
"""Entropies so near to each other in nats count as equal: those of float32 eigenvalues are known to no more. A matrix
that no permutation changes must not be told from itself by rounding, and more ties make the test conservative."""

_ROUNDING = 1e-11
"""The same for sums in float64, relative to the observed value."""

_NEGLIGIBLE = 1e-9
"""Share of the trace that a low-rank factor may leave out; an entropy of order one moves by some 1e-7 nats by it."""

_FLOPS = 60
"""Multiplications and additions of a matrix product in the time in which one entry is permuted and multiplied."""

_FEW = 512
"""Samples up to which such a pass takes no longer than any other call."""

_NEVER_FORMED = (
    "{} needs matrices that can be formed, got one that never is. Draw some thousand rows, which suffice for a test, "
    "and form their kernel (kernels.rbf(X[rows])), or take features of it (kernels.nystrom(X), "
    "kernels.random_features(X)). independence_test has order 2, 'hsic' and 'cka' of such matrices."
)

_ROWS = 64
"""Rows that are permuted together: they stay in the processor's cache."""

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
            tests has a p-value of p or less.
        null: The permuted values, ascending.
        null_mean: Their mean: the chance level.
        null_std: Their standard deviation; zero for a single one.
        effect_size: Standard deviations of the permuted values by which the observed one exceeds their mean; infinite
            where they do not vary.
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
        p-value is exact.

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
    several = isinstance(alpha, Sequence)
    orders = [check_order(a) for a in (alpha if isinstance(alpha, Sequence) else [alpha])]
    if not orders:
        raise ValueError("Expected at least one order alpha, got none.")
    check_choice(statistic, "statistic", STATISTICS)
    first, second = _single((K1, K2), "independence_test")
    draws = _permutations(first.shape[-1], check_count(permutations, "permutations"), seed)
    if statistic not in ("hsic", "cka"):
        _check_definite([first, second])
    with torch.no_grad(), no_checks():
        if statistic in ("hsic", "cka"):
            criterion = _criterion(first, second, normalized=statistic == "cka")
            tests = [_judged(_values(criterion, draws, progress)[0])] * len(orders)
            return tests if several else tests[0]
        alone = np.array([_marginals(K, orders) for K in (first, second)])
        joint = _values(_joint_entropies(first, second, orders), draws, progress)
    normalized = statistic == "normalized_mutual_information"
    scales = alone.min(0) if normalized else np.ones(len(orders))
    if not (scales > _NEGLIGIBLE).all():
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
    _check_definite([first, second, given])
    if isinstance(given, TiledOperator):
        raise ValueError(_NEVER_FORMED.format("A conditional test"))
    n = given.shape[-1]
    if groups is not None and tuple(groups.shape) != (n,):
        raise ValueError(f"Expected groups of shape ({n},), one label a sample, got {tuple(groups.shape)}.")
    with torch.no_grad(), no_checks():
        if groups is not None:
            draws = list(_within_groups(np.asarray(groups), count, seed))
        else:
            draws = list(_among_neighbours(_dense(given), check_count(neighbours, "neighbours"), count, seed))
        constant = float(joint_entropy_of([second, given], order, "auto")) - float(entropy_of(given, order))
        alone, both = (_joint_entropies(K, first, [order]) for K in (given, _product([second, given])))
        difference = _values(lambda p: [constant + alone(p)[0] - both(p)[0]], draws, progress)[0]
        return _judged(difference, ties=_ties([order]))


def _single(Ks: tuple[Any, ...], function: str) -> list[Any]:
    """The operands, all of them operators if one is never formed; rows of all ranks in one place."""
    if any([isinstance(K, TiledOperator) for K in Ks]):
        operands: list[Any] = [tiled_operator(K, function) for K in Ks]
    else:
        tensors = [as_tensor(K) for K in Ks]
        operands = [K.gathered() if isinstance(K, Gram) else K for K in as_operands(tuple(tensors), function)]
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


def _dense(K: Any) -> Tensor:
    """``(n, n)`` up to a power of two, which entropies do not see."""
    matrix: Tensor = K.matrix(torch.float64).entries.double()
    return matrix


def _product(operands: list[Any]) -> Any:
    if all([isinstance(K, Gram) for K in operands]):
        return operands[0] * operands[1]
    return as_operand(_dense(operands[0]) * _dense(operands[1]), "K", "independence_test")


def _judged(values: np.ndarray, ties: float = 0.0) -> IndependenceTest:
    """The first value beside the others, of which those within ``ties`` of it count as equal."""
    observed, null = float(values[0]), np.sort(values[1:])
    count, mean = len(null), float(null.mean())
    excess = observed - mean
    spread = float(null.std(ddof=1)) if count > 1 else 0.0
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
    """``(orders, draws)``: what the statistic, which has an entry an order, is for each permutation."""
    return np.array([statistic(p) for p in (progress(draws) if progress else draws)]).T


# --- permutations ------------------------------------------------------------------------------------------------


def _permutations(n: int, count: int, seed: int) -> Draws:
    """No permutation first: the observed value is found as the others are, so that one rounding orders them all."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.arange(n), *[torch.randperm(n, generator=generator) for _ in range(count)]]


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


def _marginals(K: Any, orders: list[float]) -> list[float]:
    """``H_alpha(K)`` for every order."""
    if not isinstance(K, TiledOperator):
        return _entropies(K, orders)
    if orders != [2.0]:
        raise ValueError(_NEVER_FORMED.format("A test of other orders than 2"))
    return [_collision_entropy(*_moments(K))]


def _joint_entropies(first: Any, second: Any, orders: list[float]) -> Callable[[Tensor], list[float]]:
    """``H_alpha(K_1 o P K_2 P^T)`` for every order, as a function of the permutation P."""
    n, operands = first.shape[-1], (first, second)
    if isinstance(first, TiledOperator):
        return lambda p: [_collision_entropy(*_moments(hadamard_of([first, second.reordered(p)])))]
    width = math.prod([K.width if isinstance(K, Gram) else math.inf for K in operands])
    if orders == [2.0] and (n <= _FEW or width**2 > _FLOPS * n):
        (t1, A), (t2, B) = ((K.diagonal(), K.square()) for K in (_dense(first), _dense(second)))
        return lambda p: [_collision_entropy(float(t1 @ t2[p]), _inner_product(A, B, p))]
    if (
        min(orders) < 1
    ):  # small eigenvalues count: none may be left out, nor be told from zero by another rule
        return lambda p: _entropies(hadamard([first, second.reordered(p)], sensitive=True), orders)
    K1, K2 = (_low_rank(K) for K in operands)
    if K1.width * K2.width <= DUAL_SHARE * n:
        return lambda p: _entropies(K1 * K2.reordered(p), orders)
    M1, M2 = (as_operand(_dense(K).float(), "K", "independence_test") for K in operands)
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


def _ties(orders: list[float]) -> float:
    """Entropies of order 2 come from sums in float64, where they are asked for alone."""
    return 0.0 if orders == [2.0] else _TIES


def _low_rank(K: Any) -> Gram:
    """Features of all but a negligible share of the trace: the one decomposition of each matrix."""
    is_narrow = isinstance(K, Gram) and K.width < K.shape[-1]
    values, vectors = eigh_psd(K.dual(torch.float64) if is_narrow else _dense(K))
    kept = values.clamp_min(0.0).cumsum(0) > _NEGLIGIBLE * values.sum()
    if is_narrow:
        return Gram(K.features(torch.float64) @ vectors[:, kept])
    return Gram(vectors[:, kept] * values[kept].sqrt())


def _criterion(first: Any, second: Any, *, normalized: bool) -> Callable[[Tensor], list[float]]:
    """HSIC, or CKA, as a function of the permutation of the second matrix."""
    n = first.shape[-1]
    by_features = all([isinstance(K, Gram) and len(K.terms) == len(K.terms[0]) == 1 for K in (first, second)])
    by_features = by_features and first.width * second.width <= _FLOPS * n
    (first, e), (second, f) = without_scales((first, second), "independence_test", "biased")
    if not (by_features or isinstance(first, TiledOperator)):
        first, second = (K.dense(torch.float64) if isinstance(K, Gram) else K for K in (first, second))
    unit, scale = float(times_power_of_two(torch.ones_like(e), e + f)), 1.0
    if normalized:
        unit, scale = 1.0, math.sqrt(math.prod([float(hsic_of(K, K, "biased")) for K in (first, second)]))
        if not scale > 0:
            raise ValueError(
                "Expected matrices that are not constant, got one, which has no direction to align."
            )
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
