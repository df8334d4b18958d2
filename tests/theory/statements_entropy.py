"""Section 4.2: entropy, joint entropy and rank."""

from __future__ import annotations

from math import inf, log, sqrt

import numpy as np
import strategies as some
from formulas import H, barlow_twins, eigenvalues, kl, overlap, rank, spectral_contrastive, squares, tcr
from statement import Statement, distance

import matinfo
from matinfo.bounds import (
    barlow_twins_overlap_bound,
    cross_overlap_bound,
    joint_entropy_lower_bound,
    spectral_contrastive_overlap_bound,
)

weighted_views = some.with_number(some.view_pairs())


def _ranks(K, L, *, joint=lambda a, b: a * b):
    bounded_by_rank = log(rank(K * L)) - H(K, L, 1)
    return min(bounded_by_rank, log(joint(rank(K), rank(L)) / rank(K * L)))


def _joint(A, B, alpha=2):
    return H(some.gram(A), some.gram(B), alpha)


def _contrastive(bracket):
    def slack(A, B, lambda_):
        n, L = len(A), spectral_contrastive(A, B, lambda_)
        return _joint(A, B) - log(n) + log(bracket(n, lambda_, L))

    return slack


def _decorrelating(bracket):
    def slack(A, B, lambda_):
        d, L = len(A), barlow_twins(A, B, lambda_)
        return _joint(A, B) - log(d) + log(bracket(d, lambda_, L))

    return slack


printed_contrastive = _contrastive(lambda n, w, L: 1 + (2 + 2 / (w * n)) * L)
printed_decorrelating = _decorrelating(lambda d, w, L: 1 + 2 * L / (d * w) + 4 * sqrt(d * L))


def _from_overlap(A, B, alpha, *, factor=1.0, form="sharp", order=None):
    S = overlap(some.gram(A), some.gram(B))
    return _joint(A, B, alpha) - joint_entropy_lower_bound(
        factor * S, len(A), alpha=order or alpha, form=form
    )


def _from_loss(A, B, lambda_, alpha):
    n = len(A)
    bounds = [
        cross_overlap_bound(A @ B.T),
        spectral_contrastive_overlap_bound(spectral_contrastive(A, B, lambda_), n, lambda_=lambda_),
        barlow_twins_overlap_bound(barlow_twins(A, B, lambda_), n, lambda_=lambda_),
    ]
    return min(_joint(A, B, alpha) - joint_entropy_lower_bound(float(S), n, alpha=alpha) for S in bounds)


def _fourth_order(K, L, *, factor=1.0):
    """`sum_{i != j} (K_ij L_ij)^2 <= S min(1, S/2)`."""
    S = overlap(K, L)
    return factor * S * min(1.0, S / 2) - (squares(K * L) - len(K))


def _least_entropy(p, _, alpha, *, order=None):
    """No spectrum of the same length and sum of squares has less entropy than the bound."""
    n = len(p)
    # The bound takes the overlap S; choose it so that P = S min(1, S/2) is the P of this spectrum.
    P = max(n * n * float((p**2).sum()) - n, 0.0)
    S = P if P >= 2 else sqrt(2 * P)
    return H(n * np.diag(p), alpha) - joint_entropy_lower_bound(min(S, n * (n - 1)), n, alpha=order or alpha)


def _zero_loss(A, B, alpha, *, share=1.0):
    return distance(_joint(A, B, alpha), share * log(len(A)))


def _tight(A, B, lambda_):
    n = len(A)
    values = [
        joint_entropy_lower_bound(bound(loss(A, B, lambda_), n, lambda_=lambda_, form=form), n, form=form)
        for loss, bound in (
            (spectral_contrastive, spectral_contrastive_overlap_bound),
            (barlow_twins, barlow_twins_overlap_bound),
        )
        for form in ("sharp", "paper")
    ]
    return -max(abs(_joint(A, B) - value) for value in values)


def _spread(K, L):
    """Partial sums of the ordered spectrum: that of K less that of the joint matrix."""
    top_down = [np.cumsum(eigenvalues(M)[::-1]) for M in (K, K * L)]
    return top_down[0] - top_down[1]


STATEMENTS = [
    Statement(
        "Proposition 4.7 a",
        "joint entropy is at most the log rank of the product, and that at most the sum of log ranks",
        some.pairs,
        _ranks,
        {
            "rank of the product at most the larger rank": lambda K, L: _ranks(K, L, joint=max),
            "rank of the product at most the sum less one": lambda K, L: _ranks(
                K, L, joint=lambda a, b: a + b - 1
            ),
            "joint entropy at least the log rank": lambda K, L: H(K, L, 1) - log(rank(K * L)),
        },
    ),
    Statement(
        "Proposition 4.7 b",
        "joint entropy is at least each entropy at every order",
        some.with_order(some.pairs, some.orders),
        lambda K, L, alpha: H(K, L, alpha) - max(H(K, alpha), H(L, alpha)),
        {
            "at least their sum": lambda K, L, alpha: H(K, L, alpha) - H(K, alpha) - H(L, alpha),
            "at most the larger": lambda K, L, alpha: max(H(K, alpha), H(L, alpha)) - H(K, L, alpha),
            "for sums instead of products": lambda K, L, alpha: (
                H(K + L, alpha) - max(H(K, alpha), H(L, alpha))
            ),
        },
        tolerance=2e-7,
    ),
    Statement(
        "Schur monotonicity",
        "the spectrum of the joint matrix is majorised by that of each",
        some.pairs,
        lambda K, L: float(min(_spread(K, L).min(), _spread(L, K).min())),
        {
            "the other way round": lambda K, L: float((-_spread(K, L)).min()),
            "for matrices whose diagonal is not constant": lambda K, L: float(
                _spread(K, L * np.outer(*[np.linspace(0.5, 2.0, len(L))] * 2)).min()
            ),
        },
    ),
    Statement(
        "Proposition 4.10",
        "entropy is log d less the divergence from the identity over d",
        some.matrices(),
        lambda K: distance(H(K, 1), log(len(K)) - kl(K, np.eye(len(K))) / len(K)),
        {
            "not divided by d": lambda K: distance(H(K, 1), log(len(K)) - kl(K, np.eye(len(K)))),
            "divergence the other way": lambda K: distance(
                H(K, 1), log(len(K)) - kl(np.eye(len(K)), K) / len(K)
            ),
        },
        tolerance=1e-8,
    ),
    Statement(
        "Proposition 4.12",
        "joint entropy of order two is a Frobenius norm",
        some.pairs,
        lambda K, L: distance(H(K, L, 2), 2 * log(len(K)) - log(squares(K * L))),
        {
            "norm instead of its square": lambda K, L: distance(
                H(K, L, 2), 2 * log(len(K)) - log(squares(K * L)) / 2
            ),
            "matrix product for Hadamard product": lambda K, L: distance(
                H(K, L, 2), 2 * log(len(K)) - log(squares(K @ L))
            ),
        },
    ),
    Statement(
        "Theorem 4.13.1",
        "the spectral contrastive loss bounds joint entropy as printed",
        weighted_views,
        printed_contrastive,
        {
            "without 2/(lambda B)": _contrastive(lambda n, w, L: 1 + L / 16),
            "lambda upside down": _contrastive(lambda n, w, L: 1 + (2 * w / n) * L),
            "sign flipped": lambda *example: -printed_contrastive(*example),
        },
    ),
    Statement(
        "Theorem 4.13.2",
        "the Barlow Twins loss bounds joint entropy as printed",
        weighted_views,
        printed_decorrelating,
        {
            "without 2L/(d lambda)": _decorrelating(lambda d, w, L: 1 + sqrt(d * L) / 16),
            "lambda upside down": _decorrelating(lambda d, w, L: 1 + 2 * L * w / d),
            "sign flipped": lambda *example: -printed_decorrelating(*example),
        },
    ),
    Statement(
        "Theorem 4.13, sharper",
        "losses and cross-products bound joint entropy of every order",
        some.with_order(weighted_views, some.orders_with_zero),
        _from_loss,
        {
            "by log n": lambda A, B, w, alpha: _joint(A, B, alpha) - log(len(A)),
            "in the other direction": lambda *example: -_from_loss(*example),
        },
        tolerance=2e-7,
    ),
    Statement(
        "Theorem 4.13, sharper",
        "the overlap bounds joint entropy of every order",
        some.with_order(some.view_pairs(), some.orders_with_zero),
        _from_overlap,
        {
            "overlap 0.9 times, at order two": lambda A, B, alpha: _from_overlap(A, B, 2.0, factor=0.9),
            "the bound of order one at order infinity": lambda A, B, alpha: _from_overlap(
                A, B, inf, order=1.0
            ),
        },
        tolerance=2e-7,
    ),
    Statement(
        "Theorem 4.13, sharper",
        "the joint matrix is closer to the identity by a whole order",
        some.pairs,
        _fourth_order,
        {
            "half of it": lambda K, L: _fourth_order(K, L, factor=0.5),
            "0.9 of it": lambda K, L: _fourth_order(K, L, factor=0.9),
            "half the square also for large overlaps": lambda K, L: (
                min(overlap(K, L), overlap(K, L) ** 2 / 8) - squares(K * L) + len(K)
            ),
        },
    ),
    Statement(
        "Theorem 4.13, sharper",
        "no spectrum of the same sum of squares has less entropy",
        some.with_order(some.probability_pairs(), some.orders_with_zero),
        _least_entropy,
        {
            "the least of order two at order infinity": lambda p, q, alpha: _least_entropy(
                p, q, inf, order=2.0
            ),
            "the least of order one half at order two": lambda p, q, alpha: _least_entropy(
                p, q, 2.0, order=0.5
            ),
        },
        tolerance=1e-6,
    ),
    Statement(
        "Theorem 4.14, A.15",
        "loss zero makes joint entropy log n at every order",
        some.with_order(some.zero_loss_views, some.orders_with_zero),
        _zero_loss,
        {"half of it": lambda A, B, alpha: _zero_loss(A, B, alpha, share=0.5)},
    ),
    Statement(
        "Corollary 4.16",
        "the bounds on joint entropy are attained at loss zero",
        some.with_number(some.zero_loss_views),
        _tight,
        {"at other losses too": lambda A, B, w: _tight(A, 0.8 * B + 0.6 * np.roll(B, 1, 0), w)},
        tolerance=1e-6,
    ),
    Statement(
        "Proposition 4.15",
        "no unit-diagonal matrix has more entropy than the identity",
        some.with_order(some.matrices(), some.orders_with_zero),
        lambda K, alpha: log(len(K)) - H(K, alpha),
        {"nor more than log(n - 1)": lambda K, alpha: log(max(len(K) - 1, 1)) - H(K, alpha)},
        tolerance=2e-7,
    ),
    Statement(
        "Proposition 4.15",
        "no unit-diagonal matrix has a larger coding rate than the identity",
        some.with_number(some.matrices()),
        lambda K, mu: len(K) * log(1 + mu) - tcr(K, mu),
        {
            "nor larger than log(1 + n mu)": lambda K, mu: log(1 + len(K) * mu) - tcr(K, mu),
            "for the trace-normalised matrix": lambda K, mu: len(K) * log(1 / len(K) + mu) - tcr(K, mu),
        },
    ),
    Statement(
        "Definition 5.1",
        "the effective rank of a unit-diagonal matrix is exp of its entropy",
        some.matrices(),
        lambda K: distance(_roy_vetterli(K), matinfo.effective_rank(K)),
        {
            "of features with that Gram matrix": lambda K: distance(
                _roy_vetterli(_root(K)), matinfo.effective_rank(K)
            )
        },
        tolerance=1e-6,
    ),
]


def _roy_vetterli(A):
    sigma = np.linalg.svd(A, compute_uv=False)
    p = sigma / sigma.sum()
    return np.exp(-sum(x * np.log(x) for x in p if x > 0))


def _root(K):
    lam, Q = np.linalg.eigh(K)
    return Q * np.sqrt(lam.clip(0))
