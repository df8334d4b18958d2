"""Effective rank, RankMe, participation ratio and Vendi score."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from hypothesis import given
from tolerances import EPS64, approx, close, entropy_tolerance, relative_error
from torch.autograd import gradcheck

from matinfo import Gram, effective_rank, participation_ratio, rankme, vendi_score

INF = math.inf
ALPHAS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, INF)


# --- against the definition ----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", ["random", "spiked", "log_spaced_1e6"])
def test_effective_rank_and_vendi_score_equal_their_definition(name, alpha):
    K = 5.0 * matrices.named(name, 7)
    expected = float(oracles.effective_rank_mp(K, alpha))
    tolerance = expected * entropy_tolerance(oracles.eigenvalues_mp(K), alpha)
    close(effective_rank(t(K), alpha), expected, tolerance)
    close(vendi_score(t(K), alpha), expected, tolerance)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (6, 6), (7, 1)])
def test_rankme_equals_its_definition(shape):
    Z = 3.0 * matrices.features(*shape)
    assert rankme(t(Z)).item() == approx(float(oracles.rankme_mp(Z)), rel=1e-13)


def test_rankme_of_ill_conditioned_features_keeps_the_small_singular_values():
    # Singular values down to 1e-9: their squares are lost in a float64 Gram matrix whose top is 1.
    sigma = np.logspace(-9, 0, 8)
    Z = (matrices.orthogonal(12, 1)[:, :8] * sigma) @ matrices.orthogonal(8, 2).T
    expected = float(oracles.mp.exp(oracles.entropy_of_spectrum_mp(sigma)))
    # d exp(H) = exp(H) sum |log p| dp: an error eps*sigma_max in each value costs 8 * 21 * eps; a Gram route 1e-8 * 17.
    assert rankme(t(Z)).item() == approx(expected, rel=1e-7)


def test_rankme_offset_is_added_to_the_normalised_singular_values():
    Z = matrices.features(9, 4)
    sigma = np.linalg.svd(Z, compute_uv=False)
    p = sigma / sigma.sum() + 1e-3
    close(rankme(t(Z), offset=1e-3), np.exp(-(p * np.log(p)).sum()), 1e-13)


def test_participation_ratio_equals_its_definition():
    K = 4.0 * matrices.named("random", 7)
    assert participation_ratio(t(K)).item() == approx(np.trace(K) ** 2 / (K**2).sum(), rel=1e-14)


# --- closed forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_ranks_of_the_identity_are_n(n):
    identity = 3.0 * torch.eye(n, dtype=torch.float64)
    for alpha in (0.0, *ALPHAS):
        assert effective_rank(identity, alpha).item() == approx(n, rel=1e-14)
        assert vendi_score(identity, alpha).item() == approx(n, rel=1e-14)
    assert rankme(identity).item() == approx(n, rel=1e-14)
    assert participation_ratio(identity).item() == approx(n, rel=1e-14)


def test_ranks_of_a_rank_one_matrix_are_one():
    Z = torch.ones(6, 4, dtype=torch.float64)
    assert rankme(Z).item() == approx(1.0, abs=1e-12)
    for function in (effective_rank, vendi_score, participation_ratio):
        assert function(Z @ Z.mT).item() == approx(1.0, abs=1e-12)
        assert function(Gram(Z)).item() == approx(1.0, abs=1e-12)


def test_rankme_and_effective_rank_of_the_gram_matrix_are_two_different_numbers():
    # sigma = (3, 1): RankMe sees p = (3/4, 1/4), the Gram matrix p = (9/10, 1/10).
    Z = torch.diag(t([3.0, 1.0]))
    shannon = lambda *p: -sum(x * math.log(x) for x in p)  # noqa: E731
    close(rankme(Z), math.exp(shannon(0.75, 0.25)), 1e-14)
    close(effective_rank(Gram(Z)), math.exp(shannon(0.9, 0.1)), 1e-14)


def test_rankme_is_not_centred():
    Z = matrices.features(10, 4) + 5.0
    assert rankme(t(Z)).item() == approx(float(oracles.rankme_mp(Z)), rel=1e-13)
    assert abs(rankme(t(Z)) - rankme(t(Z - Z.mean(0)))) > 0.5


# --- limits --------------------------------------------------------------------------------------------------


def test_vendi_score_of_order_zero_counts_distinct_samples():
    K = matrices.partition([0, 0, 0, 1, 1, 2])
    close(vendi_score(t(K), 0), 3.0, 1e-14)


def test_vendi_score_of_infinite_order_is_one_over_the_largest_share():
    K = matrices.partition([0, 0, 0, 1, 1, 2])
    close(vendi_score(t(K), INF), 2.0, 1e-14)


# --- identities ----------------------------------------------------------------------------------------------


@given(matrices.feature_matrices(), matrices.seeds)
def test_rankme_does_not_depend_on_scale_order_or_bases(Z, seed):
    rng = np.random.default_rng(seed)
    moved = 1e3 * Z[rng.permutation(len(Z))] @ matrices.orthogonal(Z.shape[1], seed)
    # Round-off singular values of rank-deficient features: 12 values of 16 eps, each -p log p ~ 36 p.
    close(rankme(t(moved)), rankme(t(Z)), 12 * 12 * 16 * EPS64 * 36)
    close(rankme(t(Z.T)), rankme(t(Z)), 12 * 12 * 16 * EPS64 * 36)


@given(matrices.feature_matrices())
def test_rankme_lies_between_one_and_the_smaller_side(Z):
    assert 1 - 1e-12 <= rankme(t(Z)) <= min(Z.shape) + 1e-12


@given(matrices.feature_matrices())
def test_rankme_is_at_least_the_effective_rank_of_the_gram_matrix(Z):
    # sigma is majorised by sigma^2 after normalisation, so its entropy is larger.
    assert rankme(t(Z)) >= effective_rank(Gram(t(Z))) - 1e-11


def test_vendi_score_does_not_change_when_every_sample_is_duplicated():
    Z = matrices.features(5, 4)
    close(
        vendi_score(Gram(t(np.tile(Z, (3, 1))), normalize=True)),
        vendi_score(Gram(t(Z), normalize=True)),
        1e-13,
    )


# --- gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 4)])
def test_rankme_gradient_is_exact(shape):
    Z = t(matrices.features(*shape)).requires_grad_()
    assert gradcheck(rankme, (Z,))
    assert gradcheck(lambda F: rankme(F, offset=1e-2), (Z,))


def test_rankme_gradient_at_equal_singular_values_is_zero():
    # All singular values equal is the maximum of RankMe: backward through an SVD would be NaN here.
    Z = t(matrices.orthogonal(5)).requires_grad_()
    (gradient,) = torch.autograd.grad(rankme(Z), Z)
    assert gradient.abs().max() < 1e-12


def test_rankme_gradient_at_rank_deficient_features_is_finite_and_tangent_exact():
    # Along directions that keep the rank the derivative exists; compare with a central difference.
    A, B, dA = matrices.features(7, 2, 1), matrices.features(2, 5, 2), matrices.features(7, 2, 3)
    Z = t(A @ B).requires_grad_()
    (gradient,) = torch.autograd.grad(rankme(Z), Z)
    assert gradient.isfinite().all()
    step = 1e-5
    difference = (
        oracles.rankme_mp((A + step * dA) @ B, zero=1e-20)
        - oracles.rankme_mp((A - step * dA) @ B, zero=1e-20)
    ) / (2 * step)
    close((gradient.numpy() * (dA @ B)).sum(), difference, 1e-7)


@pytest.mark.parametrize("function", [effective_rank, participation_ratio, vendi_score])
def test_rank_gradient_is_exact_and_zero_at_the_identity(function):
    K = t(matrices.named("random", 4)).requires_grad_()
    assert gradcheck(lambda A: function((A + A.mT) / 2), (K,))
    identity = torch.eye(4, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(function(identity), identity)
    assert gradient.abs().max() < 1e-14


def test_participation_ratio_gradient_has_its_closed_form():
    K = matrices.named("random", 5)
    A = t(K).requires_grad_()
    (gradient,) = torch.autograd.grad(participation_ratio(A), A)
    trace, square = np.trace(K), (K**2).sum()
    assert relative_error(gradient, 2 * trace / square * np.eye(5) - 2 * trace**2 / square**2 * K) < 1e-14
