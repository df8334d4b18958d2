"""Self-distillation losses: BYOL, SimSiam, DINO and its centre."""

from __future__ import annotations

import math

import matrices
import numpy as np
import pytest
import torch
from helpers import lightly_loss, t
from hypothesis import given
from tolerances import EPS32, close

from matinfo.losses import DINOCenter, byol_loss, dino_loss, simsiam_loss

SIAMESE = {"byol": byol_loss, "simsiam": simsiam_loss}
every_siamese = pytest.mark.parametrize("loss", SIAMESE.values(), ids=SIAMESE)
STUDENTS_TEACHERS = ((2, 2), (5, 2), (3, 1), (3, 3))


def four(n=8, d=5, seed=0, dtype=torch.float64):
    """Predictions and targets of two views."""
    return [t(matrices.features(n, d, seed + i) + 0.2, dtype) for i in range(4)]


def outputs(views=4, teachers=2, n=6, k=7, seed=0, dtype=torch.float64):
    """Outputs of student and teacher, and a centre."""
    rng = np.random.default_rng(seed)
    shapes = ((views, n, k), (teachers, n, k), (k,))
    return [
        t(scale * rng.standard_normal(s), dtype) for scale, s in zip((0.3, 0.1, 0.05), shapes, strict=True)
    ]


# --- against lightly -------------------------------------------------------------------------------------------


def test_siamese_losses_are_those_of_lightly():
    # Theirs is the negative cosine of one direction. It divides by at least 1e-8, which the tiny rows below show.
    p1, p2, t1, t2 = four(32, 16)
    negative_cosine = lightly_loss("NegativeCosineSimilarity")()
    one, other = float(negative_cosine(p1, t2)), float(negative_cosine(p2, t1))
    close(simsiam_loss(p1, p2, t1, t2), (one + other) / 2, 1e-14)
    close(byol_loss(p1, p2, t1, t2), (2 + 2 * one) + (2 + 2 * other), 1e-14)
    tiny = 1e-30 * p1.float()
    assert abs(float(negative_cosine(tiny, tiny))) < 1e-6
    close(simsiam_loss(tiny, tiny, tiny, tiny), -1.0, 4 * EPS32)


@pytest.mark.parametrize(("views", "teachers"), STUDENTS_TEACHERS)
def test_dino_loss_and_centre_are_those_of_lightly(views, teachers):
    students, teacher, center = outputs(views, teachers, n=16, k=12)
    # They keep the teacher's temperature in float32, which holds 1/16 exactly.
    theirs = lightly_loss("DINOLoss")(12, teacher_temp=1 / 16, center_momentum=0.8).double()
    theirs.center.copy_(center)
    expected = float(theirs(list(teacher), list(students)))  # which moves their centre
    value = dino_loss(students, teacher, center, teacher_temperature=1 / 16)
    close(value, expected, 1e-13 * (1 + expected))
    ours = DINOCenter(12, momentum=0.8).double()
    ours.center.copy_(center)
    ours.update(teacher)
    assert (ours.center - theirs.center.flatten()).abs().max() < 1e-15


# --- closed forms and invariances ------------------------------------------------------------------------------


def test_siamese_losses_reach_the_ends_of_their_range():
    identity = torch.eye(4, dtype=torch.float64)
    assert byol_loss(identity, 3 * identity, 5 * identity, identity) == 0
    assert byol_loss(identity, identity, -identity, -2 * identity) == 8
    assert simsiam_loss(identity, 3 * identity, 5 * identity, identity) == -1
    assert simsiam_loss(identity, identity, -identity, -2 * identity) == 1
    zero = torch.zeros_like(identity)
    assert byol_loss(zero, identity, zero, identity) == 4
    assert simsiam_loss(identity, zero, identity, zero) == 0


@every_siamese
@given(seed=matrices.seeds)
def test_siamese_loss_does_not_depend_on_views_order_lengths_or_basis(loss, seed):
    p1, p2, t1, t2 = four(seed=seed % 1000)
    value = float(loss(p1, p2, t1, t2))
    close(loss(p2, p1, t2, t1), value, 1e-14)
    rng = np.random.default_rng(seed)
    lengths, Q = t(10.0 ** rng.uniform(-3, 3, (4, 8, 1))), t(matrices.orthogonal(5, seed))
    order = torch.as_tensor(rng.permutation(8))
    moved = [(lengths[i] * x @ Q)[order] for i, x in enumerate((p1, p2, t1, t2))]
    close(loss(*moved), value, 1e-13)


@pytest.mark.parametrize("k", [1, 2, 9])
def test_dino_loss_of_uniform_outputs_is_log_k(k):
    same = torch.ones(3, 5, k, dtype=torch.float64)
    close(dino_loss(same, 4 * same[:2], torch.zeros(k, dtype=torch.float64)), math.log(k), 1e-14)


def test_dino_loss_of_sharp_equal_outputs_is_zero_and_of_sharp_different_ones_is_their_gap():
    sharp = 1e18 * torch.eye(4).expand(2, 4, 4)
    assert dino_loss(sharp, sharp, torch.zeros(4)) == 0
    close(dino_loss(sharp.roll(1, -1), sharp, torch.zeros(4)), 1e19, 4 * EPS32 * 1e19)


def test_dino_loss_depends_on_the_centre_but_not_on_a_common_shift():
    students, teachers, center = outputs()
    value = float(dino_loss(students, teachers, center))
    close(dino_loss(students + 3, teachers - 2, center + 1), value, 1e-13)
    close(dino_loss(students, teachers + center, 2 * center), value, 1e-13)
    assert abs(dino_loss(students, teachers, 3 * center) - value) > 1e-3


def test_dino_loss_leaves_out_the_pairs_of_one_view():
    students, teachers, center = outputs(3, 1)
    students.requires_grad_()
    (gradient,) = torch.autograd.grad(dino_loss(students, teachers, center), students)
    assert (gradient[0] == 0).all()
    assert (gradient[1:].abs().amax((-2, -1)) > 0).all()


# --- stop-gradient ---------------------------------------------------------------------------------------------


@every_siamese
def test_siamese_loss_of_a_shared_network_has_the_gradient_of_the_predictions_only(loss):
    Z1, Z2 = (x.requires_grad_() for x in four()[:2])
    shared = torch.autograd.grad(loss(Z1, Z2, Z1, Z2), (Z1, Z2))
    constants = torch.autograd.grad(loss(Z1, Z2, *(Z.detach().clone() for Z in (Z1, Z2))), (Z1, Z2))
    assert all(torch.equal(a, b) for a, b in zip(shared, constants, strict=True))


# --- gradients -------------------------------------------------------------------------------------------------


@every_siamese
def test_siamese_loss_of_tiny_and_huge_features_is_that_of_ordinary_ones(loss):
    rows = four(dtype=torch.float32)
    for scale in (1e-30, 1e18):
        close(loss(*(scale * x for x in rows)), loss(*rows), 16 * EPS32)


def test_dino_loss_of_impossible_outputs_has_no_nan():
    # 1e38 over a temperature of 0.1 overflows float32; 0 times -inf would be NaN.
    students = 1e38 * torch.eye(4).expand(2, 4, 4)
    assert not dino_loss(students, students.roll(1, -1), torch.zeros(4)).isnan()
    assert dino_loss(students, students, torch.zeros(4)) == 0


# --- the centre ------------------------------------------------------------------------------------------------


def test_dino_center_is_the_exponential_moving_average_from_zero():
    center, expected = DINOCenter(7, momentum=0.7), np.zeros(7)
    for seed in range(4):
        teachers = outputs(seed=seed)[1]
        center.update(teachers.float())
        expected = 0.7 * expected + 0.3 * teachers.numpy().mean((0, 1))
    assert np.abs(center.center.numpy() - expected).max() < 1e-7
    assert DINOCenter(7).momentum == 0.9


def test_dino_center_is_a_buffer_updated_in_place_without_gradient():
    center = DINOCenter(7)
    alias = center.center
    center.update(outputs(dtype=torch.float32)[1].requires_grad_())
    assert center.center is alias
    assert (alias != 0).all()
    assert not alias.requires_grad
    assert list(center.parameters()) == []
    restored = DINOCenter(7)
    restored.load_state_dict(center.state_dict())
    assert torch.equal(restored.center, alias)


def test_dino_center_may_be_updated_between_the_loss_and_its_gradient():
    students, teachers, _ = outputs(dtype=torch.float32)
    students.requires_grad_()
    center = DINOCenter(7)
    before = torch.autograd.grad(dino_loss(students, teachers, center.center), students)[0]
    value = dino_loss(students, teachers, center.center)
    center.update(teachers)
    assert torch.equal(torch.autograd.grad(value, students)[0], before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dino_center_averages_half_precision_in_float32(dtype):
    center, reference = DINOCenter(7), DINOCenter(7)
    teachers = 100 * outputs()[1].to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        center.update(teachers)
    reference.update(teachers.float())
    assert center.center.dtype == torch.float32
    assert torch.equal(center.center, reference.center)


def test_dino_center_prints_its_settings():
    assert repr(DINOCenter(3, 0.5)) == "DINOCenter(3, momentum=0.5)"


# --- precision -------------------------------------------------------------------------------------------------


def test_dino_loss_takes_outputs_of_two_precisions():
    students, teachers, center = outputs()
    value = dino_loss(students.float(), teachers.half(), center.float())
    assert value.dtype == torch.float32
    expected = float(dino_loss(students.float().double(), teachers.half().double(), center.float().double()))
    close(value, expected, 32 * EPS32 * (1 + expected))
    assert dino_loss(students, teachers.float(), center.float()).dtype == torch.float64


# --- errors ----------------------------------------------------------------------------------------------------


@every_siamese
@pytest.mark.parametrize(("index", "name"), [(1, "predictions2"), (2, "targets1"), (3, "targets2")])
def test_siamese_loss_names_the_argument_of_another_shape(loss, index, name):
    rows = four(4, 3)
    rows[index] = rows[index][:, :2]
    with pytest.raises(ValueError, match=rf"predictions1 and {name}.*\(4, 3\).*\(4, 2\)"):
        loss(*rows)


@pytest.mark.parametrize(
    ("students", "teachers", "center", "message"),
    [
        ((4, 3), (2, 4, 3), (3,), r"students of shape .* got \(4, 3\)"),
        ((2, 4, 3), (4, 3), (3,), r"teachers of shape .* got \(4, 3\)"),
        ((2, 4, 3), (2, 5, 3), (3,), r"same samples.*\(2, 4, 3\) and \(2, 5, 3\)"),
        ((2, 4, 3), (2, 4, 5), (3,), r"same samples.*\(2, 4, 3\) and \(2, 4, 5\)"),
        ((1, 4, 3), (1, 4, 3), (3,), r"students.*at least 2 views.*\(1, 4, 3\)"),
        ((2, 4, 3), (3, 4, 3), (3,), r"as many views .* got 2 and 3"),
        ((2, 4, 3), (0, 4, 3), (3,), r"teachers.*at least 1 view,.*\(0, 4, 3\)"),
        ((2, 4, 3), (2, 4, 3), (1, 1, 3), r"center of shape \(3,\), got \(1, 1, 3\)"),
    ],
)
def test_dino_loss_names_the_shapes_that_do_not_fit(students, teachers, center, message):
    with pytest.raises(ValueError, match=message):
        dino_loss(torch.randn(students), torch.randn(teachers), torch.randn(center))


def test_dino_center_rejects_outputs_that_do_not_fit():
    center = DINOCenter(3)
    with pytest.raises(ValueError, match=r"\(\.\.\., B, 3\).*\(2, 4, 5\)"):
        center.update(torch.randn(2, 4, 5))
    with pytest.raises(ValueError, match=r"\(0, 4, 3\)"):
        center.update(torch.randn(0, 4, 3))
    with pytest.raises(TypeError, match="teachers.*int64"):
        center.update(torch.ones(2, 4, 3, dtype=torch.int64))
