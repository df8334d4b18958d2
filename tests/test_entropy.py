"""Entropies of one matrix, joint and conditional entropies: values. Gradients are in test_gradients.py."""

from __future__ import annotations

import fractions
import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from hypothesis import given
from tolerances import EPS32, EPS64, close, entropy_tolerance

from matinfo import (
    Gram,
    conditional_entropy,
    joint_entropy,
    renyi_entropy,
    total_correlation,
    von_neumann_entropy,
)

INF = math.inf
ALPHAS = (0.25, 0.5, 0.9, 1.0, 1.1, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0, 20.0, INF)
ALL_ALPHAS = (0.0, *ALPHAS)


# --- against the definition ----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", sorted(matrices.SPECTRA))
def test_renyi_entropy_equals_its_definition(name, alpha):
    K = 3.7 * matrices.named(name, 7)
    lam = oracles.eigenvalues_mp(K)
    expected = oracles.entropy_of_spectrum_mp(lam, alpha)
    close(renyi_entropy(t(K), alpha), expected, entropy_tolerance(lam, alpha), f"{name}, alpha={alpha}")


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", ["random", "gap_1e-08", "log_spaced_1e3", "log_spaced_1e6", "spiked"])
def test_renyi_entropy_of_a_small_float32_matrix_is_correct_to_float32_rounding(name, alpha):
    # Small float32 matrices are solved in float64, so only the rounding of the result remains.
    K = matrices.named(name, 9).astype(np.float32)
    lam = oracles.eigenvalues_mp(K)
    expected = oracles.entropy_of_spectrum_mp([max(x, 0) for x in lam], alpha)
    result = renyi_entropy(torch.as_tensor(K), alpha)
    assert result.dtype == torch.float32
    tolerance = entropy_tolerance([max(x, 0) for x in lam], alpha) + EPS32 * float(expected)
    close(result, expected, tolerance, f"{name}, alpha={alpha}")


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(
    "name", ["random", "flat", "gap_1e-06", "log_spaced_1e3", "spiked", "half_zero", "rank_one"]
)
def test_renyi_entropy_of_a_larger_float32_matrix_is_within_the_conditioning_of_float32(name, alpha):
    # A matrix given in float32 is known to eps32 * lambda_max only; solving it in float32 may double that, no more.
    K = matrices.named(name, 80).astype(np.float32)
    lam = matrices.spectrum(name, 80)
    expected = oracles.entropy_of_spectrum_mp(lam, alpha)
    for precision in ("auto", "float32"):
        result = renyi_entropy(torch.as_tensor(K), alpha, precision=precision)
        tolerance = entropy_tolerance(lam, alpha, eps=EPS32, noise=8)
        close(result, expected, tolerance, f"{name}, alpha={alpha}, precision={precision}")


@pytest.mark.parametrize("alpha", ALL_ALPHAS)
@pytest.mark.parametrize("name", sorted(matrices.SINGULAR_SPECTRA))
def test_renyi_entropy_of_a_singular_matrix_ignores_its_null_space(name, alpha):
    lam = matrices.spectrum(name, 8)
    K = matrices.from_spectrum(lam, 5)
    expected = oracles.entropy_of_spectrum_mp(lam, alpha)
    close(renyi_entropy(t(K), alpha), expected, entropy_tolerance(lam, alpha), f"{name}, alpha={alpha}")


@pytest.mark.parametrize("alpha", ALPHAS)
def test_joint_entropy_equals_its_definition_for_three_matrices(alpha):
    Ks = [matrices.named("random", 6, seed) for seed in (1, 2, 3)]
    lam = oracles.eigenvalues_mp(oracles.hadamard(*Ks))
    close(
        joint_entropy(*map(t, Ks), alpha=alpha),
        oracles.joint_entropy_mp(*Ks, alpha=alpha),
        entropy_tolerance(lam, alpha),
    )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_conditional_entropy_equals_its_definition(alpha):
    K1, K2 = matrices.random_correlation(6, 1), matrices.random_correlation(6, 2)
    close(conditional_entropy(t(K1), t(K2), alpha), oracles.conditional_entropy_mp(K1, K2, alpha), 1e-13)


def test_conditional_entropy_conditions_on_its_second_argument():
    certain, free = np.ones((5, 5)), np.eye(5)
    close(conditional_entropy(t(free), t(certain)), math.log(5), 1e-13)  # H(I o 11^T) - H(11^T)
    close(conditional_entropy(t(certain), t(free)), 0.0, 1e-13)


# --- closed forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALL_ALPHAS)
@pytest.mark.parametrize("n", [1, 2, 3, 17, 64])
def test_renyi_entropy_of_the_identity_is_log_n(n, alpha):
    close(
        renyi_entropy(2.5 * torch.eye(n, dtype=torch.float64), alpha),
        math.log(n),
        8 * EPS64 * (1 + math.log(n)),
    )


@pytest.mark.parametrize("alpha", ALL_ALPHAS)
def test_renyi_entropy_of_a_rank_one_matrix_is_zero(alpha):
    K = np.ones((6, 6))
    close(renyi_entropy(t(K), alpha), 0.0, entropy_tolerance([0, 0, 0, 0, 0, 6], alpha), f"alpha={alpha}")


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("rho", [1e-9, 0.1, 0.5, 0.99])
def test_renyi_entropy_of_an_equicorrelated_matrix_is_closed_form(rho, alpha):
    n = 9
    lam = [1 + (n - 1) * rho] + [1 - rho] * (n - 1)
    expected = oracles.entropy_of_spectrum_mp(lam, alpha)
    close(renyi_entropy(t(matrices.equicorrelated(n, rho)), alpha), expected, entropy_tolerance(lam, alpha))


@pytest.mark.parametrize("alpha", ALL_ALPHAS)
def test_renyi_entropy_of_a_partition_matrix_is_the_classical_entropy_of_its_labels(alpha):
    K = matrices.partition([0] * 5 + [1] * 3 + [2] * 2 + [3])
    lam = [5, 3, 2, 1] + [0] * 7
    close(
        renyi_entropy(t(K), alpha), oracles.entropy_of_spectrum_mp(lam, alpha), entropy_tolerance(lam, alpha)
    )


@pytest.mark.parametrize("alpha", ALL_ALPHAS)
def test_renyi_entropy_in_base_two_counts_bits(alpha):
    close(renyi_entropy(torch.eye(8, dtype=torch.float64), alpha, base=2), 3.0, 1e-14)


def test_entropies_share_one_meaning_of_base():
    K, L = t(matrices.random_correlation(5, 1)), t(matrices.random_correlation(5, 2))
    for base in (2, 10, math.e):
        for quantity in (
            von_neumann_entropy,
            lambda K, **kw: joint_entropy(K, L, **kw),
            lambda K, **kw: conditional_entropy(K, L, **kw),
        ):
            close(quantity(K, base=base), quantity(K) / math.log(base), 1e-14)


def test_joint_entropy_of_one_matrix_is_its_entropy():
    K = t(matrices.named("random", 6))
    close(joint_entropy(K, alpha=1.5), renyi_entropy(K, 1.5), 1e-15)


def test_joint_entropy_with_the_all_ones_matrix_changes_nothing():
    K = t(matrices.random_correlation(6, 4))
    close(joint_entropy(K, torch.ones_like(K), alpha=1.5), renyi_entropy(K, 1.5), 1e-14)


def test_joint_entropy_of_partitions_is_the_entropy_of_the_joint_label():
    K1, K2 = matrices.partition_pair([[3, 1], [0, 2]])
    close(joint_entropy(t(K1), t(K2)), oracles.entropy_of_spectrum_mp([3, 1, 2]), 1e-13)


# --- limits in alpha -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random", "triple", "gap_1e-10", "half_zero", "log_spaced_1e10"])
def test_renyi_entropy_at_zero_is_the_log_of_the_rank(name):
    rank = np.count_nonzero(matrices.spectrum(name, 10))
    close(renyi_entropy(t(matrices.named(name, 10)), 0), math.log(rank), 1e-15)


def test_renyi_entropy_at_zero_does_not_count_round_off():
    Z = matrices.low_rank_features(60, 40, rank=6)
    for K in (t(Z @ Z.T), t(Z @ Z.T, torch.float32), Gram(t(Z)), Gram(t(Z, torch.float32))):
        close(renyi_entropy(K, 0), math.log(6), EPS32 * 4)


@pytest.mark.parametrize("gap", [0.5, 1e-2, 1e-4, 1e-8, 1e-12, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_renyi_entropy_at_infinity_of_a_larger_matrix_is_right_at_every_gap(dtype, gap):
    # An iterative method must not stop short of the top eigenvalue, nor take two for one.
    lam = np.r_[np.linspace(0.1, 1.0, 298), 2.0 * (1 - gap), 2.0]
    expected = math.log(lam.sum() / 2.0)
    # Forming Q diag(lam) Q^T and rounding it to dtype moves lambda_max by a few eps; the trace averages out.
    close(renyi_entropy(t(matrices.from_spectrum(lam), dtype), INF), expected, 16 * torch.finfo(dtype).eps)


def test_renyi_entropy_at_infinity_of_a_larger_matrix_without_any_gap_is_right():
    K = t(matrices.features(300, 900))
    K = K @ K.mT
    expected = math.log(K.trace()) - math.log(np.linalg.eigvalsh(K.numpy())[-1])
    close(renyi_entropy(K, INF), expected, 1e-13)
    close(renyi_entropy(torch.eye(300, dtype=torch.float64), INF), math.log(300), 1e-13)
    close(renyi_entropy(torch.ones(300, 300, dtype=torch.float64), INF), 0.0, 1e-13)


@pytest.mark.parametrize("alpha", [50.0, 500.0, 1e4, 1e8, 1e300])
def test_renyi_entropy_of_large_order_neither_overflows_nor_underflows(alpha):
    lam = [1.0, 2.0, 5.0, 5.0]
    K = matrices.from_spectrum(lam)
    # H = (a H_inf - log 2) / (a - 1) with two leading eigenvalues; the rest is below 1e-19 from a = 50 on.
    expected = (alpha * math.log(13 / 5) - math.log(2)) / (alpha - 1)
    close(renyi_entropy(t(K), alpha), expected, 1e-13)
    close(renyi_entropy(t(K, torch.float32), alpha), expected, 1e-6)


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-12, 1e-6])
def test_renyi_entropy_of_tiny_order_approaches_the_log_of_the_dimension(alpha):
    # dH/dalpha is at most the variance-like log(p_max/p_min)^2 ~ 12 here.
    close(renyi_entropy(t(matrices.named("random", 8)), alpha), math.log(8), 12 * alpha + 1e-14)


@pytest.mark.parametrize("alpha", [2 - 1e-9, 2 + 1e-9, 3 - 1e-9, 3 + 1e-9, 4 + 1e-9, 8 - 1e-9])
def test_renyi_entropy_is_continuous_across_integer_orders_on_unnormalised_input(alpha):
    # Special routes for integer orders must agree with the general one when diag(K) is not 1.
    K = t(11.0 * matrices.named("random", 8))
    close(renyi_entropy(K, alpha), renyi_entropy(K, float(round(alpha))), 2e-9)


# --- identities and inequalities -----------------------------------------------------------------------------


@given(matrices.psd_matrices(), matrices.orders)
def test_renyi_entropy_lies_between_zero_and_log_n(K, alpha):
    value = float(renyi_entropy(t(K), alpha))
    tolerance = entropy_tolerance(np.linalg.eigvalsh(K), alpha)
    assert -tolerance <= value <= math.log(len(K)) + 8 * EPS64 * (1 + math.log(len(K)))


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [2, np.int64(2), np.float64(2.0), np.float32(2.0), fractions.Fraction(2)])
def test_renyi_entropy_accepts_any_real_number_as_its_order(alpha):
    close(renyi_entropy(torch.eye(3, dtype=torch.float64), alpha), math.log(3), 1e-15)


def test_renyi_entropy_takes_options_by_keyword_only():
    with pytest.raises(TypeError):
        renyi_entropy(torch.eye(3), 1.0, 2)


@pytest.mark.parametrize("function", [joint_entropy, total_correlation])
def test_function_of_any_number_of_matrices_needs_one(function):
    with pytest.raises(ValueError, match="at least one"):
        function()
