"""HSIC and CKA against their definitions and a peer; permutation tests: exact, calibrated, with power."""

import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import seeded, t
from hypothesis import given
from hypothesis import strategies as st
from matrices import features, rbf_gram

from matinfo import (
    Gram,
    cka,
    conditional_independence_test,
    conditional_mutual_information,
    dime,
    hsic,
    independence_test,
    kernels,
    mutual_information,
    normalized_mutual_information,
)
from matinfo.estimate import KernelOperator

N = 30
X, Y = features(N, 3, seed=1), features(N, 2, seed=2)
Y[:, 0] += X[:, 0]


def naive_hsic(K, L, estimator):
    n = len(K)
    if estimator == "biased":
        H = np.eye(n) - 1 / n
        return np.trace(K @ H @ L @ H) / (n - 1) ** 2
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    one = np.ones(n)
    total = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    return (np.trace(K @ L) + total - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))


# --- HSIC and CKA ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_hsic_is_its_definition_for_matrices_features_and_mixtures(estimator):
    K, L = X @ X.T, Y @ Y.T
    truth = naive_hsic(K, L, estimator)
    for first in (K, Gram(X)):
        for second in (L, Gram(Y)):
            assert hsic(first, second, estimator=estimator) == pytest.approx(truth, rel=1e-11)
    product = Gram(X) * Gram(X) + Gram(Y)
    expected = naive_hsic(K * K + L, L, estimator)
    assert hsic(product, Gram(Y), estimator=estimator) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_hsic_and_cka_by_tiles_are_those_of_the_matrices(estimator):
    x, y = features(N, 3, seed=1), features(N, 2, seed=2) + features(N, 3, seed=1)[:, :2]
    first = KernelOperator(x, bandwidth=1.0, tile=7)
    linear = KernelOperator(y, kernel=lambda a, b: a @ b.mT, tile=4)
    others = [
        KernelOperator(y, kernel="laplacian", bandwidth=2.0),
        Gram(y),
        y @ y.T,
        linear,
        first * Gram(y) + linear,
    ]
    A, L = kernels.rbf(x, bandwidth=1.0), kernels.laplacian(y, bandwidth=2.0)
    matrices = [L, y @ y.T, y @ y.T, y @ y.T, A * (y @ y.T) + y @ y.T]
    for other, matrix in zip(others, matrices, strict=True):
        found = hsic(first, other, estimator=estimator)
        assert isinstance(found, np.float64)
        assert found == pytest.approx(naive_hsic(A, matrix, estimator), rel=1e-10)
        found = cka(other, first, estimator=estimator)
        assert found == pytest.approx(cka(A, matrix, estimator=estimator), rel=1e-10)
    single = KernelOperator(t(x), bandwidth=1.0, precision="float32")
    assert hsic(single, single, estimator=estimator).item() == pytest.approx(
        naive_hsic(A, A, estimator), rel=1e-5
    )


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_hsic_of_matrices_and_tiles_does_not_see_a_large_constant(estimator):
    K, L = X @ X.T, Y @ Y.T
    truth = naive_hsic(K, L, estimator)
    assert hsic(K + 1e6, L + 1e6, estimator=estimator) == pytest.approx(truth, rel=1e-8)
    tiles = KernelOperator(X, kernel=lambda a, b: a @ b.mT + 1e6)
    assert hsic(tiles, L + 1e6, estimator=estimator) == pytest.approx(truth, rel=1e-8)


def test_unbiased_hsic_has_mean_zero_over_all_permutations_and_the_biased_one_has_not():
    x, y = features(5, 1, seed=3), features(5, 1, seed=4)
    import itertools

    mean = {
        estimator: np.mean(
            [hsic(Gram(x), Gram(y[list(p)]), estimator=estimator) for p in itertools.permutations(range(5))]
        )
        for estimator in ("biased", "unbiased")
    }
    assert abs(mean["unbiased"]) < 1e-12
    assert mean["biased"] > 0.01


def test_cka_is_one_for_what_it_does_not_see_and_small_for_independent_features():
    Q = np.linalg.qr(features(3, 3, seed=5))[0]
    assert cka(Gram(X), Gram(3 * X @ Q + 2)) == pytest.approx(1.0, rel=1e-12)
    other = features(N, 40, seed=6)
    assert cka(Gram(X), Gram(other)) > 0.2  # grows with the width
    assert abs(cka(Gram(X), Gram(other), estimator="unbiased")) < 0.15


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(4, 12))
def test_biased_cka_is_between_zero_and_one(seed, width, n):
    A, B = rbf_gram(n, d=width, bandwidth=2.0, seed=seed), features(n, width, seed=seed)
    assert -1e-12 <= cka(A, B @ B.T) <= 1 + 1e-12


@pytest.mark.parametrize("function", [hsic, cka])
def test_unbiased_hsic_and_cka_keep_batches_and_have_exact_derivatives(function):
    call = partial(function, estimator="unbiased")
    Z, W = (torch.as_tensor(features(8, d, seed=d)) for d in (3, 2))
    batch = torch.stack([Z, Z**2])
    torch.testing.assert_close(call(Gram(batch), Gram(W))[1], call(Gram(batch[1]), Gram(W)))
    leaf = Z.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: call(Gram(z), Gram(W)), leaf)
    assert torch.autograd.gradgradcheck(lambda z: call(Gram(z), Gram(W)), leaf)


def test_hsic_refuses_what_it_has_no_value_for():
    with pytest.raises(ValueError, match="Expected at least 4 samples, got 3"):
        hsic(np.eye(3), np.eye(3), estimator="unbiased")
    with pytest.raises(ValueError, match="Expected estimator to be one of"):
        hsic(np.eye(3), np.eye(3), estimator="u")
    with pytest.raises(ValueError, match="the same samples"):
        cka(np.eye(3), np.eye(4))


# --- the test ----------------------------------------------------------------------------------------------------

DENSE = rbf_gram(N, d=2, bandwidth=1.0, seed=1), rbf_gram(N, d=2, bandwidth=1.0, seed=2)
FUNCTIONS = {
    "mutual_information": lambda A, B, alpha: mutual_information(A, B, alpha),
    "normalized_mutual_information": lambda A, B, alpha: normalized_mutual_information(A, B, alpha),
    "hsic": lambda A, B, alpha: hsic(A, B),
    "cka": lambda A, B, alpha: cka(A, B),
}


def permuted(K, seed, count):
    generator = seeded(seed)
    for _ in range(count):
        p = torch.randperm(len(K), generator=generator)
        yield K[p][:, p]


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("statistic", FUNCTIONS)
def test_independence_test_is_the_loop_over_permuted_matrices(statistic, alpha):
    A, B = (t(K) for K in DENSE)
    found = independence_test(A, B, statistic=statistic, alpha=alpha, permutations=9, seed=4)
    function = FUNCTIONS[statistic]
    values = [float(function(A, P, alpha)) for P in permuted(B, 4, 9)]
    observed = float(function(A, B, alpha))
    assert found.statistic == pytest.approx(observed, abs=3e-5)  # float32 where there is no low rank
    np.testing.assert_allclose(found.null, np.sort(values), atol=3e-5)
    assert found.p_value == pytest.approx((1 + sum(v >= observed for v in values)) / 10)
    assert found.effect_size == pytest.approx((observed - np.mean(values)) / np.std(values, ddof=1), rel=1e-2)
    assert found.quantile(0.5) == pytest.approx(np.median(values), abs=3e-5)


@pytest.mark.parametrize("statistic", ["mutual_information", "normalized_mutual_information", "dime", "cka"])
@pytest.mark.parametrize("bandwidth", [0.1, 3.0])
def test_several_orders_are_answered_by_the_same_permutations(bandwidth, statistic):
    """A narrow kernel has full rank, a wide one next to none."""
    A, B = (rbf_gram(N, d=2, bandwidth=bandwidth, seed=i) for i in (1, 2))
    orders = [0.5, 1.0, 2.0, math.inf]
    together = independence_test(A, B, statistic=statistic, alpha=orders, permutations=9, seed=4)
    for order, found in zip(orders, together, strict=True):
        alone = independence_test(A, B, statistic=statistic, alpha=order, permutations=9, seed=4)
        assert found.statistic == pytest.approx(alone.statistic, abs=3e-5)
        np.testing.assert_allclose(found.null, alone.null, atol=3e-5)
        assert found.p_value == alone.p_value
        assert found.null_mean == pytest.approx(found.null.mean(), abs=1e-12)
        assert found.null_std == pytest.approx(found.null.std(ddof=1), abs=1e-12)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.8])
def test_orders_below_one_keep_the_small_eigenvalues_of_smooth_kernels(alpha):
    A, B = (rbf_gram(4 * N, d=1, bandwidth=1.0, seed=i) for i in (1, 2))
    found = independence_test(A, B, alpha=alpha, permutations=2, seed=4)
    truth = [float(mutual_information(t(A), P, alpha)) for P in permuted(t(B), 4, 2)]
    assert found.statistic == pytest.approx(float(mutual_information(A, B, alpha)), abs=1e-6)
    np.testing.assert_allclose(found.null, np.sort(truth), atol=1e-6)


@pytest.mark.parametrize("statistic", ["mutual_information", "hsic", "cka"])
def test_matrices_that_are_never_formed_have_the_test_of_those_that_are(statistic):
    x, y = features(N, 3, seed=1), features(N, 2, seed=2)
    formed = kernels.rbf(x, bandwidth=1.0), y @ y.T
    expected = independence_test(*formed, statistic=statistic, alpha=2, permutations=9)
    K = KernelOperator(x, bandwidth=1.0, tile=7)
    for other in (Gram(y), y @ y.T, KernelOperator(y, kernel=lambda a, b: a @ b.mT)):
        found = independence_test(K, other, statistic=statistic, alpha=2, permutations=9)
        np.testing.assert_allclose(found.null, expected.null, rtol=1e-9)
        assert found.statistic == pytest.approx(expected.statistic, rel=1e-9)
        assert found.p_value == expected.p_value


@pytest.mark.parametrize("statistic", ["mutual_information", "hsic", "cka"])
def test_narrow_features_of_many_samples_have_the_test_of_their_matrices(statistic):
    Z, W = features(600, 2, seed=1), features(600, 1, seed=2)
    found = independence_test(Gram(Z), Gram(W), statistic=statistic, alpha=2, permutations=5)
    formed = independence_test(Z @ Z.T, W @ W.T, statistic=statistic, alpha=2, permutations=5)
    np.testing.assert_allclose(found.null, formed.null, rtol=1e-7, atol=1e-9)


def test_permutations_pass_through_what_shows_their_progress():
    seen = []

    def watched(draws):
        assert len(draws) == 8  # tqdm asks
        for draw in draws:
            seen.append(draw)
            yield draw

    independence_test(*DENSE, permutations=7, progress=watched)
    assert len(seen) == 8
    labels = np.arange(N) % 3
    conditional_independence_test(*DENSE, DENSE[0], groups=labels, permutations=7, progress=watched)
    assert len(seen) == 16


def test_dime_is_the_corrected_information():
    A, B = Gram(X), Gram(Y)
    found = independence_test(A, B, statistic="dime", permutations=20, seed=3)
    assert found.statistic == pytest.approx(float(dime(A, B, permutations=20, generator=seeded(3))), abs=1e-9)
    other = independence_test(A, B, permutations=20, seed=3)
    assert other.corrected.value == pytest.approx(found.statistic)
    assert other.p_value == found.p_value


def test_corrected_information_covers_its_mean_over_all_permutations():
    A, B = Gram(X), Gram(Y)
    many = independence_test(A, B, alpha=2, permutations=20_000, seed=99).corrected.value
    hits = 0
    for seed in range(60):
        found = independence_test(A, B, alpha=2, permutations=25, seed=seed).corrected
        low, high = found.interval()
        hits += low <= many <= high
    assert hits >= 0.95 * 60 - 3 * math.sqrt(0.95 * 0.05 * 60)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_matrices_that_permutations_do_not_change_give_no_evidence(alpha):
    for K in (np.ones((N, N)), np.eye(N)):
        found = independence_test(K, DENSE[0], alpha=alpha, permutations=30)
        assert found.p_value == 1.0
        assert found.effect_size == 0.0


@pytest.mark.parametrize("statistic", ["mutual_information", "hsic"])
@pytest.mark.parametrize("runs", [80, pytest.param(1000, marks=pytest.mark.slow)])
def test_p_values_are_uniform_under_independence(runs, statistic):
    """Kolmogorov and Smirnov on the 20 possible values, made continuous by a random number."""
    rng = np.random.default_rng(0)
    values = []
    for seed in range(runs):
        A, B = (kernels.rbf(features(25, 2, seed=2 * seed + i), bandwidth=1.0) for i in (0, 1))
        p = independence_test(A, B, statistic=statistic, alpha=2, permutations=19, seed=seed).p_value
        values.append(p - rng.uniform() / 20)
    assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3


@pytest.mark.slow
def test_p_values_of_order_one_are_uniform_under_independence():
    rng = np.random.default_rng(1)
    values = []
    for seed in range(500):
        A, B = (kernels.rbf(features(40, 1, seed=2 * seed + i), bandwidth=1.0) for i in (0, 1))
        p = independence_test(A, B, permutations=19, seed=seed).p_value
        values.append(p - rng.uniform() / 20)
    assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3


def test_a_circle_is_found():
    """No correlation, all dependence."""
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 80)
    A, B = (kernels.rbf(f(angle)[:, None], bandwidth=0.4) for f in (np.cos, np.sin))
    for alpha in (1.0, 2.0):
        assert independence_test(A, B, alpha=alpha, permutations=99).p_value == 0.01


def test_narrow_grams_and_dense_matrices_have_one_test():
    A, B = Gram(X), Gram(Y)
    for alpha in (1.0, 2.0):
        one, other = (
            independence_test(*pair, alpha=alpha, permutations=15) for pair in ((A, B), (X @ X.T, Y @ Y.T))
        )
        np.testing.assert_allclose(one.null, other.null, atol=1e-7)


# --- conditional -------------------------------------------------------------------------------------------------


def test_conditional_test_is_the_loop_over_its_definition():
    labels = np.arange(N) % 3
    A, B, C = DENSE[0], DENSE[1], (labels[:, None] == labels).astype(float)
    for alpha in (1.0, 2.0):
        found = conditional_independence_test(A, B, C, groups=labels, alpha=alpha, permutations=5)
        truth = conditional_mutual_information(A, B, C, alpha)
        assert found.statistic == pytest.approx(float(truth), abs=5e-5)


def test_permutations_within_groups_stay_there_and_reach_all_of_them():
    from matinfo.independence.statistics import within_groups

    labels = np.array([2, 0, 0, 1, 2, 0, 1])
    drawn = [p.numpy() for p in within_groups(labels, 200, 0)]
    assert all((labels[p] == labels).all() and sorted(p) == list(range(7)) for p in drawn)
    assert len({tuple(p) for p in drawn}) == 24  # 3! 2! 2!


def test_local_permutations_take_neighbours():
    from matinfo.independence.statistics import among_neighbours

    z = np.sort(features(40, 1, seed=0), 0)
    drawn = [p.numpy() for p in among_neighbours(t(z @ z.T), 4, 20, 0)]
    moved = np.array([np.abs(z[p] - z).mean() for p in drawn])
    assert (moved < 0.2).all()
    assert (np.array([len(set(p)) for p in drawn]) > 30).all()  # nearly permutations
    assert np.mean([(p != np.arange(40)).mean() for p in drawn]) > 0.5


@pytest.mark.parametrize("runs", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_conditional_p_values_within_groups_are_uniform(runs):
    """Both depend on the label, and on nothing else in common."""
    rng = np.random.default_rng(0)
    values = []
    for seed in range(runs):
        labels = rng.integers(0, 3, 24)
        A, B = (
            kernels.rbf(labels[:, None] + 0.5 * rng.standard_normal((24, 1)), bandwidth=1.0) for _ in range(2)
        )
        C = (labels[:, None] == labels).astype(float)
        p = conditional_independence_test(A, B, C, groups=labels, alpha=2, permutations=19, seed=seed).p_value
        values.append(p - rng.uniform() / 20)
    assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("runs", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_local_permutations_keep_the_level_where_plain_ones_do_not(runs):
    """x <- z -> y: rejected at 5 % about as often as stated by the conditional test, always by the other."""
    rng = np.random.default_rng(0)
    local = plain = 0
    for seed in range(runs):
        z = rng.standard_normal((60, 1))
        A, B = (kernels.rbf(z + 0.5 * rng.standard_normal((60, 1)), bandwidth=1.0) for _ in range(2))
        C = kernels.rbf(z, bandwidth=0.5)
        local += conditional_independence_test(A, B, C, alpha=2, permutations=39, seed=seed).p_value <= 0.05
        plain += independence_test(A, B, alpha=2, permutations=39, seed=seed).p_value <= 0.05
    assert plain >= 0.9 * runs
    assert local <= 0.1 * runs + 3 * math.sqrt(0.1 * 0.9 * runs)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: independence_test(DENSE[0], np.eye(3)), "the same samples"),
        (lambda: independence_test(np.stack(DENSE), np.stack(DENSE)), "Expected single matrices"),
        (lambda: independence_test(*DENSE, alpha=[]), "at least one order"),
        (lambda: independence_test(KernelOperator(X), DENSE[0]), r"never is\. Draw some thousand rows"),
        (lambda: independence_test(KernelOperator(X), DENSE[0], alpha=[1, 2]), "kernels.nystrom"),
        (
            lambda: conditional_independence_test(*DENSE, KernelOperator(X), alpha=2),
            "A conditional test needs matrices that can be formed",
        ),
        (lambda: independence_test(np.ones((5, 5)), np.eye(5), statistic="cka"), "not constant"),
        (
            lambda: independence_test(np.ones((5, 5)), np.eye(5), statistic="normalized_mutual_information"),
            "an entropy to share",
        ),
        (
            lambda: conditional_independence_test(*DENSE, DENSE[0], groups=np.arange(3)),
            r"Expected groups of shape \(30,\)",
        ),
    ],
)
def test_unusable_arguments_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("order", [1.0, 2.0])
def test_tests_of_independence_refuse_what_information_refuses(order):
    K, indefinite = torch.eye(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    indefinite[0, 5] = indefinite[5, 0] = 2.0
    for statistic in ("mutual_information", "normalized_mutual_information", "dime"):
        with pytest.raises(ValueError, match="positive semi-definite"):
            independence_test(K, indefinite, statistic=statistic, alpha=order, permutations=2)
    with pytest.raises(ValueError, match="positive semi-definite"):
        conditional_independence_test(K, K, indefinite, alpha=order, permutations=2)


@pytest.mark.parametrize(
    "how",
    [{"alpha": a} for a in (0, 0.5, 1, 2, 3, math.inf)]
    + [{"statistic": s} for s in ("normalized_mutual_information", "dime", "hsic", "cka")],
    ids=str,
)
def test_what_is_not_finite_has_no_p_value(how):
    X, Y = np.random.default_rng(0).normal(size=(2, 12, 2))
    X[0, 0] = np.nan
    pairs = [(Gram(X), Gram(Y)), (Gram(Y), Gram(X)), (X @ X.T, Y @ Y.T)]
    if how in ({"alpha": 2}, {"statistic": "hsic"}, {"statistic": "cka"}):
        A, B = (KernelOperator(v, bandwidth=1.0) for v in (X, Y))
        pairs += [(A, B), (B, A), (B, X @ X.T), (B, Gram(X)), (B, Gram(X) * Gram(Y))]
    for K1, K2 in pairs:
        found = independence_test(K1, K2, permutations=9, **how)
        assert math.isnan(found.p_value)
        assert math.isnan(found.effect_size)


def test_a_condition_that_is_not_finite_leaves_no_p_value():
    X, Y = np.random.default_rng(0).normal(size=(2, 12, 2))
    Z = np.full((12, 1), np.inf)
    for Ks in ((X, Y, Z), (Z, X, Y), (X, Z, Y)):
        found = conditional_independence_test(*map(Gram, Ks), permutations=9, alpha=2)
        assert math.isnan(found.p_value)


def test_statistic_that_float64_does_not_hold_has_no_p_value():
    X, Y = np.random.default_rng(0).normal(size=(2, 12, 2))
    huge = independence_test(X @ X.T * 1e200, Y @ Y.T * 1e200, statistic="hsic", permutations=9)
    assert math.isnan(huge.p_value)


@pytest.mark.parametrize("scale", [1e100, 1e-100])
def test_effect_size_does_not_depend_on_the_scale(scale):
    X, Y = np.random.default_rng(0).normal(size=(2, 20, 2))
    sizes = [
        independence_test(X @ X.T * s, Y @ Y.T * s, statistic="hsic", permutations=49).effect_size
        for s in (1.0, scale)
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=1e-9)


def test_orders_and_groups_may_be_arrays_and_lists():
    X = np.random.default_rng(0).normal(size=(12, 2))
    assert len(independence_test(Gram(X), Gram(X), alpha=np.array([1, 2]), permutations=9)) == 2
    groups = [*"aabb"] * 3
    lists = conditional_independence_test(Gram(X), Gram(X), Gram(X), groups=groups, permutations=9)
    arrays = conditional_independence_test(Gram(X), Gram(X), Gram(X), groups=np.array(groups), permutations=9)
    assert lists.p_value == arrays.p_value
