"""VICReg. (Barlow Twins is in test_losses_siamese.py.)"""

from __future__ import annotations

import math

import matrices
import numpy as np
import pytest
import torch
from helpers import lightly_loss, t
from hypothesis import given
from hypothesis import strategies as st
from tolerances import EPS32, close

from matinfo.losses import vicreg_loss

FORMS = ("paper", "code")
every_form = pytest.mark.parametrize("form", FORMS)


def views(n=8, d=5, noise=0.5, seed=0, scale=0.6):
    """Standard deviations on both sides of the hinge's kink at 1, and a mean."""
    first = scale * matrices.features(n, d, seed) * np.linspace(0.5, 2.5, d) + 0.3
    return first, first + noise * matrices.features(n, d, seed + 1)


# --- against lightly -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 16), (16, 64)])
def test_vicreg_loss_equals_that_of_lightly_which_halves_the_hinges(shape):
    Z1, Z2 = map(t, views(*shape))
    theirs = float(lightly_loss("VICRegLoss")()(Z1, Z2))
    close(vicreg_loss(Z1, Z2, form="code"), theirs, 1e-13 * theirs)
    doubled = float(lightly_loss("VICRegLoss")(mu_param=50.0)(Z1, Z2))
    close(vicreg_loss(Z1, Z2, form="paper"), doubled, 1e-13 * doubled)
    assert doubled - theirs > 0.1


# --- closed forms ----------------------------------------------------------------------------------------------


@every_form
def test_vicreg_loss_is_zero_for_equal_uncorrelated_views_of_variance_one(form):
    columns = t([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])  # orthogonal, of mean 0, variance 4/3
    assert vicreg_loss(columns + 5, columns + 5, form=form) == 0


def test_collapsed_views_have_closed_forms():
    same = torch.full((6, 3), 0.7, dtype=torch.float64)
    close(vicreg_loss(same, same), 25 * 2 * 0.99, 1e-13)
    close(vicreg_loss(same, same, form="code"), 25 * 0.99, 1e-13)
    close(vicreg_loss(same, same + 2), 25 * 2 * 0.99 + 25 * 4, 1e-12)


def test_redundant_views_have_a_closed_form():
    column = t([[1.0], [-1.0], [1.0], [-1.0]])  # variance 4/3
    same = column.expand(4, 5)
    close(vicreg_loss(same, same, covariance=0.5), 0.5 * 2 * 4 * (4 / 3) ** 2, 1e-13)


# --- invariances -----------------------------------------------------------------------------------------------


@every_form
@given(seed=matrices.seeds, shift=st.floats(-10, 10))
def test_vicreg_loss_does_not_depend_on_order_signs_or_a_common_shift(form, seed, shift):
    Z1, Z2 = views(seed=seed % 1000)
    rng = np.random.default_rng(seed)
    rows, columns, signs = rng.permutation(8), rng.permutation(5), rng.choice([-1.0, 1.0], 5)
    value = float(vicreg_loss(t(Z1), t(Z2), form=form))
    close(vicreg_loss(t(Z2), t(Z1), form=form), value, 1e-13 * (1 + value))
    moved = [(signs * Z + shift)[rows][:, columns] for Z in (Z1, Z2)]
    close(vicreg_loss(t(moved[0]), t(moved[1]), form=form), value, 1e-12 * (1 + value))


# --- gradients -------------------------------------------------------------------------------------------------


def test_vicreg_loss_has_no_gradient_at_collapse():
    same = torch.full((6, 3), 0.7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(vicreg_loss(same, same), same)
    assert gradient.abs().max() < 1e-12


def test_vicreg_loss_of_large_features_is_as_good_as_float64():
    # Above 1e4 the covariance is formed from scaled features.
    Z1, Z2 = (t(1e6 * Z, torch.float32) for Z in views(32, 16))
    expected = float(vicreg_loss(Z1.double(), Z2.double()))
    close(vicreg_loss(Z1, Z2), expected, 64 * EPS32 * expected)


@pytest.mark.parametrize("size", [1e12, 1e18, 1e37])
def test_vicreg_loss_beyond_the_range_of_float32_is_infinite_not_nan(size):
    # The covariance term is of the fourth power: about 1e72 at 1e18, which float32 does not have.
    Z1, Z2 = views()
    assert vicreg_loss(t(size * Z1, torch.float32), t(size * Z2, torch.float32)) == math.inf
    assert vicreg_loss(t(size * Z1), t(size * Z2)).isfinite()


# --- errors ----------------------------------------------------------------------------------------------------


def test_vicreg_loss_rejects_one_sample_which_has_no_variance():
    with pytest.raises(ValueError, match="features1 to have at least 2 rows"):
        vicreg_loss(torch.randn(1, 3), torch.randn(1, 3))
