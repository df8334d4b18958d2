"""Conditional, dual and normalised information: values, identities, bounds, gradients, errors."""

from __future__ import annotations

import math

import matrices
import oracles
import pytest
import torch
from helpers import t
from hypothesis import given
from hypothesis import strategies as st
from tolerances import close
from torch.autograd import gradcheck, gradgradcheck

from matinfo import (
    Gram,
    conditional_mutual_information,
    dual_total_correlation,
    joint_entropy,
    normalized_dual_total_correlation,
    normalized_mutual_information,
    normalized_total_correlation,
    total_correlation,
)

ALPHAS = (0.5, 1.0, 1.5, 2.0, math.inf)
UNITS = ("min", "max", "mean", "geometric", "joint")
SEVERAL = [dual_total_correlation, normalized_total_correlation, normalized_dual_total_correlation]


def three(n=6):
    return [matrices.random_correlation(n, seed) for seed in range(3)]


def labels(*columns):
    return [matrices.partition(column) for column in columns]


# --- against the definitions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_dual_total_correlation_equals_its_definition(alpha, count):
    # Han's form: joint entropy less the entropy of each given all others.
    Ks = [matrices.random_correlation(5, seed) for seed in range(count)]
    joint = oracles.joint_entropy_mp(*Ks, alpha=alpha)
    alone = [joint - oracles.joint_entropy_mp(*Ks[:i], *Ks[i + 1 :], alpha=alpha) for i in range(count)]
    close(dual_total_correlation(*map(t, Ks), alpha=alpha), joint - sum(alone), 1e-12)


# --- closed forms --------------------------------------------------------------------------------------------


def test_a_copy_three_times_is_one_bit_in_every_pair():
    (K,) = map(t, labels([0, 0, 1, 1]))
    close(conditional_mutual_information(K, K, K), 0.0, 1e-14)
    close(total_correlation(K, K, K, base=2), 2.0, 1e-14)
    close(dual_total_correlation(K, K, K, base=2), 1.0, 1e-14)
    close(normalized_total_correlation(K, K, K), 1.0, 1e-14)


# --- identities and bounds -----------------------------------------------------------------------------------


@given(matrices.correlation_tuples(), st.sampled_from(UNITS))
def test_normalized_mutual_information_of_order_one_lies_between_zero_and_one(pair, by):
    assert -1e-9 <= normalized_mutual_information(*map(t, pair), by=by) <= 1 + 1e-9


@given(matrices.correlation_tuples(count=3))
def test_normalized_total_correlations_of_order_one_lie_between_zero_and_one(triple):
    for function in (normalized_total_correlation, normalized_dual_total_correlation):
        assert -1e-9 <= function(*map(t, triple)) <= 1 + 1e-9


@pytest.mark.parametrize("function", [conditional_mutual_information, *SEVERAL])
def test_grams_give_the_values_of_their_matrices(function):
    Zs = [matrices.features(12, d, d) for d in (2, 2, 2)]
    value = function(*[Gram(t(Z), normalize=True) for Z in Zs])
    close(value, function(*[matrices.unit_diagonal(Z @ Z.T) for Z in Zs]), 1e-12)


@pytest.mark.parametrize("function", [conditional_mutual_information, *SEVERAL])
def test_batch_dimensions_broadcast(function):
    K, L, M = map(t, three())
    values = function(torch.stack([K, L]), L, M)
    assert values.shape == (2,)
    close(values[1], function(L, L, M), 1e-14)


def test_normalized_mutual_information_broadcasts():
    K, L, M = map(t, three())
    values = normalized_mutual_information(torch.stack([K, L])[:, None], torch.stack([L, M]))
    assert values.shape == (2, 2)
    close(values[0, 1], normalized_mutual_information(K, M), 1e-14)


# --- gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("function", [conditional_mutual_information, *SEVERAL])
def test_derivatives_are_exact(function, alpha):
    call = function if function is conditional_mutual_information else (lambda *Ks, a: function(*Ks, alpha=a))
    arguments = (
        (lambda *Zs: call(*map(Gram, Zs), alpha))
        if function is conditional_mutual_information
        else (lambda *Zs: call(*map(Gram, Zs), a=alpha))
    )
    Zs = [t(matrices.features(4, 3, seed)).requires_grad_() for seed in range(3)]
    assert gradcheck(arguments, Zs)
    assert gradgradcheck(arguments, Zs)


@pytest.mark.parametrize("by", UNITS)
def test_normalized_mutual_information_derivative_is_exact(by):
    Zs = [t(matrices.features(4, 3, seed)).requires_grad_() for seed in range(2)]
    assert gradcheck(lambda A, B: normalized_mutual_information(Gram(A), Gram(B), by=by), Zs)


@pytest.mark.parametrize("by", UNITS)
def test_normalized_mutual_information_has_a_finite_gradient_at_constants(by):
    ones = torch.ones(4, 4, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(normalized_mutual_information(ones, ones, by=by), ones)
    assert gradient.isfinite().all()


# --- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [conditional_mutual_information, *SEVERAL])
def test_sizes_that_do_not_match_are_named(function):
    with pytest.raises(ValueError, match=r"3.*4"):
        function(torch.eye(3), torch.eye(3), torch.eye(4))


def test_joint_entropy_bounds_the_dual_total_correlation_at_every_order():
    Ks = [t(K) for K in three()]
    for alpha in ALPHAS:
        assert dual_total_correlation(*Ks, alpha=alpha) <= joint_entropy(*Ks, alpha=alpha) + 1e-12
