"""Sandwiched mutual information: against the divergence of density matrices, closed forms, limits, gradients."""

from __future__ import annotations

import math

import matrices
import numpy as np
import pytest
import torch
from helpers import t
from tolerances import close
from torch.autograd import gradcheck

from matinfo import Gram, mutual_information, sandwiched_mutual_information

ALPHAS = (0.5, 0.75, 0.99, 1.01, 1.5, 2.0, 4.0)


def unit_features(n, d, seed):
    Z = matrices.features(n, d, seed)
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


def power(K, s):
    lam, Q = np.linalg.eigh(K)
    kept = lam > 1e-12 * lam[-1]
    return (Q[:, kept] * lam[kept] ** s) @ Q[:, kept].T


def divergence_from_independence(A, B, alpha):
    """The definition: `log tr[(s rho s)^a]/(a - 1)`, `s = sigma^((1-a)/2a)`, on the d1 d2 dimensional state."""
    n = len(A)
    rho = sum(np.kron(np.outer(a, a), np.outer(b, b)) for a, b in zip(A, B, strict=True)) / n
    s = power(np.kron(A.T @ A / n, B.T @ B / n), (1 - alpha) / (2 * alpha))
    lam = np.linalg.eigvalsh(s @ rho @ s)
    lam = lam[lam > 1e-12 * lam[-1]]
    return math.log((lam**alpha).sum()) / (alpha - 1)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("shape", [(6, 2, 3), (3, 4, 2), (5, 1, 4)])
def test_sandwiched_mutual_information_is_the_divergence_of_the_joint_state_from_the_product(shape, alpha):
    n, d1, d2 = shape
    A, B = unit_features(n, d1, 1), unit_features(n, d2, 2)
    expected = divergence_from_independence(A, B, alpha)
    close(sandwiched_mutual_information(A @ A.T, B @ B.T, alpha), expected, 1e-10)
    close(sandwiched_mutual_information(Gram(A), Gram(B), alpha), expected, 1e-10)


@pytest.mark.parametrize("alpha", [*ALPHAS, math.inf])
def test_sandwiched_mutual_information_of_labels_is_the_classical_divergence(alpha):
    table = np.array([[4, 1, 0], [1, 2, 3]])
    p = table / table.sum()
    q = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    if math.isinf(alpha):
        expected = math.log((p / q).max())
    else:
        expected = math.log((p[p > 0] ** alpha * q[p > 0] ** (1 - alpha)).sum()) / (alpha - 1)
    close(sandwiched_mutual_information(*matrices.partition_pair(table), alpha), expected, 1e-11)


def test_sandwiched_mutual_information_of_order_one_is_mutual_information():
    K, L = matrices.random_correlation(6, 1), matrices.random_correlation(6, 2, rank=3)
    close(sandwiched_mutual_information(K, L), mutual_information(K, L), 1e-14)


@pytest.mark.parametrize("step", [1e-3, 1e-5, 1e-7, 1e-9])
@pytest.mark.parametrize("sign", [1, -1])
def test_sandwiched_mutual_information_is_continuous_through_order_one(step, sign):
    K, L = matrices.random_correlation(6, 1), matrices.random_correlation(6, 2)
    value = float(sandwiched_mutual_information(K, L, 1 + sign * step))
    close(value, mutual_information(K, L), step + 1e-14 / step if step > 1e-8 else 1e-8)


def test_sandwiched_mutual_information_tends_to_its_limit_at_infinity():
    K, L = (matrices.random_correlation(5, seed, rank=2) for seed in (1, 2))
    limit = float(sandwiched_mutual_information(K, L, math.inf))
    for alpha in (1e2, 1e3, 1e4):
        close(sandwiched_mutual_information(K, L, alpha), limit, 20 / alpha)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, math.inf])
def test_sandwiched_mutual_information_closed_forms(alpha):
    identity, ones = np.eye(5), np.ones((5, 5))
    close(sandwiched_mutual_information(identity, identity, alpha), math.log(5), 1e-12)
    close(sandwiched_mutual_information(identity, ones, alpha), 0.0, 1e-12)
    independent = matrices.partition([0, 0, 1, 1]), matrices.partition([0, 1, 0, 1])
    close(sandwiched_mutual_information(*independent, alpha), 0.0, 1e-12)
    close(sandwiched_mutual_information(identity, identity, alpha, base=5), 1.0, 1e-12)


def test_sandwiched_mutual_information_is_positive_where_the_entropic_form_is_negative():
    pair = matrices.partition_pair([[1, 0], [2, 1]])
    assert float(mutual_information(*pair, 2)) < 0
    close(sandwiched_mutual_information(*pair, 2), math.log(10 / 9), 1e-12)  # 1 + chi^2 of the table


@pytest.mark.parametrize("alpha", [0.6, 1.0, 1.3, 2.0, 3.0])
@pytest.mark.parametrize("width", [3, 8])
def test_sandwiched_mutual_information_gradient_is_exact(alpha, width):
    # Three columns make a singular matrix: its derivative along features exists all the same.
    Zs = [t(matrices.features(5, d, d)).requires_grad_() for d in (width, 4)]
    assert gradcheck(
        lambda A, B: sandwiched_mutual_information(Gram(A, True), Gram(B, True), alpha), Zs, atol=1e-5
    )


def test_sandwiched_mutual_information_gradient_is_finite_at_repeated_and_zero_eigenvalues():
    for M in (np.eye(4), np.ones((4, 4)), matrices.partition([0, 0, 1, 1])):
        K = t(M).requires_grad_()
        (gradient,) = torch.autograd.grad(sandwiched_mutual_information(K, t(np.eye(4)), 2), K)
        assert gradient.isfinite().all()


def test_sandwiched_mutual_information_is_compiled_with_its_gradient():
    Zs = [t(matrices.features(5, 3, seed)).requires_grad_() for seed in (1, 2)]
    call = lambda A, B: sandwiched_mutual_information(Gram(A, True), Gram(B, True), 0.75)  # noqa: E731
    value = torch.compile(call, backend="eager", fullgraph=True)(*Zs)
    close(value, call(*Zs), 1e-13)
    for one, other in zip(torch.autograd.grad(value, Zs), torch.autograd.grad(call(*Zs), Zs), strict=True):
        assert (one - other).abs().max() < 1e-12
