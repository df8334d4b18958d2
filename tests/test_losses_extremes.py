"""Losses at the ends of their number format: a right number or infinity for finite input, never NaN."""

from __future__ import annotations

import math

import matrices
import numpy as np
import pytest
import torch
from contract_cases import ALL_CASES, LOSSES, tensors
from helpers import t
from tolerances import approx

from matinfo.losses import (
    barlow_twins_loss,
    club_loss,
    dino_loss,
    er_loss,
    gaussian_nll,
    infonce_loss,
    masked_reconstruction_loss,
    ntxent_loss,
    patch_normalize,
)

INF = math.inf
# These grow with their input: documented to be infinite where the dtype ends.
GROWING = {
    "vicreg_loss",
    "masked_reconstruction_loss",
    "gaussian_nll",
    "dino_loss",
    "deepcluster_loss",
    "swav_loss",
    "corinfomax_loss",
}


SCALES = (1e-300, 1e-45, 1e-38, 1e-20, 1e9, 1e20, 1e38, 3e38, 1e155, 1e300)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name", [name for name in LOSSES if name != "club_loss"]
)  # a difference of three: below
def test_loss_and_gradient_are_never_nan_at_any_scale(name, dtype, scale):
    largest = torch.finfo(dtype).max
    arguments = [
        (x / x.abs().max() * scale).clamp(-largest, largest).to(dtype).requires_grad_() for x in tensors(name)
    ]
    value = ALL_CASES[name](*arguments)
    assert not value.isnan()
    if not value.isfinite():
        assert name in GROWING
        assert scale > 1e8
        return
    for gradient in torch.autograd.grad(value, arguments):
        assert not gradient.isnan().any()


@pytest.mark.parametrize("s", [-1e3, -1e4, -1e38])
def test_gaussian_nll_of_a_perfect_prediction_is_half_its_log_variance(s):
    mean = torch.ones(3, 2, requires_grad=True)
    log_variance = torch.full((3, 2), s, requires_grad=True)
    value = gaussian_nll(mean, log_variance, torch.ones(3, 2))
    assert value.item() == approx(s + math.log(2 * math.pi), rel=1e-6)
    gradients = torch.autograd.grad(value, (mean, log_variance))
    assert torch.equal(gradients[0], torch.zeros(3, 2))
    assert (gradients[1] - 1 / 6).abs().max() < 1e-7


def test_gaussian_nll_of_a_wrong_certainty_is_infinite_and_pushes_the_log_variance_up():
    log_variance = torch.full((3, 2), -1e4, requires_grad=True)
    value = gaussian_nll(torch.zeros(3, 2), log_variance, torch.ones(3, 2))
    assert value == INF
    assert (torch.autograd.grad(value, log_variance)[0] == -INF).all()


@pytest.mark.parametrize("s", [-50.0, -600.0, -1e4])
def test_club_loss_at_low_log_variances_has_the_sign_of_its_distances(s):
    h = t(matrices.features(5, 2)).requires_grad_()
    own, others = club_loss(h, torch.full_like(h, s), h), club_loss(h.flip(0), torch.full_like(h, s), h)
    assert own > 0
    assert not others.isnan()
    assert not torch.autograd.grad(own, h)[0].isnan().any()
    if s > -100:
        assert own.item() == approx(math.exp(-s) * club_loss(h, torch.zeros_like(h), h).item(), rel=1e-13)
    same = torch.ones(4, 2)
    assert club_loss(same, torch.full((4, 2), s), same) == 0


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_club_loss_and_gradient_are_never_nan_at_any_scale(dtype, scale):
    largest = torch.finfo(dtype).max
    m, s, h = ((x / x.abs().max() * scale).clamp(-largest, largest).to(dtype) for x in tensors("club_loss"))
    value = club_loss(m, s, h.requires_grad_())
    assert not value.isnan()
    if value.isfinite():
        assert not torch.autograd.grad(value, h)[0].isnan().any()


def test_club_loss_of_large_targets_is_that_of_scaled_ones():
    m, s, h = (t(matrices.features(5, 3, seed)) for seed in range(3))
    expected = club_loss(m, s, h).item()
    assert club_loss(1e150 * m, s, 1e150 * h).item() == approx(1e300 * expected, rel=1e-13)
    assert club_loss((1e30 * m).float(), s.float(), (1e30 * h).float()).isinf()


@pytest.mark.parametrize("argument", range(3))
def test_losses_of_lists_name_the_type(argument):
    rows = [torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 2)]
    rows[argument] = [[1.0, 1.0], [1.0, 1.0]]
    for loss in (club_loss, gaussian_nll):
        with pytest.raises(TypeError, match=r"Expected .* to be a torch.Tensor or a NumPy array, got list"):
            loss(*rows)
    with pytest.raises(TypeError, match="mask to be a torch.Tensor or a NumPy array, got list"):
        masked_reconstruction_loss(torch.ones(1, 2, 3), torch.ones(1, 2, 3), [[1, 0]])


@pytest.mark.parametrize("value", [1e20, 3e38, -INF, math.nan])
@pytest.mark.parametrize("norm_pix", [False, True])
def test_masked_reconstruction_loss_does_not_look_at_visible_patches(value, norm_pix):
    rng = np.random.default_rng(0)
    pred, target = (t(rng.standard_normal((2, 3, 4)), torch.float32) for _ in range(2))
    mask = torch.tensor([[1, 0, 1], [0, 1, 0]])
    expected = masked_reconstruction_loss(pred, target, mask, norm_pix=norm_pix)
    spoiled = [torch.where((mask == 0)[..., None], value, x).requires_grad_() for x in (pred, target)]
    found = masked_reconstruction_loss(*spoiled, mask, norm_pix=norm_pix)
    assert torch.equal(found, expected)
    for gradient in torch.autograd.grad(found, spoiled[:1]):
        assert (gradient[mask == 0] == 0).all()


@pytest.mark.parametrize("scale", [1e15, 1e20, 3e38])
def test_patch_normalize_of_large_pixels_is_that_of_small_ones(scale):
    patch = torch.tensor([[[0.1, -0.4, 1.0], [1.0, 1.0, 1.0]]])
    expected = patch_normalize(1e3 * patch)
    assert (patch_normalize(scale * patch) - expected).abs().max() < 1e-6


def test_barlow_twins_loss_does_not_depend_on_scale_up_to_the_largest_number():
    a, b = (t(matrices.features(9, 4, seed)) for seed in range(2))
    expected = barlow_twins_loss(a, b).item()
    a, b = ((x / x.abs().max()).float() for x in (a, b))
    for center in (True, False):
        expected = barlow_twins_loss(a, b, center=center).item()
        found = barlow_twins_loss(3e38 * a, 1e-30 * b, center=center)
        assert found.item() == approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [infonce_loss, ntxent_loss])
def test_contrastive_loss_is_not_nan_at_the_smallest_temperature(loss):
    Z = torch.eye(4)
    assert loss(Z, Z, temperature=5e-324) == 0
    assert loss(Z, Z.roll(1, 0), temperature=5e-324) > 1e37


def test_dino_loss_is_finite_where_teacher_and_centre_are_far_apart():
    outputs = torch.full((2, 3, 4), 3e38)
    assert dino_loss(outputs, outputs, torch.full((4,), -3e38)).item() == approx(math.log(4), rel=1e-6)


def test_er_loss_refuses_concentrations_that_overflow():
    with pytest.raises(ValueError, match="kappa <= 1e\\+10"):
        er_loss(torch.eye(3), torch.eye(3), kappa=1e300)
