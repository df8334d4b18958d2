"""What a training run throws at the engine: hard matrices, extreme scales, dead rows, failing solvers."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from tolerances import EPS32, approx, close, relative_error

import matinfo
from matinfo import Gram, explain, participation_ratio, renyi_entropy

INF = math.inf
ALPHAS = (0.5, 1.0, 1.5, 2.0, 3.0, INF)


# --- the families on which float32 LAPACK fails ----------------------------------------------------------------


def hard_case(family, n, seed):
    """Float32 covariance, and its exact spectrum from the singular values of the float32 features."""
    Z = matrices.hard_features(family, n, seed).astype(np.float32)
    lam = np.linalg.svd(Z.astype(np.float64), compute_uv=False) ** 2
    return torch.as_tensor(Z), torch.as_tensor(Z.T @ Z), lam


def check_hard_case(Z, K, lam, precision):
    n = K.shape[0]
    # The matrix itself is rounded to float32: n null eigenvalues of size eps*lambda_max/sqrt(n), each with -p log p.
    noise = math.sqrt(n) * EPS32
    for alpha, tolerance in ((1.0, 20 * noise), (1.5, noise), (2.0, noise), (INF, noise)):
        expected = float(oracles.entropy_of_spectrum_mp(lam[lam > 0], alpha))
        A = K.clone().requires_grad_()
        value = renyi_entropy(A, alpha, precision=precision)
        close(value, expected, tolerance * (1 + expected), f"alpha={alpha}")
        assert torch.autograd.grad(value, A)[0].isfinite().all()
        F = Z.clone().requires_grad_()
        through_gram = renyi_entropy(Gram(F), alpha, precision=precision)
        close(through_gram, expected, tolerance * (1 + expected), f"Gram, alpha={alpha}")
        assert torch.autograd.grad(through_gram, F)[0].isfinite().all()
    for alpha in (0.0, 0.5):
        A = K.clone().requires_grad_()
        value = renyi_entropy(A, alpha, precision=precision)
        # Eigenvalues in the noise are dropped below order 1 but the trace still counts them: H may be -mass dropped.
        assert -20 * noise <= value.detach() <= math.log(n)
        if value.requires_grad:
            assert torch.autograd.grad(value, A)[0].isfinite().all()


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("family", matrices.HARD_FAMILIES)
def test_renyi_entropy_survives_the_hard_float32_families(family, precision):
    assert len(matrices.HARD_FAMILIES) == 16
    check_hard_case(*hard_case(family, 128, seed=1), precision)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize("n", [256, 512])
@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("family", matrices.HARD_FAMILIES)
def test_renyi_entropy_survives_the_hard_float32_families_at_size(family, precision, n, seed):
    check_hard_case(*hard_case(family, n, seed), precision)


@pytest.mark.slow
@pytest.mark.parametrize("family", matrices.HARD_FAMILIES)
def test_renyi_entropy_survives_the_hard_families_where_auto_means_float32(family):
    Z, K, lam = hard_case(family, 1100, seed=0)
    with explain() as log:
        renyi_entropy(K, 1.5)
    assert log.steps[0].dtype == "float32"
    check_hard_case(Z, K, lam, "auto")


@pytest.mark.parametrize("alpha", [1.0, 1.5, INF])
def test_float64_solver_failure_on_a_sparse_rank_one_matrix_is_survived(alpha):
    # Seen on torch 2.15: `torch.linalg.eigh` raises "failed to converge" on this matrix in float64 as well.
    _, K, _ = hard_case("rank_one_density_0.05", 512, seed=4)
    for dtype in (torch.float32, torch.float64):
        A = K.to(dtype).requires_grad_()
        value = renyi_entropy(A, alpha)
        # Entries rounded to float32: 512 null eigenvalues of about 1e-8 lambda_max, each -p log p.
        close(value, 0.0, 20 * math.sqrt(512) * EPS32)
        assert torch.autograd.grad(value, A)[0].isfinite().all()


def test_the_shift_that_saves_the_float32_solver_leaves_no_trace():
    # 2^-27 of the largest entry, added 200 times and not subtracted again, would show as 2.8e-5.
    K = torch.zeros(200, 200)
    K[3, 3] = 5.0
    close(renyi_entropy(K, 1.0, precision="float32"), 0.0, 1e-7)


def test_hard_families_in_a_batch_do_not_disturb_each_other():
    covariances = [hard_case(family, 64, seed=3)[1] for family in matrices.HARD_FAMILIES]
    together = renyi_entropy(torch.stack(covariances), precision="float32")
    for K, value in zip(covariances, together, strict=True):
        close(value, renyi_entropy(K, precision="float32"), 1e-5)


# --- scales --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-10, 1e10, 1e20, 1e30])
@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("alpha", (0.0, *ALPHAS))
def test_renyi_entropy_is_right_at_every_float32_scale(alpha, precision, scale):
    K = t(matrices.named("random", 6), torch.float32)
    A = (np.float32(scale) * K).requires_grad_()
    value = renyi_entropy(A, alpha, precision=precision)
    close(value, renyi_entropy(K, alpha), 32 * EPS32)
    if value.requires_grad:
        B = K.clone().requires_grad_()
        (gradient,), (expected,) = (
            torch.autograd.grad(v, x) for v, x in ((value, A), (renyi_entropy(B, alpha), B))
        )
        assert relative_error(scale * gradient.double(), expected) < (
            1e-4 if precision == "float32" else 1e-5
        )


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("shape", [(12, 4), (4, 12)])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_entropy_of_features_is_right_at_every_float32_scale(alpha, shape, scale):
    # The squares 1e60 and 1e-60 do not exist in float32.
    Z = t(matrices.features(*shape), torch.float32)
    F = (np.float32(scale) * Z).requires_grad_()
    value = renyi_entropy(Gram(F), alpha)
    close(value, renyi_entropy(Gram(Z), alpha), 4 * EPS32)
    (gradient,) = torch.autograd.grad(value, F)
    G = Z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(renyi_entropy(Gram(G), alpha), G)
    assert relative_error(scale * gradient.double(), expected) < 1e-5


def test_tcr_at_extreme_scales_is_its_limit():
    Z = t(matrices.features(9, 4), torch.float32)
    close(matinfo.tcr(np.float32(1e-30) * Z, 0.5), 4 * math.log(0.5), 1e-6)
    lam = np.linalg.svd(Z.double().numpy(), compute_uv=False) ** 2
    expected = np.log(lam).sum() + 4 * math.log(float(np.float32(1e15)) ** 2)
    assert matinfo.tcr(np.float32(1e15) * Z, 1.0).item() == approx(expected, rel=1e-6)


def test_entropy_of_order_two_accumulates_a_large_float32_matrix_properly():
    # A whole-matrix float32 norm on the CPU is off by 4e-4 at n = 2048.
    K = torch.full((2048, 2048), 0.3).fill_diagonal_(1.0)
    lam = [1 + 2047 * np.float64(np.float32(0.3)), *[1 - np.float64(np.float32(0.3))] * 2047]
    expected = 2 * math.log(2048) - math.log(sum(x * x for x in lam))
    close(renyi_entropy(K, 2), expected, 16 * EPS32)
    # 2048 equal rows share one rounding error of their float32 norm, which does not average out: a few eps, twice.
    assert participation_ratio(K).item() == approx(math.exp(expected), rel=16 * EPS32)


# --- degenerate shapes and rows ------------------------------------------------------------------------------


def test_every_entropy_of_a_one_by_one_matrix_is_zero():
    for K in (torch.tensor([[3.0]]), Gram(torch.tensor([[3.0, 4.0]])), Gram(torch.tensor([[2.0], [0.0]]))):
        for alpha in (0.0, *ALPHAS):
            close(renyi_entropy(K, alpha), 0.0, 1e-12)
        close(matinfo.mutual_information(K, K), 0.0, 1e-12)
        close(matinfo.effective_rank(K), 1.0, 1e-12)
    assert matinfo.matrix_js(torch.tensor([[3.0]]), torch.tensor([[1.0]])).item() == 0.0
    close(matinfo.matrix_kl(torch.tensor([[3.0]]), torch.tensor([[1.0]])), 3 * math.log(3) - 2, 1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_of_a_one_by_one_matrix_is_zero(alpha):
    K = torch.tensor([[3.0]], dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(renyi_entropy(K, alpha), K)
    assert gradient.abs().item() < 1e-15


@pytest.mark.parametrize("alpha", (0.0, *ALPHAS))
def test_zero_rows_and_columns_do_not_count(alpha):
    inner = t(matrices.named("random", 4))
    K = torch.zeros(7, 7, dtype=torch.float64)
    K[2:6, 2:6] = inner
    K.requires_grad_()
    value = renyi_entropy(K, alpha)
    close(value, renyi_entropy(inner, alpha), 1e-13)
    if value.requires_grad:
        assert torch.autograd.grad(value, K)[0].isfinite().all()


@pytest.mark.parametrize("n", [1, 4])
def test_one_sample_or_one_feature_is_enough(n):
    for shape in ((1, n), (n, 1)):
        Z = t(matrices.features(*shape))
        close(matinfo.rankme(Z), 1.0, 1e-14)
        close(matinfo.tcr(Z), math.log1p(float((Z**2).sum())), 1e-14)
        close(renyi_entropy(Gram(Z)), 0.0, 1e-14)
