"""Losses of masked autoencoders: reconstruction, U-MAE uniformity, M-MAE coding rate."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from hypothesis import given
from hypothesis import strategies as st
from tolerances import EPS32, approx, close, relative_error
from torch.autograd import gradcheck, gradgradcheck

from matinfo import tcr
from matinfo.losses import masked_reconstruction_loss, mmae_tcr_loss, patch_normalize, umae_uniformity_loss

SHAPES = ((12, 5), (5, 12), (6, 6))


def patches(seed=0, batch=3, length=7, pixels=12):
    rng = np.random.default_rng(seed)
    pred, target = rng.standard_normal((2, batch, length, pixels))
    mask = (rng.random((batch, length)) < 0.6).astype(np.float64)
    mask[0, 0], mask[0, 1] = 1.0, 0.0
    return pred, target, mask


# --- against the definition ----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_pix", [True, False])
def test_masked_reconstruction_loss_equals_its_definition(norm_pix):
    pred, target, mask = patches()
    expected = oracles.masked_reconstruction_loss(pred, target, mask, norm_pix=norm_pix)
    close(masked_reconstruction_loss(t(pred), t(target), t(mask), norm_pix=norm_pix), expected, 1e-14)


def test_masked_reconstruction_loss_normalises_the_target_by_default():
    pred, target, mask = map(t, patches())
    value = masked_reconstruction_loss(pred, target, mask)
    close(value, masked_reconstruction_loss(pred, target, mask, norm_pix=True), 0.0)
    close(value, masked_reconstruction_loss(pred, patch_normalize(target), mask, norm_pix=False), 1e-15)


def test_patch_normalize_equals_its_definition():
    _, target, _ = patches()
    assert relative_error(patch_normalize(t(target)), oracles.patch_normalize(target)) < 1e-14


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("shape", SHAPES)
def test_umae_uniformity_loss_equals_its_definition(shape, form):
    F = 3.0 * matrices.features(*shape)
    expected = oracles.umae_uniformity_loss(F, form=form)
    assert umae_uniformity_loss(t(F), form=form).item() == approx(expected, rel=1e-13)


@pytest.mark.parametrize("mu", [0.1, 1.0, 3.0, 768.0])
@pytest.mark.parametrize("centering", [False, True])
@pytest.mark.parametrize("scale", ["code", "paper"])
@pytest.mark.parametrize("shape", SHAPES)
def test_mmae_tcr_loss_equals_its_definition(shape, scale, centering, mu):
    F = 3.0 * matrices.features(*shape) + 0.5
    expected = float(oracles.mmae_tcr_loss_mp(F, mu, scale=scale, centering=centering))
    assert mmae_tcr_loss(t(F), mu=mu, scale=scale, centering=centering).item() == approx(expected, rel=1e-12)


def test_mmae_and_umae_losses_default_to_the_released_code():
    F = matrices.features(7, 4)
    close(mmae_tcr_loss(t(F)), oracles.mmae_tcr_loss_mp(F, 1.0, scale="code"), 1e-13)
    close(umae_uniformity_loss(t(F)), oracles.umae_uniformity_loss(F, form="code"), 1e-14)


def test_losses_of_float32_features_are_correct_to_float32_rounding():
    F = matrices.features(64, 16).astype(np.float32)
    for value, expected in (
        (mmae_tcr_loss(torch.as_tensor(F)), float(oracles.mmae_tcr_loss_mp(F))),
        (umae_uniformity_loss(torch.as_tensor(F)), oracles.umae_uniformity_loss(F)),
    ):
        assert value.dtype == torch.float32
        assert value.item() == approx(expected, rel=16 * EPS32)


# --- closed forms --------------------------------------------------------------------------------------------


def test_masked_reconstruction_loss_of_a_perfect_prediction_is_zero():
    _, target, mask = patches()
    assert masked_reconstruction_loss(patch_normalize(t(target)), t(target), t(mask)).item() == 0.0


def test_masked_reconstruction_loss_ignores_visible_patches():
    pred, target, mask = map(t, patches())
    garbage = torch.where(mask[..., None] == 1, pred, 1e6)
    close(
        masked_reconstruction_loss(garbage, target, mask),
        masked_reconstruction_loss(pred, target, mask),
        1e-14,
    )


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


@given(matrices.feature_matrices(), matrices.seeds, st.sampled_from(["code", "paper"]), st.booleans())
def test_mmae_tcr_loss_does_not_depend_on_row_scale_order_or_basis(F, seed, scale, centering):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-3, 3, (len(F), 1))
    moved = (scales * F)[rng.permutation(len(F))] @ matrices.orthogonal(F.shape[1], seed)
    options = {"scale": scale, "centering": centering}
    close(mmae_tcr_loss(t(moved), **options), mmae_tcr_loss(t(F), **options), 1e-11)


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


def test_masked_reconstruction_loss_gradient_is_exact_and_zero_on_visible_patches():
    pred, target, mask = map(t, patches(batch=2, length=3, pixels=4))
    pred.requires_grad_()
    assert gradcheck(lambda p: masked_reconstruction_loss(p, target, mask), (pred,))
    (gradient,) = torch.autograd.grad(masked_reconstruction_loss(pred, target, mask), pred)
    assert (gradient[mask == 0] == 0).all()


@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
@pytest.mark.parametrize("form", ["code", "paper"])
def test_umae_uniformity_loss_derivatives_are_exact(shape, form):
    F = t(matrices.features(*shape)).requires_grad_()
    assert gradcheck(lambda F: umae_uniformity_loss(F, form=form), (F,))
    assert gradgradcheck(lambda F: umae_uniformity_loss(F, form=form), (F,))


@pytest.mark.parametrize("centering", [False, True])
@pytest.mark.parametrize("scale", ["code", "paper"])
@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_mmae_tcr_loss_derivatives_are_exact(shape, scale, centering):
    F = t(matrices.features(*shape)).requires_grad_()
    assert gradcheck(lambda F: mmae_tcr_loss(F, mu=2.0, scale=scale, centering=centering), (F,))
    assert gradgradcheck(lambda F: mmae_tcr_loss(F, mu=2.0, scale=scale, centering=centering), (F,))


@pytest.mark.parametrize("loss", [mmae_tcr_loss, umae_uniformity_loss])
def test_uniformity_gradient_is_finite_at_zero_rows_and_at_collapse(loss):
    dead = t(matrices.relu_features(6, 3, dead_rows=2)).requires_grad_()
    collapsed = torch.ones(6, 3, dtype=torch.float64).requires_grad_()
    for F in (dead, collapsed):
        value = loss(F)
        (gradient,) = torch.autograd.grad(value, F)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", [mmae_tcr_loss, umae_uniformity_loss])
def test_a_descent_step_on_a_uniformity_loss_spreads_the_features(loss):
    # lightly's EMP-SSL returns +TCR: minimising it collapses.
    F = t(matrices.collapsed_features(12, 6, clusters=2, noise=0.1)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(F), F)
    with torch.no_grad():
        assert tcr(F - 0.1 * gradient, normalize=True) > tcr(F, normalize=True)
        assert loss(F - 0.1 * gradient) < loss(F)


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


@pytest.mark.parametrize("mu", [0.0, -1.0, math.nan])
def test_mmae_tcr_loss_rejects_a_ridge_that_is_not_positive(mu):
    with pytest.raises(ValueError, match="mu"):
        mmae_tcr_loss(torch.randn(4, 3), mu=mu)


def test_uniformity_losses_list_the_choices_of_an_unknown_form():
    with pytest.raises(ValueError, match=r"scale.*code.*paper"):
        mmae_tcr_loss(torch.randn(4, 3), scale="other")
    with pytest.raises(ValueError, match=r"form.*code.*paper"):
        umae_uniformity_loss(torch.randn(4, 3), form="other")
