"""Laws of the quantities that the paper uses without a number."""

from __future__ import annotations

from math import inf

import numpy as np
import strategies as some
from formulas import H, I, renyi
from hypothesis import strategies as st
from matrices import orthogonal, seeds
from statement import Statement, distance

import matinfo
from matinfo import conditional_mutual_information, dual_total_correlation

two_orders = some.with_order(some.with_order(some.matrices(), some.orders), some.orders)
moved_pairs = st.tuples(some.with_order(some.pairs), seeds).map(lambda x: (*x[0], x[1]))
# Near collapse the product of two small eigenvalues drowns in round-off, and with it the rank.
resolved = tuple(kind for kind in some.MATRICES if kind != "near_collapse")
small_pairs = some.with_order(
    st.tuples(some.matrices(max_n=4, kinds=resolved), some.matrices(max_n=4, kinds=resolved)).map(
        lambda x: (x[0][0], x[1][0])
    ),
    some.orders_with_zero,
)
mixtures = st.tuples(some.probability_pairs(), st.floats(0.0, 1.0)).map(lambda x: (*x[0], x[1]))
binary_mixtures = st.tuples(
    some.probability_pairs(min_n=2, max_n=2), st.floats(0.0, 1.0), st.sampled_from((0.5, 1.0, 1.5, 1.9, 2.0))
).map(lambda x: (*x[0], x[1], x[2]))
matrix_mixtures = st.tuples(some.densities(), st.floats(0.0, 1.0), some.orders_up_to_one).map(
    lambda x: (*x[0], x[1], x[2])
)


def _rotated(K, L, alpha, seed, *, joint=False):
    Q = orthogonal(len(K), seed)
    turn = lambda M: (lambda R: (R + R.T) / 2)(Q @ M @ Q.T)  # noqa: E731
    if joint:
        return distance(H(turn(K), turn(L), alpha), H(K, L, alpha))
    return distance(H(turn(K), alpha), H(K, alpha))


def _permuted(K, L, alpha, seed, *, both=True):
    order = np.random.default_rng(seed).permutation(len(K))
    move = lambda M: M[np.ix_(order, order)]  # noqa: E731
    return distance(I(move(K), move(L) if both else L, alpha), I(K, L, alpha))


def _between_orders(K, a, b, *, swap=False):
    low, high = sorted((a, b), reverse=swap)
    return H(K, low) - H(K, high)


def _rescaled_orders(K, a, b, *, shift=1.0):
    """`(alpha - 1)/alpha H_alpha` never falls."""
    low, high = sorted((a, b))
    scaled = lambda alpha: H(K, alpha) * (1.0 if alpha == inf else (alpha - shift) / alpha)  # noqa: E731
    return scaled(high) - scaled(low)


def _concavity(p, q, t, alpha):
    return renyi(t * p + (1 - t) * q, alpha) - t * renyi(p, alpha) - (1 - t) * renyi(q, alpha)


def _matrix_concavity(K, L, t, alpha):
    return H(t * K + (1 - t) * L, alpha) - t * H(K, alpha) - (1 - t) * H(L, alpha)


def _third(p):
    """The larger probability kept, the rest shared by two."""
    return np.r_[p.max(), np.full(2, p.min() / 2)]


def _quasi_concavity(p, q, t, alpha, *, floor=min):
    return renyi(t * p + (1 - t) * q, alpha) - floor(renyi(p, alpha), renyi(q, alpha))


def _conditional(K, L, M, alpha=1.0):
    return float(conditional_mutual_information(K, L, M, alpha))


def _dual(*Ks, alpha=1.0):
    return float(dual_total_correlation(*Ks, alpha=alpha))


STATEMENTS = [
    Statement(
        "Additivity",
        "entropy of a Kronecker product is the sum of entropies",
        small_pairs,
        lambda K, L, alpha: distance(H(np.kron(K, L), alpha), H(K, alpha) + H(L, alpha)),
        {
            "the larger of the entropies": lambda K, L, alpha: distance(
                H(np.kron(K, L), alpha), max(H(K, alpha), H(L, alpha))
            )
        },
        tolerance=2e-7,
    ),
    Statement(
        "Invariance",
        "entropy does not change under rotation",
        moved_pairs,
        _rotated,
        {"nor does joint entropy": lambda *example: _rotated(*example, joint=True)},
        tolerance=2e-6,
    ),
    Statement(
        "Invariance",
        "information does not change when both matrices are permuted alike",
        moved_pairs,
        _permuted,
        {"nor when one of them is": lambda *example: _permuted(*example, both=False)},
        tolerance=2e-7,
    ),
    Statement(
        "Monotonicity",
        "entropy never rises with the order",
        two_orders,
        _between_orders,
        {"never falls": lambda K, a, b: _between_orders(K, a, b, swap=True)},
        tolerance=2e-7,
    ),
    Statement(
        "Monotonicity",
        "(alpha - 1)/alpha times the entropy never falls with the order",
        two_orders,
        _rescaled_orders,
        {
            "(alpha - 2)/alpha never rises": lambda K, a, b: -_rescaled_orders(K, a, b, shift=2.0),
            "nor rises": lambda K, a, b: -_rescaled_orders(K, a, b),
        },
        tolerance=2e-7,
    ),
    Statement(
        "Concavity",
        "entropy is concave up to order one",
        matrix_mixtures,
        _matrix_concavity,
        {
            "at order three": lambda K, L, t, alpha: _matrix_concavity(K, L, t, 3.0),
            "at order infinity": lambda K, L, t, alpha: _matrix_concavity(K, L, t, inf),
            "convex": lambda *example: -_matrix_concavity(*example),
        },
        tolerance=2e-6,
    ),
    Statement(
        "Concavity",
        "for two eigenvalues entropy is concave up to order two",
        binary_mixtures,
        lambda p, q, t, alpha: _concavity(p, q, t, alpha),
        {
            "up to order three": lambda p, q, t, alpha: _concavity(p, q, t, 1.5 * alpha),
            "for three eigenvalues too": lambda p, q, t, alpha: _concavity(_third(p), _third(q), t, 2.0),
        },
    ),
    Statement(
        "Concavity",
        "entropy of every order is quasi-concave",
        some.with_order(mixtures, some.orders),
        _quasi_concavity,
        {
            "at least the larger entropy": lambda *example: _quasi_concavity(*example, floor=max),
            "at least the mean": lambda p, q, t, alpha: _quasi_concavity(
                p, q, 0.5, 5.0, floor=lambda a, b: (a + b) / 2
            ),
        },
    ),
    Statement(
        "Chain rule",
        "total correlation is information added one matrix at a time",
        some.with_order(some.triples),
        lambda K, L, M, alpha: distance(
            matinfo.total_correlation(K, L, M, alpha=alpha), I(K, L, alpha) + I(K * L, M, alpha)
        ),
        {
            "pair by pair": lambda K, L, M, alpha: distance(
                matinfo.total_correlation(K, L, M, alpha=alpha), I(K, L, alpha) + I(K, M, alpha)
            )
        },
        tolerance=2e-7,
    ),
    Statement(
        "Chain rule",
        "information of a product is that of one factor and that of the other given the first",
        some.with_order(some.triples),
        lambda K, L, M, alpha: distance(I(K * M, L, alpha), I(M, L, alpha) + _conditional(K, L, M, alpha)),
        {
            "without the condition": lambda K, L, M, alpha: distance(
                I(K * M, L, alpha), I(M, L, alpha) + I(K, L, alpha)
            )
        },
        tolerance=2e-7,
    ),
    Statement(
        "Strong subadditivity",
        "conditional information of order one is not negative",
        some.triples,
        lambda K, L, M: _conditional(K, L, M),
        {
            "of order two": lambda K, L, M: _conditional(K, L, M, 2.0),
            "of order infinity": lambda K, L, M: _conditional(K, L, M, inf),
            "nor below the information without the condition": lambda K, L, M: (
                _conditional(K, L, M) - I(K, L, 1)
            ),
        },
    ),
    Statement(
        "Data processing",
        "information of order one falls when a factor of one side is forgotten",
        some.triples,
        lambda K, L, M: I(K * M, L, 1) - I(K, L, 1),
        {
            "information of order two": lambda K, L, M: I(K * M, L, 2) - I(K, L, 2),
            "information of order infinity": lambda K, L, M: I(K * M, L, inf) - I(K, L, inf),
            "rises": lambda K, L, M: I(K, L, 1) - I(K * M, L, 1),
        },
    ),
    Statement(
        "Dual total correlation",
        "lies between zero and joint entropy at order one",
        some.triples,
        lambda K, L, M: min(_dual(K, L, M), H(K, L, M, 1) - _dual(K, L, M)),
        {
            "not negative at order infinity": lambda K, L, M: _dual(K, L, M, alpha=inf),
            "at most total correlation": lambda K, L, M: (
                float(matinfo.total_correlation(K, L, M)) - _dual(K, L, M)
            ),
            "at least total correlation": lambda K, L, M: (
                _dual(K, L, M) - float(matinfo.total_correlation(K, L, M))
            ),
        },
    ),
    Statement(
        "Dual total correlation",
        "is at most joint entropy at every order",
        some.with_order(some.triples),
        lambda K, L, M, alpha: H(K, L, M, alpha) - _dual(K, L, M, alpha=alpha),
        {"at most half of it": lambda K, L, M, alpha: H(K, L, M, alpha) / 2 - _dual(K, L, M, alpha=alpha)},
        tolerance=2e-7,
    ),
    Statement(
        "Dual total correlation",
        "with total correlation it adds to the information of each with the rest",
        some.with_order(some.triples),
        lambda K, L, M, alpha: distance(
            float(matinfo.total_correlation(K, L, M, alpha=alpha)) + _dual(K, L, M, alpha=alpha),
            I(K, L * M, alpha) + I(L, K * M, alpha) + I(M, K * L, alpha),
        ),
        {
            "of each with the next": lambda K, L, M, alpha: distance(
                float(matinfo.total_correlation(K, L, M, alpha=alpha)) + _dual(K, L, M, alpha=alpha),
                I(K, L, alpha) + I(L, M, alpha) + I(M, K, alpha),
            )
        },
        tolerance=2e-7,
    ),
]
