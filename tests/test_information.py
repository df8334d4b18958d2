"""Mutual information and total correlation: values, identities, and the inequality that fails."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from hypothesis import given
from tolerances import approx, close, entropy_tolerance

from matinfo import (
    Gram,
    joint_entropy,
    mutual_information,
    normalized_dual_total_correlation,
    normalized_mutual_information,
    normalized_total_correlation,
    renyi_entropy,
    spectrum,
    total_correlation,
)

INF = math.inf
ALPHAS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, INF)


def tolerance_of(*Ks, alpha):
    return sum(entropy_tolerance(np.linalg.eigvalsh(K), alpha) for K in Ks)


# --- against the definition ----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_mutual_information_equals_its_definition(alpha):
    K, L = matrices.named("random", 7, 1), matrices.named("two_level", 7, 2)
    tolerance = tolerance_of(K, L, K * L, alpha=alpha)
    close(mutual_information(t(K), t(L), alpha), oracles.mutual_information_mp(K, L, alpha), tolerance)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_mutual_information_of_float32_matrices_is_correct_to_float32_rounding(alpha):
    K, L = (matrices.random_correlation(8, seed).astype(np.float32) for seed in (1, 2))
    # The Hadamard product must be formed in float64 too: a float32 product would move I by about 1e-7 as well, so
    # allow a few units in the last place of the *entropies*, whose difference it is.
    expected = oracles.mutual_information_mp(K, L, alpha)
    close(
        mutual_information(t(K, torch.float32), t(L, torch.float32), alpha),
        expected,
        4 * 1.2e-7 * math.log(8),
    )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_total_correlation_equals_its_definition_for_four_matrices(alpha):
    Ks = [matrices.random_correlation(6, seed) for seed in range(4)]
    tolerance = tolerance_of(*Ks, oracles.hadamard(*Ks), alpha=alpha)
    close(
        total_correlation(*map(t, Ks), alpha=alpha), oracles.total_correlation_mp(*Ks, alpha=alpha), tolerance
    )


# --- closed forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", (0.0, *ALPHAS))
def test_mutual_information_with_a_constant_is_zero(alpha):
    K = matrices.random_correlation(6, 3)
    tolerance = tolerance_of(K, K, np.ones((6, 6)), alpha=alpha)
    close(mutual_information(t(K), torch.ones(6, 6, dtype=torch.float64), alpha), 0.0, tolerance)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_mutual_information_with_the_identity_is_the_entropy(alpha):
    K = matrices.random_correlation(6, 3)
    close(
        mutual_information(t(K), torch.eye(6, dtype=torch.float64), alpha), renyi_entropy(t(K), alpha), 1e-13
    )


def test_mutual_information_of_partitions_is_the_classical_one():
    table = np.array([[4, 1, 0], [1, 2, 3]])
    p = table / table.sum()
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    expected = (p[p > 0] * np.log(p[p > 0] / independent[p > 0])).sum()
    close(mutual_information(*map(t, matrices.partition_pair(table))), expected, 1e-13)


def test_mutual_information_in_base_two_counts_bits():
    identity = torch.eye(8, dtype=torch.float64)
    close(mutual_information(identity, identity, base=2), 3.0, 1e-14)
    close(total_correlation(identity, identity, identity, base=2), 6.0, 1e-14)


def test_total_correlation_of_two_matrices_is_their_mutual_information():
    K, L = t(matrices.random_correlation(6, 1)), t(matrices.random_correlation(6, 2))
    close(total_correlation(K, L, alpha=1.5), mutual_information(K, L, 1.5), 1e-15)


def test_total_correlation_of_one_matrix_is_zero():
    close(total_correlation(t(matrices.random_correlation(6, 1))), 0.0, 1e-15)


@pytest.mark.parametrize(
    ("alpha", "table", "expected"),
    [
        (2.0, [[1, 0], [2, 1]], -0.0408),
        (1.5, [[1, 0], [3, 1]], -0.0135),
        (0.5, [[2, 1], [5, 2]], -0.0013),
        (0.25, [[5, 1], [2, 1]], -0.00019),
    ],
)
def test_mutual_information_is_negative_on_the_counterexamples_to_prop_4_7c(alpha, table, expected):
    # Subadditivity fails for every order but 0 and 1: a package that clamps at zero would hide it.
    K, L = matrices.partition_pair(table)
    value = float(mutual_information(t(K), t(L), alpha))
    assert value < 0
    assert value == approx(expected, rel=0.05)
    close(
        value, oracles.mutual_information_mp(K, L, alpha, zero=1e-12), tolerance_of(K, L, K * L, alpha=alpha)
    )


def test_mutual_information_is_negative_on_two_disjoint_blocks():
    K, L = np.eye(32), np.eye(32)
    K[:16, :16] = 1.0
    L[16:, 16:] = 1.0
    close(
        mutual_information(t(K), t(L), 2.0), math.log(32) - 2 * math.log(17 / 2), 1e-13
    )  # H_2 = log(1024/272)
    close(mutual_information(t(K), t(L), INF), math.log(32) - 2 * math.log(16), 1e-13)
    assert float(mutual_information(t(K), t(L), 1.0)) == approx(math.log(2), abs=1e-12)


# --- identities and inequalities -----------------------------------------------------------------------------


@given(matrices.correlation_tuples(), matrices.positive_orders)
def test_mutual_information_is_symmetric(pair, alpha):
    K, L = pair
    tolerance = 2 * tolerance_of(K, L, K * L, alpha=alpha)
    close(mutual_information(t(K), t(L), alpha), mutual_information(t(L), t(K), alpha), tolerance)


@given(matrices.correlation_tuples())
def test_mutual_information_of_order_two_is_prop_4_1(pair):
    K, L = pair
    expected = 2 * math.log(len(K)) - math.log((K**2).sum() * (L**2).sum() / ((K * L) ** 2).sum())
    close(mutual_information(t(K), t(L), 2), expected, 1e-12)


@given(matrices.correlation_tuples(), matrices.positive_orders)
def test_mutual_information_is_at_most_log_n_prop_4_5(pair, alpha):
    K, L = pair
    assert mutual_information(t(K), t(L), alpha) <= math.log(len(K)) + tolerance_of(K, L, K * L, alpha=alpha)


@given(matrices.correlation_tuples())
def test_mutual_information_of_order_one_is_not_negative_prop_4_7c(pair):
    K, L = pair
    assert mutual_information(t(K), t(L)) >= -tolerance_of(K, L, K * L, alpha=1)


@given(matrices.correlation_tuples())
def test_mutual_information_of_order_zero_is_not_negative_prop_4_7c(pair):
    assert mutual_information(*map(t, pair), 0) >= -1e-12


@given(matrices.correlation_tuples(count=3))
def test_joint_entropy_is_strongly_subadditive_at_order_one(triple):
    K, L, M = triple
    tolerance = tolerance_of(K * M, L * M, K * L * M, M, alpha=1)
    K, L, M = map(t, triple)
    information = joint_entropy(K, M) + joint_entropy(L, M) - joint_entropy(K, L, M) - renyi_entropy(M)
    assert information >= -tolerance


@given(matrices.correlation_tuples(count=3))
def test_total_correlation_obeys_the_chain_rule_at_order_one(triple):
    K, L, M = triple
    tolerance = 2 * tolerance_of(K, L, M, K * L, K * L * M, alpha=1)
    chained = mutual_information(t(K), t(L)) + mutual_information(t(K * L), t(M))
    close(total_correlation(t(K), t(L), t(M)), chained, tolerance)


@given(matrices.correlation_tuples(), matrices.positive_orders, matrices.seeds)
def test_mutual_information_does_not_change_when_samples_are_permuted(pair, alpha, seed):
    order = np.random.default_rng(seed).permutation(len(pair[0]))
    K, L = pair
    tolerance = 2 * tolerance_of(K, L, K * L, alpha=alpha)
    permuted = [t(M[np.ix_(order, order)]) for M in pair]
    close(mutual_information(*permuted, alpha), mutual_information(t(K), t(L), alpha), tolerance)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("d1", "d2"), [(2, 3), (5, 7)])  # the covariance side and the Gram side of the joint
def test_mutual_information_of_features_equals_that_of_their_gram_matrices(d1, d2, alpha):
    Z1, Z2 = matrices.features(16, d1, 1), matrices.features(16, d2, 2)
    K, L = Z1 @ Z1.T, Z2 @ Z2.T
    # A null eigenvalue is a 16-fold noise term at small orders; 64 eps covers the rounding of the dense Grams.
    tolerance = sum(entropy_tolerance(np.linalg.eigvalsh(M), alpha, noise=64) for M in (K, L, K * L))
    close(
        mutual_information(Gram(t(Z1)), Gram(t(Z2)), alpha), mutual_information(t(K), t(L), alpha), tolerance
    )


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [mutual_information, total_correlation])
def test_information_names_the_sizes_that_do_not_match(function):
    with pytest.raises(ValueError, match=r"3.*4"):
        function(torch.eye(3), torch.eye(4))


@pytest.mark.parametrize("function", [mutual_information, total_correlation])
def test_information_rejects_batch_shapes_that_do_not_match(function):
    with pytest.raises(ValueError, match=r"batch|shape"):
        function(torch.eye(3).expand(2, 3, 3), torch.eye(3).expand(5, 3, 3))


def test_mutual_information_rejects_features_of_different_sample_counts():
    with pytest.raises(ValueError, match=r"8.*9"):
        mutual_information(Gram(torch.randn(8, 3)), Gram(torch.randn(9, 3)))


def test_mutual_information_rejects_a_missing_second_matrix():
    with pytest.raises(TypeError):
        mutual_information(torch.eye(3))


def test_total_correlation_needs_at_least_one_matrix():
    with pytest.raises((TypeError, ValueError), match=r"at least"):
        total_correlation()


def uneven_vectors(n, rng):
    """The roots of a diagonal: even, of few levels, with a heavy tail, with one large entry, and mostly zero."""
    yield rng.choice([-1.0, 1.0], n)
    yield rng.standard_normal(3)[np.arange(n) % 3]
    yield 1 + 0.1 * rng.standard_normal(n)
    yield np.exp(3 * rng.standard_normal(n))
    yield np.r_[1.0, 1e-2 * rng.standard_normal(n - 1)]
    yield rng.standard_normal(n) * (rng.random(n) < 0.1) + 1e-9


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.001, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n", [8, 60])
def test_normalized_information_of_matrices_of_rank_one_is_zero_in_every_dtype(n, dtype, alpha):
    """Quotients of round-off were 1.84 and -0.36 in float32, where Grams give the 0 of the convention."""
    Z = np.stack(list(uneven_vectors(n, np.random.default_rng(n))))
    Z = t(Z / np.abs(Z).max(1, keepdims=True))
    K = (Z[:, :, None] * Z[:, None, :]).to(dtype)
    for by in ("min", "max", "mean", "geometric", "joint"):
        assert (normalized_mutual_information(K, K, alpha, by=by) == 0).all()
    assert (normalized_total_correlation(K, K, K, alpha=alpha) == 0).all()
    assert (normalized_dual_total_correlation(K, K, K, alpha=alpha) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_rounding_of_a_matrix_of_uneven_diagonal_is_no_direction(dtype):
    """Rounding errors are as uneven as the diagonal: an even share of them saw two to five directions at order 0."""
    rng = np.random.default_rng(2)
    Z = [z / np.abs(z).max() for _ in range(4) for z in list(uneven_vectors(60, rng))[3:]]
    K = torch.stack([torch.outer(t(z), t(z)) for z in Z]).to(dtype)
    for alpha in (0.0, 0.1, 0.5):
        assert renyi_entropy(K, alpha).abs().max() < 0.1, alpha
    S = spectrum(K)
    torch.testing.assert_close(S.rank, torch.ones(len(Z), dtype=torch.float64), rtol=0, atol=0)
    for i in (0, 5, len(Z) - 1):  # each matrix of a batch has a diagonal of its own
        assert S[i].rank == spectrum(K[i]).rank == 1
    assert S[3:6].rank.shape == (3,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_normalized_mutual_information_sees_the_second_direction_of_a_rounded_matrix(dtype):
    """One sample of 400 that differs is 0.018 nats: far above the rounding of float32, and of float16 not."""
    labels = torch.arange(400) < (1 if dtype != torch.float16 else 100)
    K = (labels[:, None] == labels).to(dtype)
    close(normalized_mutual_information(K, K), 1.0, 1e-2)
