"""The quadrature's promise, |value - truth| <= rtol truth or a refusal, over spectra, orders and precisions."""

from __future__ import annotations

import itertools
import math

import matrices
import numpy as np
import pytest
import torch
from helpers import grad, seeded, sym, t
from tolerances import relative_error

from matinfo import explain, renyi_entropy
from matinfo.spectral import quadrature, triangular
from matinfo.spectral.quadrature import NODES, fitted_rule

ORDERS = (0.5, 0.9, 1.0, 1.25, 1.5, 1.9, 2.0)


def true_entropy(K, alpha):
    """From the eigenvalues of the entries as they are, in float64."""
    p = torch.linalg.eigvalsh(K.double()).clamp_min(0)
    p = p / p.sum()
    return float(torch.special.entr(p).sum() if alpha == 1 else (p**alpha).sum().log() / (1 - alpha))


def unit_features(n, d, seed=0):
    Z = torch.randn(n, d, dtype=torch.float64, generator=seeded(seed))
    return torch.nn.functional.normalize(Z, dim=1)


def families(n):
    """Spectra of features and kernels, and the ends: flat, one direction and a little, twelve decades."""
    Z, few = unit_features(n, n // 2), unit_features(n, 4)
    return {
        "flat": t(matrices.from_spectrum(np.ones(n))),
        "half rank": Z @ Z.mT,
        "rank 4": few @ few.mT,
        "kernel": t(matrices.rbf_gram(n, d=4, bandwidth=2.0, seed=1)),
        "decades": t(matrices.from_spectrum(np.geomspace(1e-12, 1, n))),
        "collapsed": t(matrices.from_spectrum(np.r_[1.0, np.full(n - 1, 1e-2 / n)])),
    }


def broken_promises(sizes, orders, tolerances):
    broken, answered, asked = [], 0, 0
    for n in sizes:
        for (name, K64), dtype in itertools.product(families(n).items(), (torch.float32, torch.float64)):
            K = 7.3 * K64.to(dtype)
            for alpha, rtol in itertools.product(orders, tolerances):
                asked += 1
                try:
                    value = float(renyi_entropy(K, alpha, method="quadrature", rtol=rtol))
                except ValueError:
                    continue
                answered += 1
                truth = true_entropy(K, alpha)
                if not abs(value - truth) <= rtol * truth:
                    broken.append((n, name, dtype, alpha, rtol, value / truth - 1))
    return broken, answered / asked


def test_quadrature_keeps_its_promise_or_refuses():
    broken, answered = broken_promises((24,), (0.5, 1.0, 1.9), (1e-2, 1e-4))
    assert not broken
    assert answered > 0.7


@pytest.mark.slow
def test_quadrature_keeps_its_promise_or_refuses_at_more_sizes():
    broken, answered = broken_promises((17, 96), ORDERS, (1e-2, 1e-4, 1e-6))
    assert not broken
    assert answered > 0.5


@pytest.mark.parametrize(("n", "alpha", "rtol"), [(512, 1.9, 1e-3), (512, 2.0, 1e-3), (96, 1.9, 1e-4)])
def test_quadrature_counts_rounding_of_float32_matrices(n, alpha, rtol):
    # Bounds of the fit alone let errors of 2e-2 through here: large weights of alternating sign times round-off.
    Z = torch.nn.functional.normalize(torch.randn(n, n // 2, generator=seeded()), dim=1)
    K = Z @ Z.mT
    truth = true_entropy(K, alpha)
    assert abs(float(renyi_entropy(K, alpha, method="quadrature", rtol=rtol)) - truth) <= rtol * truth


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("count", [NODES[0], 6, NODES[-1]])
def test_fitted_rule_bounds_its_error_on_every_spectrum(alpha, count):
    n = 256
    rule = fitted_rule(alpha, n, count, 1e-13)
    nodes, weights = np.array(rule.nodes), np.array(rule.weights)
    rng = np.random.default_rng(0)
    spectra = [np.ones(n), np.r_[1.0, np.zeros(n - 1)], np.r_[0.5, np.full(n - 1, 0.5 / (n - 1))]]
    spectra += [rng.pareto(rng.uniform(0.05, 3), n) + 1e-12 for _ in range(20)]
    spectra += [np.geomspace(10.0 ** -rng.uniform(0, 16), 1, n) for _ in range(20)]
    for lam in spectra:
        p = lam / lam.sum()
        fit = rule.linear + rule.square * (p**2).sum() + (np.log1p(p[:, None] / nodes) @ weights).sum()
        x = p[p > 0]
        exact = (x * np.log(x)).sum() if alpha == 1 else ((x**alpha).sum() - 1) / (alpha - 1)
        assert abs(fit - exact) <= rule.delta * ((x ** min(alpha, 1)).sum() + rule.floor) + 1e-12


def test_fitted_rule_counts_the_rounding_of_large_weights():
    # Two matrices of nearly the same spectrum may not differ by more than the bounds say, whatever was factored.
    n, alpha = 128, 1.9
    rule = fitted_rule(alpha, n, 16, 1e-13)
    K = t(matrices.from_spectrum(np.geomspace(1e-6, 1, n)))
    P = K / K.trace()
    found = quadrature._fitted_trace(P, rule, 1e-3)
    x = np.geomspace(1e-6, 1, n)
    x = x / x.sum()
    fit = rule.linear + rule.square * (x**2).sum()
    fit += (np.log1p(x[:, None] / np.array(rule.nodes)) @ np.array(rule.weights)).sum()
    assert abs(float(found) - fit) <= rule.rounding
    assert max(abs(w / node) for w, node in zip(rule.weights, rule.nodes, strict=True)) < 100


def test_quadrature_bounds_fall_with_the_number_of_nodes():
    bounds = [fitted_rule(1.0, 1024, count, 1e-13).delta for count in (3, 6, 16)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 1e-5


@pytest.mark.parametrize("alpha", [0.75, 1.0, 1.5])
def test_quadrature_is_differentiable_twice(alpha):
    K = 7.3 * t(matrices.rbf_gram(4, d=4, bandwidth=1.5)).requires_grad_()
    f = lambda K: renyi_entropy(sym(K), alpha, method="quadrature", rtol=1e-2)  # noqa: E731
    assert torch.autograd.gradcheck(f, K)
    assert torch.autograd.gradgradcheck(f, K)


def test_quadrature_gradient_is_nearly_that_of_the_eigenvalues():
    K = t(matrices.rbf_gram(48, d=4, bandwidth=1.5)).float()
    fast = grad(lambda K: renyi_entropy(K, method="quadrature", rtol=1e-5), K)
    assert relative_error(fast, grad(lambda K: renyi_entropy(K, method="eigh"), K)) < 1e-3


def test_quadrature_says_what_it_reached_and_does_not_advise_the_precision_in_use():
    K = t(matrices.rbf_gram(64, d=4, bandwidth=1.5))
    with pytest.raises(ValueError, match=r"it reached .* with 20 nodes .* method='auto'") as refusal:
        renyi_entropy(K, 1.0, method="quadrature", rtol=1e-10)
    assert "precision=" not in str(refusal.value)


def test_quadrature_is_not_taken_unasked():
    K = t(matrices.rbf_gram(64, d=4, bandwidth=1.5))
    with explain() as log:
        renyi_entropy(K, 1.0)
        renyi_entropy(K, 1.0, rtol=1e-2)
    assert {step.route for step in log.steps} == {"eigvalsh"}


def test_quadrature_refuses_an_indefinite_matrix_and_leaves_round_off_to_the_eigenvalues():
    lam = np.r_[-0.1, np.linspace(0.1, 1, 15)]
    with pytest.raises(ValueError, match="positive semi-definite"):
        renyi_entropy(t(matrices.from_spectrum(lam)), method="quadrature")
    lam[0] = -1e-7
    K = t(matrices.from_spectrum(lam))
    value = float(renyi_entropy(K, 0.5, method="quadrature", rtol=1e-4))
    assert abs(value / float(renyi_entropy(K, 0.5)) - 1) < 1e-4


def test_quadrature_keeps_nan_in_its_batch_element():
    K = torch.stack([t(matrices.rbf_gram(8))] * 3)
    K[1, 2, 2] = math.nan
    K.requires_grad_()
    value = renyi_entropy(K, method="quadrature")
    assert value.isnan().tolist() == [False, True, False]
    value[[0, 2]].sum().backward()
    assert K.grad[[0, 2]].isfinite().all()


def test_quadrature_that_may_not_wait_is_right_or_nan(monkeypatch):
    monkeypatch.setattr(quadrature, "values_are_readable", lambda x: False)
    collapsed = t(matrices.from_spectrum(np.r_[1.0, np.full(31, 1e-9)]))
    K = torch.stack([t(matrices.rbf_gram(32, d=4, bandwidth=1.5)), collapsed])
    value = renyi_entropy(K, method="quadrature", rtol=1e-4)
    truth = true_entropy(K[0], 1)
    assert abs(float(value[0]) - truth) <= 1e-4 * truth
    assert value[1].isnan()


# ---------------------------------------------------------------- sums of inverses by products


@pytest.mark.parametrize("n", [1, 5, 32, 33, 100])
def test_weighted_inverse_sum_equals_inverses(n):
    A = torch.randn(2, 3, n, n, dtype=torch.float64, generator=seeded(n))
    A = A @ A.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)
    weights = [1.0, -2.0, 0.5]
    expected = sum(weight * torch.linalg.inv(A[:, j]) for j, weight in enumerate(weights))
    found = triangular.weighted_inverse_sum(torch.linalg.cholesky(A), weights)
    assert relative_error(found, expected) < 1e-13


def test_split_product_keeps_21_bits(monkeypatch):
    monkeypatch.setattr(triangular, "_half_product", lambda A, B: A.float() @ B.float())
    A, B = (torch.randn(2, 40, 40, generator=seeded(k)) * 10.0 ** torch.randn(40) for k in (1, 2))
    exact = A.double() @ B.double()
    assert relative_error(triangular.split_product(A, B), exact) < 2.0**-20
    coarse = A.half().double() @ B.half().double()
    assert relative_error(coarse, exact) > 2.0**-14
