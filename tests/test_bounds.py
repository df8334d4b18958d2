"""Bounds as functions: values, kinds of input, limits, errors. That they hold is tested in tests/theory."""

from __future__ import annotations

import inspect
import math
from functools import partial

import matrices
import numpy as np
import pytest
import torch
from helpers import t
from tolerances import close

from matinfo import Gram, correlation, joint_entropy, matrix_tcr, mutual_information, renyi_entropy
from matinfo.bounds import (
    barlow_twins_overlap_bound,
    coding_rate_lower_bound,
    cross_overlap_bound,
    entropy_continuity_bound,
    information_lower_bound,
    joint_entropy_lower_bound,
    js_lower_bound,
    js_upper_bound,
    mmae_convergence_ratio,
    mmae_remainder,
    mmae_remainder_bound,
    spectral_contrastive_overlap_bound,
)
from matinfo.losses import barlow_twins_loss

OF_A_NUMBER = [
    partial(spectral_contrastive_overlap_bound, n=16),
    partial(barlow_twins_overlap_bound, n=16),
    partial(information_lower_bound, n=16),
    partial(joint_entropy_lower_bound, n=16),
    partial(coding_rate_lower_bound, n=16),
    partial(entropy_continuity_bound, n=16),
    js_lower_bound,
    js_upper_bound,
]
OF_FEATURES = (mmae_convergence_ratio, mmae_remainder, mmae_remainder_bound)
of_a_number = pytest.mark.parametrize("bound", OF_A_NUMBER, ids=lambda f: getattr(f, "func", f).__name__)
of_features = pytest.mark.parametrize("bound", OF_FEATURES)
ORDERS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, math.inf)


# --- kinds of input ------------------------------------------------------------------------------------------


@of_a_number
def test_a_number_gives_a_number_and_arrays_are_taken_elementwise(bound):
    values = [0.0, 1e-6, 0.1, 0.9]
    numbers = [bound(value) for value in values]
    assert all(type(number) is float for number in numbers)
    assert bound(np.array(values)) == pytest.approx(numbers, rel=1e-15)
    assert bound(np.array(values)).dtype == np.float64
    tensor = bound(torch.tensor(values).reshape(2, 2))
    assert tensor.shape == (2, 2)
    assert tensor.dtype == torch.float32
    assert tensor.flatten().tolist() == pytest.approx(numbers, rel=1e-6)


@of_a_number
def test_an_argument_goes_by_its_name_too_by_which_it_is_refused_if_it_is_no_number(bound):
    name = next(iter(inspect.signature(bound).parameters))
    assert bound(**{name: 0.25}) == bound(0.25)
    for wrong in ("1", True, None, [0.5]):
        with pytest.raises(TypeError, match=f"Expected {name} to be a number, a tensor or an array, got "):
            bound(wrong)
    with pytest.raises(TypeError, match=f"Expected {name} to be floating point"):
        bound(torch.tensor([1]))


@of_a_number
def test_nan_stays_nan(bound):
    assert math.isnan(bound(math.nan))


@of_a_number
def test_a_negative_number_is_refused(bound):
    with pytest.raises(ValueError, match=r">= 0, got -0.5"):
        bound(-0.5)
    with pytest.raises(ValueError, match=r">= 0, got -0.5"):
        bound(torch.tensor([0.1, -0.5]))


@of_a_number
def test_bounds_change_with_their_argument_in_one_direction(bound):
    values = np.asarray(bound(np.logspace(-6, 2, 400)))
    steps = np.diff(values)
    assert (steps >= -1e-12).all() or (steps <= 1e-12).all()
    assert abs(values[-1] - values[0]) > 0.1


# --- loss to overlap -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sharp", "paper"])
@pytest.mark.parametrize("bound", [spectral_contrastive_overlap_bound, barlow_twins_overlap_bound])
def test_no_loss_is_no_overlap(bound, form):
    assert bound(0.0, 8, form=form) == 0.0
    assert bound(0.0, 1, form=form) == 0.0


def worst_split(L, n, misalignment, lambda_):
    """Both bounds of the overlap at every split of the loss on a fine grid: the least of the two maxima."""
    share = np.sin(np.linspace(0, np.pi / 2, 200_001)) ** 2
    r2, D = (1 - share) * L / lambda_, misalignment(share * L)
    nearby = (np.sqrt(r2) + D / 2) ** 2 + D * (1 + np.sqrt(r2) + D / 4)
    return min(nearby.max(), (r2 + (n - 1) * (D - D**2 / (4 * n))).max(), n * (n - 1))


@pytest.mark.parametrize("n", [2, 50, 1000])
@pytest.mark.parametrize("lambda_", [1e-3, 0.3, 1.0, 20.0])
def test_overlap_bounds_of_a_loss_are_the_worst_split_of_it(n, lambda_):
    for L in (1e-5, 1e-3, 0.2, 1.7, 30.0, 900.0):
        expected = worst_split(L, n, lambda x: x, lambda_)
        assert spectral_contrastive_overlap_bound(L, n, lambda_=lambda_) == pytest.approx(expected, rel=1e-6)
        paper = (2 / lambda_ + 2 * (n - 1)) * L
        close(spectral_contrastive_overlap_bound(L, n, lambda_=lambda_, form="paper"), paper, 1e-13)
        expected = worst_split(L, n, lambda x: 2 * np.sqrt(n * x), lambda_)
        assert barlow_twins_overlap_bound(L, n, lambda_=lambda_) == pytest.approx(expected, rel=1e-6)
        paper = 2 * L / lambda_ + 4 * (n - 1) * math.sqrt(n * L)
        close(barlow_twins_overlap_bound(L, n, lambda_=lambda_, form="paper"), paper, 1e-12)


@pytest.mark.parametrize(
    ("bound", "n", "lambda_", "least"),
    [
        (spectral_contrastive_overlap_bound, 256, 0.004, 256 * (2 - 1 / (0.004 * 255))),
        (spectral_contrastive_overlap_bound, 1024, 1 / 1023, 1024.0),
        (spectral_contrastive_overlap_bound, 64, 1e-3, 64 * 63 * 1e-3),
        (barlow_twins_overlap_bound, 64, 5.1e-3, 64 * 63 * 5.1e-3 / (1 + 63 * 5.1e-3)),
    ],
)
def test_entropy_is_left_up_to_the_least_loss_of_collapsed_branches(bound, n, lambda_, least):
    assert joint_entropy_lower_bound(bound(least * (1 - 1e-9), n, lambda_=lambda_), n) > 0
    assert bound(least, n, lambda_=lambda_) == pytest.approx(n * (n - 1), rel=1e-12)


@pytest.mark.parametrize("lambda_", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("bound", [spectral_contrastive_overlap_bound, barlow_twins_overlap_bound])
def test_the_sharp_form_is_never_above_the_paper_form(bound, lambda_):
    losses = np.logspace(-8, 4, 200)
    for n in (1, 2, 30):
        sharp, paper = (bound(losses, n, lambda_=lambda_, form=form) for form in ("sharp", "paper"))
        assert (sharp <= paper * (1 + 1e-12)).all()
        assert (sharp <= n * (n - 1)).all()


def test_cross_overlap_bound_of_the_identity_is_zero_and_of_anything_at_most_all_pairs():
    assert float(cross_overlap_bound(torch.eye(5))) == 0.0
    assert float(cross_overlap_bound(-torch.ones(5, 5))) == 20.0


def test_cross_overlap_bound_keeps_batch_dimensions_and_names_a_wrong_shape():
    C = t(np.stack([np.eye(3), 0.9 * np.eye(3)]))
    assert cross_overlap_bound(C).shape == (2,)
    with pytest.raises(ValueError, match=r"square.*\(3, 4\)"):
        cross_overlap_bound(torch.zeros(3, 4))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.3, 3.0])
def test_bounds_hold_from_features_to_information_with_a_dead_feature_too(noise, center):
    # The dead column has correlation 1 with itself in the matrix and 0 in the loss, which therefore counts it as 1.
    Z1 = np.linalg.qr(matrices.features(20, 6))[0]
    Z1[:, 2] = 0.5 if center else 0.0
    Z2 = Z1 + noise * matrices.features(20, 6, 1) * (np.arange(6) != 2)
    loss = float(barlow_twins_loss(Z1, Z2, lambda_=0.05, center=center))
    K, L = (correlation(Z, center=center) for Z in (Z1, Z2))
    for form in ("sharp", "paper"):
        overlap = barlow_twins_overlap_bound(loss, 6, lambda_=0.05, form=form)
        assert ((K**2).sum() + (L**2).sum()) / 2 - 6 <= overlap + 1e-12
        assert float(mutual_information(K, L, 2)) >= information_lower_bound(overlap, 6) - 1e-12
        assert float(joint_entropy(K, L, alpha=2)) >= joint_entropy_lower_bound(overlap, 6, form=form) - 1e-12
        assert float(matrix_tcr(K * L, 0.5)) >= coding_rate_lower_bound(overlap, 6, mu=0.5, form=form) - 1e-12


# --- overlap to quantity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("n", [1, 2, 9])
def test_no_overlap_is_the_largest_information_entropy_and_rate(n, alpha):
    close(information_lower_bound(0.0, n, alpha=alpha), math.log(n), 1e-14)
    for form in ("sharp", "paper"):
        close(joint_entropy_lower_bound(0.0, n, alpha=alpha, form=form), math.log(n), 1e-13)
        close(coding_rate_lower_bound(0.0, n, mu=0.3, form=form), n * math.log(1.3), 1e-12)


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("n", [1, 2, 9])
def test_total_overlap_is_the_trivial_bound(n, alpha):
    close(information_lower_bound(1e9, n, alpha=alpha), -math.log(n), 1e-12)
    for form in ("sharp", "paper"):
        close(joint_entropy_lower_bound(1e9, n, alpha=alpha, form=form), 0.0, 1e-12)
    close(coding_rate_lower_bound(1e9, n, mu=0.3), math.log(n + 0.3) + (n - 1) * math.log(0.3), 1e-12)


@pytest.mark.parametrize("alpha", ORDERS)
def test_the_sharp_joint_entropy_bound_is_never_below_the_paper_form(alpha):
    S = np.linspace(0, 90, 400)
    sharp, paper = (joint_entropy_lower_bound(S, 10, alpha=alpha, form=form) for form in ("sharp", "paper"))
    assert (sharp >= paper - 1e-12).all()


def test_the_sharp_coding_rate_bound_is_never_below_the_paper_form():
    S = np.linspace(0, 90, 400)
    for mu in (1e-3, 1.0, 1e3):
        sharp, paper = (coding_rate_lower_bound(S, 10, mu=mu, form=form) for form in ("sharp", "paper"))
        assert (sharp >= paper - 1e-9).all()


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
def test_the_sharp_bounds_are_attained_by_one_small_eigenvalue(alpha):
    # n - 1 equal eigenvalues and a smaller one: P = n (n-1) s^2 with eigenvalues 1 + s and 1 - (n-1) s.
    n, s = 6, 0.15
    P = n * (n - 1) * s**2
    spectrum = np.diag([1 - (n - 1) * s, *[1 + s] * (n - 1)])
    S = math.sqrt(2 * P) if P < 2 else P
    close(joint_entropy_lower_bound(S, n, alpha=alpha), renyi_entropy(spectrum, alpha), 1e-12)
    close(coding_rate_lower_bound(S, n, mu=0.7), matrix_tcr(spectrum, 0.7), 1e-12)


@pytest.mark.parametrize("alpha", [2.5, 4.0, math.inf])
def test_the_sharp_bounds_above_order_two_are_attained_by_one_large_eigenvalue(alpha):
    n, s = 6, 0.15
    spectrum = np.diag([1 + (n - 1) * s, *[1 - s] * (n - 1)])
    S = math.sqrt(2 * n * (n - 1)) * s
    close(joint_entropy_lower_bound(S, n, alpha=alpha), renyi_entropy(spectrum, alpha), 1e-12)


def test_joint_entropy_bound_is_continuous_through_order_two_from_above():
    close(joint_entropy_lower_bound(3.0, 8, alpha=2 + 1e-9), joint_entropy_lower_bound(3.0, 8, alpha=2), 1e-8)
    close(joint_entropy_lower_bound(3.0, 8, alpha=2 - 1e-9), joint_entropy_lower_bound(3.0, 8, alpha=2), 1e-8)


# --- expansion of M-MAE --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [1e-6, 1e-3, 0.02, 0.04, 1.0, 1e4])
def test_mmae_remainder_has_all_its_digits_at_every_size(mu):
    import mpmath as mp

    F = np.eye(4)[:1]  # one eigenvalue, 1
    x = mp.mpf(mu) / 4
    expected = mp.log(1 + x) - x + x**2 / 2
    assert float(mmae_remainder(F, mu=mu)) == pytest.approx(float(expected), rel=1e-11)


def test_mmae_convergence_ratio_of_collapsed_and_of_orthonormal_features():
    collapsed, orthonormal = np.ones((6, 3)), np.eye(3)
    close(mmae_convergence_ratio(collapsed, mu=2.0), 4.0, 1e-13)
    close(mmae_convergence_ratio(orthonormal, mu=2.0), 2 / 3, 1e-13)
    close(mmae_convergence_ratio(orthonormal, mu=2.0, scale="paper"), 0.5, 1e-13)


@of_features
def test_functions_of_features_keep_batches_and_do_not_depend_on_row_lengths(bound):
    F = t(matrices.features(6, 4))
    batch = bound(torch.stack([F, 3 * F]))
    assert batch.shape == (2,)
    close(batch[0], batch[1], 1e-13)
    assert bound(F.float()).dtype == torch.float32


@of_features
def test_functions_of_features_have_a_finite_gradient_at_zero_rows(bound):
    F = t(matrices.relu_features(6, 4, dead_rows=2)).requires_grad_()
    (gradient,) = torch.autograd.grad(bound(F), F)
    assert gradient.isfinite().all()


@of_features
def test_functions_of_features_refuse_a_vector(bound):
    with pytest.raises(ValueError, match=r"\(3,\)"):
        bound(torch.randn(3))


# --- continuity ----------------------------------------------------------------------------------------------


def test_entropy_continuity_bound_is_audenaerts():
    T, n = 0.2, 7
    h = -T * math.log(T) - (1 - T) * math.log(1 - T)
    close(entropy_continuity_bound(T, n), T * math.log(n - 1) + h, 1e-14)
    close(entropy_continuity_bound(T, n, alpha=1 - 1e-7), entropy_continuity_bound(T, n), 1e-6)


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("n", [1, 2, 9])
def test_entropy_continuity_bound_lies_between_zero_and_log_n(n, alpha):
    values = entropy_continuity_bound(np.linspace(0, 1, 50), n, alpha=alpha)
    assert values[0] == 0.0
    assert (np.diff(values) >= -1e-12).all()
    close(values[-1], math.log(n), 1e-12)


def test_entropy_continuity_bound_guarantees_the_entropy_of_rounded_features():
    Z = matrices.features(64, 8)
    K, rounded = (Gram(x.astype(np.float64)).dense().numpy() for x in (Z, Z.astype(np.float16)))
    K, rounded = K / np.trace(K), rounded / np.trace(rounded)
    T = np.abs(np.linalg.eigvalsh(K - rounded)).sum() / 2
    for alpha in (0.5, 1.0, 2.0):
        moved = abs(float(renyi_entropy(K, alpha)) - float(renyi_entropy(rounded, alpha)))
        assert 0 < moved < entropy_continuity_bound(T, 64, alpha=alpha)


# --- gradients where a square root is at zero --------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0, math.inf])
def test_joint_entropy_lower_bound_has_its_gradient_at_overlap_zero(alpha):
    overlap = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(joint_entropy_lower_bound(overlap, 9, alpha=alpha), overlap)
    step = 1e-6
    chord = (joint_entropy_lower_bound(step, 9, alpha=alpha) - math.log(9)) / step
    close(slope, chord, 1e-5)


def test_cross_overlap_bound_has_a_gradient_at_the_identity():
    C = torch.eye(4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(cross_overlap_bound(C), C)
    assert gradient.isfinite().all()
