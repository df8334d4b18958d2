"""The entropy-reconstruction bound and its estimators on the sphere."""

from __future__ import annotations

from math import log

import numpy as np
import strategies as some
from formulas import shannon
from hypothesis import strategies as st
from statement import Statement, distance

from matinfo.losses import (
    discrete_er_loss,
    er_loss,
    sphere_entropy,
    sphere_reconstruction,
    vmf_log_normalizer,
)

concentrations = st.floats(-2.0, 3.0).map(lambda e: 10.0**e)
batches = some.with_number(some.feature_batches().filter(lambda batch: batch[0].shape[1] > 1), concentrations)
two_views = some.with_number(some.view_pairs().filter(lambda views: views[0].shape[1] > 1), concentrations)


@st.composite
def joint_distributions(draw, largest=5):
    """A joint distribution of two discrete variables, and a conditional one of the second given the first."""
    rng = np.random.default_rng(draw(some.seeds))
    rows, columns = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    joint = rng.dirichlet(np.full(rows * columns, 10.0 ** rng.uniform(-1, 1))).reshape(rows, columns) + 1e-9
    joint /= joint.sum()
    q = joint / joint.sum(1, keepdims=True)
    if draw(st.booleans()):
        q = rng.dirichlet(np.ones(columns), rows) + 1e-9
        q /= q.sum(1, keepdims=True)
    return joint, q


def _bound(joint, q, *, gap=0.0, entropy_share=1.0):
    """I(X; Y) less the bound, less a share of what the variational distribution misses."""
    px, py = joint.sum(1), joint.sum(0)
    information = shannon(px) + shannon(py) - shannon(joint.ravel())
    missed = (joint * (np.log(joint / px[:, None]) - np.log(q))).sum()
    return information - (entropy_share * shannon(py) + (joint * np.log(q)).sum()) - gap * missed


def _range(Z, kappa, *, top=1.0, bottom=0.0):
    """The estimate above that of collapsed rows lies between 0 and log B."""
    value = float(sphere_entropy(Z, kappa=kappa)) + vmf_log_normalizer(Z.shape[1], kappa) + kappa
    return min(value - bottom, top * log(len(Z)) - value) / (1 + kappa)


def _self_term(Z, kappa, *, extra=0.0):
    """The estimate without a sample's own kernel, which is the largest, less the one with it."""
    n, d = Z.shape
    if n == 1:
        return 0.0
    logits = kappa * Z @ Z.T + vmf_log_normalizer(d, kappa) - log(n - 1)
    np.fill_diagonal(logits, -np.inf)
    without = -np.logaddexp.reduce(logits, 1).mean()
    return (without - float(sphere_entropy(Z, kappa=kappa))) / (1 + kappa) - extra


def _loss_floor(A, B, kappa, *, share=1.0):
    return (float(er_loss(A, B, kappa=kappa)) + share * log(len(A))) / (1 + kappa)


def _loss_is_difference(A, B, kappa, *, other=False):
    entropy = float(sphere_entropy(A if other else B, kappa=kappa))
    return distance(
        float(er_loss(A, B, kappa=kappa)), float(sphere_reconstruction(A, B, kappa=kappa)) - entropy
    )


@st.composite
def assignments(draw, largest=6):
    """Rows of cluster assignments of two views: certain and even, or any."""
    rng, K = np.random.default_rng(draw(some.seeds)), draw(st.integers(1, largest))
    p = np.eye(K)[rng.permutation(K)] if draw(st.booleans()) else rng.dirichlet(np.full(K, 0.3), 2 * K)
    return p, p if draw(st.booleans()) else p[rng.permutation(len(p))]


def _clusters(p, q, *, share=1.0):
    return float(discrete_er_loss(p, q)) + share * log(p.shape[1])


STATEMENTS = [
    Statement(
        "ER bound",
        "information is at least entropy less the cost of reconstruction, and the rest is the divergence of q",
        joint_distributions(),
        lambda joint, q: min(_bound(joint, q), -abs(_bound(joint, q, gap=1.0))),
        {
            "without the entropy": lambda joint, q: -_bound(joint, q, entropy_share=0.0),
            "0.98 of the divergence": lambda joint, q: -abs(_bound(joint, q, gap=0.98)),
        },
    ),
    Statement(
        "ER bound",
        "an estimate from B samples lies within log B above that of collapsed ones",
        batches,
        _range,
        {
            "within 0.98 log B": lambda Z, kappa: _range(Z, kappa, top=0.98),
            "and not at its foot": lambda Z, kappa: _range(Z, kappa, bottom=0.02),
        },
    ),
    Statement(
        "ER bound",
        "a sample's own kernel never raises the estimate",
        batches,
        _self_term,
        {"and lowers it at collapse": lambda Z, kappa: _self_term(Z, kappa, extra=1e-3)},
    ),
    Statement(
        "ER bound",
        "the loss is at least -log B: no batch shows more information",
        two_views,
        _loss_floor,
        {"at least -0.98 log B": lambda A, B, kappa: _loss_floor(A, B, kappa, share=0.98)},
    ),
    Statement(
        "ER bound",
        "the constant of the density cancels between reconstruction and entropy",
        two_views,
        _loss_is_difference,
        {"with the other view's entropy": lambda A, B, kappa: _loss_is_difference(A, B, kappa, other=True)},
    ),
    Statement(
        "ER bound",
        "the plug-in loss of K clusters is at least -log K",
        assignments(),
        _clusters,
        {"at least -0.98 log K": lambda p, q: _clusters(p, q, share=0.98)},
        tolerance=1e-5,  # the loss adds 1e-7 inside its logarithms
    ),
]
