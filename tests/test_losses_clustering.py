"""Losses against cluster assignments: Sinkhorn codes, SwAV, DeepCluster."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import oracles_losses
import pytest
import torch
from helpers import lightly_loss, t
from hypothesis import given
from hypothesis import strategies as st
from matrices import DEGENERATE
from tolerances import EPS32, close

from matinfo.losses import deepcluster_loss, sinkhorn, swav_loss


def scores(n=8, k=5, seed=0, dtype=torch.float64):
    """Cosines of random features and prototypes."""
    rows = oracles.unit_rows(matrices.features(n, 6, seed))
    return t(rows @ oracles.unit_rows(matrices.features(k, 6, 99)).T, dtype)


# --- definitions, one entry at a time --------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.5, 1), (1.0, 10)])
@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (1, 4), (4, 1)])
def test_sinkhorn_equals_its_definition(shape, epsilon, iterations):
    s = scores(*shape)
    codes = sinkhorn(s, epsilon=epsilon, iterations=iterations)
    expected = oracles_losses.sinkhorn(oracles_losses.exact(s), epsilon=epsilon, iterations=iterations)
    assert np.abs(codes.numpy() - expected).max() < 1e-13


# --- against lightly -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("shape", [(16, 12), (12, 30)])
def test_swav_loss_equals_that_of_lightly(shape, queued):
    s1, s2 = scores(*shape), scores(*shape, seed=1)
    queues = [scores(40, shape[1], seed=2 + i) for i in range(2)] if queued else None
    theirs = float(lightly_loss("SwaVLoss")()([s1, s2], [], queues))
    ours = swav_loss(s1, s2, **(dict(zip(("queue1", "queue2"), queues, strict=True)) if queued else {}))
    close(ours, theirs, 1e-13 * (1 + theirs))


# --- closed forms and limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_sinkhorn_rows_sum_to_one_and_columns_share_the_batch_in_the_limit(shape):
    codes = sinkhorn(scores(*shape), epsilon=0.5, iterations=200)
    assert (codes >= 0).all()
    assert (codes.sum(-1) - 1).abs().max() < 1e-14
    assert (codes.sum(-2) - shape[0] / shape[1]).abs().max() < 1e-12
    assert (sinkhorn(scores(*shape), epsilon=0.5).sum(-2) - shape[0] / shape[1]).abs().max() > 1e-6


def test_sinkhorn_of_equal_scores_is_uniform_and_of_clear_ones_is_hard():
    assert (sinkhorn(torch.full((6, 4), 0.3)) - 0.25).abs().max() < 4 * EPS32
    assert torch.equal(sinkhorn(torch.eye(4), epsilon=1e-3), torch.eye(4))


def test_sinkhorn_has_no_gradient():
    assert not sinkhorn(scores().requires_grad_()).requires_grad


@given(seed=matrices.seeds, shift=st.floats(-3, 3))
def test_sinkhorn_does_not_depend_on_a_shift_of_a_prototype_nor_on_the_order_of_samples(seed, shift):
    # The first step divides each column by its sum.
    s = scores(seed=seed % 1000)
    rng = np.random.default_rng(seed)
    order, shifts = torch.as_tensor(rng.permutation(8)), shift * t(rng.standard_normal(5))
    assert (sinkhorn(s[order] + shifts) - sinkhorn(s)[order]).abs().max() < 1e-12


@pytest.mark.parametrize("k", [2, 9])
def test_swav_and_deepcluster_loss_of_collapsed_scores_are_log_k(k):
    same = torch.full((6, k), 0.4, dtype=torch.float64)
    close(swav_loss(same, same), math.log(k), 1e-14)
    close(deepcluster_loss(same, torch.arange(6) % k), math.log(k), 1e-14)


def test_swav_and_deepcluster_loss_of_clear_assignments_are_zero():
    sharp = 100 * torch.eye(4)
    assert swav_loss(sharp, sharp) == 0
    assert deepcluster_loss(sharp, torch.arange(4)) == 0


def test_swav_loss_compares_the_codes_with_the_other_view():
    s1, s2 = scores(), scores(seed=1)
    close(swav_loss(s1, s2), swav_loss(s2, s1), 1e-14)
    assert abs(swav_loss(s1, s2) - (swav_loss(s1, s1) + swav_loss(s2, s2)) / 2) > 1e-2


def test_sinkhorn_keeps_batch_dimensions():
    stacked = torch.stack([scores(seed=10 * s) for s in range(3)])
    assert sinkhorn(stacked).shape == (3, 8, 5)
    assert (sinkhorn(stacked)[1] - sinkhorn(stacked[1])).abs().max() < 1e-15


def test_deepcluster_loss_ignores_samples_without_an_assignment():
    s = scores().requires_grad_()
    assignments = torch.tensor([0, -1, 2, -1, 4, 1, -1, 3])
    kept = assignments >= 0
    value = deepcluster_loss(s, assignments)
    close(value, deepcluster_loss(s[kept], assignments[kept]), 1e-14)
    (gradient,) = torch.autograd.grad(value, s)
    assert (gradient[~kept] == 0).all()
    assert (gradient[kept].norm(dim=-1) > 0).all()


def test_deepcluster_loss_is_zero_with_zero_gradient_where_nothing_is_assigned():
    s = torch.stack([scores(), scores(seed=1)]).requires_grad_()
    nothing = torch.full((2, 8), -1)
    value = deepcluster_loss(s, nothing)
    assert value == 0
    assert (torch.autograd.grad(value, s)[0] == 0).all()
    nothing[0] = 1
    one_head = deepcluster_loss(s, nothing)
    close(one_head, deepcluster_loss(s[0], nothing[0]) / 2, 1e-14)
    assert (torch.autograd.grad(one_head, s)[0][1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_deepcluster_loss_takes_any_integers(dtype):
    assignments = torch.tensor([0, -1, 2, -1, 4, 1, -1, 3])
    assert deepcluster_loss(scores(), assignments.to(dtype)) == deepcluster_loss(scores(), assignments)


def test_losses_of_numpy_return_numpy():
    s1, s2, queue = scores(), scores(seed=1), scores(6, seed=2)
    value = swav_loss(s1.numpy(), s2.numpy(), queue1=queue.numpy())
    assert isinstance(value, np.ndarray | np.float64)
    close(value, swav_loss(s1, s2, queue1=queue), 1e-15)
    close(deepcluster_loss(s1.numpy(), np.arange(8) % 5), deepcluster_loss(s1, torch.arange(8) % 5), 0.0)


# --- gradients -------------------------------------------------------------------------------------------------


def test_swav_loss_has_the_gradient_of_fixed_codes_and_none_to_the_queue():
    s1, s2, queue = (
        scores().requires_grad_(),
        scores(seed=1).requires_grad_(),
        scores(6, seed=2).requires_grad_(),
    )
    value = swav_loss(s1, s2, queue1=queue, queue2=queue)
    gradients = torch.autograd.grad(value, (s1, s2, queue), allow_unused=True)
    assert gradients[2] is None
    for s, other, gradient in ((s1, s2, gradients[0]), (s2, s1, gradients[1])):
        codes = sinkhorn(torch.cat([other, queue]))[:8]
        expected = ((s / 0.1).softmax(-1) - codes) / (2 * 8 * 0.1)
        assert (gradient - expected).abs().max() < 1e-14


HARD = DEGENERATE | {
    "one_prototype_wins": np.outer(np.ones(6), [1e18, 0, 0, 0]),
    "one_sample_dominates": np.outer([1e18, 0, 0, 0, 0, 0], np.ones(4)),
    "huger": 1e37 * matrices.features(6, 4),
}
every_hard_case = pytest.mark.parametrize("case", HARD)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@every_hard_case
@both_dtypes
def test_sinkhorn_is_finite_with_rows_that_sum_to_one_on_hard_scores(case, dtype):
    codes = sinkhorn(t(HARD[case], dtype))
    assert codes.isfinite().all()
    assert (codes.sum(-1) - 1).abs().max() < 8 * torch.finfo(dtype).eps


@every_hard_case
@both_dtypes
def test_losses_and_their_gradients_are_finite_on_hard_scores(case, dtype):
    hard = t(HARD[case], dtype)
    for other in (hard, t(matrices.features(*hard.shape, 9), dtype)):
        s1, s2 = hard.clone().requires_grad_(), other.clone().requires_grad_()
        assignments = torch.arange(len(s1)) % s1.shape[1]
        for value in (
            swav_loss(s1, s2, queue1=hard),
            deepcluster_loss(torch.stack([s1, s2]), assignments.expand(2, -1)),
        ):
            assert value.isfinite()
            assert all(g.isfinite().all() for g in torch.autograd.grad(value, (s1, s2)))


def test_a_huge_tie_is_shared_in_float32():
    # Subtracting max + log 2 at once would lose the log 2 beside 1e18, and rows would sum to 2.
    codes = sinkhorn(1e18 * torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]))
    assert torch.equal(codes, torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]))


# --- precision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_swav_loss_keeps_the_precision_of_a_queue_of_another_dtype(dtype):
    s1, s2, queue = scores().to(dtype), scores(seed=1).to(dtype), scores(6, seed=2, dtype=torch.float32)
    wide = [s.to(dtype if dtype == torch.float64 else torch.float32) for s in (s1, s2)]
    assert swav_loss(s1, s2, queue1=queue) == swav_loss(*wide, queue1=queue.to(wide[0].dtype))


# --- errors ----------------------------------------------------------------------------------------------------


def test_sinkhorn_rejects_a_vector():
    with pytest.raises(ValueError, match=r"\(5,\)"):
        sinkhorn(torch.randn(5))


def test_swav_loss_names_the_shapes_that_do_not_match():
    with pytest.raises(ValueError, match=r"scores1 and scores2.*\(8, 5\).*\(7, 5\)"):
        swav_loss(scores(), scores(7))
    with pytest.raises(ValueError, match=r"queue2 of shape \('?Q'?, 5\), got \(6, 4\)"):
        swav_loss(scores(), scores(), queue2=torch.randn(6, 4))
    with pytest.raises(TypeError, match="queue1.*list"):
        swav_loss(scores(), scores(), queue1=[[1.0] * 5])


@pytest.mark.parametrize(
    ("assignments", "error", "message"),
    [
        (torch.zeros(7, dtype=torch.int64), ValueError, r"assignments of shape \(8,\), got \(7,\)"),
        (torch.zeros(1, 8, dtype=torch.int64), ValueError, r"assignments of shape \(8,\), got \(1, 8\)"),
        (torch.full((8,), 5), ValueError, r"-1, \.\.\., 4, got values from 5 to 5"),
        (torch.full((8,), -2), ValueError, r"-1, \.\.\., 4, got values from -2 to -2"),
        (torch.zeros(8), TypeError, r"integer assignments, got torch\.float32"),
        (torch.zeros(8, dtype=torch.bool), TypeError, r"integer assignments, got torch\.bool"),
        ([0] * 8, TypeError, "assignments.*list"),
    ],
)
def test_deepcluster_loss_rejects_assignments_that_do_not_fit(assignments, error, message):
    with pytest.raises(error, match=message):
        deepcluster_loss(scores(), assignments)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (0, 4, 5)])
def test_deepcluster_loss_rejects_scores_of_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\(H, B, K\) or \(B, K\)"):
        deepcluster_loss(torch.randn(shape), torch.zeros(shape[:-1], dtype=torch.int64))
