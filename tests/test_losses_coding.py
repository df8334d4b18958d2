"""Losses on coding rates and matrix entropies: MCR², EMP-SSL, MEC, Matrix-SSL, VNE."""

from __future__ import annotations

import math
from itertools import pairwise

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from hypothesis import given
from hypothesis import strategies as st
from matrices import views
from tolerances import close, relative_error
from torch.autograd import gradcheck

from matinfo import explain
from matinfo.losses import emp_ssl_loss, matrix_ssl_loss, mcr2_loss, mec_loss, vne_loss

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def reflected(Z, vector=None):
    """Z mirrored along a vector: Z @ R @ Z^T is symmetric and indefinite, and rows keep their length."""
    v = np.arange(1.0, Z.shape[1] + 1) if vector is None else vector
    return Z - 2 * np.outer(Z @ v, v) / (v @ v)


# --- definitions ---------------------------------------------------------------------------------------------


def continued_log(x, floor):
    return math.log(x) if x >= floor else math.log(floor) + (x - floor) / floor


def covariances(Z1, Z2):
    a, b = oracles.unit_rows(Z1), oracles.unit_rows(Z2)
    n = len(a)
    J = np.eye(n) - np.ones((n, n)) / n
    return a.T @ J @ b / n, a.T @ J @ a / n, b.T @ J @ b / n


# --- exact form and series -----------------------------------------------------------------------------------


def test_mec_series_converges_to_the_exact_loss_where_it_converges():
    # Mirrored views: F1 F2^T is symmetric with eigenvalues of both signs; d/eps2 = 0.7 bounds its spectral radius.
    Z = matrices.features(8, 5)
    Z1, Z2 = t(Z), t(reflected(Z))
    assert np.linalg.eigvalsh(oracles.unit_rows(Z) @ oracles.unit_rows(reflected(Z)).T)[0] < -0.1
    exact = mec_loss(Z1, Z2, eps2=5 / 0.7)
    errors = [abs(float(mec_loss(Z1, Z2, eps2=5 / 0.7, taylor=k) - exact)) for k in (1, 2, 4, 8, 16, 32, 100)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-14


def test_matrix_ssl_series_converges_to_the_exact_loss_where_it_converges():
    Z = matrices.features(12, 4)
    Q = np.linalg.eigh(covariances(Z, Z)[1])[1]
    mirrored = reflected(
        Z, Q[:, 0]
    )  # along an eigenvector, so that C_12 is symmetric with one negative eigenvalue
    cross = covariances(Z, mirrored)[0]
    assert np.abs(cross - cross.T).max() < 1e-15
    assert np.linalg.eigvalsh(cross)[0] < -0.03
    for form in ("code", "paper"):
        exact = matrix_ssl_loss(t(Z), t(mirrored), form=form)
        close(matrix_ssl_loss(t(Z), t(mirrored), form=form, taylor=400), exact, 1e-13)
        assert abs(matrix_ssl_loss(t(Z), t(mirrored), form=form, taylor=4) - exact) > 1e-3


@given(seed=matrices.seeds, noise=st.floats(0, 3))
def test_exact_mec_loss_is_an_upper_bound_of_the_printed_one(seed, noise):
    # Ostrowski and Taussky: |det A| >= det of the symmetric part, where that is positive definite.
    Z1, Z2 = views(6, 4, noise, seed % 1000)
    a, b = oracles.unit_rows(Z1), oracles.unit_rows(Z2)
    lambda_ = 4 / (6 * 5.0)
    printed = -np.linalg.slogdet(np.eye(6) + lambda_ * a @ b.T)[1] / (lambda_ * 6)
    assert mec_loss(t(Z1), t(Z2), eps2=5.0) >= printed - 1e-13


def test_mec_loss_tends_to_minus_the_mean_cosine_at_large_distortion():
    Z1, Z2 = views()
    a, b = oracles.unit_rows(Z1), oracles.unit_rows(Z2)
    for taylor in (None, 4):
        close(mec_loss(t(Z1), t(Z2), eps2=1e6, taylor=taylor), -(a * b).sum(1).mean(), 1e-5)


# --- closed forms --------------------------------------------------------------------------------------------


def test_mcr2_loss_of_orthogonal_classes_is_closed_form():
    # Two classes of n/2 equal rows: R = log(1 + 1/eps2) (d = 2), R_c = log(1 + 2/eps2)/2.
    Z = torch.eye(2, dtype=torch.float64).repeat_interleave(4, 0)
    expected = -(math.log(1 + 1 / 0.5) - math.log(1 + 2 / 0.5) / 2)
    close(mcr2_loss(Z, torch.arange(8) // 4), expected, 1e-14)


def test_collapsed_features_have_closed_forms():
    same = torch.ones(8, 3, dtype=torch.float64)
    close(mcr2_loss(same, LABELS), 0.0, 1e-14)
    close(vne_loss(same), 0.0, 1e-14)
    close(emp_ssl_loss(same.expand(2, 8, 3)), -200 - 0.5 * math.log(1 + 3 / 0.2), 1e-12)
    close(mec_loss(same, same, eps2=2.0), -math.log(1 + 3 / 2) * 2 / 3, 1e-14)
    close(mec_loss(same, same, eps2=2.0, scale="paper"), -math.log(1 + 3 / 2) * 11 / 16, 1e-14)
    close(matrix_ssl_loss(same, same, mu=0.7), -3 * (0.5 + 0.7) * math.log(0.7), 1e-13)


@pytest.mark.parametrize("eps2", [6.0, 2.0, 0.5, 1e-3])
def test_opposite_collapsed_views_have_a_closed_form_on_both_sides_of_the_floor(eps2):
    same = torch.ones(8, 3, dtype=torch.float64)
    value = mec_loss(same, -same, eps2=eps2)
    close(value, -continued_log(1 - 3 / eps2, 0.01) * eps2 / 3, 1e-10)


def test_isotropic_features_have_closed_forms():
    Z = torch.cat([torch.eye(4), -torch.eye(4)]).double()  # mean 0, covariance I/4
    close(vne_loss(Z), -math.log(4), 1e-14)
    x = 1 / 4 + 0.5
    close(matrix_ssl_loss(Z, Z), -4 * 0.5 * math.log(x) - 4 * x * math.log(x), 1e-13)
    close(matrix_ssl_loss(Z, Z, form="paper"), 2 * (4 * x - 4 * x * math.log(x)), 1e-13)
    close(mec_loss(Z[:4], Z[:4], eps2=2.0), -2.0 * math.log(1.5), 1e-13)


def test_loss_falls_smoothly_as_opposite_views_turn_to_agree():
    # Through the floor and the point where det(I + lambda F1 F2^T) = 0, which makes the printed loss infinite.
    base = torch.ones(8, 2, dtype=torch.float64) * t([1.0, 0.0])
    values = []
    for angle in np.linspace(math.pi, 0, 50):
        turned = torch.ones(8, 2, dtype=torch.float64) * t([math.cos(angle), math.sin(angle)])
        values.append(float(mec_loss(base, turned, eps2=1.0)))
    assert all(later < earlier for earlier, later in pairwise(values))


@given(seed=matrices.seeds)
def test_paper_form_of_matrix_ssl_is_least_where_teacher_and_student_are_isotropic(seed):
    isotropic = torch.cat([torch.eye(4), -torch.eye(4)]).double()
    least = float(matrix_ssl_loss(isotropic, isotropic, form="paper", mu=0.1))
    Z = isotropic + 0.3 * t(matrices.features(8, 4, seed))
    assert matrix_ssl_loss(Z, isotropic, form="paper", mu=0.1) >= least - 1e-13


# --- routes --------------------------------------------------------------------------------------------------


def test_mec_loss_decomposes_only_where_the_logarithm_is_continued():
    Z1, Z2 = map(t, views())
    with explain() as log:
        mec_loss(Z1, Z2)  # d < eps2: certain
        mec_loss(Z1, Z2, eps2=1.0)  # tried, and positive definite
        mec_loss(Z1, -Z2, eps2=0.5)
    assert [step.route for step in log.steps] == ["cholesky", "cholesky", "eigvalsh"]


def test_both_routes_of_the_continued_logarithm_agree():
    from matinfo.spectral.functions import ContinuedLog
    from matinfo.spectral.logarithm import FLOOR, continued_logdet
    from matinfo.spectral.trace_function import Noise, trace_function

    S = t(matrices.from_spectrum(np.linspace(-0.45, 0.9, 7))).requires_grad_()
    by_cholesky = continued_logdet(S, 0.5, bound=1.0, side="matrix")
    noise = Noise.of(7, torch.float64, torch.float64)
    shifted = S + torch.eye(7, dtype=torch.float64)
    by_eigenvalues = trace_function(shifted, ContinuedLog(-0.5, 0.5 * FLOOR), noise=noise, side="matrix")
    close(by_cholesky, by_eigenvalues, 1e-13)
    gradients = [torch.autograd.grad(value, S)[0] for value in (by_cholesky, by_eigenvalues)]
    assert relative_error(*gradients) < 1e-13


# --- gradients -----------------------------------------------------------------------------------------------


def test_soft_memberships_have_exact_derivatives():
    Z = t(matrices.features(5, 3)).requires_grad_()
    logits = t(matrices.features(5, 2, 1)).requires_grad_()
    assert gradcheck(lambda Z, logits: mcr2_loss(Z, logits.softmax(-1)), (Z, logits))


@pytest.mark.parametrize("eps2", [4.0, 4.0 / 0.99, 4.0 / 0.98])
def test_mec_loss_is_finite_where_the_printed_determinant_vanishes(eps2):
    # d = 4: opposite collapsed views give I - 11^T/4 * 4/eps2, singular at eps2 = 4.
    Z = torch.ones(4, 4).requires_grad_()
    value = mec_loss(Z, -torch.ones(4, 4), eps2=eps2)
    assert value.isfinite()
    assert torch.autograd.grad(value, Z)[0].isfinite().all()


# --- errors --------------------------------------------------------------------------------------------------
