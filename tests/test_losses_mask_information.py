"""Losses of mutual information: InfoNCE between masks, Gaussian likelihood and CLUB, DiME's loss."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles_losses
import pytest
import torch
from helpers import t
from tolerances import approx, close

from matinfo import Gram
from matinfo.losses import club_loss, dime_loss, gaussian_nll, mask_infonce_loss


def gaussian(n=7, d=3, seed=0):
    """Means, log-variances and targets."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), 0.7 * rng.standard_normal((n, d)), 1.5 * rng.standard_normal((n, d))


def masked_views(masks=3, n=6, d=4, seed=0):
    return np.random.default_rng(seed).standard_normal((masks, n, d)) + 0.3


# --- against the definitions ---------------------------------------------------------------------------------


def test_dime_loss_takes_grams_and_refuses_batches():
    grams = [Gram(matrices.features(6, 3, seed), normalize=True) for seed in (0, 1)]
    assert isinstance(dime_loss(*grams), np.float64)
    with pytest.raises(ValueError, match=r"K1 to be one matrix, got .*-matinfo.dime"):
        dime_loss(Gram(t(masked_views(2))), Gram(t(masked_views(2, seed=1))))


# --- closed forms and meaning --------------------------------------------------------------------------------


def test_identical_latents_have_closed_forms():
    close(mask_infonce_loss(torch.ones(4, 8, 3)), math.log(8), 1e-6)
    identity = torch.eye(5, dtype=torch.float64).expand(3, 5, 5)
    close(mask_infonce_loss(identity), math.log(1 + 4 * math.exp(-10)), 1e-14)


def test_club_loss_of_independent_targets_is_zero_and_of_equal_ones_too():
    m, s, h = map(t, gaussian())
    same = m[:1].expand_as(m), s[:1].expand_as(s)
    close(club_loss(*same, h), 0.0, 1e-14)  # q does not depend on x: nothing is known of it
    close(club_loss(m, s, h[:1].expand_as(h)), 0.0, 1e-14)  # collapsed targets say nothing


def test_club_loss_bounds_the_information_of_a_gaussian_channel_from_above():
    # h = x + noise with the true conditional: I = log(1 + 1/0.25)/2 nats, and CLUB is 1/0.25 = 4 in expectation.
    source = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, generator=source, dtype=torch.float64)
    h = x + 0.5 * torch.randn(20_000, 1, generator=source, dtype=torch.float64)
    value = float(club_loss(x, torch.full_like(x, math.log(0.25)), h))
    assert value == approx(4.0, rel=0.05)
    assert value > math.log(5) / 2


def test_fitting_q_lowers_the_likelihood_loss_to_the_entropy_of_the_noise():
    # The least expected value of -log q is the conditional entropy, log(2 pi e 0.25)/2.
    source = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, generator=source, dtype=torch.float64)
    h = x + 0.5 * torch.randn(20_000, 1, generator=source, dtype=torch.float64)
    entropy = math.log(2 * math.pi * math.e * 0.25) / 2
    best = float(gaussian_nll(x, torch.full_like(x, math.log(0.25)), h))
    assert best == approx(entropy, rel=0.02)
    assert gaussian_nll(x, torch.full_like(x, math.log(0.5)), h) > best
    assert gaussian_nll(0.7 * x, torch.full_like(x, math.log(0.25)), h) > best


# --- gradients -----------------------------------------------------------------------------------------------


def test_club_loss_lets_every_target_feel_the_others():
    # The negatives of sample 0 are the targets of the whole batch: -d/dh_j mean_j log q(h_j | x_0) = (h_j - m_0)/n^2.
    m, _, h = map(t, gaussian())
    h.requires_grad_()
    log_variance = torch.full_like(h, 50.0)  # only sample 0 has a conditional worth the name
    log_variance[0] = 0.0
    (gradient,) = torch.autograd.grad(club_loss(m, log_variance, h), h)
    assert (gradient[1:] - (h[1:] - m[0]) / 49).abs().max() < 1e-14


def test_club_loss_keeps_its_digits_far_from_zero():
    # Written as a difference of mean squares it would lose all of them: 1e4^2 has a float32 spacing of 8.
    m, s, h = gaussian(64, 4)
    expected = float(oracles_losses.club(*map(oracles_losses.exact, (m, s, h)))[0])
    shifted = [t(x, torch.float32) for x in (m + 1e4, s, h + 1e4)]
    rounded = float(oracles_losses.club(*map(oracles_losses.exact, shifted))[0])
    assert rounded == approx(expected, rel=1e-2)
    assert float(club_loss(*shifted)) == approx(rounded, rel=1e-3)


# --- errors --------------------------------------------------------------------------------------------------


def test_mask_infonce_loss_rejects_what_is_not_several_views():
    with pytest.raises(ValueError, match=r"views of shape.*\(4, 3\).*torch\.stack"):
        mask_infonce_loss(torch.randn(4, 3))
    with pytest.raises(ValueError, match="at least 2 views"):
        mask_infonce_loss(torch.randn(1, 4, 3))


@pytest.mark.parametrize("loss", [gaussian_nll, club_loss])
def test_gaussian_losses_name_the_argument_at_fault(loss):
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"mean and log_variance.*\(4, 3\).*\(4, 2\)"):
        loss(x, x[:, :2], x)
    with pytest.raises(ValueError, match=r"mean and targets.*\(4, 3\).*\(3, 3\)"):
        loss(x, x, x[:3])
