"""Every loss that can be read as one of two views, in each of its forms: derivatives, and features that are hard."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from helpers import t
from hypothesis import given
from matrices import DEGENERATE, features, orthogonal, seeds, views
from tolerances import EPS32, close
from torch.autograd import gradcheck, gradgradcheck

from matinfo.losses import (
    barlow_twins_loss,
    byol_loss,
    club_loss,
    emp_ssl_loss,
    er_loss,
    gaussian_nll,
    infonce_loss,
    mask_infonce_loss,
    matrix_ssl_loss,
    mcr2_loss,
    mec_loss,
    ntxent_loss,
    simsiam_loss,
    spectral_contrastive_loss,
    sphere_entropy,
    sphere_reconstruction,
    vicreg_loss,
    vne_loss,
)


def log_variance(Z):
    """Bounded, as of a network that ends with a tanh."""
    return torch.arange(Z.numel(), dtype=Z.dtype).reshape(Z.shape).sin()


LOSSES = {
    "barlow_twins": barlow_twins_loss,
    "barlow_twins_uncentred": lambda a, b: barlow_twins_loss(a, b, center=False),
    "vicreg": vicreg_loss,
    "vicreg_paper": lambda a, b: vicreg_loss(a, b, form="paper"),
    "spectral_contrastive": spectral_contrastive_loss,
    "infonce": infonce_loss,
    "ntxent": ntxent_loss,
    "byol": lambda a, b: byol_loss(a, a.flip(-1), b, b),
    "simsiam": lambda a, b: simsiam_loss(a, a.flip(-1), b, b),
    "mcr2": lambda a, b: mcr2_loss(a, torch.arange(len(a)) % 3),
    "vne": lambda a, b: vne_loss(a),
    "emp_ssl": lambda a, b: emp_ssl_loss(torch.stack([a, b], -3)),
    "mec": mec_loss,
    "mec_paper": lambda a, b: mec_loss(a, b, eps2=2.0, scale="paper"),
    "mec_continued": lambda a, b: mec_loss(a, b, eps2=0.1),
    "mec_taylor": lambda a, b: mec_loss(a, b, taylor=4),
    "matrix_ssl": matrix_ssl_loss,
    "matrix_ssl_paper": lambda a, b: matrix_ssl_loss(a, b, form="paper", mu=0.1),
    "matrix_ssl_continued": lambda a, b: matrix_ssl_loss(a, b, form="paper", mu=0.02),
    "matrix_ssl_taylor": lambda a, b: matrix_ssl_loss(a, b, taylor=4),
    "sphere_entropy": lambda a, b: sphere_entropy(b),
    "sphere_entropy_expectation": lambda a, b: sphere_entropy(b, reduction="expectation"),
    "sphere_reconstruction": sphere_reconstruction,
    "er": er_loss,
    "er_expectation": lambda a, b: er_loss(a, b, reduction="expectation"),
    "gaussian_nll": lambda a, b: gaussian_nll(a, log_variance(a), b),
    "club": lambda a, b: club_loss(a, log_variance(a), b),
    "mask_infonce": lambda a, b: mask_infonce_loss(torch.stack([a, b, 2 * b])),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def gradients(name, *pair):
    """The value, and gradients of the views that get one: not of teachers and targets."""
    value = LOSSES[name](*pair)
    found = torch.autograd.grad(value, pair, allow_unused=True)
    assert any(gradient is not None for gradient in found)
    return value, found


@every_loss
def test_loss_derivatives_are_exact(name):
    # Views that agree little, so that the continued logarithms are reached.
    pair = [t(Z).requires_grad_() for Z in views(5, 3, noise=2.0)]
    for view, gradient in zip(pair, gradients(name, *pair)[1], strict=True):
        view.requires_grad_(gradient is not None)
    assert gradcheck(LOSSES[name], pair)
    assert gradgradcheck(LOSSES[name], pair)


# Not of unit rows, or with labels and columns in an order of their own.
OTHERS = re.compile("barlow|vicreg|gaussian|club|byol|simsiam|mcr2")


@pytest.mark.parametrize("name", [name for name in LOSSES if not OTHERS.match(name)])
@given(seed=seeds)
def test_loss_depends_neither_on_order_nor_lengths_nor_basis(name, seed):
    pair, rng = views(), np.random.default_rng(seed)
    lengths, order, Q = 10.0 ** rng.uniform(-3, 3, (2, 8, 1)), rng.permutation(8), orthogonal(5, seed)
    value = float(LOSSES[name](*map(t, pair)))
    moved = [t((length * Z)[order] @ Q) for length, Z in zip(lengths, pair, strict=True)]
    close(LOSSES[name](*moved), value, 1e-12 * (1 + abs(value)))


# VICReg has squares of squares, and no variance of one sample; the sphere of one feature is two points.
UNDEFINED = [(name, case) for name in ("vicreg", "vicreg_paper") for case in ("huge", "one_sample")]
UNDEFINED += [(name, "one_feature") for name in LOSSES if name.startswith("sphere")]


@pytest.mark.parametrize(
    ("name", "case"), [(n, c) for n in LOSSES for c in DEGENERATE if (n, c) not in UNDEFINED]
)
def test_loss_and_gradient_are_finite_on_hard_features(name, case):
    generic = features(*DEGENERATE[case].shape, 9)
    for dtype in (torch.float32, torch.float64):
        for other in (DEGENERATE[case], -DEGENERATE[case], generic):
            for pair in ((DEGENERATE[case], other), (other, DEGENERATE[case])):
                value, found = gradients(name, *[t(Z, dtype).requires_grad_() for Z in pair])
                assert value.isfinite()
                assert all(gradient.isfinite().all() for gradient in found if gradient is not None)


@every_loss
def test_loss_of_float32_features_is_correct_to_float32_rounding(name):
    pair = [t(Z, torch.float32) for Z in views(64, 32)]
    expected = float(LOSSES[name](*(Z.double() for Z in pair)))
    close(LOSSES[name](*pair), expected, 32 * EPS32 * (1 + abs(expected)))


@pytest.mark.parametrize(
    "loss",
    [barlow_twins_loss, vicreg_loss, spectral_contrastive_loss, infonce_loss, ntxent_loss, mec_loss, matrix_ssl_loss,
     sphere_reconstruction, er_loss],
)  # fmt: skip
def test_losses_name_the_shapes_that_do_not_match(loss):
    with pytest.raises(ValueError, match=r"features1 and features2.*\(4, 3\).*\(4, 2\)"):
        loss(torch.randn(4, 3), torch.randn(4, 2))
