"""Conditional mutual information, dual total correlation, and the normalised forms: values, identities, gradients."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from hypothesis import assume, given
from hypothesis import strategies as st
from tolerances import close
from torch.autograd import gradcheck

from matinfo import Gram, mutual_information, renyi_entropy, total_correlation
from matinfo.information import (
    conditional_mutual_information,
    dual_total_correlation,
    normalized_dual_total_correlation,
    normalized_mutual_information,
    normalized_total_correlation,
)

ALPHAS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)
UNITS = ("min", "max", "mean", "geometric", "joint")
SEVERAL = (dual_total_correlation, normalized_total_correlation, normalized_dual_total_correlation)
of_several = pytest.mark.parametrize("function", SEVERAL)


def joint(*Ks, alpha):
    return oracles.joint_entropy_mp(*Ks, alpha=alpha)


# --- against the definition ----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_conditional_mutual_information_equals_its_definition(alpha):
    K, L, M = (matrices.random_correlation(6, seed) for seed in (1, 2, 3))
    expected = (
        joint(K, M, alpha=alpha)
        + joint(L, M, alpha=alpha)
        - joint(K, L, M, alpha=alpha)
        - joint(M, alpha=alpha)
    )
    close(conditional_mutual_information(t(K), t(L), t(M), alpha), expected, 1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_dual_total_correlation_equals_its_definition(alpha, count):
    # Han's form: joint entropy less the entropy of each given all others.
    Ks = [matrices.random_correlation(5, seed) for seed in range(count)]
    whole = joint(*Ks, alpha=alpha)
    alone = [whole - joint(*Ks[:i], *Ks[i + 1 :], alpha=alpha) for i in range(count)]
    close(dual_total_correlation(*map(t, Ks), alpha=alpha), whole - sum(alone), 1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("by", UNITS)
def test_normalized_mutual_information_equals_its_definition(by, alpha):
    K, L = matrices.random_correlation(6, 1), matrices.equicorrelated(6, 0.5)
    first, second, both = (float(joint(*Ks, alpha=alpha)) for Ks in ((K,), (L,), (K, L)))
    unit = {
        "min": min(first, second),
        "max": max(first, second),
        "mean": (first + second) / 2,
        "geometric": math.sqrt(first * second),
        "joint": both,
    }[by]
    close(normalized_mutual_information(t(K), t(L), alpha, by=by), (first + second - both) / unit, 1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_normalized_correlations_equal_their_definition(alpha):
    Ks = [matrices.random_correlation(6, seed) for seed in range(3)]
    entropies = [float(joint(K, alpha=alpha)) for K in Ks]
    whole = float(joint(*Ks, alpha=alpha))
    tensors = list(map(t, Ks))
    expected = (sum(entropies) - whole) / (sum(entropies) - max(entropies))
    close(normalized_total_correlation(*tensors, alpha=alpha), expected, 1e-12)
    dual = float(dual_total_correlation(*tensors, alpha=alpha))
    close(normalized_dual_total_correlation(*tensors, alpha=alpha), dual / whole, 1e-12)


# --- closed forms --------------------------------------------------------------------------------------------


def test_conditional_mutual_information_of_a_parity_is_one_bit():
    labels = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]])
    X, Y, parity = (t(matrices.partition(row)) for row in labels)
    close(conditional_mutual_information(X, Y, parity, base=2), 1.0, 1e-13)
    close(mutual_information(X, Y), 0.0, 1e-13)
    close(dual_total_correlation(X, Y, parity, base=2), 2.0, 1e-13)
    close(total_correlation(X, Y, parity, base=2), 1.0, 1e-13)


def test_a_copy_three_times_is_one_bit_in_every_pair():
    K = t(matrices.partition([0, 0, 1, 1]))
    close(conditional_mutual_information(K, K, K), 0.0, 1e-14)
    close(total_correlation(K, K, K, base=2), 2.0, 1e-14)
    close(dual_total_correlation(K, K, K, base=2), 1.0, 1e-14)
    close(normalized_total_correlation(K, K, K), 1.0, 1e-14)


def test_conditioning_on_a_constant_changes_nothing_and_on_everything_leaves_nothing():
    K, L = t(matrices.random_correlation(6, 1)), t(matrices.random_correlation(6, 2))
    close(conditional_mutual_information(K, L, torch.ones_like(K)), mutual_information(K, L), 1e-12)
    close(conditional_mutual_information(K, L, torch.eye(6, dtype=torch.float64)), 0.0, 1e-12)


def test_normalized_mutual_information_of_a_variable_with_itself_is_one():
    K = t(matrices.partition([0, 0, 1, 2]))
    for by in UNITS:
        close(normalized_mutual_information(K, K, by=by), 1.0, 1e-12)


def test_normalized_forms_of_constants_are_zero_and_not_noise():
    ones = torch.ones(5, 5, dtype=torch.float64).requires_grad_()
    for value in (
        *(normalized_mutual_information(ones, ones, by=by) for by in UNITS),
        normalized_total_correlation(ones, ones, ones),
        normalized_dual_total_correlation(ones, ones, ones),
    ):
        assert value.item() == 0.0
        (gradient,) = torch.autograd.grad(value, ones)
        assert gradient.isfinite().all()


# --- identities and inequalities -----------------------------------------------------------------------------


@given(matrices.correlation_tuples())
def test_normalized_mutual_information_is_ordered_by_its_unit(pair):
    K, L = pair
    assume(min(float(renyi_entropy(t(K))), float(renyi_entropy(t(L)))) > 1e-3)  # not a share of nothing
    shares = [
        float(normalized_mutual_information(t(K), t(L), by=by))
        for by in ("min", "geometric", "mean", "max", "joint")
    ]
    assert shares[0] <= 1 + 1e-9
    assert all(one >= other - 1e-9 for one, other in zip(shares, [*shares[1:], 0.0], strict=True))


@given(matrices.correlation_tuples(), st.sampled_from(UNITS))
def test_normalized_mutual_information_of_order_one_lies_between_zero_and_one(pair, by):
    assert -1e-9 <= normalized_mutual_information(*map(t, pair), by=by) <= 1 + 1e-9


@given(matrices.correlation_tuples(count=3))
def test_normalized_total_correlations_of_order_one_lie_between_zero_and_one(triple):
    for function in (normalized_total_correlation, normalized_dual_total_correlation):
        assert -1e-9 <= function(*map(t, triple)) <= 1 + 1e-9


# --- gradients, errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("by", UNITS)
def test_normalized_mutual_information_derivative_is_exact(by):
    Zs = [t(matrices.features(4, 3, seed)).requires_grad_() for seed in range(2)]
    assert gradcheck(lambda A, B: normalized_mutual_information(Gram(A), Gram(B), by=by), Zs)


@of_several
def test_multivariate_information_needs_two_matrices(function):
    with pytest.raises(ValueError, match="at least two"):
        function(torch.eye(3))
