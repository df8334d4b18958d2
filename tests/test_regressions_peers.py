"""Defects found in other packages, as regression tests: each is a mistake that is easy to make.

Every test names the package in which the defect was seen and, where one was measured, the wrong number.
"""

from __future__ import annotations

import itertools
import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import grad, t
from tolerances import EPS32, approx, close, relative_error

from matinfo import (
    Gram,
    coding_rate,
    effective_rank,
    explain,
    joint_entropy,
    matrix_kl,
    matrix_tcr,
    rankme,
    rate_reduction,
    renyi_entropy,
    tcr,
    vendi_score,
    von_neumann_entropy,
)
from matinfo.losses import mmae_tcr_loss

# --- repitl --------------------------------------------------------------------------------------------------


def test_renyi_entropy_of_order_two_divides_by_the_squared_trace_unlike_repitl():
    # repitl divides by n^2: 5.256 for a unit-trace 6 x 6 matrix whose entropy is 1.673.
    K = matrices.named("random", 6)
    K /= np.trace(K)
    expected = float(oracles.renyi_entropy_mp(K, 2))
    close(renyi_entropy(t(K), 2), expected, 1e-14)
    assert -math.log((K**2).sum() / 36) - expected > 3  # the wrong formula is far away


def test_renyi_entropy_of_order_two_has_the_trace_term_in_its_gradient_unlike_repitl():
    # repitl: 3.1e-2 at the identity.
    assert grad(lambda K: renyi_entropy(K, 2), torch.eye(8, dtype=torch.float64)).abs().max() < 1e-15
    near, at = (
        grad(lambda K, a=a: renyi_entropy(K, a), torch.eye(8, dtype=torch.float64)) for a in (2 + 1e-9, 2.0)
    )
    assert (near - at).abs().max() < 1e-14


def test_renyi_entropy_of_a_batch_is_a_batch_unlike_repitl():
    K = t(np.stack([matrices.named("random", 6, s) for s in (1, 2)]))
    for alpha in (1.0, 1.5, 2.0):
        values = renyi_entropy(K, alpha)
        assert values.shape == (2,)
        for i in range(2):
            close(values[i], oracles.renyi_entropy_mp(K[i].numpy(), alpha), 1e-13)


@pytest.mark.parametrize(("alpha", "wrong"), [(1 + 1e-6, -0.075), (1 + 1e-7, 0.76)])
def test_renyi_entropy_near_order_one_in_float32_does_not_cancel_unlike_repitl(alpha, wrong):
    K = matrices.named("random", 6).astype(np.float32)
    expected = float(oracles.renyi_entropy_mp(K, alpha))
    assert abs(expected - wrong) > 0.5
    for precision in ("auto", "float32"):
        close(renyi_entropy(torch.as_tensor(K), alpha, precision=precision), expected, 16 * EPS32)


def test_double_backward_at_the_identity_is_finite_unlike_repitl():
    K = torch.eye(5, dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad(renyi_entropy(K, 1.5), K, create_graph=True)
    (second,) = torch.autograd.grad(first[0, 1], K)
    # Hessian at I: -alpha/n (E - tr E/n I), here for E = the symmetric unit matrix of (0, 1).
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = -1.5 / 5 / 2
    assert relative_error(second, expected) < 1e-13


# --- vendi-score ---------------------------------------------------------------------------------------------


def test_vendi_score_of_order_zero_does_not_count_round_off_unlike_vendi_score():
    # vendi-score: 29 for rank 6.
    Z = matrices.low_rank_features(40, 20, rank=6)
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    for K in (t(Z @ Z.T), t(Z @ Z.T, torch.float32), Gram(t(Z)), Gram(t(Z, torch.float32))):
        assert vendi_score(K, 0).item() == approx(6, rel=1e-6)


def test_vendi_score_of_infinite_order_is_finite_unlike_vendi_score():
    close(vendi_score(torch.eye(4, dtype=torch.float64), math.inf), 4.0, 1e-14)
    Z = t(matrices.features(10, 3))
    lam = np.linalg.svd(Z.numpy(), compute_uv=False) ** 2
    close(vendi_score(Gram(Z), math.inf), lam.sum() / lam.max(), 1e-13)


def test_vendi_score_of_features_uses_its_order_unlike_vendi_score():
    Z = Gram(t(matrices.features(10, 3)))
    scores = [float(vendi_score(Z, q)) for q in (0, 0.5, 1, 2, 5, math.inf)]
    assert all(one > other + 1e-3 for one, other in itertools.pairwise(scores))


# --- information_flow, DiME, djaniak, Diff-eRank -----------------------------------------------------------------


def test_renyi_entropy_clamps_eigenvalues_and_not_entries_unlike_information_flow():
    # information_flow clamps the entries of the Gram matrix at zero: 4.542 becomes 4.576.
    Z = matrices.features(30, 8)
    K = Gram(t(Z), normalize=True).dense()
    assert (K < -0.5).any()
    expected = oracles.renyi_entropy_mp(K.numpy(), 1, zero=1e-12)
    close(von_neumann_entropy(K), expected, 1e-12)
    assert (
        abs(float(von_neumann_entropy(K)) - float(oracles.renyi_entropy_mp(np.maximum(K.numpy(), 0), 1)))
        > 0.05
    )


def test_joint_entropy_multiplies_gram_matrices_and_not_covariances_unlike_dime():
    # DiME takes the Hadamard product of d x d covariances when N > d: 0.169 becomes 0.003.
    Z1, Z2 = matrices.features(20, 3, 1), matrices.features(20, 3, 2)
    expected = oracles.joint_entropy_mp(Z1 @ Z1.T, Z2 @ Z2.T, zero=1e-12)
    close(joint_entropy(Gram(t(Z1)), Gram(t(Z2))), expected, 1e-11)
    wrong = oracles.joint_entropy_mp(Z1.T @ Z1, Z2.T @ Z2)
    assert abs(float(expected - wrong)) > 0.3


def test_renyi_entropy_of_order_two_has_no_stray_log_n_unlike_djaniak():
    # Off by exactly 2 log N there.
    for n in (2, 10, 100):
        close(renyi_entropy(torch.eye(n, dtype=torch.float64), 2), math.log(n), 1e-13)


def test_entropy_of_a_sentence_uses_the_small_side_unlike_diff_erank():
    # Diff-eRank: a d x d SVD for each sentence, 2.19 s against 0.3 ms at N = 64, d = 2048.
    Z = torch.randn(64, 2048)
    for K in (Gram(Z), Gram(Z.T.contiguous())):
        with explain() as log:
            effective_rank(K)
        assert [step.size for step in log.steps] == [64]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_entropy_of_half_precision_features_does_not_raise_unlike_diff_erank(dtype):
    Z = torch.randn(12, 30).to(dtype)
    value = effective_rank(Gram(Z))
    assert value.dtype == torch.float32
    lam = np.linalg.svd(Z.double().numpy(), compute_uv=False) ** 2
    assert value.item() == approx(math.exp(float(oracles.entropy_of_spectrum_mp(lam))), rel=4 * EPS32)


# --- RankMe implementations ----------------------------------------------------------------------------------


def test_rankme_takes_uncentred_singular_values_unlike_reptrix():
    # reptrix: variances of centred principal components, 7.35 against 7.81.
    Z = matrices.features(40, 8) + 0.7
    sigma = np.linalg.svd(Z, compute_uv=False)
    assert rankme(t(Z)).item() == approx(math.exp(float(oracles.entropy_of_spectrum_mp(sigma))), rel=1e-13)
    variances = np.linalg.svd(Z - Z.mean(0), compute_uv=False) ** 2
    assert abs(math.exp(float(oracles.entropy_of_spectrum_mp(variances))) - float(rankme(t(Z)))) > 0.2


def test_rankme_without_offset_uses_probabilities_that_sum_to_one_unlike_stable_pretraining():
    # stable-pretraining adds 1e-5 to every p and does not renormalise: 8.34 against 7.97.
    assert rankme(torch.eye(512, dtype=torch.float64)).item() == approx(512, rel=1e-13)
    assert rankme(torch.eye(512, dtype=torch.float64), offset=1e-7).item() == approx(512, rel=1e-3)


# --- coding rates --------------------------------------------------------------------------------------------


def test_tcr_grows_when_features_spread_and_the_loss_falls_unlike_lightly():
    # lightly's EMP-SSL returns +TCR as a loss.
    collapsed, spread = torch.ones(8, 4), torch.eye(4).repeat(2, 1)
    assert tcr(collapsed) < tcr(spread)
    assert mmae_tcr_loss(collapsed) > mmae_tcr_loss(spread)


def test_coding_rates_of_large_rank_deficient_float32_features_are_finite_and_right_unlike_mcr2():
    # MCR2: LU log-determinant in float32 turns NaN on a rank-4 Gram matrix times 1e7.
    Z = (math.sqrt(1e7) * matrices.low_rank_features(60, 30, rank=4)).astype(np.float32)
    F, labels = torch.as_tensor(Z), torch.arange(60) % 3
    lam = np.linalg.svd(Z.astype(np.float64), compute_uv=False) ** 2
    scale = 30 / (60 * 0.25)
    assert coding_rate(F).item() == approx(0.5 * np.log1p(scale * lam).sum(), rel=1e-5)
    assert tcr(F).item() == approx(np.log1p(lam).sum(), rel=1e-5)
    expected = float(oracles.rate_reduction_mp(Z, np.eye(3)[labels]))
    assert rate_reduction(F, labels).item() == approx(expected, rel=1e-4, abs=1e-4)
    for function in (coding_rate, tcr, lambda F: rate_reduction(F, labels)):
        assert grad(function, F).isfinite().all()


@pytest.mark.parametrize("mu", [1e-3, 1e-6, 1e-9, 1e-12, 1e-15])
def test_matrix_tcr_with_a_tiny_ridge_never_returns_nan_unlike_simdino(mu):
    # SimDINO ignores the info of cholesky_ex. A float32 RBF matrix has eigenvalues down to -1e-7.
    K = torch.as_tensor(matrices.rbf_gram(60, d=2, bandwidth=4.0), dtype=torch.float32)
    value = matrix_tcr(K, mu)
    assert value.isfinite()
    assert value >= 60 * math.log(mu) - 1e-3  # K is positive semi-definite but for rounding
    assert value <= 60 * math.log(mu + 1) + 1e-3  # Hadamard
    assert grad(lambda K: matrix_tcr(K, mu), K).isfinite().all()


@pytest.mark.parametrize(("batch", "width"), [(16, 96), (96, 16)])
def test_mmae_loss_divides_by_the_feature_width_and_not_by_the_batch_unlike_its_comment(batch, width):
    F = torch.eye(batch, width, dtype=torch.float64)
    F[width:, 0] = 1.0
    G = F.T @ F
    expected = -torch.logdet(torch.eye(width, dtype=torch.float64) + G / width)
    close(mmae_tcr_loss(F), expected, 1e-12)


def test_mmae_loss_uses_the_batch_side_when_it_is_smaller_unlike_the_released_code():
    # Released code: always a d x d LU, 95 ms against 3 ms at B = 128, d = 1024.
    with explain() as log:
        mmae_tcr_loss(torch.randn(32, 256))
    assert [step.size for step in log.steps] == [32]


# --- logarithms and relative entropies ---------------------------------------------------------------------------


def test_entropy_of_collapsed_features_is_exact_unlike_a_taylor_logarithm():
    # Matrix-SSL: a four-term Taylor logarithm is 14 % off on collapsed features.
    Z = matrices.collapsed_features(24, 6, clusters=2, noise=1e-2)
    K = Z.T @ Z
    expected = float(oracles.renyi_entropy_mp(K, 1))
    close(von_neumann_entropy(t(K)), expected, 1e-13)
    assert matrix_kl(t(K), torch.eye(6, dtype=torch.float64)).item() == approx(
        float(oracles.matrix_kl_mp(K, np.eye(6))), rel=1e-12
    )


def test_matrix_kl_gradient_at_a_rank_deficient_state_is_not_nan_unlike_pennylane():
    for rho in (
        torch.diag(t([1.0, 0.0])),
        t(matrices.named("half_zero", 4)),
        torch.ones(3, 3, dtype=torch.float64) / 3,
    ):
        sigma = torch.eye(len(rho), dtype=torch.float64) / len(rho)
        assert grad(lambda K, sigma=sigma: matrix_kl(K, sigma), rho).isfinite().all()
        same = grad(lambda K, rho=rho: matrix_kl(rho, K), rho)
        assert not same.isnan().any()


# --- eigh in float32 -----------------------------------------------------------------------------------------


def test_gradient_below_order_one_at_a_rank_deficient_matrix_is_not_round_off_unlike_torch_eigh():
    # torch.linalg.eigh and alpha < 1: 89 in float32, 1.8e6 in float64. Here sigma = (3, 2): a gradient of order 1.
    Z = matrices.orthogonal(10, 1)[:, :2] * [3.0, 2.0]
    Z = Z @ matrices.orthogonal(6, 2)[:2]
    for dtype in (torch.float32, torch.float64):
        F = t(Z, dtype)
        gradient = grad(lambda Z: renyi_entropy(Gram(Z), 0.5), F)
        U, sigma, Vt = np.linalg.svd(Z)
        inner = [float(g) for g in oracles.entropy_gradient_of_spectrum_mp([9.0, 4.0], 0.5)]
        expected = 2 * (U[:, :2] * (sigma[:2] * inner)) @ Vt[:2]
        along = (gradient.double().numpy() * expected).sum() / (expected**2).sum()
        assert along == approx(1.0, rel=1e-4 if dtype == torch.float32 else 1e-9)
        # Dense input: the gradient with respect to K itself is bounded too.
        dense = grad(lambda K: renyi_entropy(K, 0.5), F @ F.mT)
        assert dense.norm() < 10


def test_entropy_of_an_ill_conditioned_float32_rbf_matrix_does_not_count_its_noise():
    # float32 peers at n = 512: 175 negative eigenvalues down to -3.7e-5, H_1/2 off by 2e-3 to 5e-3.
    K = matrices.rbf_gram(512, d=16, bandwidth=8.0)
    lam = np.maximum(np.linalg.eigvalsh(K), 0)
    p = lam / lam.sum()
    truth = {
        0.5: 2 * math.log(np.sqrt(p).sum()),
        1.0: -(p[p > 0] * np.log(p[p > 0])).sum(),
        2.0: -math.log((p**2).sum()),
    }
    for alpha, tolerance in ((0.5, 2e-4), (1.0, 1e-6), (2.0, 1e-6)):
        assert renyi_entropy(t(K, torch.float32), alpha).item() == approx(truth[alpha], rel=tolerance)
