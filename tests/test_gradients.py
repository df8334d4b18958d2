"""Derivatives of the entropies: exact at any spectrum, first and second order, every way torch can ask."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import grad, sym, t
from hypothesis import given
from hypothesis import strategies as st
from tolerances import EPS64, relative_error
from torch.autograd import gradcheck, gradgradcheck

from matinfo import (
    Gram,
    renyi_entropy,
)

INF = math.inf
SMOOTH_ALPHAS = (0.3, 0.5, 1.0, 1.0 + 1e-6, 1.01, 1.5, 2.0, 3.0, 4.0, 5.0)
ALPHAS = (*SMOOTH_ALPHAS, INF)
SLOW = pytest.mark.slow
FULL_RANK = ("random", "flat", "triple", "two_level", "gap_1e-02", "gap_1e-06", "gap_1e-09", "gap_1e-12")


def spectrum_of(name, n=4):
    if name.startswith("gap_"):
        gap = float(name.removeprefix("gap_"))
        return np.array([0.7, 0.7 * (1 + gap), 1.3, 1.3 * (1 + gap)])[:n]
    return matrices.spectrum(name, n)


def matrix(name, n=4):
    return matrices.from_spectrum(spectrum_of(name, n), 3)


# --- gradcheck, gradgradcheck --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alpha",
    [a if a in (0.5, 1.0, 1.0 + 1e-6, 1.5, 3.0) else pytest.param(a, marks=SLOW) for a in SMOOTH_ALPHAS],
)
@pytest.mark.parametrize("name", FULL_RANK)
def test_renyi_entropy_first_and_second_derivative_are_exact(name, alpha):
    K = t(matrix(name, 3)).requires_grad_()  # a second derivative sees three eigenvalues at a time
    assert gradcheck(lambda A: renyi_entropy(sym(A), alpha), (K,), check_forward_ad=True)
    assert gradgradcheck(lambda A: renyi_entropy(sym(A), alpha), (K,), atol=1e-5 if alpha < 1 else 1e-6)


@pytest.mark.parametrize("method", ["auto", "eigh"])
@pytest.mark.parametrize("alpha", [2.0, 3.0, 4.0])
def test_renyi_entropy_derivatives_are_exact_on_every_route(alpha, method):
    K = t(5.0 * matrix("random")).requires_grad_()
    assert gradcheck(lambda A: renyi_entropy(sym(A), alpha, method=method), (K,), check_forward_ad=True)
    assert gradgradcheck(lambda A: renyi_entropy(sym(A), alpha, method=method), (K,))


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize(("n", "d", "rank"), [(3, 6, 3), (6, 3, 3), (5, 5, 1), (5, 5, 3), (7, 4, 2)])
def test_renyi_entropy_gradient_through_rank_deficient_features_is_exact(n, d, rank, alpha):
    # H is differentiable at rank-deficient Z for alpha > 1/2; sigma^(2 alpha) is smooth enough for finite
    # differences (step 1e-6) from alpha = 1 on: error sigma^2 log sigma ~ 1e-12*14 / 1e-6.
    Z = t(matrices.low_rank_features(n, d, rank)).requires_grad_()
    assert gradcheck(lambda Z: renyi_entropy(Gram(Z), alpha), (Z,), atol=2e-4 if alpha == 1 else 1e-5)


@pytest.mark.parametrize("alpha", [2.0, 3.0, 5.0])
@pytest.mark.parametrize(("n", "d", "rank"), [(3, 6, 3), (6, 3, 3), (5, 5, 1), (5, 4, 2)])
def test_renyi_entropy_second_derivative_through_rank_deficient_features_is_exact(n, d, rank, alpha):
    Z = t(matrices.low_rank_features(n, d, rank)).requires_grad_()
    assert gradgradcheck(lambda Z: renyi_entropy(Gram(Z), alpha), (Z,), atol=1e-5)


@pytest.mark.parametrize("alpha", (0.5, 1.0, 1.0 + 1e-6, 1.5, 2.0, 3.0))
@pytest.mark.parametrize(("n", "d"), [(3, 6), (6, 3)])
def test_renyi_entropy_second_derivative_through_full_column_rank_features_is_exact(n, d, alpha):
    # The n x n Gram matrix is singular when d < n although Z has full rank.
    Z = t(matrices.features(n, d)).requires_grad_()
    assert gradcheck(lambda Z: renyi_entropy(Gram(Z), alpha), (Z,), check_forward_ad=True)
    assert gradgradcheck(lambda Z: renyi_entropy(Gram(Z), alpha), (Z,))
    assert gradcheck(lambda Z: renyi_entropy(Z @ Z.mT, alpha), (Z,))
    assert gradgradcheck(lambda Z: renyi_entropy(Z @ Z.mT, alpha), (Z,), atol=1e-4 if alpha < 1 else 1e-6)


# --- against the formula -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", SMOOTH_ALPHAS)
@pytest.mark.parametrize("name", ["random", "triple", "gap_1e-12", "log_spaced_1e3", "spiked"])
def test_renyi_entropy_gradient_equals_its_formula(name, alpha):
    lam = 3.0 * spectrum_of(name, 4 if name.startswith("gap") else 7)
    Q = matrices.orthogonal(len(lam), 2)
    expected = (
        Q * [float(g) for g in oracles.entropy_gradient_of_spectrum_mp(list(map(float, lam)), alpha)]
    ) @ Q.T
    gradient = grad(lambda A: renyi_entropy(A, alpha), t(matrices.symmetric((Q * lam) @ Q.T)))
    # f' at lambda_min moves by eps lambda_max / lambda_min relative: condition 1e3 at most.
    assert relative_error(gradient, expected) < 32 * EPS64 * lam.max() / lam.min()
    assert torch.equal(gradient, gradient.mT) or relative_error(gradient, gradient.mT) < 4 * EPS64


@pytest.mark.parametrize("alpha", [1.0, 1.0 + 1e-9, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("gap", [0.0, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
def test_renyi_entropy_hessian_does_not_lose_digits_at_small_gaps(gap, alpha):
    # Built-in autograd of eigvalsh: 2e-14 at gap 1e-2, 7e-9 at 1e-8, 5e-5 at 1e-12, NaN at 0.
    lam = np.array([0.7, 0.7 * (1 + gap), 1.3, 1.9])
    K = t(np.diag(lam))
    E = matrices.symmetric(matrices.features(4, 4, 7))
    gradient = torch.func.grad(lambda A: renyi_entropy(A, alpha))
    _, product = torch.func.vjp(gradient, K)
    expected = oracles.entropy_hessian_product(lam, np.eye(4), alpha, E)
    assert relative_error(product(t(E))[0], expected) < 1e-13


@pytest.mark.parametrize("alpha", SMOOTH_ALPHAS)
def test_renyi_entropy_hessian_is_not_silently_zero(alpha):
    # A custom Function whose backward uses saved eigenpairs directly has a zero second derivative.
    lam = np.array([0.4, 0.9, 1.7, 1.7])
    Q = matrices.orthogonal(4, 5)
    K = t(matrices.symmetric((Q * lam) @ Q.T)).requires_grad_()
    E = matrices.symmetric(matrices.features(4, 4, 8))
    (first,) = torch.autograd.grad(renyi_entropy(K, alpha), K, create_graph=True)
    (second,) = torch.autograd.grad((first * t(E)).sum(), K)
    expected = oracles.entropy_hessian_product(lam, Q, alpha, E)
    assert np.linalg.norm(expected) > 0.05
    assert relative_error(second, expected) < 1e-12


@pytest.mark.parametrize("alpha", [1.0, 1.0 + 1e-6, 1.5, 2.0, 3.0])
def test_renyi_entropy_hessian_at_the_identity_is_finite_and_closed_form(alpha):
    # repitl: NaN. At I, f = H: gradient 0 and Hessian -a/n (E - tr E/n I) for every order.
    n = 5
    E = matrices.symmetric(matrices.features(n, n, 1))
    K = torch.eye(n, dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad(renyi_entropy(K, alpha), K, create_graph=True)
    (second,) = torch.autograd.grad((first * t(E)).sum(), K)
    expected = -alpha / n * (E - np.trace(E) / n * np.eye(n))
    assert relative_error(second, expected) < 1e-13


# --- the trace term ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 37.0])
def test_renyi_entropy_gradient_at_the_identity_is_zero(alpha, scale):
    # Without the trace term the gradient at I is a multiple of I (repitl at alpha = 2: 3.1e-2).
    gradient = grad(lambda A: renyi_entropy(A, alpha), scale * torch.eye(6, dtype=torch.float64))
    assert gradient.abs().max() < 16 * EPS64 / scale


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", ["random", "triple", "log_spaced_1e3", "half_zero", "rank_one"])
def test_renyi_entropy_gradient_is_orthogonal_to_the_matrix(name, alpha):
    # Scale invariance: <grad H, K> = 0.
    K = t(3.0 * matrices.named(name, 6))
    gradient = grad(lambda A: renyi_entropy(A, alpha), K)
    # The products that cancel are at most |grad| |K|, relative error a few eps, null directions sqrt(eps) at alpha=1/2.
    scale = float(gradient.norm() * K.norm()) + 1.0
    noise = 1e-6 if alpha < 1 and name in matrices.SINGULAR_SPECTRA else 64 * EPS64
    assert abs((gradient * K).sum()) < noise * scale


@given(matrices.feature_matrices(), st.sampled_from(ALPHAS))
def test_renyi_entropy_gradient_is_orthogonal_to_the_features(Z, alpha):
    F = t(Z)
    gradient = grad(lambda Z: renyi_entropy(Gram(Z), alpha), F)
    assert gradient.isfinite().all()
    assert abs((gradient * F).sum()) < 1e-9 * (float(gradient.norm() * F.norm()) + 1.0)


# --- alpha = infinity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplicity", [1, 2, 3])
def test_renyi_entropy_gradient_at_infinity_is_the_projector_over_the_multiplicity(multiplicity):
    lam = np.r_[np.full(multiplicity, 2.0), 1.0, 0.5, 0.0]
    Q = matrices.orthogonal(len(lam), 3)
    gradient = grad(lambda A: renyi_entropy(A, INF), t(matrices.symmetric((Q * lam) @ Q.T)))
    top = Q[:, :multiplicity]
    expected = np.eye(len(lam)) / lam.sum() - top @ top.T / (multiplicity * 2.0)
    assert relative_error(gradient, expected) < 1e-13


@pytest.mark.parametrize("multiplicity", [1, 2, 5])
def test_renyi_entropy_gradient_at_infinity_of_a_larger_matrix_is_the_projector_too(multiplicity):
    lam = np.r_[np.linspace(0.1, 1.0, 300 - multiplicity), np.full(multiplicity, 2.0)]
    Q = matrices.orthogonal(300, 3)
    gradient = grad(lambda A: renyi_entropy(A, INF), t(matrices.symmetric((Q * lam) @ Q.T)))
    top = Q[:, -multiplicity:]
    expected = np.eye(300) / lam.sum() - top @ top.T / (multiplicity * 2.0)
    # Eigenvectors are as good as the residual over the gap 1: 1e-10 where the eigenvalue has converged to 1e-20.
    assert relative_error(gradient, expected) < 1e-9


def test_renyi_entropy_at_order_zero_has_no_gradient():
    K = t(matrices.named("random", 4)).requires_grad_()
    value = renyi_entropy(K, 0)
    assert not value.requires_grad or (torch.autograd.grad(value, K)[0] == 0).all()
