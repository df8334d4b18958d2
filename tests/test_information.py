"""Mutual information and total correlation: values, identities, and the inequality that fails."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from tolerances import close, entropy_tolerance

from matinfo import (
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


# --- errors --------------------------------------------------------------------------------------------------


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
