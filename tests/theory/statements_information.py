"""Section 4.1: mutual information and the losses of two branches."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import strategies as some
from formulas import H, I, barlow_twins, overlap, spectral_contrastive, squares
from statement import Statement, distance

from matinfo import sandwiched_mutual_information
from matinfo.bounds import (
    barlow_twins_overlap_bound,
    cross_overlap_bound,
    information_lower_bound,
    spectral_contrastive_overlap_bound,
)

weighted_views = some.with_number(some.view_pairs())


def _prop_4_1(K, L, *, d_factor=2, power=1.0, numerator=lambda K, L: squares(K) * squares(L)):
    expected = d_factor * log(len(K)) - power * log(numerator(K, L) / squares(K * L))
    return distance(I(K, L, 2), expected)


def _lemma_4_2(a, b, c, *, factor=1.0, squared=False):
    step = np.linalg.norm(b - c)
    return abs(a @ c) + factor * (step**2 if squared else step) - abs(a @ b)


def _same_step(a, b, c):
    return distance(np.linalg.norm(b - c), sqrt(max(2 - 2 * b @ c, 0.0)))


def _two_logs(n, bracket):
    """The right-hand side `log n - 2 log(bracket)` as a function of information minus it."""
    return log(n) - 2 * log(bracket)


def _contrastive(bracket):
    def slack(A, B, lambda_):
        n, L = len(A), spectral_contrastive(A, B, lambda_)
        return I(some.gram(A), some.gram(B), 2) - _two_logs(n, bracket(n, lambda_, L))

    return slack


def _decorrelating(bracket):
    def slack(A, B, lambda_):
        d, L = len(A), barlow_twins(A, B, lambda_)
        return I(some.gram(A), some.gram(B), 2) - _two_logs(d, bracket(d, lambda_, L))

    return slack


printed_contrastive = _contrastive(lambda n, w, L: 1 + (2 + 2 / (w * n)) * L)
printed_decorrelating = _decorrelating(lambda d, w, L: 1 + 2 * L / (d * w) + 4 * sqrt(d * L))


def _sharp(loss, bound, *, factor=1.0, deficit=None, always=None):
    """`deficit`: order of the deficit, if not that of the information; `always`: order of both."""

    def slack(A, B, lambda_, alpha):
        n, L, alpha = len(A), loss(A, B, lambda_), always or alpha
        floor = information_lower_bound(factor * bound(L, n, lambda_=lambda_), n, alpha=deficit or alpha)
        return I(some.gram(A), some.gram(B), alpha) - floor

    return slack


def _cross(*, alignment=1.0, curvature=1.0, antisymmetric=1.0):
    def slack(A, B):
        if alignment == curvature == antisymmetric == 1:
            return float(cross_overlap_bound(A @ B.T)) - overlap(some.gram(A), some.gram(B))
        C, n = A @ B.T, len(A)
        off = C - np.diag(np.diag(C))
        D, r = 2 * (1 - np.diag(C)).sum(), np.linalg.norm((off + off.T) / 2)
        q = ((off - off.T) ** 2).sum() / 4
        bound = r**2 + alignment * D + curvature * (2 * D * r + 0.5 * D**2) - antisymmetric * q
        return min(bound, n * (n - 1)) - overlap(some.gram(A), some.gram(B))

    return slack


def _zero_loss_information(A, B, alpha, *, share=1.0):
    return distance(I(some.gram(A), some.gram(B), alpha), share * log(len(A)))


def _zero_loss_identity(A, B, alpha):
    return -max(np.abs(some.gram(Z) - np.eye(len(Z))).max() for Z in (A, B))


def _tight(A, B, lambda_, *, printed=True):
    K, L, n = some.gram(A), some.gram(B), len(A)
    values = [
        information_lower_bound(bound(loss(A, B, lambda_), n, lambda_=lambda_, form=form), n)
        for loss, bound in (
            (spectral_contrastive, spectral_contrastive_overlap_bound),
            (barlow_twins, barlow_twins_overlap_bound),
        )
        for form in ("sharp", "paper")
    ]
    return -max(abs(I(K, L, 2) - value) for value in values)


def _first_order(A, B, lambda_):
    """Where the loss is small the sharp bound on the overlap is within a factor of the loss, whatever n."""
    L = spectral_contrastive(A, B, lambda_)
    return (
        3 * max(1, 1 / lambda_) * L - spectral_contrastive_overlap_bound(L, len(A), lambda_=lambda_)
        if L < 0.3
        else 0.0
    )


def _sandwiched(K, L, alpha):
    return float(sandwiched_mutual_information(K, L, alpha))


STATEMENTS = [
    Statement(
        "Proposition 4.1",
        "information of order two is a ratio of Frobenius norms",
        some.pairs,
        _prop_4_1,
        {
            "one log d": lambda K, L: _prop_4_1(K, L, d_factor=1),
            "norms instead of their squares": lambda K, L: _prop_4_1(K, L, power=0.5),
            "only one factor": lambda K, L: _prop_4_1(K, L, numerator=lambda K, L: squares(K)),
        },
    ),
    Statement(
        "Lemma 4.2",
        "a product moves at most as far as its factor",
        some.unit_vectors(),
        _lemma_4_2,
        {
            "half the distance": lambda a, b, c: _lemma_4_2(a, b, c, factor=0.5),
            "squared distance": lambda a, b, c: _lemma_4_2(a, b, c, squared=True),
            "distance subtracted": lambda a, b, c: _lemma_4_2(a, b, c, factor=-1.0),
        },
    ),
    Statement(
        "Lemma 4.2",
        "the distance of unit vectors is the root of two less twice their product",
        some.unit_vectors(),
        _same_step,
        {"without the root": lambda a, b, c: distance(np.linalg.norm(b - c), 2 - 2 * b @ c)},
        tolerance=1e-7,
    ),
    Statement(
        "Theorem 4.3.1",
        "the spectral contrastive loss bounds information as printed",
        weighted_views,
        printed_contrastive,
        {
            "without 2/(lambda B)": _contrastive(lambda n, w, L: 1 + 2 * L),
            "without the 2": _contrastive(lambda n, w, L: 1 + 2 * L / (w * n)),
            "lambda upside down": _contrastive(lambda n, w, L: 1 + (2 + 2 * w / n) * L),
            "sign flipped": lambda *example: -printed_contrastive(*example),
        },
    ),
    Statement(
        "Theorem 4.3.1",
        "half the larger of 2/lambda and 2 (B - 1) serves instead of their sum",
        weighted_views,
        _contrastive(lambda n, w, L: 1 + 1 / n * max(1 / w, n - 1) * L),
        {
            "the smaller of the two": _contrastive(lambda n, w, L: 1 + 1 / n * min(1 / w, n - 1) * L),
            "a quarter of it": _contrastive(lambda n, w, L: 1 + 0.25 / n * max(1 / w, n - 1) * L),
        },
    ),
    Statement(
        "Theorem 4.3.2",
        "the Barlow Twins loss bounds information as printed",
        weighted_views,
        printed_decorrelating,
        {
            "without the root": _decorrelating(lambda d, w, L: 1 + 2 * L / (d * w)),
            "without 2L/(d lambda)": _decorrelating(lambda d, w, L: 1 + 4 * sqrt(d * L)),
            "the root over d": _decorrelating(lambda d, w, L: 1 + 2 * L / (d * w) + 4 * sqrt(L / d) / d**3),
            "sign flipped": lambda *example: -printed_decorrelating(*example),
        },
    ),
    Statement(
        "Theorem 4.3.1, sharper",
        "the spectral contrastive loss bounds information of every order with a first-order constant free of B",
        some.with_order(weighted_views, some.orders_with_zero),
        _sharp(spectral_contrastive, spectral_contrastive_overlap_bound),
        {
            "constant 0.9 times": _sharp(
                spectral_contrastive, spectral_contrastive_overlap_bound, factor=0.9, always=2.0
            ),
            "constant halved": _sharp(
                spectral_contrastive, spectral_contrastive_overlap_bound, factor=0.5, always=2.0
            ),
            "the deficit of order two at orders above": _sharp(
                spectral_contrastive, spectral_contrastive_overlap_bound, deficit=2.0
            ),
        },
        tolerance=2e-7,
    ),
    Statement(
        "Theorem 4.3.2, sharper",
        "the Barlow Twins loss bounds information of every order by 2 sqrt(d L) to first order",
        some.with_order(weighted_views, some.orders_with_zero),
        _sharp(barlow_twins, barlow_twins_overlap_bound),
        {
            "constant 0.9 times": _sharp(barlow_twins, barlow_twins_overlap_bound, factor=0.9, always=2.0),
            "constant halved": _sharp(barlow_twins, barlow_twins_overlap_bound, factor=0.5, always=2.0),
        },
        tolerance=2e-7,
    ),
    Statement(
        "Theorem 4.3, sharper",
        "cross-products bound the overlap",
        some.view_pairs(),
        _cross(),
        {
            "alignment halved": _cross(alignment=0.5),
            "alignment 0.9 times": _cross(alignment=0.9),
            "no second-order terms": _cross(curvature=0.0),
            "antisymmetric part counted twice": _cross(antisymmetric=2.0),
        },
    ),
    Statement(
        "Theorem 4.3, sharper",
        "for small losses the overlap bound is of the size of the loss",
        weighted_views,
        _first_order,
        {
            "with the paper's constant": lambda A, B, w: (
                3 * max(1, 1 / w) * spectral_contrastive(A, B, w)
                - spectral_contrastive_overlap_bound(
                    spectral_contrastive(A, B, w), len(A), lambda_=w, form="paper"
                )
            )
        },
    ),
    Statement(
        "Theorem 4.4, A.13",
        "loss zero makes information log n at every order",
        some.with_order(some.zero_loss_views, some.orders_with_zero),
        _zero_loss_information,
        {"half of it": lambda A, B, alpha: _zero_loss_information(A, B, alpha, share=0.5)},
    ),
    Statement(
        "Theorem 4.4",
        "loss zero makes both matrices the identity",
        some.with_order(some.zero_loss_views),
        _zero_loss_identity,
        {"on views that are only aligned": lambda A, B, alpha: _zero_loss_identity(A * 0 + A[:1], B, alpha)},
    ),
    Statement(
        "Proposition 4.5",
        "information is at most log n at every order",
        some.with_order(some.pairs, some.orders_with_zero),
        lambda K, L, alpha: log(len(K)) - I(K, L, alpha),
        {
            "half of log n": lambda K, L, alpha: log(len(K)) / 2 - I(K, L, alpha),
            "the mean of the entropies less the joint one": lambda K, L, alpha: (
                (H(K, alpha) + H(L, alpha)) / 2 - I(K, L, alpha) - 0.1
            ),
        },
        tolerance=2e-7,
    ),
    Statement(
        "Corollary 4.6",
        "the bounds of order two are attained at loss zero",
        some.with_number(some.zero_loss_views),
        _tight,
        {"at other losses too": lambda A, B, w: _tight(A, 0.8 * B + 0.6 * np.roll(B, 1, 0), w)},
        tolerance=1e-6,
    ),
    Statement(
        "Proposition 4.7 c",
        "information of order one is not negative",
        some.pairs,
        lambda K, L: I(K, L, 1),
        {f"of order {alpha}": (lambda K, L, a=alpha: I(K, L, a)) for alpha in (1.5, 2, 3, float("inf"))},
    ),
    Statement(
        "Proposition 4.7 c",
        "information of order zero is not negative",
        some.pairs,
        lambda K, L: I(K, L, 0),
        {"less log 2": lambda K, L: I(K, L, 0) - log(2)},
    ),
    Statement(
        "Proposition 4.7 c, where it holds",
        "information of two stationary kernels on a ring is not negative at any order",
        some.with_order(some.circulant_pairs(), some.orders_with_zero),
        I,
        {
            "at least a fifth of the smaller entropy": lambda K, L, alpha: (
                I(K, L, alpha) - 0.2 * min(H(K, alpha), H(L, alpha))
            ),
            "joint at most the larger": lambda K, L, alpha: max(H(K, alpha), H(L, alpha)) - H(K, L, alpha),
        },
        tolerance=2e-7,
    ),
    Statement(
        "Sandwiched information",
        "is not negative at any order from one half",
        some.with_order(some.pairs, some.orders_from_half),
        _sandwiched,
        {
            "nor below a tenth of log n": lambda K, L, alpha: _sandwiched(K, L, alpha) - 0.1 * log(len(K)),
            "for unequal diagonals": lambda K, L, alpha: _sandwiched(_scaled(K), _scaled(L), alpha),
        },
        tolerance=1e-6,
    ),
    Statement(
        "Sandwiched information",
        "is at most log n",
        some.with_order(some.pairs, some.orders_from_half),
        lambda K, L, alpha: log(len(K)) - _sandwiched(K, L, alpha),
        {
            "at most the smaller entropy": lambda K, L, alpha: (
                min(H(K, alpha), H(L, alpha)) - _sandwiched(K, L, alpha)
            )
        },
        tolerance=1e-6,
    ),
    Statement(
        "Sandwiched information",
        "never falls when the order rises",
        some.with_order(some.with_order(some.pairs, some.orders_from_half), some.orders_from_half),
        lambda K, L, a, b: _sandwiched(K, L, max(a, b)) - _sandwiched(K, L, min(a, b)),
        {"never rises": lambda K, L, a, b: _sandwiched(K, L, min(a, b)) - _sandwiched(K, L, max(a, b))},
        tolerance=1e-6,
    ),
    Statement(
        "Sandwiched information",
        "falls when one side is processed further",
        some.with_order(some.triples, some.orders_from_half),
        lambda K, L, M, alpha: _sandwiched(K * M, L, alpha) - _sandwiched(K, L, alpha),
        {
            "rises": lambda K, L, M, alpha: _sandwiched(K, L, alpha) - _sandwiched(K * M, L, alpha),
            "the entropic form does so too": lambda K, L, M, alpha: I(K * M, L, alpha) - I(K, L, alpha),
        },
        tolerance=1e-6,
    ),
]


def _scaled(K):
    weights = 10.0 ** np.linspace(-1, 1, len(K))
    return K * np.outer(weights, weights)
