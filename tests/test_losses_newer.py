"""SIGReg, BHEP, SimDINO, MMCR, CorInfoMax, W-MSE, GRAM, and the two bottlenecks.

The released formula of each was transcribed and evaluated once in float64; its value is compared with ours in
docs/theory/conformance.md. Here: definitions, closed forms, invariances, gradients.
"""

from __future__ import annotations

import math
from functools import partial

import matrices
import numpy as np
import pytest
import scipy.special
import torch
from helpers import grad, seeded, t
from tolerances import approx, close, relative_error
from torch.autograd import gradcheck, gradgradcheck

from matinfo import Gram, mutual_information
from matinfo.losses import (
    RunningCovariance,
    bhep_loss,
    corinfomax_loss,
    dib_loss,
    gram_loss,
    gram_volume,
    hsic_bottleneck_loss,
    mmcr_loss,
    sigreg_loss,
    simdino_loss,
    wmse_loss,
)
from matinfo.losses.normality import _mean_over_slices
from matinfo.spectral.whitening import whitened_features


def features(n=12, d=4, seed=0):
    return t(matrices.features(n, d, seed))


def rotation(d=4, seed=3):
    return t(matrices.orthogonal(d, seed))


# --- SIGReg and BHEP ---------------------------------------------------------------------------------------------


def epps_pulley(x, t_max, nodes):
    """The statistic of one slice by its definition, with complex exponentials."""
    grid = np.linspace(-t_max, t_max, 2 * nodes - 1)
    empirical = np.exp(1j * np.outer(grid, x)).mean(1)
    integrand = np.abs(empirical - np.exp(-(grid**2) / 2)) ** 2 * np.exp(-(grid**2) / 2)
    return len(x) * np.trapezoid(integrand, grid)


@pytest.mark.parametrize(("t_max", "nodes"), [(3.0, 17), (5.0, 40)])
def test_sigreg_loss_equals_its_definition_slice_by_slice(t_max, nodes):
    Z = features()
    A = torch.randn(4, 8, dtype=torch.float64, generator=seeded())
    slices = (Z @ (A / A.norm(dim=0))).numpy().T
    expected = np.mean([epps_pulley(x, t_max, nodes) for x in slices])
    found = sigreg_loss(Z, slices=8, t_max=t_max, nodes=nodes, generator=seeded())
    close(found, expected, 1e-12 * expected)


def test_sigreg_loss_tends_to_its_limit():
    Z = features(20, 3)
    many = sigreg_loss(Z, slices=100_000, t_max=8.0, nodes=65, generator=seeded())
    # The statistic of a slice varies by less than its mean: three hundredths of a percent of it, times four.
    assert relative_error(many, sigreg_loss(Z, form="limit")) < 0.01


@pytest.mark.parametrize("d", [1, 2, 3, 7, 64, 1000])
def test_mean_over_slices_is_the_confluent_hypergeometric_function(d):
    x = np.array([0.0, 1e-6, 0.3, 2.0, 50.0, 1e3])
    expected = np.exp(-x) if d == 1 else scipy.special.hyp1f1(0.5, d / 2, -x)
    assert np.abs(_mean_over_slices(t(x), d).numpy() - expected).max() < 1e-12


def test_sigreg_loss_in_one_dimension_is_its_integral():
    Z = features(9, 1)
    expected = epps_pulley(Z.numpy()[:, 0], 12.0, 4000)
    close(sigreg_loss(Z, form="limit"), expected, 1e-9)


@pytest.mark.parametrize("loss", [lambda Z: sigreg_loss(Z, form="limit"), lambda Z: bhep_loss(Z, beta=0.7)])
def test_normality_losses_do_not_depend_on_the_basis_and_are_least_near_the_normal(loss):
    Z = features(200, 4)
    close(loss(Z @ rotation()), loss(Z), 1e-11)
    for worse in (3 * Z, 0.3 * Z, Z + 2, Z * t([1, 1, 0, 0]), 0 * Z):
        assert loss(worse) > 2 * loss(Z)


def test_bhep_loss_is_the_squared_discrepancy_of_a_gaussian_kernel():
    # By sampling the normal: E k(z, y), E k(y, y') against 200,000 draws.
    Z, beta = features(6, 2), 0.7
    Y = torch.randn(200_000, 2, dtype=torch.float64, generator=seeded())
    kernel = lambda a, b: (-(beta**2) / 2 * (a - b).square().sum(-1)).exp()  # noqa: E731
    own = kernel(Z[:, None], Z).mean()
    mixed = torch.stack([kernel(z, Y).mean() for z in Z]).mean()
    normal = kernel(Y[::2], Y[1::2]).mean()
    close(bhep_loss(Z, beta=beta), own - 2 * mixed + normal, 5e-3)


@pytest.mark.parametrize("loss", [lambda Z: sigreg_loss(Z, form="limit"), lambda Z: bhep_loss(Z, beta=0.5)])
def test_normality_losses_have_exact_derivatives_at_equal_rows(loss):
    Z = features(5, 3)[[0, 0, 1, 2, 2]].requires_grad_()
    assert gradcheck(loss, (Z,))
    assert gradgradcheck(loss, (Z,))


def test_sigreg_and_bhep_of_long_rows_know_that_each_is_equal_to_itself():
    """Round-off of the square of 1e19 was a distance, and each row's share of the sum was gone."""
    Z = 1e19 * torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    limit = math.sqrt(2 * math.pi) * (
        1 + 7 / math.sqrt(3)
    )  # nothing but rows with themselves, and the constant
    close(sigreg_loss(Z, form="limit"), limit, 1e-8)
    close(bhep_loss(Z, beta=1.0), 1 / 7 + 3**-1.5, 1e-12)


def test_sigreg_loss_has_exact_derivatives():
    Z = features(5, 3).requires_grad_()
    loss = lambda Z: sigreg_loss(Z, slices=4, generator=seeded())  # noqa: E731
    assert gradcheck(loss, (Z,))
    assert gradgradcheck(loss, (Z,))


# --- SimDINO -----------------------------------------------------------------------------------------------------


def test_simdino_loss_sees_no_scale_and_needs_as_many_students_as_teachers():
    S, T = torch.stack([features(), features(seed=1)]), torch.stack([features(seed=2)])
    close(simdino_loss(1e30 * S, 1e-30 * T), simdino_loss(S, T), 1e-12)
    with pytest.raises(ValueError, match="no fewer views of the students"):
        simdino_loss(S[:, :5], T)


# --- MMCR --------------------------------------------------------------------------------------------------------


def test_mmcr_loss_has_closed_forms_and_bounds():
    assert mmcr_loss(torch.ones(2, 5, 3)) == approx(-math.sqrt(5), rel=1e-6)  # one direction
    frame = torch.eye(3).repeat(4, 1).expand(2, 12, 3)  # the bound sqrt(B d) is reached by a tight frame
    assert mmcr_loss(frame) == approx(-6.0, rel=1e-6)
    assert mmcr_loss(torch.stack([features(), -features()])) == approx(0.0, abs=1e-12)


# --- CorInfoMax --------------------------------------------------------------------------------------------------


def test_running_covariance_is_an_exponential_mean_whose_gradient_is_that_of_the_last_batch():
    running = RunningCovariance(3, momentum=0.25)
    mean, covariance = np.zeros(3), np.eye(3)
    for seed in range(4):
        Z = features(7, 3, seed)
        mean = 0.75 * Z.numpy().mean(0) + 0.25 * mean
        U = Z.numpy() - mean
        covariance = 0.75 * U.T @ U / 7 + 0.25 * covariance
        found = running(Z)
        assert relative_error(found, covariance) < 1e-14
    before = running.state_dict()
    Z = features(7, 3, 9).requires_grad_()

    def step(Z):
        fresh = RunningCovariance(3, momentum=0.25)
        fresh.load_state_dict(before)
        return fresh(Z)

    assert gradcheck(step, (Z,))
    poisoned = torch.full((2, 3), math.nan)
    assert running(poisoned).isnan().all()
    assert running.covariance.isfinite().all()


def test_corinfomax_loss_names_a_covariance_of_another_width():
    with pytest.raises(ValueError, match=r"covariance1 of shape \(4, 4\), got \(3, 3\)"):
        corinfomax_loss(features(), features(), torch.eye(3), torch.eye(3))


# --- W-MSE -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_whitened_features_have_the_covariance_of_white_ones(scale):
    W = whitened_features(scale * features() @ t(matrices.features(4, 4, 5)) + scale, 0.0)
    assert W.mean(0).abs().max() < 1e-14
    assert (W.T @ W / 11 - torch.eye(4)).abs().max() < 1e-12


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_wmse_loss_does_not_depend_on_triangular_maps(normalize, together):
    Z1, Z2 = features(), features(seed=1)
    loss = partial(wmse_loss, normalize=normalize, together=together)
    L = t(np.tril(matrices.features(4, 4, 7)) + 4 * np.eye(4))
    close(loss(Z1 @ L.T + 3, Z2 @ L.T + 3), loss(Z1, Z2), 1e-11)


def test_wmse_loss_of_fewer_samples_than_dimensions_is_refused_unless_the_covariance_is_shrunk():
    Z = features(3, 4)
    with pytest.raises(ValueError, match="Pass more samples than dimensions, or shrinkage > 0"):
        wmse_loss(Z, Z)
    assert wmse_loss(Z, Z, shrinkage=0.1) == approx(0.0, abs=1e-12)


# --- GRAM --------------------------------------------------------------------------------------------------------


def test_gram_volume_is_the_root_of_the_determinant():
    V = torch.stack([features(6, 5, seed) for seed in range(3)])
    unit = (V / V.norm(dim=-1, keepdim=True)).transpose(0, 1)
    assert relative_error(gram_volume(V), torch.linalg.det(unit @ unit.mT).sqrt()) < 1e-13
    pair = gram_volume(V[:2])  # two vectors: the sine of their angle
    assert relative_error(pair, (1 - (unit[:, 0] * unit[:, 1]).sum(-1).square()).sqrt()) < 1e-13
    close(gram_volume(1e20 * V @ rotation(5))[0], gram_volume(V)[0], 1e-13)


@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-9, 1e-12])
def test_gram_volume_keeps_the_digits_of_small_volumes(angle):
    # The determinant 1 - cos^2 has lost them all at 1e-8.
    V = t([[[1.0, 0.0]], [[math.cos(angle), math.sin(angle)]]])
    assert gram_volume(V).item() == approx(math.sin(angle), rel=1e-3 if angle < 1e-9 else 1e-6)


def test_gram_volume_of_dependent_vectors_is_zero_with_finite_gradient():
    for V in (
        torch.ones(3, 2, 4),
        torch.stack([features(2), features(2, seed=1), features(2) + features(2, seed=1)]),
    ):
        assert gram_volume(V).abs().max() < 1e-14
        assert grad(lambda V: gram_volume(V).sum(), V).isfinite().all()
    assert gram_volume(torch.ones(4, 2, 3)).shape == (2,)  # more vectors than dimensions


def test_gram_loss_equals_its_definition():
    a, V = features(5, 4), torch.stack([features(5, 4, 1), features(5, 4, 2)])
    volumes = torch.stack([gram_volume(torch.stack([a[i].expand(5, 4), *V])) for i in range(5)])
    targets = torch.arange(5)
    for smoothing in (0.0, 0.1):
        terms = [
            torch.nn.functional.cross_entropy(-M / 0.07, targets, label_smoothing=smoothing)
            for M in (volumes, volumes.T)
        ]
        close(gram_loss(a, V, smoothing=smoothing), sum(terms) / 2, 1e-12)
    arguments = a.requires_grad_(), V.requires_grad_()
    assert gradcheck(lambda a, V: gram_loss(a, V, temperature=1.0), arguments)
    with pytest.raises(ValueError, match="same samples and dimensions"):
        gram_loss(a, V[:, :4])


# --- bottlenecks -------------------------------------------------------------------------------------------------


def test_dib_loss_is_the_mutual_information_of_order_slightly_above_one():
    K, L = (t(matrices.random_correlation(6, seed)) for seed in range(2))
    assert dib_loss(K, L) == mutual_information(K, L, 1.01)
    assert dib_loss(Gram(K), Gram(L), alpha=2) == mutual_information(Gram(K), Gram(L), 2)
    with pytest.raises(ValueError, match="K_latents to be one matrix"):
        dib_loss(K, L.expand(2, 6, 6))


def test_hsic_bottleneck_loss_equals_its_definition():
    K, L, M = (matrices.random_correlation(6, seed) for seed in range(3))
    H = np.eye(6) - 1 / 6
    hsic = lambda A, B: np.trace(A @ H @ B @ H) / 25  # noqa: E731
    close(hsic_bottleneck_loss(K, L, M, beta=3.0), hsic(K, L) - 3 * hsic(L, M), 1e-13)
    Z = features(6, 3)
    as_gram = hsic_bottleneck_loss(Gram(Z), Gram(Z), Gram(Z), beta=0.5)
    close(as_gram, hsic_bottleneck_loss(*[Z @ Z.T] * 3, beta=0.5), 1e-12)
    assert gradcheck(lambda Z: hsic_bottleneck_loss(t(K), Gram(Z), t(M)), (Z.requires_grad_(),))
    with pytest.raises(ValueError, match="orders 6, 5"):
        hsic_bottleneck_loss(K, L[:5, :5], M)
    with pytest.raises(TypeError, match="got list"):
        hsic_bottleneck_loss(t(K), t(L), [[1.0]])


def test_running_covariance_stays_in_evaluation_mode():
    running = RunningCovariance(3)
    running(torch.randn(5, 3))
    before = running.covariance.clone()
    running.eval()(torch.randn(5, 3))
    assert torch.equal(running.covariance, before)
