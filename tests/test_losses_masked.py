"""Losses of masked autoencoders: reconstruction, U-MAE uniformity, M-MAE coding rate."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles_losses
import pytest
import torch
from helpers import t
from hypothesis import given
from tolerances import approx, close, relative_error

from matinfo import tcr
from matinfo.losses import masked_reconstruction_loss, mmae_tcr_loss, patch_normalize, umae_uniformity_loss


def patches(seed=0, batch=3, length=7, pixels=12):
    rng = np.random.default_rng(seed)
    pred, target = rng.standard_normal((2, batch, length, pixels))
    mask = (rng.random((batch, length)) < 0.6).astype(np.float64)
    mask[0, 0], mask[0, 1] = 1.0, 0.0
    return pred, target, mask


# --- against the definition ----------------------------------------------------------------------------------


def test_patch_normalize_equals_its_definition():
    _, target, _ = patches()
    expected = oracles_losses.patch_normalize(oracles_losses.exact(target))
    assert relative_error(patch_normalize(t(target)), expected) < 1e-14


# --- closed forms --------------------------------------------------------------------------------------------


def test_masked_reconstruction_loss_of_a_perfect_prediction_is_zero():
    _, target, mask = patches()
    assert masked_reconstruction_loss(patch_normalize(t(target)), t(target), t(mask)).item() == 0.0


def test_masked_reconstruction_loss_averages_over_all_masked_patches_at_once():
    # Two images with 1 and 3 masked patches and errors 1 and 4 per pixel: (1 + 3*4) / 4, not the mean of means 2.5.
    pred, target = torch.zeros(2, 4, 5), torch.ones(2, 4, 5)
    target[1] = 2.0
    mask = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0]])
    close(masked_reconstruction_loss(pred, target, mask, norm_pix=False), 13 / 4, 1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32])
def test_masked_reconstruction_loss_accepts_a_mask_of_any_dtype(dtype):
    pred, target, mask = map(t, patches())
    close(
        masked_reconstruction_loss(pred, target, mask.to(dtype)),
        masked_reconstruction_loss(pred, target, mask),
        1e-15,
    )


def test_patch_normalize_of_a_constant_patch_is_zero_and_finite():
    assert torch.equal(patch_normalize(torch.full((1, 2, 5), 0.7)), torch.zeros(1, 2, 5))


def test_patch_normalize_uses_the_unbiased_variance():
    # (-1, 1): unbiased variance 2, biased 1.
    close(patch_normalize(t([[[-1.0, 1.0]]]))[0, 0, 1], 1 / math.sqrt(2 + 1e-6), 1e-15)


def test_umae_uniformity_loss_of_orthogonal_features_is_closed_form():
    F = 2.0 * torch.eye(5, dtype=torch.float64)
    close(umae_uniformity_loss(F, form="code"), 1 / 5, 1e-15)
    close(umae_uniformity_loss(F, form="paper"), 0.0, 1e-15)


def test_umae_uniformity_loss_of_collapsed_features_is_closed_form():
    F = torch.ones(5, 3, dtype=torch.float64)
    close(umae_uniformity_loss(F, form="code"), 1.0, 1e-14)
    close(umae_uniformity_loss(F, form="paper"), 20.0, 1e-13)


def test_mmae_tcr_loss_of_collapsed_features_is_closed_form():
    # Range of the released code: log(1 + mu B / d) collapsed ... d log(1 + mu B / d^2) isotropic.
    F = torch.ones(1024, 768, dtype=torch.float64)
    close(mmae_tcr_loss(F), -math.log(1 + 1024 / 768), 1e-12)
    close(mmae_tcr_loss(F, centering=True), 0.0, 1e-12)


def test_mmae_tcr_loss_of_isotropic_features_is_closed_form():
    F = torch.eye(6, dtype=torch.float64).repeat(3, 1)
    close(mmae_tcr_loss(F, mu=2.0), -6 * math.log(1 + 2 * 18 / 36), 1e-13)
    close(mmae_tcr_loss(F, mu=2.0, scale="paper"), -6 * math.log(2 + 3), 1e-13)


# --- identities ----------------------------------------------------------------------------------------------


@given(matrices.feature_matrices())
def test_mmae_paper_scale_is_minus_tcr_of_the_unit_rows(F):
    close(mmae_tcr_loss(t(F), mu=0.5, scale="paper"), -tcr(t(F), 0.5, normalize=True), 1e-11)


@given(matrices.feature_matrices())
def test_umae_forms_differ_by_the_diagonal(F):
    n, rows = len(F), int(F.any(axis=1).sum())
    code, paper = (float(umae_uniformity_loss(t(F), form=form)) for form in ("code", "paper"))
    close(code * n * n, paper + rows, 1e-11)  # a zero row has no diagonal term


# --- routes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["code", "paper"])
@pytest.mark.parametrize("shape", [(16, 64), (64, 16)])
def test_mmae_tcr_loss_works_on_the_smaller_side(shape, scale):
    from matinfo import explain

    with explain() as log:
        mmae_tcr_loss(torch.randn(*shape), scale=scale)
    assert [step.size for step in log.steps] == [16]


# --- gradients -----------------------------------------------------------------------------------------------


def test_masked_reconstruction_loss_gradient_is_zero_on_visible_patches():
    pred, target, mask = map(t, patches(batch=2, length=3, pixels=4))
    pred.requires_grad_()
    (gradient,) = torch.autograd.grad(masked_reconstruction_loss(pred, target, mask), pred)
    assert (gradient[mask == 0] == 0).all()


@pytest.mark.parametrize(("batch", "width"), [(768, 1024), (1024, 768)])
def test_mmae_tcr_loss_keeps_its_digits_at_the_sizes_of_the_paper(batch, width):
    # d log(d/mu) - log det((d/mu) I + G) subtracts numbers near 5000 to get one near 1.
    F = torch.randn(batch, width)
    exact = F.double().requires_grad_()
    F.requires_grad_()
    value, expected = mmae_tcr_loss(F), mmae_tcr_loss(exact)
    assert value.item() == approx(expected.item(), rel=1e-6)
    gradients = torch.autograd.grad(value, F) + torch.autograd.grad(expected, exact)
    # The rows' normalisation projects the gradient: what is left is small against its radial part.
    assert relative_error(*gradients) < 1e-5


# --- precision -----------------------------------------------------------------------------------------------


def test_masked_reconstruction_loss_of_half_precision_predictions_accumulates_in_float32():
    pred, target = torch.zeros(64, 196, 48, dtype=torch.bfloat16), torch.ones(64, 196, 48)
    value = masked_reconstruction_loss(pred, target, torch.ones(64, 196), norm_pix=False)
    assert value.dtype == torch.float32
    close(value, 1.0, 1e-6)


# --- errors --------------------------------------------------------------------------------------------------


def test_masked_reconstruction_loss_rejects_a_mask_without_masked_patches():
    pred, target, _ = map(t, patches())
    with pytest.raises(ValueError, match="mask"):
        masked_reconstruction_loss(pred, target, torch.zeros(3, 7))


def test_masked_reconstruction_loss_names_the_shapes_that_do_not_match():
    pred, target, mask = map(t, patches())
    with pytest.raises(ValueError, match=r"\(3, 7, 11\).*\(3, 7, 12\)"):
        masked_reconstruction_loss(pred[..., :11], target, mask)
    with pytest.raises(ValueError, match=r"mask.*\(3, 6\)"):
        masked_reconstruction_loss(pred, target, mask[:, :6])


def test_a_mask_with_negative_numbers_is_refused():
    with pytest.raises(ValueError, match="mask of 0 and 1"):
        masked_reconstruction_loss(torch.zeros(1, 2, 3), torch.ones(1, 2, 3), torch.tensor([[-1, 0]]))
