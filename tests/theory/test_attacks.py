"""Bounds under attack: ascent on the violation, from random branches and from the neighbourhood of the extremal ones.

Forty random examples do not see a constant that is wrong by a few per cent; an optimiser that starts where the bound is
attained does. Every start is seeded; what is asserted is that no step leads across the bound.
"""

from __future__ import annotations

import math

import extremal
import numpy as np
import pytest
import torch

from matinfo import bounds, joint_entropy, matrix_js, matrix_tcr, mutual_information, renyi_entropy

every_number_of_starts = pytest.mark.parametrize("starts", [3, pytest.param(50, marks=pytest.mark.slow)])


def ascend(violation, start, steps=12):
    """The largest violation that L-BFGS finds from a start; what is not finite ends the search."""
    parameters = [torch.as_tensor(x, dtype=torch.float64).clone().requires_grad_() for x in start]
    optimizer = torch.optim.LBFGS(parameters, lr=0.5, max_iter=steps, line_search_fn="strong_wolfe")
    found = [-math.inf]

    def closure():
        optimizer.zero_grad()
        value = violation(*parameters)
        found.append(float(value.detach()))
        (-value).backward()
        return -value

    optimizer.step(closure)
    return max(x for x in found if not math.isnan(x))


def unit(Z):
    return Z / Z.norm(dim=-1, keepdim=True)


def branches(A, B):
    """Both Gram matrices, their cross-products, overlap, misalignment by its squares and by itself, and cross-talk."""
    A, B = unit(A), unit(B)
    K, L, C = A @ A.mT, B @ B.mT, A @ B.mT
    n = len(A)
    S = (K.square().sum() + L.square().sum()) / 2 - n
    slack = 1 - C.diagonal()
    return K, L, C, S, 2 * slack.sum(), slack.square().sum(), C.square().sum() - C.diagonal().square().sum()


def cross(A, B, _):
    _, _, C, S, *_ = branches(A, B)
    return S - bounds.cross_overlap_bound(C)


def contrastive(A, B, weight):
    _, _, _, S, D, _, cross_talk = branches(A, B)
    return S - bounds.spectral_contrastive_overlap_bound(D + weight * cross_talk, len(A), lambda_=weight)


def decorrelating(A, B, weight):
    _, _, _, S, _, squared, cross_talk = branches(A, B)
    return S - bounds.barlow_twins_overlap_bound(squared + weight * cross_talk, len(A), lambda_=weight)


def of_overlap(quantity, bound, orders):
    def violation(A, B, weight):
        K, L, _, S, *_ = branches(A, B)
        alpha = orders[int(weight * 1e3) % len(orders)]
        return bound(S, len(A), alpha) - quantity(K, L, alpha)

    return violation


def coding(A, B, weight):
    K, L, _, S, *_ = branches(A, B)
    return bounds.coding_rate_lower_bound(S, len(A), mu=weight) - matrix_tcr(K * L, weight)


def product(A, B, weight):
    K, L, *_ = branches(A, B)
    rates = matrix_tcr(K, weight), matrix_tcr(L, weight)
    floor = bounds.product_coding_rate_lower_bound(*rates, len(A), mu=weight)
    return floor - matrix_tcr(K * L, weight**2 + 2 * weight)


TWO_BRANCHES = {
    "cross": cross,
    "contrastive": contrastive,
    "decorrelating": decorrelating,
    "information": of_overlap(
        lambda K, L, a: mutual_information(K, L, a),
        lambda S, n, a: bounds.information_lower_bound(S, n, alpha=a),
        (0.5, 1.0, 2.0, 3.0),
    ),
    "joint entropy": of_overlap(
        lambda K, L, a: joint_entropy(K, L, alpha=a),
        lambda S, n, a: bounds.joint_entropy_lower_bound(S, n, alpha=a),
        (0.5, 1.0, 2.0, 3.0),
    ),
    "coding rate": coding,
    "product": product,
}


def near_extremal(rng):
    """Branches at which some bound is attained, moved a little."""
    views = list(extremal.of_views())
    A, B = views[rng.integers(len(views))]
    step = 10.0 ** rng.uniform(-4, -1)
    return A + step * rng.standard_normal(A.shape), B + step * rng.standard_normal(B.shape)


def anywhere(rng):
    n, d = rng.integers(2, 8), rng.integers(2, 9)
    A = rng.standard_normal((n, d))
    return A, A + 10.0 ** rng.uniform(-2, 0.5) * rng.standard_normal((n, d))


@every_number_of_starts
@pytest.mark.parametrize("start", [near_extremal, anywhere])
@pytest.mark.parametrize("name", TWO_BRANCHES)
def test_no_ascent_from_two_branches_crosses_a_bound(name, start, starts):
    rng = np.random.default_rng(7)
    for _ in range(starts):
        A, B = start(rng)
        weight = 10.0 ** rng.uniform(-3, 1)
        found = ascend(lambda A, B, w=weight: TWO_BRANCHES[name](A, B, w), (A, B))
        assert found <= 1e-8 * len(A) ** 2


def states(A, B):
    K, L = A @ A.mT, B @ B.mT
    return K / K.trace(), L / L.trace()


def js_above(A, B, _):
    K, L = states(A, B)
    return matrix_js(K, L) - bounds.js_upper_bound(bounds.trace_distance(K, L))


def js_below(A, B, _):
    K, L = states(A, B)
    return bounds.js_lower_bound(bounds.trace_distance(K, L)) - matrix_js(K, L)


def continuity(A, B, alpha):
    K, L = states(A, B)
    moved = (renyi_entropy(K, alpha) - renyi_entropy(L, alpha)).abs()
    return moved - bounds.entropy_continuity_bound(bounds.trace_distance(K, L), len(A), alpha=alpha)


def roots(rng):
    """Square roots of two states: the attaining ones moved a little, or any two."""
    n, T = int(rng.integers(2, 7)), rng.uniform(0.05, 0.9)
    kind, step = rng.integers(4), 10.0 ** rng.uniform(-4, -1)
    if kind == 0:
        p, q = np.eye(n)[0] * (1 - T), np.eye(n)[0] * (1 - T)
        p[1], q[-1] = T, T
    elif kind == 1:
        p, q = np.zeros(n), np.zeros(n)
        p[:2], q[:2] = ((1 + T) / 2, (1 - T) / 2), ((1 - T) / 2, (1 + T) / 2)
    elif kind == 2:
        p, q = np.r_[1 - T, np.full(n - 1, T / (n - 1))], np.eye(n)[0]
    else:
        p, q = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(n))
    return [np.diag(np.sqrt(x)) + step * rng.standard_normal((n, n)) for x in (p, q)]


@every_number_of_starts
@pytest.mark.parametrize("violation", [js_above, js_below, continuity])
def test_no_ascent_from_two_states_crosses_a_bound(violation, starts):
    rng = np.random.default_rng(11)
    for k in range(2 * starts):
        alpha = (0.5, 1.0, 2.0, 5.0)[k % 4]
        assert ascend(lambda A, B, a=alpha: violation(A, B, a), roots(rng)) <= 1e-9


def test_the_attack_finds_a_bound_that_is_two_per_cent_too_strong():
    def too_strong(A, B, _):
        K, L = states(A, B)
        return matrix_js(K, L) - 0.98 * bounds.js_upper_bound(bounds.trace_distance(K, L))

    rng = np.random.default_rng(11)
    assert max(ascend(lambda A, B: too_strong(A, B, None), roots(rng)) for _ in range(5)) > 1e-4
