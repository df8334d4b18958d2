"""Matrix KL, matrix JS and spectrum JS."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import sym, t
from hypothesis import given
from tolerances import EPS64, approx, close, entropy_tolerance, relative_error
from torch.autograd import gradcheck, gradgradcheck

from matinfo import explain, matrix_js, matrix_kl, spectrum_js

# --- against the definition ----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["flat", "random", "two_level", "gap_1e-10", "log_spaced_1e6"])
@pytest.mark.parametrize("second", ["flat", "random", "triple", "gap_1e-06", "log_spaced_1e3"])
def test_matrix_kl_equals_its_definition(first, second):
    K, L = 2.0 * matrices.named(first, 6, 1), 0.7 * matrices.named(second, 6, 11)
    # log L amplifies an eigenvalue error eps*lambda_max by 1/lambda_min: at most 1e3 here.
    assert matrix_kl(t(K), t(L)).item() == approx(float(oracles.matrix_kl_mp(K, L)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ["random", "triple", "log_spaced_1e6", "half_zero"])
def test_matrix_js_equals_its_definition(name):
    K, L = 3.0 * matrices.named(name, 6, 1), matrices.named("random", 6, 7)
    tolerance = sum(
        entropy_tolerance(np.linalg.eigvalsh(M), 1) for M in (K, L, K / np.trace(K) + L / np.trace(L))
    )
    close(matrix_js(t(K), t(L)), oracles.matrix_js_mp(K, L), tolerance)


@pytest.mark.parametrize("name", ["random", "triple", "log_spaced_1e6"])
def test_spectrum_js_equals_its_definition(name):
    K, L = 3.0 * matrices.named(name, 6, 1), matrices.named("random", 6, 7)
    tolerance = 2 * sum(entropy_tolerance(np.linalg.eigvalsh(M), 1) for M in (K, L))
    close(spectrum_js(t(K), t(L)), oracles.spectrum_js_mp(K, L), tolerance)


# --- closed forms --------------------------------------------------------------------------------------------


def test_matrix_kl_of_commuting_matrices_is_the_generalised_classical_divergence():
    p, q = np.array([0.5, 1.0, 2.5]), np.array([1.5, 0.25, 2.0])
    Q = matrices.orthogonal(3, 4)
    expected = (p * np.log(p / q) - p + q).sum()
    close(matrix_kl(t((Q * p) @ Q.T), t((Q * q) @ Q.T)), expected, 1e-14)


def test_matrix_kl_keeps_the_trace_terms_of_unnormalised_matrices():
    identity = torch.eye(4, dtype=torch.float64)
    close(matrix_kl(2 * identity, identity), 4 * (2 * math.log(2) - 1), 1e-14)
    close(matrix_kl(identity, 2 * identity), 4 * (1 - math.log(2)), 1e-14)


@pytest.mark.parametrize("name", sorted(matrices.SPECTRA | matrices.SINGULAR_SPECTRA))
def test_matrix_kl_of_a_matrix_with_itself_is_zero(name):
    K = t(matrices.named(name, 8))
    close(matrix_kl(K, K.clone()), 0.0, 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrix_kl_is_infinite_when_the_support_is_not_contained(dtype):
    singular = t(matrices.named("half_zero", 6), dtype)
    assert matrix_kl(torch.eye(6, dtype=dtype), singular).item() == math.inf
    assert matrix_kl(t(matrices.named("rank_one", 6, 9), dtype), singular).item() == math.inf
    assert matrix_kl(singular, torch.eye(6, dtype=dtype)).isfinite()


def test_matrix_kl_of_singular_matrices_of_one_support_is_finite_and_right():
    Q = matrices.orthogonal(6, 3)[:, :3]
    p, q = np.array([0.5, 1.0, 2.5]), np.array([1.5, 0.25, 2.0])
    expected = (p * np.log(p / q) - p + q).sum()
    close(
        matrix_kl(t(matrices.symmetric((Q * p) @ Q.T)), t(matrices.symmetric((Q * q) @ Q.T))), expected, 1e-7
    )


def test_matrix_kl_infinity_stays_in_its_batch_element():
    K = torch.stack([torch.eye(4), torch.eye(4)]).double()
    L = torch.stack([2 * torch.eye(4), torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0]))]).double()
    values = matrix_kl(K, L)
    close(values[0], 4 * (1 - math.log(2)), 1e-14)
    assert values[1].item() == math.inf


def test_matrix_js_of_orthogonal_supports_is_log_two():
    K, L = torch.diag(t([1.0, 2.0, 0.0, 0.0])), torch.diag(t([0.0, 0.0, 5.0, 7.0]))
    close(matrix_js(K, L), math.log(2), 1e-15)
    assert matrix_js(K, L).item() <= math.log(2) + EPS64


@pytest.mark.parametrize("function", [matrix_js, spectrum_js])
def test_js_of_proportional_matrices_is_zero(function):
    K = t(matrices.named("random", 6))
    close(function(K, 5.0 * K), 0.0, 4 * EPS64)


def test_spectrum_js_does_not_see_a_rotation_and_matrix_js_does():
    lam = [1.0, 2.0, 6.0]
    K, L = t(matrices.from_spectrum(lam, 1)), t(matrices.from_spectrum(lam, 2))
    close(spectrum_js(K, L), 0.0, 4 * EPS64)
    assert matrix_js(K, L) > 1e-2


def test_spectrum_js_of_a_flat_and_a_pure_spectrum_is_closed_form():
    identity, pure = torch.eye(2, dtype=torch.float64), torch.diag(t([3.0, 0.0]))
    # p = (1/2, 1/2), q = (0, 1), midpoint (1/4, 3/4).
    expected = (math.log(4) / 4 + 0.75 * math.log(4 / 3)) - math.log(2) / 2
    close(spectrum_js(identity, pure), expected, 4 * EPS64)


def test_spectrum_js_of_different_orders_pads_with_zeros():
    K, L = matrices.named("random", 4, 1), matrices.named("random", 6, 2)
    padded = np.zeros((6, 6))
    padded[:4, :4] = K
    close(spectrum_js(t(K), t(L)), oracles.spectrum_js_mp(padded, L), 1e-13)


# --- cancellation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_matrix_kl_of_close_matrices_keeps_its_digits(step):
    # D ~ step^2. The difference of traces leaves eps/step^2 relative error (1e-4 at 1e-6); a sum of non-negative
    # terms leaves eps/step, from the rounding of the difference itself.
    K = matrices.random_correlation(6, 1)
    L = matrices.symmetric(K + step * matrices.random_correlation(6, 2))
    assert matrix_kl(t(K), t(L)).item() == approx(
        float(oracles.matrix_kl_mp(K, L)), rel=1e-13 + 200 * EPS64 / step
    )


@pytest.mark.parametrize("step", [1e-1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
def test_matrix_kl_of_close_diagonal_matrices_keeps_every_digit(step):
    # Eigenvalues and their differences are exact here: the function (1+x) log(1+x) - x alone is on trial.
    p, q = 1.0 + step * np.array([1.0, -2.0, 3.0]), np.ones(3)
    assert matrix_kl(torch.diag(t(p)), torch.diag(t(q))).item() == approx(
        float(oracles.matrix_kl_mp(np.diag(p), np.diag(q))), rel=1e-14
    )


@pytest.mark.parametrize("step", [1e-2, 1e-3, 1e-4])
def test_matrix_kl_of_close_float32_matrices_keeps_its_digits(step):
    # The published trace form is off by a factor of 96 in float32 when D is 4e-9.
    K = matrices.random_correlation(6, 1).astype(np.float32)
    L = matrices.symmetric(K + step * matrices.random_correlation(6, 2)).astype(np.float32)
    expected = float(oracles.matrix_kl_mp(K, L))
    assert matrix_kl(torch.as_tensor(K), torch.as_tensor(L)).item() == approx(expected, rel=1e-6)


# --- identities and inequalities -----------------------------------------------------------------------------


@given(
    matrices.psd_matrices(min_n=5, max_n=5, singular=False),
    matrices.psd_matrices(min_n=5, max_n=5, singular=False),
)
def test_matrix_kl_is_never_negative(K, L):
    assert matrix_kl(t(K), t(L)) >= 0


@given(matrices.correlation_tuples(full_rank=True))
def test_matrix_kl_does_not_increase_under_pinching(pair):
    # Zeroing off-diagonal blocks is a channel: data processing inequality.
    K, L = pair
    half = len(K) // 2
    mask = np.ones_like(K)
    mask[:half, half:] = mask[half:, :half] = 0
    assert matrix_kl(t(K * mask), t(L * mask)) <= matrix_kl(t(K), t(L)) + 1e-10


# --- gradients -----------------------------------------------------------------------------------------------

POINTS = {  # second derivatives see three eigenvalues at a time
    "random": (matrices.named("random", 3, 1), matrices.named("random", 3, 2)),
    "identity": (np.eye(3), np.eye(3)),
    "equal": (matrices.named("random", 3, 1), matrices.named("random", 3, 1)),
    "repeated": (matrices.named("triple", 4, 1), matrices.named("two_level", 4, 2)),
    "gap_1e-10": (matrices.named("gap_1e-10", 3, 1), matrices.named("gap_1e-10", 3, 2)),
}


@pytest.mark.parametrize("point", sorted(POINTS))
def test_matrix_kl_derivatives_are_exact_in_both_arguments(point):
    K, L = (t(M).requires_grad_() for M in POINTS[point])
    assert gradcheck(lambda A, B: matrix_kl(sym(A), sym(B)), (K, L), atol=1e-7)
    assert gradgradcheck(lambda A, B: matrix_kl(sym(A), sym(B)), (K, L), atol=1e-6)


def test_matrix_kl_gradient_has_its_closed_form():
    # d/dK tr[K log K - K log L] - tr K = log K - log L: the +I of the first term cancels the -I of the trace term.
    K, L = matrices.named("random", 5, 1), matrices.named("random", 5, 2)
    A = t(K).requires_grad_()
    (gradient,) = torch.autograd.grad(matrix_kl(A, t(L)), A)
    logs = [np.array((oracles._log_matrix_mp(M)).tolist(), dtype=float) for M in (K, L)]
    assert relative_error(gradient, logs[0] - logs[1]) < 1e-12


def test_matrix_kl_second_derivatives_are_symmetric_matrices_in_both_arguments():
    # Without sym() around the arguments, which would hide an asymmetric product.
    K, L = (t(matrices.named("random", 5, s)).requires_grad_() for s in (1, 2))
    first = torch.autograd.grad(matrix_kl(K, L), (K, L), create_graph=True)
    E = t(matrices.symmetric(matrices.features(5, 5, 3)))
    for gradient in first:
        for second in torch.autograd.grad((gradient * E).sum(), (K, L), retain_graph=True):
            assert (second - second.mT).abs().max() < 1e-12 * second.abs().max()


def test_matrix_kl_gradient_vanishes_at_equality():
    K = t(matrices.named("random", 5)).requires_grad_()
    L = K.detach().clone().requires_grad_()
    for gradient in torch.autograd.grad(matrix_kl(K, L), (K, L)):
        assert gradient.abs().max() < 1e-13


# spectrum_js is not differentiable where sorted eigenvalues cross.
@pytest.mark.parametrize(
    ("function", "point"), [(matrix_js, "random"), (matrix_js, "repeated"), (spectrum_js, "random")]
)
def test_js_gradient_is_exact(function, point):
    K, L = (t(M).requires_grad_() for M in POINTS[point])
    assert gradcheck(lambda A, B: function(sym(A), sym(B)), (K, L), atol=1e-7)


@pytest.mark.parametrize("point", sorted(POINTS))
def test_matrix_js_second_derivative_is_exact(point):
    K, L = (t(M).requires_grad_() for M in POINTS[point])
    assert gradgradcheck(lambda A, B: matrix_js(sym(A), sym(B)), (K, L), atol=1e-6)


def test_matrix_kl_gradient_is_finite_or_absent_where_the_value_is_infinite():
    K = torch.eye(3, dtype=torch.float64).requires_grad_()
    value = matrix_kl(K, torch.diag(t([1.0, 1.0, 0.0])))
    (gradient,) = torch.autograd.grad(value, K)
    assert not gradient.isnan().any()


# --- errors --------------------------------------------------------------------------------------------------


def test_spectrum_js_of_float32_matrices_is_solved_in_float64():
    Ks = [t(matrices.random_correlation(80, seed), torch.float32) for seed in (1, 2)]
    with explain() as log:
        spectrum_js(*Ks)
    assert {step.dtype for step in log.steps} == {"float64"}
