"""Continuity in the order: alpha -> 1 without cancellation, alpha -> 0, 2 and infinity."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from tolerances import EPS32, EPS64, close, entropy_tolerance, relative_error

from matinfo import Gram, renyi_entropy

EXPONENTS = range(1, 13)
STEPS = [sign * 10.0**-k for k in EXPONENTS for sign in (1, -1)]
SPECTRA = ("flat", "random", "spiked", "two_level", "log_spaced_1e3", "log_spaced_1e6")


def value_and_gradient(K, alpha):
    A = K.clone().requires_grad_()
    value = renyi_entropy(A, alpha)
    return value.detach(), torch.autograd.grad(value, A)[0]


def diagonal_gradient(lam, alpha):
    return np.array([float(g) for g in oracles.entropy_gradient_of_spectrum_mp(list(map(float, lam)), alpha)])


# --- alpha -> 1 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("step", STEPS)
def test_renyi_entropy_near_order_one_keeps_every_float64_digit(step, name):
    # Diagonal matrices: the eigenvalues are exact, so any error beyond rounding is cancellation in the formula.
    lam = matrices.spectrum(name, 12)
    alpha = 1.0 + step
    expected = oracles.entropy_of_spectrum_mp(lam, alpha)
    close(
        renyi_entropy(torch.diag(t(lam)), alpha),
        expected,
        16 * EPS64 * float(expected),
        f"alpha = 1{step:+g}, {name}",
    )


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("step", STEPS)
def test_renyi_entropy_gradient_near_order_one_keeps_every_float64_digit(step, name):
    lam = matrices.spectrum(name, 12)
    alpha = 1.0 + step
    _, gradient = value_and_gradient(torch.diag(t(lam)), alpha)
    expected = diagonal_gradient(lam, alpha)
    # Components of both signs cancel in log p + H: a few eps of the largest term log p_min.
    size = np.abs(expected).max() + (1 + np.abs(np.log(lam / lam.sum())).max()) / lam.sum()
    assert np.abs(gradient.diagonal().numpy() - expected).max() < 32 * EPS64 * size


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("step", STEPS)
def test_renyi_entropy_near_order_one_keeps_every_float32_digit(step, name, precision):
    # The naive form loses all digits here: -0.075 and +0.76 instead of 1.62 at 1 + 1e-6 and 1 + 1e-7.
    lam = matrices.spectrum(name, 12).astype(np.float32)
    alpha = 1.0 + step
    expected = oracles.entropy_of_spectrum_mp(lam, alpha)
    # float32 eigenvalues carry 16 eps lambda_max; "auto" solves small matrices in float64.
    tolerance = 2 * EPS32 * float(expected)
    if precision == "float32":
        tolerance += entropy_tolerance(lam, alpha, eps=EPS32)
    close(renyi_entropy(torch.diag(t(lam, torch.float32)), alpha, precision=precision), expected, tolerance)


@pytest.mark.parametrize("step", STEPS)
def test_renyi_entropy_near_order_one_is_right_on_rotated_float32_matrices(step):
    K = matrices.named("random", 10).astype(np.float32)
    alpha = 1.0 + step
    expected = oracles.renyi_entropy_mp(K, alpha)
    value, gradient = value_and_gradient(torch.as_tensor(K), alpha)
    close(value, expected, 2 * EPS32 * float(expected))
    # Compare with the oracle gradient rebuilt in the eigenbasis (eigenvalues are well separated).
    lam, Q = np.linalg.eigh(K.astype(np.float64))
    assert relative_error(gradient, (Q * diagonal_gradient(lam, alpha)) @ Q.T) < 8 * EPS32


@pytest.mark.parametrize("step", [1e-3, -1e-3, 1e-6, -1e-6, 1e-9, -1e-9, 1e-12, -1e-12])
def test_gradient_and_hessian_are_continuous_through_order_one(step):
    K = t(matrices.named("random", 4))

    def hessian(alpha):
        return torch.func.hessian(lambda A: renyi_entropy((A + A.mT) / 2, alpha))(K)

    at_one, near = hessian(1.0), hessian(1.0 + step)
    assert at_one.norm() > 1e-2
    assert relative_error(near, at_one) < 50 * abs(step) + 1e-12
    _, gradient_one = value_and_gradient(K, 1.0)
    _, gradient_near = value_and_gradient(K, 1.0 + step)
    assert relative_error(gradient_near, gradient_one) < 10 * abs(step) + 1e-13


@pytest.mark.parametrize("step", STEPS)
def test_renyi_entropy_of_singular_matrices_near_order_one_ignores_the_null_space(step):
    lam = np.r_[np.zeros(5), 1.0, 2.0, 5.0]
    alpha = 1.0 + step
    close(renyi_entropy(torch.diag(t(lam)), alpha), oracles.entropy_of_spectrum_mp(lam, alpha), 16 * EPS64)


@pytest.mark.parametrize("edge", [0.5, 0.75, 1.25, 1.5])
def test_renyi_entropy_has_no_step_where_its_formula_may_change(edge):
    # The stable form near 1 must hand over to the general one without a jump, in value, gradient and Hessian.
    lam = matrices.spectrum("log_spaced_1e6", 10)
    K = torch.diag(t(lam))
    (below, gradient_below), (above, gradient_above) = (
        value_and_gradient(K, edge + s) for s in (-1e-9, 1e-9)
    )
    slope = abs(
        float(
            oracles.entropy_of_spectrum_mp(lam, edge + 1e-9)
            - oracles.entropy_of_spectrum_mp(lam, edge - 1e-9)
        )
    )
    close(below, above, slope + 64 * EPS64)
    # |d gradient / d alpha| is at most |log p| ~ 20 times the gradient.
    assert relative_error(gradient_below, gradient_above) < 100 * 2e-9


# --- alpha -> 0, 2, infinity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1e-1, 1e-2, 1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("name", ["random", "log_spaced_1e6", "half_zero"])
def test_renyi_entropy_near_order_zero_matches_the_definition(name, alpha):
    lam = matrices.spectrum(name, 10)
    expected = oracles.entropy_of_spectrum_mp(lam, alpha)
    close(renyi_entropy(torch.diag(t(lam)), alpha), expected, 16 * EPS64 * (1 + float(expected)))


@pytest.mark.parametrize("name", ["random", "half_zero", "rank_one"])
def test_renyi_entropy_near_order_zero_approaches_the_log_rank(name):
    K = t(matrices.named(name, 10))
    close(renyi_entropy(K, 1e-9), renyi_entropy(K, 0.0), 1e-7)


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9, 1e-12])
def test_value_and_gradient_are_continuous_through_order_two(step):
    # repitl: the shortcut at 2 lacks the trace term, so the gradients at 2 and 2 + 1e-9 differ (0.33 against 0 at I).
    for K in (
        t(5.0 * matrices.named("random", 6)),
        torch.eye(6, dtype=torch.float64),
        Gram(t(matrices.features(9, 3))).dense(),
    ):
        at_two, gradient_two = value_and_gradient(K, 2.0)
        for alpha in (2 - step, 2 + step):
            near, gradient_near = value_and_gradient(K, alpha)
            close(near, at_two, 2 * step + 1e-14)
            assert (gradient_near - gradient_two).abs().max() < 2 * step + 1e-14


@pytest.mark.parametrize("alpha", [1e2, 1e4, 1e8])
def test_renyi_entropy_of_growing_order_approaches_the_min_entropy(alpha):
    # H_inf <= H_a <= a/(a-1) H_inf
    K = t(matrices.named("random", 8))
    limit = float(renyi_entropy(K, math.inf))
    value = float(renyi_entropy(K, alpha))
    assert limit - 1e-14 <= value <= alpha / (alpha - 1) * limit + 1e-14


@pytest.mark.parametrize("alpha", [50.0, 1e3, 1e5])
def test_gradient_of_large_order_approaches_that_of_the_min_entropy(alpha):
    lam = np.array([1.0, 2.0, 3.0, 5.0])
    K = t(matrices.from_spectrum(lam))
    _, gradient = value_and_gradient(K, alpha)
    _, limit = value_and_gradient(K, math.inf)
    assert gradient.isfinite().all()
    # Factor alpha/(alpha-1), and (3/5)^(alpha-1) from the second eigenvalue.
    assert relative_error(gradient, limit) < 2 / alpha + 10 * 0.6 ** (alpha - 1)
