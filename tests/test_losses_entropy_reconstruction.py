"""The entropy-reconstruction bound: its constant, its terms on the sphere, its discrete form."""

from __future__ import annotations

import math

import matrices
import mpmath as mp
import numpy as np
import oracles_losses
import pytest
import torch
from helpers import t
from hypothesis import given
from hypothesis import strategies as st
from matrices import views
from tolerances import approx, close, relative_error

from matinfo.losses import (
    discrete_er_loss,
    er_loss,
    sphere_entropy,
    sphere_reconstruction,
    vmf_log_normalizer,
)

reductions = pytest.mark.parametrize("reduction", ["average", "expectation"])


def assignments(n=7, k=4, sharpness=2.0, seed=0):
    logits = sharpness * np.random.default_rng(seed).standard_normal((2, n, k))
    p = np.exp(logits)
    return p / p.sum(-1, keepdims=True)


# --- definitions ---------------------------------------------------------------------------------------------


def published_log_normalizer(dim, kappa):
    bessel = float(mp.besseli(mp.mpf(dim) / 2 - 1, mp.mpf(kappa)))
    return (dim / 2 - 1) * math.log(kappa) - dim / 2 * math.log(2 * math.pi) - math.log(bessel + 1e-7)


# --- the normalising constant --------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [1e-3, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4])
@pytest.mark.parametrize("dim", [2, 3, 4, 64, 257, 1000, 2048, 10**5])
def test_vmf_log_normalizer_is_exact(dim, kappa):
    # A sum of at most about 2000 positive terms, whose logarithms are summed in float64.
    expected = oracles_losses.vmf_log_constant(dim, kappa)
    assert abs(vmf_log_normalizer(dim, kappa) - expected) < 1e-13 * max(1, abs(expected))


def test_vmf_log_normalizer_has_closed_forms_in_three_dimensions():
    for kappa in (1e-8, 0.5, 20.0, 2e5, 1e10):
        # kappa / (4 pi sinh kappa), with sinh kappa = exp(kappa) (1 - exp(-2 kappa))/2
        log_sinh = kappa + math.log(-math.expm1(-2 * kappa)) - math.log(2)
        expected = math.log(kappa) - math.log(4 * math.pi) - log_sinh
        assert vmf_log_normalizer(3, kappa) == approx(expected, rel=1e-14)


def test_vmf_log_normalizer_tends_to_that_of_the_uniform_density():
    # -log of the sphere's area, 2 pi^(d/2)/Gamma(d/2); the next term is -kappa^2/(2d).
    for dim in (2, 7, 300):
        area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
        assert vmf_log_normalizer(dim, 1e-4) + area == approx(-1e-8 / (2 * dim), rel=1e-3, abs=1e-13)


def test_density_with_this_constant_integrates_to_one():
    # On S^1 and S^2 by quadrature over the angle from the mean direction.
    angles, step = np.linspace(0, math.pi, 200_001, retstep=True)
    for dim, ring in ((2, 2.0), (3, 2 * math.pi)):
        for kappa in (0.3, 5.0, 80.0):
            density = np.exp(vmf_log_normalizer(dim, kappa) + kappa * np.cos(angles))
            heights = ring * np.sin(angles) ** (dim - 2) * density
            mass = step * (heights.sum() - (heights[0] + heights[-1]) / 2)
            assert mass == approx(1.0, rel=1e-7)


def test_vmf_log_normalizer_rejects_a_concentration_whose_series_is_too_long():
    with pytest.raises(ValueError, match=r"kappa <= 1e\+10"):
        vmf_log_normalizer(3, 1e11)


# --- the terms on the sphere ---------------------------------------------------------------------------------


@reductions
@pytest.mark.parametrize("constant", ["exact", "published"])
def test_er_loss_is_reconstruction_minus_entropy_with_either_constant(constant, reduction):
    Z1, Z2 = map(t, views())
    terms = sphere_reconstruction(Z1, Z2, constant=constant) - sphere_entropy(
        Z2, reduction=reduction, constant=constant
    )
    close(er_loss(Z1, Z2, reduction=reduction), terms, 1e-13)


@reductions
def test_published_constant_reproduces_the_published_check(reduction):
    # The authors' script draws 1000 unit Gaussian rows of R^1000 and finds about -249.3 at kappa = 10.
    Z = torch.randn(1000, 1000)
    published = sphere_entropy(Z, reduction=reduction, constant="published")
    close(published, -249.3, 0.1)
    exact = sphere_entropy(Z, reduction=reduction)
    difference = published_log_normalizer(1000, 10.0) - vmf_log_normalizer(1000, 10.0)
    close(exact - published, difference, 1e-3)
    assert abs(difference) > 1000


@pytest.mark.parametrize(("dim", "log_bessel"), [(64, -27.4), (128, -99.2), (256, -287.0)])
def test_published_constant_differs_by_the_underflow_of_the_bessel_function(dim, log_bessel):
    Z = t(matrices.features(4, dim))
    shift = sphere_entropy(Z, constant="published") - sphere_entropy(Z)
    close(shift, math.log(1e-7) - log_bessel, 0.5)


def test_published_constant_is_the_exact_one_where_the_bessel_function_is_large():
    Z = t(matrices.features(6, 3))
    close(sphere_entropy(Z, constant="published"), sphere_entropy(Z), 1e-9)


@reductions
def test_both_constants_have_the_same_gradient(reduction):
    Z = t(matrices.features(6, 200)).requires_grad_()
    exact, published = (
        torch.autograd.grad(sphere_entropy(Z, reduction=reduction, constant=c), Z)[0]
        for c in ("exact", "published")
    )
    assert torch.equal(exact, published)


# --- closed forms, bounds, invariances -----------------------------------------------------------------------


@reductions
def test_collapsed_and_orthogonal_features_have_closed_forms(reduction):
    same = torch.ones(6, 4, dtype=torch.float64)
    log_c = vmf_log_normalizer(4, 5.0)
    close(sphere_entropy(same, kappa=5.0, reduction=reduction), -log_c - 5.0, 1e-13)
    close(er_loss(same, same, kappa=5.0, reduction=reduction), 0.0, 1e-14)
    identity = torch.eye(4, dtype=torch.float64)
    density = log_c + math.log((math.exp(5.0) + 3) / 4)
    close(sphere_entropy(identity, kappa=5.0, reduction=reduction), -density, 1e-13)
    close(er_loss(identity, identity, kappa=5.0), math.log1p(3 * math.exp(-5.0)) - math.log(4), 1e-14)


@reductions
@given(seed=matrices.seeds, noise=st.floats(0, 3))
def test_er_loss_never_claims_more_than_log_batch(reduction, seed, noise):
    Z1, Z2 = map(t, views(noise=noise, seed=seed % 1000))
    assert er_loss(Z1, Z2, kappa=30.0, reduction=reduction) >= -math.log(8) - 1e-12
    same = er_loss(Z2, Z2, kappa=30.0, reduction=reduction)
    assert er_loss(Z1, Z2, kappa=30.0, reduction=reduction) >= same - 1e-12


def test_entropy_of_a_large_uniform_sample_is_that_of_the_sphere():
    # The kernel at kappa = 1 smooths little more than it must: the true entropy is log of the area, 4 pi.
    Z = t(matrices.features(4000, 3))
    close(sphere_entropy(Z, kappa=1.0), math.log(4 * math.pi), 5e-3)


# --- discrete form -------------------------------------------------------------------------------------------


def test_discrete_er_loss_has_closed_forms():
    even = torch.eye(5, dtype=torch.float64)
    close(discrete_er_loss(even, even), -math.log(5), 1e-6)  # eps = 1e-7 in five logarithms
    collapsed = even[:1].expand(5, 5)
    close(discrete_er_loss(collapsed, collapsed), 0.0, 1e-6)
    undecided = torch.full((5, 5), 0.2, dtype=torch.float64)
    close(discrete_er_loss(undecided, undecided), 0.0, 1e-6)


def test_average_reduction_rewards_empty_clusters_as_the_documentation_warns():
    even = torch.eye(5, dtype=torch.float64)
    collapsed = even[:1].expand(5, 5)
    average = {"reduction": "average"}
    assert discrete_er_loss(collapsed, collapsed, **average) < discrete_er_loss(even, even, **average)
    assert discrete_er_loss(collapsed, collapsed) > discrete_er_loss(even, even)


@reductions
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4, 1e30])
def test_discrete_er_loss_and_gradient_are_finite_for_any_logits(scale, reduction):
    logits = (scale * torch.randn(6, 4)).requires_grad_()
    p, q = logits.softmax(-1), logits.flip(-1).softmax(-1)
    value = discrete_er_loss(p, q, reduction=reduction)
    assert value.isfinite()
    assert torch.autograd.grad(value, logits)[0].isfinite().all()


def test_discrete_er_loss_rejects_what_is_not_a_distribution():
    p, q = map(t, assignments())
    with pytest.raises(ValueError, match=r"probabilities1 to be probabilities.*softmax"):
        discrete_er_loss(torch.randn(4, 3), torch.randn(4, 3))
    with pytest.raises(ValueError, match=r"probabilities2 to be probabilities.*row sums from 2 to 2"):
        discrete_er_loss(p, 2 * q)
    with pytest.raises(ValueError, match=r"\(7, 4\).*\(6, 4\)"):
        discrete_er_loss(p, q[:6])


# --- gradients -----------------------------------------------------------------------------------------------


def test_loss_and_gradient_are_finite_at_high_concentration():
    Z1, Z2 = (t(Z, torch.float32).requires_grad_() for Z in views())
    value = er_loss(Z1, Z2, kappa=1e6)
    assert value.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, (Z1, Z2)))


def test_plug_in_gradient_goes_through_the_weights():
    Z = t(matrices.features(5, 3)).requires_grad_()
    unit = torch.nn.functional.normalize(Z, dim=1)
    log_density = (10 * unit @ unit.mT).logsumexp(1)
    frozen = -(log_density.softmax(0).detach() * log_density).sum()
    (through,) = torch.autograd.grad(sphere_entropy(Z, reduction="expectation"), Z)
    (stopped,) = torch.autograd.grad(frozen, Z)
    assert relative_error(through, stopped) > 0.01


# --- errors --------------------------------------------------------------------------------------------------


def test_losses_reject_a_sphere_of_two_points():
    for loss in (sphere_entropy, lambda Z: sphere_reconstruction(Z, Z)):
        with pytest.raises(ValueError, match="dim >= 2, got 1"):
            loss(torch.randn(4, 1))


def test_global_less_local_entropy_of_equal_views_is_the_bound_of_one():
    """Information of several views by densities, as the page on measures writes it: its constants cancel."""
    Z = t(matrices.features(12, 5))
    views = torch.stack([Z] * 3)
    information = (
        sphere_entropy(views.flatten(0, 1)) - torch.vmap(sphere_entropy)(views.transpose(0, 1)).mean()
    )
    close(information, -er_loss(Z, Z), 1e-12)
