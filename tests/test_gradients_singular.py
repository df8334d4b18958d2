"""Gradients at singular matrices and rank-deficient features: exact along the paths that exist, never round-off."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import grad, t
from tolerances import EPS32, approx, relative_error

from matinfo import Gram, renyi_entropy

# --- singular matrices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.9, 1.0, 1.0 + 1e-6, 1.2, 1.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_renyi_entropy_gradient_at_rank_deficient_features_follows_rank_preserving_paths(alpha, dtype):
    # torch's eigh with alpha < 1 gives round-off noise here (89 in float32, 1.8e6 in float64).
    A, B, dA = matrices.features(12, 3, 1), matrices.features(3, 8, 2), matrices.features(12, 3, 3)
    Z, dZ = A @ B, dA @ B
    # Truth: with S = A^T-side factor of full rank 3, H(Z Z^T) is smooth in A; differentiate in exact arithmetic.
    mp, h = oracles.mp, oracles.mp.mpf(10) ** -20
    R = np.linalg.cholesky(B @ B.T)

    def entropy(s):
        M = oracles.to_mp(A @ R) + s * oracles.to_mp(dA @ R)
        return oracles.entropy_of_spectrum_mp(list(mp.eigsy(M.T * M, eigvals_only=True)), alpha)

    expected = float((entropy(h) - entropy(-h)) / (2 * h))
    F = t(Z, dtype)
    for route in (
        lambda Z: renyi_entropy(Gram(Z), alpha),
        lambda Z: renyi_entropy(Gram(Z.mT.contiguous()), alpha),
    ):
        gradient = grad(route, F)
        assert gradient.isfinite().all()
        # float32 rounding of Z makes it full-rank with sigma ~ 1e-7: a perturbation of relative size 1e-7^(2a-1)... for
        # a = 1/2 the gradient has a noise component of unit size orthogonal to the path, so compare along the path.
        directional = float((gradient.double() * t(dZ)).sum())
        tolerance = 1e-8 if dtype == torch.float64 else 1e-5
        if alpha < 1 and dtype == torch.float32:
            tolerance = 2e-2
        assert directional == approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.9, 1.0, 1.5])
@pytest.mark.parametrize("name", ["half_zero", "rank_one"])
def test_renyi_entropy_gradient_of_a_singular_matrix_is_finite_and_not_round_off(name, alpha):
    # Peers at 11^T, alpha = 1/2: 6e6 from the half of the noise eigenvalues that came out positive.
    K = t(matrices.named(name, 8))
    gradient = grad(lambda A: renyi_entropy(A, alpha), K)
    lam = matrices.spectrum(name, 8)
    positive = lam[lam > 0]
    largest = max(
        abs(float(g)) for g in oracles.entropy_gradient_of_spectrum_mp(list(map(float, positive)), alpha)
    )
    assert gradient.isfinite().all()
    # On the range the formula; on the null space a term that cancels after normalisation: 1/tr at most.
    assert gradient.norm() < math.sqrt(8) * (
        largest + 2 * alpha / abs(positive.sum()) * (1 + abs(np.log(positive).min()))
    )


def test_renyi_entropy_gradient_of_all_ones_is_small_at_order_one_half():
    gradient = grad(lambda A: renyi_entropy(A, 0.5), torch.ones(10, 10, dtype=torch.float64))
    assert gradient.norm() < 1.0


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0])
def test_renyi_entropy_gradient_on_the_null_space_is_exact_above_order_one(alpha):
    # f'(0) = 0 in power form: the gradient there is a/((a-1) tr) exactly, from the trace term.
    gradient = grad(lambda A: renyi_entropy(A, alpha), torch.diag(t([0.0, 0.0, 1.0, 3.0])))
    assert gradient[0, 0].item() == approx(alpha / ((alpha - 1) * 4.0), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("shape", [(40, 16), (120, 48), (48, 120)])
def test_renyi_entropy_gradient_at_collapsed_features_is_right_in_float32(shape, noise, alpha):
    # A float32 Gram loses the tail: 1.6e-2 relative gradient error at order 1, 0.8 at order 1/2.
    Z = matrices.collapsed_features(*shape, clusters=4, noise=noise).astype(np.float32)
    gradient = grad(lambda Z: renyi_entropy(Gram(Z), alpha), torch.as_tensor(Z))
    truth = grad(lambda Z: renyi_entropy(Gram(Z), alpha), t(Z))
    U, sigma, Vt = np.linalg.svd(Z.astype(np.float64), full_matrices=False)
    inner = [float(g) for g in oracles.entropy_gradient_of_spectrum_mp(list(sigma**2), alpha)]
    expected = 2 * (U * (sigma * inner)) @ Vt
    assert relative_error(truth, expected) < (1e-4 if noise == 1e-5 else 1e-8)
    assert relative_error(gradient, expected) < (1e-4 if noise == 1e-5 else 4 * EPS32)
