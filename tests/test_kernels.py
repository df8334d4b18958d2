"""Kernel matrices and bandwidth rules."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from hypothesis import given
from hypothesis import strategies as st
from tolerances import EPS32, close, relative_error
from torch.autograd import gradcheck, gradgradcheck

from matinfo import Gram, renyi_entropy, vendi_score
from matinfo.kernels import (
    cosine,
    laplacian,
    linear,
    median_bandwidth,
    polynomial,
    rbf,
    scott_bandwidth,
    silverman_bandwidth,
)

DEFINITIONS = {
    "linear": (linear, lambda x, y: x @ y),
    "cosine": (cosine, lambda x, y: x @ y / math.sqrt(x @ x) / math.sqrt(y @ y)),
    "rbf": (
        lambda X, Y=None: rbf(X, Y, bandwidth=1.5),
        lambda x, y: math.exp(-((x - y) ** 2).sum() / (2 * 1.5**2)),
    ),
    "laplacian": (
        lambda X, Y=None: laplacian(X, Y, bandwidth=1.5),
        lambda x, y: math.exp(-np.abs(x - y).sum() / 1.5),
    ),
    "polynomial": (
        lambda X, Y=None: polynomial(X, Y, degree=3, gamma=0.5, coef0=2.0),
        lambda x, y: (0.5 * (x @ y) + 2.0) ** 3,
    ),
}
UNIT_DIAGONAL = ("cosine", "rbf", "laplacian")
kernels = pytest.mark.parametrize("name", sorted(DEFINITIONS))


# --- against the definition ----------------------------------------------------------------------------------


@kernels
def test_kernel_equals_its_definition(name):
    kernel, function = DEFINITIONS[name]
    X, Y = matrices.features(7, 3, 1), matrices.features(5, 3, 2)
    assert relative_error(kernel(t(X)), oracles.kernel_matrix(function, X)) < 1e-14
    cross = kernel(t(X), t(Y))
    assert cross.shape == (7, 5)
    assert relative_error(cross, oracles.kernel_matrix(function, X, Y)) < 1e-14


@kernels
def test_kernel_of_float32_samples_is_correct_to_float32_rounding(name):
    kernel, function = DEFINITIONS[name]
    X = (matrices.features(7, 3) + 100.0).astype(
        np.float32
    )  # an offset that would cancel in float32 distances
    K = kernel(torch.as_tensor(X))
    assert K.dtype == torch.float32
    assert np.abs(K.double().numpy() / oracles.kernel_matrix(function, X) - 1).max() < 2 * EPS32


def test_median_bandwidth_is_the_median_of_distances_between_distinct_samples():
    for n in (6, 7):  # 15 and 21 pairs
        X = matrices.features(n, 3)
        close(median_bandwidth(t(X)), oracles.median_distance(X), 1e-13)


def test_median_bandwidth_of_an_even_number_of_pairs_is_the_mean_of_the_two_in_the_middle():
    X = np.array([[0.0], [1.0], [3.0], [7.0]])  # distances 1 2 3 4 6 7
    close(median_bandwidth(t(X)), 3.5, 1e-14)


def test_scott_bandwidth_equals_its_definition():
    X = matrices.features(20, 3) * [1.0, 2.0, 3.0]
    spread = math.sqrt(np.mean([np.var(column, ddof=1) for column in X.T]))
    close(scott_bandwidth(t(X)), 20 ** (-1 / 7) * spread, 1e-14)


def test_silverman_bandwidth_is_scott_with_the_gaussian_constant():
    X = matrices.features(20, 3)
    sigma = float(scott_bandwidth(t(X))) * (4 / (3 + 2)) ** (1 / 7)
    close(silverman_bandwidth(t(X)), sigma, 1e-14)
    assert relative_error(rbf(t(X), bandwidth="silverman"), rbf(t(X), bandwidth=sigma)) < 1e-13


@pytest.mark.parametrize("kernel", [rbf, laplacian])
def test_kernel_uses_the_median_bandwidth_by_default(kernel):
    X = matrices.features(7, 3)
    expected = kernel(t(X), bandwidth=oracles.median_distance(X))
    assert relative_error(kernel(t(X)), expected) < 1e-13


def test_median_bandwidth_rule_takes_its_bandwidth_from_the_first_argument_only():
    X, Y = matrices.features(7, 3, 1), 50.0 * matrices.features(7, 3, 2)
    assert relative_error(rbf(t(X), t(Y)), rbf(t(X), t(Y), bandwidth=oracles.median_distance(X))) < 1e-9


# --- closed forms --------------------------------------------------------------------------------------------


def test_polynomial_defaults_are_degree_three_and_one_over_d():
    X = matrices.features(4, 5)
    assert relative_error(polynomial(t(X)), (X @ X.T / 5 + 1) ** 3) < 1e-14


def test_cosine_of_a_zero_row_is_a_direction_of_its_own():
    X = t([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0], [0.0, 0.0]])
    expected = t([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
    assert (cosine(X) - expected).abs().max() < 1e-15
    assert not cosine(X, X).isnan().any()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_cosine_ignores_the_scale_of_float32_rows(scale):
    X = matrices.features(6, 3).astype(np.float32)
    assert (
        relative_error(cosine(torch.as_tensor(X * np.float32(scale))), cosine(torch.as_tensor(X))) < 4 * EPS32
    )


@pytest.mark.parametrize("kernel", [rbf, laplacian])
def test_kernel_of_constant_samples_is_all_ones(kernel):
    # Median, Scott and Silverman bandwidths are all zero here: 0/0 must not turn into NaN.
    for rule in ("median", "scott", "silverman"):
        assert torch.equal(kernel(torch.full((5, 3), 0.1), bandwidth=rule), torch.ones(5, 5))


@kernels
def test_kernel_of_one_sample_is_one_by_one(name):
    assert DEFINITIONS[name][0](t([[1.0, 2.0]])).shape == (1, 1)
    for rule in ("median", "scott", "silverman"):
        assert rbf(t([[1.0, 2.0]]), bandwidth=rule).item() == 1.0


def test_rbf_of_close_points_far_from_the_origin_keeps_its_digits():
    # |x|^2 + |y|^2 - 2 x.y cancels: offset 1e4, distance 1e-2.
    X = 1e4 + 1e-2 * matrices.features(8, 3)
    expected = oracles.kernel_matrix(lambda x, y: math.exp(-((x - y) ** 2).sum() / (2 * 1e-2**2)), X)
    assert relative_error(rbf(t(X), bandwidth=1e-2), expected) < 1e-8


def test_renyi_entropy_of_an_rbf_kernel_goes_from_zero_to_log_n_with_the_bandwidth():
    X = t(matrices.features(10, 3))
    close(renyi_entropy(rbf(X, bandwidth=1e6)), 0.0, 1e-9)
    close(renyi_entropy(rbf(X, bandwidth=1e-3)), math.log(10), 1e-14)


# --- identities ----------------------------------------------------------------------------------------------


@kernels
def test_kernel_matrix_is_exactly_symmetric(name):
    # Entropies accept a kernel matrix as it comes, in every dtype.
    for dtype in (torch.float32, torch.float64):
        K = DEFINITIONS[name][0](t(matrices.features(33, 5), dtype))
        assert (K - K.mT).abs().max() <= 2 * torch.finfo(dtype).eps * K.abs().max()
        assert renyi_entropy(K, 1.5).isfinite()


@pytest.mark.parametrize("name", UNIT_DIAGONAL)
def test_kernel_has_an_exact_unit_diagonal(name):
    for dtype in (torch.float32, torch.float64):
        K = DEFINITIONS[name][0](t(matrices.features(33, 5) + 100, dtype))
        assert torch.equal(K.diagonal(), torch.ones(33, dtype=dtype))


@given(matrices.feature_matrices(), st.sampled_from(sorted(DEFINITIONS)))
def test_kernel_matrix_is_positive_semidefinite(Z, name):
    K = DEFINITIONS[name][0](t(Z)).numpy()
    lam = np.linalg.eigvalsh(K)
    # RBF distances of coinciding samples are off by sqrt(eps) at worst, hence K by eps times |x|^2/sigma^2.
    assert lam[0] >= -1e-12 * lam[-1]


@given(matrices.feature_matrices(), matrices.seeds)
def test_kernels_of_angles_and_distances_do_not_depend_on_the_basis(Z, seed):
    Q = matrices.orthogonal(Z.shape[1], seed)
    for kernel in (cosine, lambda X: rbf(X, bandwidth=1.5), linear):
        assert relative_error(kernel(t(Z @ Q)), kernel(t(Z))) < 1e-12


def test_linear_and_cosine_kernels_are_grams():
    Z = t(matrices.features(9, 4))
    assert relative_error(linear(Z), Gram(Z).dense()) < 1e-15
    assert relative_error(cosine(Z), Gram(Z, normalize=True).dense()) < 1e-15
    close(vendi_score(cosine(Z)), vendi_score(Gram(Z, normalize=True)), 1e-12)


# --- gradients -----------------------------------------------------------------------------------------------


@kernels
def test_kernel_derivatives_are_exact(name):
    kernel = DEFINITIONS[name][0]
    X, Y = (t(matrices.features(4, 3, s)).requires_grad_() for s in (1, 2))
    assert gradcheck(kernel, (X,))
    assert gradcheck(kernel, (X, Y))
    if name != "laplacian":
        assert gradgradcheck(kernel, (X,))


@kernels
def test_kernel_gradient_is_finite_at_coinciding_samples_and_at_zero_rows(name):
    X = matrices.features(5, 3)
    X[1] = X[0]
    if name == "cosine":
        X[2] = 0.0
    X = t(X).requires_grad_()
    (gradient,) = torch.autograd.grad(DEFINITIONS[name][0](X).square().sum(), X)
    assert gradient.isfinite().all()
    if name == "cosine":
        assert (gradient[2] == 0).all()


def test_rbf_gradient_at_coinciding_samples_is_exact():
    X = matrices.features(4, 3)
    X[1] = X[0]
    assert gradcheck(lambda X: rbf(X, bandwidth=1.5), (t(X).requires_grad_(),), atol=1e-5)


def test_rbf_gradient_treats_the_rule_of_the_bandwidth_as_a_constant():
    X = t(matrices.features(6, 3)).requires_grad_()
    weights = t(matrices.features(6, 6, 4))
    (by_rule,) = torch.autograd.grad((weights * rbf(X)).sum(), X)
    sigma = float(median_bandwidth(X.detach()))
    (by_number,) = torch.autograd.grad((weights * rbf(X, bandwidth=sigma)).sum(), X)
    assert relative_error(by_rule, by_number) < 1e-13


# --- batches, dtypes -----------------------------------------------------------------------------------------


@kernels
def test_kernel_keeps_batch_dimensions(name):
    kernel = DEFINITIONS[name][0]
    X = t(np.stack([matrices.features(5, 3, s) for s in range(6)])).reshape(2, 3, 5, 3)
    K = kernel(X)
    assert K.shape == (2, 3, 5, 5)
    assert relative_error(K[1, 2], kernel(X[1, 2])) < 1e-15
    assert kernel(X, X[0, 0]).shape == (2, 3, 5, 5)


def test_bandwidth_rules_work_for_each_batch_element():
    X = t(np.stack([matrices.features(7, 3, 1), 10 * matrices.features(7, 3, 2)]))
    for rule in ("median", "scott", "silverman"):
        K = rbf(X, bandwidth=rule)
        for i in range(2):
            assert relative_error(K[i], rbf(X[i], bandwidth=rule)) < 1e-14


# --- errors --------------------------------------------------------------------------------------------------


@kernels
def test_kernel_rejects_samples_of_different_widths(name):
    with pytest.raises(ValueError, match=r"3.*4"):
        DEFINITIONS[name][0](torch.randn(5, 3), torch.randn(5, 4))


@kernels
def test_kernel_rejects_a_vector_and_integers(name):
    with pytest.raises(ValueError, match=r"\(5,\)"):
        DEFINITIONS[name][0](torch.randn(5))
    with pytest.raises(TypeError, match="int64"):
        DEFINITIONS[name][0](torch.ones(5, 3, dtype=torch.int64))


def test_polynomial_rejects_a_degree_that_is_no_integer():
    with pytest.raises(ValueError, match=r"degree to be an integer, got 1\.5"):
        polynomial(torch.randn(4, 3), degree=1.5)


def test_a_bandwidth_that_was_found_may_be_given():
    X = torch.randn(5, 2)
    assert torch.equal(rbf(X, bandwidth=median_bandwidth(X)), rbf(X, bandwidth=float(median_bandwidth(X))))
