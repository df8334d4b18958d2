"""Total coding rate of features and matrices, coding rate, rate reduction."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import sym, t
from hypothesis import given
from hypothesis import strategies as st
from tolerances import approx, close, relative_error
from torch.autograd import gradcheck, gradgradcheck

from matinfo import Gram, coding_rate, explain, matrix_tcr, no_checks, rate_reduction, tcr

MUS = (1e-3, 0.1, 1.0, 10.0, 1e3)
SHAPES = ((3, 8), (8, 3), (6, 6), (1, 4), (4, 1))


# --- against the definition ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", MUS)
@pytest.mark.parametrize("shape", SHAPES)
def test_tcr_equals_its_definition(shape, mu):
    Z = matrices.features(*shape)
    # Relative, because log det is large and negative for small mu; 1e-12 leaves room for d additions only.
    assert tcr(t(Z), mu).item() == approx(float(oracles.tcr_mp(Z, mu)), rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("mu", MUS)
@pytest.mark.parametrize("name", ["flat", "random", "log_spaced_1e10", "half_zero", "rank_one"])
def test_matrix_tcr_equals_its_definition(name, mu):
    K = 3.0 * matrices.named(name, 7)
    # A backward error eps*lambda_max is amplified by at most 1/mu per eigenvalue.
    tolerance = 1e-13 + 7 * 16 * 2.2e-16 * 3 * 2 / mu
    close(matrix_tcr(t(K), mu), oracles.matrix_tcr_mp(K, mu), tolerance)


@pytest.mark.parametrize("eps", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_coding_rate_equals_its_definition(shape, eps):
    Z = matrices.features(*shape)
    assert coding_rate(t(Z), eps=eps).item() == approx(float(oracles.coding_rate_mp(Z, eps)), rel=1e-13)


@pytest.mark.parametrize("eps", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("shape", [(12, 4), (9, 20)])
def test_rate_reduction_equals_its_definition_for_labels(shape, eps):
    Z, labels = matrices.features(*shape), np.arange(shape[0]) % 3
    expected = float(oracles.rate_reduction_mp(Z, np.eye(3)[labels], eps))
    assert rate_reduction(t(Z), torch.as_tensor(labels), eps=eps).item() == approx(expected, rel=1e-12)


def test_rate_reduction_equals_its_definition_for_soft_memberships():
    Z = matrices.features(10, 4)
    W = np.random.default_rng(1).dirichlet(np.ones(3), 10)
    close(rate_reduction(t(Z), t(W)), oracles.rate_reduction_mp(Z, W), 1e-12)


# --- closed forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", MUS)
def test_matrix_tcr_of_the_identity_is_closed_form(mu):
    assert matrix_tcr(2 * torch.eye(6, dtype=torch.float64), mu).item() == approx(
        6 * math.log(mu + 2), rel=1e-14
    )


@pytest.mark.parametrize("mu", MUS)
def test_tcr_of_equal_features_is_closed_form(mu):
    Z = torch.ones(10, 4, dtype=torch.float64)
    assert tcr(Z, mu).item() == approx(3 * math.log(mu) + math.log(mu + 40), rel=1e-12)
    assert tcr(Z, mu, normalize=True).item() == approx(3 * math.log(mu) + math.log(mu + 10), rel=1e-12)


def test_tcr_counts_feature_dimensions_and_not_samples():
    # log det(mu I_d + ...) has d - rank terms log mu; the n x n side would have n - rank of them.
    close(tcr(torch.zeros(5, 3, dtype=torch.float64), 0.5), 3 * math.log(0.5), 1e-14)
    close(tcr(torch.zeros(3, 5, dtype=torch.float64), 0.5), 5 * math.log(0.5), 1e-14)


def test_tcr_normalizes_rows_only_on_request():
    Z = t(matrices.features(6, 4))
    unit = Z / Z.norm(dim=1, keepdim=True)
    close(tcr(Z, normalize=True), tcr(unit), 1e-14)
    assert (tcr(Z) - tcr(unit)).abs() > 0.1


def test_tcr_of_zero_rows_is_finite():
    Z = t(matrices.relu_features(8, 3, dead_rows=2))
    assert tcr(Z).isfinite()
    close(tcr(Z, normalize=True), tcr(Z[2:], normalize=True), 1e-14)


def test_rate_reduction_of_one_class_is_zero():
    Z = t(matrices.features(9, 4))
    close(rate_reduction(Z, torch.zeros(9, dtype=torch.long)), 0.0, 1e-14)


def test_rate_reduction_of_orthogonal_classes_is_closed_form():
    # Two classes of m equal unit vectors each, orthogonal to one another: n = 2m, d = 2.
    m, eps = 5, 0.5
    Z = torch.cat([t([[1.0, 0.0]]).expand(m, 2), t([[0.0, 1.0]]).expand(m, 2)])
    whole = math.log(1 + 1 / eps**2)  # 1/2 * 2 * log(1 + d/(n eps^2) * n/2)
    parts = 0.5 * math.log(1 + 2 / eps**2)
    close(rate_reduction(Z, torch.arange(2 * m) // m, eps=eps), whole - parts, 1e-14)


def test_rate_reduction_accepts_label_values_with_gaps_and_empty_classes():
    Z = t(matrices.features(6, 3))
    compact = rate_reduction(Z, torch.tensor([0, 0, 1, 1, 2, 2]))
    close(rate_reduction(Z, torch.tensor([0, 0, 7, 7, 40, 40])), compact, 1e-14)
    empty_class = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1, 3, 3]), 5).double()
    close(rate_reduction(Z, empty_class), compact, 1e-14)


# --- limits --------------------------------------------------------------------------------------------------


def test_tcr_of_large_mu_approaches_d_log_mu():
    Z = t(matrices.features(6, 4))
    expected = 4 * math.log(1e12) + (Z**2).sum().item() / 1e12
    assert tcr(Z, 1e12).item() == approx(expected, rel=1e-15)


def test_tcr_keeps_its_digits_for_tiny_mu():
    # lambda_max / mu = 1e14: float64 still resolves the full-rank spectrum, and the null space adds log mu exactly.
    Z = matrices.features(3, 5)
    assert tcr(t(Z), 1e-13).item() == approx(float(oracles.tcr_mp(Z, 1e-13)), rel=1e-12)


# --- identities and inequalities -----------------------------------------------------------------------------


@given(matrices.feature_matrices(), st.sampled_from(MUS))
def test_tcr_equals_matrix_tcr_of_the_covariance(Z, mu):
    tolerance = 1e-12 * (1 + 12 * abs(math.log(mu))) + 12 * 64 * 2.2e-16 * (Z**2).sum() / mu
    close(tcr(t(Z), mu), matrix_tcr(t(Z.T @ Z), mu), tolerance)
    close(matrix_tcr(t(Z @ Z.T), mu), matrix_tcr(Gram(t(Z)), mu), tolerance)


@given(matrices.feature_matrices(), matrices.seeds)
def test_rate_reduction_is_not_negative(Z, seed):
    labels = torch.as_tensor(np.random.default_rng(seed).integers(0, 3, len(Z)))
    assert rate_reduction(t(Z), labels) >= -1e-12


@given(matrices.feature_matrices(), matrices.seeds)
def test_rate_reduction_of_one_hot_memberships_equals_that_of_labels(Z, seed):
    labels = torch.as_tensor(np.random.default_rng(seed).integers(0, 4, len(Z)))
    one_hot = torch.nn.functional.one_hot(labels, 4).double()
    close(rate_reduction(t(Z), one_hot), rate_reduction(t(Z), labels), 1e-12)


def test_rate_reduction_of_a_batch_uses_the_same_classes_for_every_element():
    Z = t(np.stack([matrices.features(8, 3, s) for s in range(4)]))
    W = t(np.random.default_rng(1).dirichlet(np.ones(2), 8))
    for classes in (torch.arange(8) % 3, W):
        values = rate_reduction(Z, classes)
        assert values.shape == (4,)
        for i in range(4):
            close(values[i], rate_reduction(Z[i], classes), 1e-13)


# --- gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_tcr_gradient_has_its_closed_form(shape, mu):
    Z = matrices.features(*shape)
    F = t(Z).requires_grad_()
    (gradient,) = torch.autograd.grad(tcr(F, mu), F)
    expected = 2 * Z @ np.linalg.inv(mu * np.eye(shape[1]) + Z.T @ Z)
    assert relative_error(gradient, expected) < 1e-13 * (1 + (Z**2).sum() / mu)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_tcr_derivatives_are_exact(shape, normalize):
    Z = t(matrices.features(*shape)).requires_grad_()
    assert gradcheck(lambda F: tcr(F, 0.7, normalize=normalize), (Z,))
    assert gradgradcheck(lambda F: tcr(F, 0.7, normalize=normalize), (Z,))


@pytest.mark.parametrize("name", ["random", "flat", "triple", "gap_1e-10", "half_zero", "rank_one"])
def test_matrix_tcr_derivatives_are_exact_at_any_spectrum(name):
    K = t(matrices.named(name, 4)).requires_grad_()
    with no_checks():  # finite differences leave the cone at singular matrices
        assert gradcheck(lambda A: matrix_tcr(sym(A), 0.7), (K,))
        assert gradgradcheck(lambda A: matrix_tcr(sym(A), 0.7), (K,))


def test_matrix_tcr_gradient_is_the_symmetric_inverse():
    K = matrices.named("random", 6)
    A = t(K).requires_grad_()
    (gradient,) = torch.autograd.grad(matrix_tcr(A, 0.7), A)
    assert relative_error(gradient, np.linalg.inv(K + 0.7 * np.eye(6))) < 1e-13
    assert torch.equal(gradient, gradient.mT)


def test_rate_reduction_has_the_derivative_of_its_memberships():
    Z = t(matrices.features(6, 3)).requires_grad_()
    W = t(np.random.default_rng(1).dirichlet(np.ones(2), 6)).requires_grad_()
    assert gradcheck(lambda F, W: rate_reduction(F, W), (Z, W))


# --- errors --------------------------------------------------------------------------------------------------


def test_rate_reduction_rejects_labels_of_another_length():
    with pytest.raises(ValueError, match=r"labels.*6.*5|6.*labels.*5|5.*6"):
        rate_reduction(torch.randn(6, 3), torch.zeros(5, dtype=torch.long))


def test_rate_reduction_rejects_float_labels_and_negative_memberships():
    with pytest.raises((TypeError, ValueError), match=r"labels|memberships"):
        rate_reduction(torch.randn(6, 3), torch.zeros(6))
    with pytest.raises(ValueError, match=r"memberships|labels"):
        rate_reduction(torch.randn(6, 3), torch.full((6, 2), -0.5))


FLOAT32_EDGE = 32 * torch.finfo(torch.float32).eps
"""mu over trace below which log det(mu I + K) is not left to float32."""


@pytest.mark.parametrize(("factor", "dtype"), [(1.01, "float32"), (0.99, "float64")])
def test_matrix_tcr_leaves_float32_where_mu_drowns_in_the_rounding_of_the_trace(factor, dtype):
    n = 100
    one = torch.eye(n)
    for K in (one, torch.stack([one, 0.1 * one])):  # one element of a batch is enough
        with explain() as log:
            matrix_tcr(K, factor * FLOAT32_EDGE * n)
        assert [step.dtype for step in log.steps] == [dtype]


def test_matrix_tcr_counts_eigenvalues_that_rounding_made_negative_as_zero():
    # Rounded entries leave them below -mu, where Cholesky breaks down; the other matrix of the batch has none.
    Z = t(matrices.features(24, 2, 0))
    rounded, full = (Z @ Z.T).float(), torch.eye(24)
    x = torch.linalg.eigvalsh(rounded.double())
    mu = 1e-9
    assert x[0] < -10 * mu
    expected = float((x.clamp_min(0.0) + mu).log().sum())
    assert float(matrix_tcr(rounded, mu=mu)) == approx(expected, rel=1e-6)
    of_both = matrix_tcr(torch.stack([rounded, full]), mu=mu)
    assert of_both.tolist() == [approx(expected, rel=1e-6), approx(24 * math.log1p(mu), rel=1e-6)]


def test_the_default_of_mu_is_one():
    Z = t(matrices.features(5, 3, 1))
    assert tcr(Z).item() == tcr(Z, 1.0).item()
    assert matrix_tcr(Z @ Z.T).item() == matrix_tcr(Z @ Z.T, 1.0).item()


@pytest.mark.parametrize("function", [tcr, matrix_tcr])
def test_method_eigh_is_taken(function):
    with explain() as log:
        function(t(matrices.random_correlation(5, 1)), method="eigh")
    assert all(step.route.startswith("eig") for step in log.steps)
    assert log.steps


def test_rate_reduction_of_memberships_that_are_not_numbers_is_not_a_number():
    Z, P = torch.randn(12, 4, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[torch.arange(12) % 3]
    P[0, 0] = math.nan
    assert rate_reduction(Z, P).isnan()
    assert rate_reduction(Z, torch.full_like(P, math.nan)).isnan()


@pytest.mark.parametrize("scale", [lambda y: y[:, None], lambda y: 5.0 * torch.eye(3)[y]])
def test_rate_reduction_refuses_memberships_that_are_no_distributions(scale):
    with pytest.raises(ValueError, match=r"memberships .* rows that sum to 1.*labels of shape \(n,\)"):
        rate_reduction(torch.randn(12, 4), scale(torch.arange(12) % 3))


def test_rate_reduction_takes_one_hot_labels_of_any_dtype():
    Z, y = torch.randn(12, 4), torch.arange(12) % 3
    hot = torch.nn.functional.one_hot(y)
    for P in (hot, hot.bool(), hot.double()):
        close(rate_reduction(Z, P).float(), rate_reduction(Z, y), 1e-5)


def test_memberships_keep_their_digits_beside_features_of_half_precision():
    Z, P = torch.randn(12, 4).bfloat16(), torch.rand(12, 3, dtype=torch.float64).softmax(-1)
    assert float(rate_reduction(Z, P)) == pytest.approx(float(rate_reduction(Z.double(), P)), rel=1e-9)
