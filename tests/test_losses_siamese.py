"""Losses between two views: Barlow Twins, spectral contrastive, InfoNCE, NT-Xent."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles_losses
import pytest
import torch
from helpers import lightly_loss, t
from hypothesis import given
from matrices import views
from tolerances import close

from matinfo.losses import barlow_twins_loss, infonce_loss, ntxent_loss, spectral_contrastive_loss

# --- against lightly -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lambda_", [5e-3, 0.1])
@pytest.mark.parametrize("shape", [(64, 16), (16, 64)])
def test_barlow_twins_loss_equals_that_of_lightly(shape, lambda_):
    # Their batch normalisation adds 1e-5 to the variance, here about 1: a relative difference of 1e-5 in C.
    Z1, Z2 = (t(Z, torch.float32) for Z in views(*shape))
    theirs = lightly_loss("BarlowTwinsLoss")(lambda_param=lambda_)(Z1, Z2)
    assert float(barlow_twins_loss(Z1, Z2, lambda_=lambda_)) == pytest.approx(float(theirs), rel=2e-4)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(64, 16), (2, 3)])
def test_ntxent_loss_equals_that_of_lightly(shape, temperature):
    Z1, Z2 = (t(Z, torch.float32) for Z in views(*shape))
    theirs = lightly_loss("NTXentLoss")(temperature=temperature)(Z1, Z2)
    assert float(ntxent_loss(Z1, Z2, temperature=temperature)) == pytest.approx(float(theirs), rel=1e-6)


# --- closed forms --------------------------------------------------------------------------------------------


def test_losses_with_a_zero_reach_it_exactly():
    identity = torch.eye(5, dtype=torch.float64)
    assert spectral_contrastive_loss(identity, 3 * identity) == 0
    hadamard = t([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    assert barlow_twins_loss(hadamard, hadamard, center=False) == 0
    assert barlow_twins_loss(hadamard[:, 1:], 2 * hadamard[:, 1:] + 1) == 0


@pytest.mark.parametrize("n", [1, 2, 7])
def test_collapsed_views_have_closed_forms(n):
    same = torch.ones(n, 3, dtype=torch.float64)
    close(spectral_contrastive_loss(same, same, lambda_=2.0), 2 * n * (n - 1), 1e-12)
    close(infonce_loss(same, same), math.log(n), 1e-14)
    close(ntxent_loss(same, same), math.log(2 * n - 1), 1e-14)
    close(barlow_twins_loss(same, same, lambda_=0.1), 3.0, 0.0)  # constant columns: C = 0
    close(barlow_twins_loss(same, same, lambda_=0.1, center=False), 0.1 * 6, 1e-14)


def test_opposite_views_have_closed_forms():
    identity = torch.eye(4, dtype=torch.float64)
    close(spectral_contrastive_loss(identity, -identity), 16.0, 1e-14)
    close(infonce_loss(identity, -identity), math.log(math.exp(-1) + 3) + 1, 1e-14)
    close(ntxent_loss(identity, -identity, temperature=1.0), math.log(math.exp(-1) + 6) + 1, 1e-14)


def test_spectral_contrastive_loss_of_the_original_paper_is_this_one_over_the_batch_size():
    Z1, Z2 = map(t, views())
    a, b = (torch.nn.functional.normalize(Z, dim=1) for Z in (Z1, Z2))
    C, n = a @ b.T, len(a)
    averaged = 2 - 2 * C.diagonal().mean() + (C.square().sum() - C.diagonal().square().sum()) / (n * (n - 1))
    close(spectral_contrastive_loss(Z1, Z2, lambda_=1 / (n - 1)) / n, averaged, 1e-14)


# --- invariances ---------------------------------------------------------------------------------------------


@given(seed=matrices.seeds)
def test_barlow_twins_loss_depends_neither_on_the_scale_nor_on_the_mean_of_a_feature(seed):
    Z1, Z2 = views()
    rng = np.random.default_rng(seed)
    scales, means = 10.0 ** rng.uniform(-2, 2, (2, 1, 5)), rng.uniform(-3, 3, (2, 1, 5))
    value = float(barlow_twins_loss(t(Z1), t(Z2)))
    close(barlow_twins_loss(t(scales[0] * Z1 + means[0]), t(scales[1] * Z2 + means[1])), value, 1e-9)


# --- gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1e-3, 1e-6])
@pytest.mark.parametrize("loss", [infonce_loss, ntxent_loss])
def test_loss_and_gradient_are_finite_at_low_temperature(loss, temperature):
    Z1, Z2 = (t(Z, torch.float32).requires_grad_() for Z in views())
    value = loss(Z1, Z2, temperature=temperature)
    assert value.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, (Z1, Z2)))


@pytest.mark.parametrize("center", [False, True])
def test_barlow_twins_loss_counts_a_constant_feature_as_uncorrelated(center):
    # float32 means leave round-off behind; normalised, that would be a random unit vector.
    Z = matrices.features(100, 3)
    Z[:, 1] = 0.1 if center else 0.0
    value = barlow_twins_loss(t(Z, torch.float32), t(Z, torch.float32), lambda_=1.0, center=center)
    others = oracles_losses.exact(Z[:, [0, 2]])
    close(value, 1 + oracles_losses.barlow_twins(others, others, lambda_=1.0, center=center), 1e-5)
