"""Bounds from two matrices: of the coding rate of their product, and of their divergence by their distance."""

from __future__ import annotations

import math

import matrices
import mpmath as mp
import numpy as np
import pytest
import torch
from tolerances import close

from matinfo import Gram, matrix_js, matrix_tcr
from matinfo.bounds import js_lower_bound, js_upper_bound, product_coding_rate_lower_bound, trace_distance

DISTANCES = (0.0, 1e-6, 0.1, 0.5, 1.0)


def of_identity(n, mu):
    return n * math.log1p(mu)


# --- coding rate of a product --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sharp", "paper"])
def test_product_coding_rate_lower_bound_is_its_formula(form):
    # n = 2, mu = 2: the identity has determinant 9; factors of determinants 6 and 8
    n, mu, a, b = 2, 2.0, 6.0, 8.0
    expected = 9 * a + 9 * b - a * b if form == "sharp" else a * b
    close(
        product_coding_rate_lower_bound(math.log(a), math.log(b), n, mu=mu, form=form),
        math.log(expected),
        1e-14,
    )


@pytest.mark.parametrize("mu", [1e-3, 1.0, 1e3])
def test_product_coding_rate_lower_bound_holds_on_real_matrices_and_the_sharp_form_is_never_below(mu):
    for seed in range(5):
        K, L = (Gram(matrices.features(9, 4, seed + 7 * k), normalize=True).dense().numpy() for k in (0, 1))
        rates = [float(matrix_tcr(M, mu)) for M in (K, L)]
        value = float(matrix_tcr(K * L, mu**2 + 2 * mu))
        sharp, paper = (product_coding_rate_lower_bound(*rates, 9, mu=mu, form=f) for f in ("sharp", "paper"))
        assert value >= sharp - 1e-9
        assert sharp >= paper - 1e-9
        assert sharp >= max(rates) + of_identity(9, mu) - 1e-9


@pytest.mark.parametrize("form", ["sharp", "paper"])
def test_product_coding_rate_lower_bound_is_attained_by_identities(form):
    rate = of_identity(5, 0.3)
    close(product_coding_rate_lower_bound(rate, rate, 5, mu=0.3, form=form), 2 * rate, 1e-14)


def test_product_coding_rate_lower_bound_is_attained_where_one_factor_is_the_identity():
    K = Gram(matrices.features(6, 3), normalize=True).dense().numpy()
    rate = float(matrix_tcr(K, 0.1))
    bound = product_coding_rate_lower_bound(rate, of_identity(6, 0.1), 6, mu=0.1)
    close(bound, matrix_tcr(np.eye(6), 0.21), 1e-12)


def test_product_coding_rate_lower_bound_survives_determinants_beyond_the_floats():
    n, mu = 2000, 1e-3
    top = of_identity(n, mu)
    with mp.workdps(30):
        a, b = mp.mpf(-9000), mp.mpf(-9500)
        expected = 2 * mp.mpf(top) + mp.log(mp.e**a + mp.e**b - mp.e ** (a + b))
    close(product_coding_rate_lower_bound(top - 9000, top - 9500, n, mu=mu), float(expected), 1e-12)


def test_product_coding_rate_lower_bound_takes_arrays_and_tensors_elementwise():
    rates, others = np.array([0.1, 0.5]), np.array([0.4, 0.2])
    expected = [product_coding_rate_lower_bound(a, b, 2, mu=0.5) for a, b in zip(rates, others, strict=True)]
    assert product_coding_rate_lower_bound(rates, others, 2, mu=0.5) == pytest.approx(expected, rel=1e-14)
    tensors = product_coding_rate_lower_bound(torch.tensor(rates), torch.tensor(others), 2, mu=0.5)
    assert tensors.tolist() == pytest.approx(expected, rel=1e-14)
    of_one = [product_coding_rate_lower_bound(0.1, other, 2, mu=0.5) for other in others]
    for kind in (np.array, torch.tensor):
        assert product_coding_rate_lower_bound(0.1, kind(others), 2, mu=0.5) == pytest.approx(
            of_one, rel=1e-14
        )


# --- trace distance ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_trace_distance_is_half_the_trace_norm_whatever_the_traces(scale):
    K, L = (Gram(matrices.features(8, 3, seed)).dense().numpy() for seed in (0, 1))
    expected = np.linalg.norm(K / np.trace(K) - L / np.trace(L), "nuc") / 2
    close(trace_distance(scale * K, L), expected, 1e-13)


def test_trace_distance_of_commuting_matrices_is_total_variation():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
    close(trace_distance(np.diag(p), np.diag(q)), np.abs(p - q).sum() / 2, 1e-14)
    assert float(trace_distance(np.eye(1), np.eye(1))) == 0.0
    close(trace_distance(np.diag([1.0, 0.0]), np.diag([0.0, 1.0])), 1.0, 1e-14)


def test_trace_distance_keeps_batches_and_dtype_and_has_a_gradient():
    K = torch.stack([torch.eye(3), torch.ones(3, 3)])
    assert trace_distance(K, torch.eye(3)).shape == (2,)
    assert trace_distance(K, torch.eye(3)).dtype == torch.float32
    D = torch.diag(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(trace_distance(D, torch.eye(3, dtype=torch.float64)), D)
    # 1/2 sum |p_i/s - 1/3|: signs +, -, -, less their mean under p
    expected = np.array([1, -1, -1]) / 2 - (0.5 - 0.3 - 0.2) / 2
    assert gradient.diagonal().numpy() == pytest.approx(expected, abs=1e-12)


def test_trace_distance_refuses_other_orders_and_zero_matrices():
    with pytest.raises(ValueError, match="2, 3"):
        trace_distance(np.eye(2), np.eye(3))
    with pytest.raises(ValueError, match="positive trace"):
        trace_distance(np.zeros((2, 2)), np.eye(2))


# --- divergence from distance --------------------------------------------------------------------------------


@pytest.mark.parametrize("T", DISTANCES)
def test_js_upper_bound_is_attained(T):
    K, L = np.diag([1 - T, T, 0.0]), np.diag([1 - T, 0.0, T])
    assert float(matrix_js(K, L)) == pytest.approx(js_upper_bound(T), abs=1e-13)


@pytest.mark.parametrize("T", DISTANCES)
def test_js_lower_bound_is_attained_and_is_at_least_pinskers(T):
    K, L = np.diag([1 + T, 1 - T]) / 2, np.diag([1 - T, 1 + T]) / 2
    assert float(matrix_js(K, L)) == pytest.approx(js_lower_bound(T), abs=1e-13)
    assert js_lower_bound(T) >= T**2 / 2 - 1e-15


@pytest.mark.parametrize("bound", [js_lower_bound, js_upper_bound])
def test_js_bounds_beyond_the_largest_distance_are_those_at_it(bound):
    close(bound(2.0), math.log(2), 1e-15)
