"""Examples on which a bound is attained, or as nearly as one likes, so that no constant of it can be stronger.

``cases(name)`` lists, for each function of :mod:`matinfo.bounds` that promises an inequality, arguments of a call and
the value that the promise is about. The examples are derived in docs/theory.
"""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
from formulas import overlap, renyi
from matrices import features, orthogonal, partition
from strategies import gram, unit_rows

from matinfo import bounds

mp.mp.dps = 40
LIMIT = 10**8
"""Order of matrices that are known by two eigenvalues only: what is left of order 1/n is below every tolerance."""


# --- two branches ---------------------------------------------------------------------------------------------------


def common_direction(n, s, r):
    """Overlap, misalignment and symmetric cross-talk of two branches that differ in one direction common to all.

    ``C = c I + r J`` with J the mean over samples; ``K1`` and ``K2`` have eigenvalues ``(c + r) exp(+-2 s)`` once and
    ``c exp(+-2 t)`` n - 1 times, t and c such that both diagonals are one. In the limit of large n the overlap is
    ``(r + D/2)^2 + D (1 + r + D/4)``, whatever s and r.
    """
    n, s, r = mp.mpf(n), mp.mpf(s), mp.mpf(r)
    t, c = mp.findroot(
        lambda t, c: (
            (c + r) * mp.sinh(2 * s) + (n - 1) * c * mp.sinh(2 * t),
            (c + r) * mp.cosh(2 * s) + (n - 1) * c * mp.cosh(2 * t) - n,
        ),
        (mp.mpf(0), mp.mpf(1)),
    )
    S = (c + r) ** 2 * mp.cosh(4 * s) + (n - 1) * c**2 * mp.cosh(4 * t) - n
    C = np.full((int(n), int(n)), float(r / n)) + float(c) * np.eye(int(n)) if n < 5000 else None
    return float(S), float(2 * n * (1 - c - r / n)), float(r * mp.sqrt(1 - 1 / n)), C


def pulled_apart(n, step, twist):
    """Views on either side of orthonormal ones, by a symmetric matrix and ``twist`` of an antisymmetric one."""
    G = features(n, n, seed=3)
    N = (G + G.T) / 2 + twist * (G - G.T) / 2
    np.fill_diagonal(N, 0.0)
    M = orthogonal(n, 5)
    return unit_rows(M + step * N @ M), unit_rows(M - step * N @ M)


def collapsed(n, cosine, turned=0):
    """Branches that collapse each to one vector; ``turned`` rows hold the two vectors turned and exchanged."""
    a, b = np.array([1.0, 0.0]), np.array([cosine, math.sqrt(1 - cosine**2)])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    A = np.array([a] * (n - turned) + [turn @ b] * turned)
    return A, np.array([b] * (n - turned) + [turn @ a] * turned)


def of_views():
    yield from [pulled_apart(6, step, twist) for step in (1e-4, 1e-3) for twist in (0.0, 0.5, 1.0)]
    yield from [collapsed(n, c, k) for n, k in ((5, 0), (6, 2), (2, 1)) for c in (0.0, 0.3, 0.9)]
    for Z in (features(7, 3), features(6, 9)):
        yield unit_rows(Z), unit_rows(Z)
    yield (np.eye(4), np.eye(4))


def cross():
    for A, B in of_views():
        yield (A @ B.T,), overlap(gram(A), gram(B))
    for s, r in ((0.5, 0.0), (0.5, 1.0)):
        S, _, _, C = common_direction(1500, s, r)
        yield (C,), S


def of_loss(loss, cheapest, worst_weight):
    """Losses of branches with a common direction, at the weight that makes this split the worst; and of collapse."""
    for s, r in ((0.01, 0.02), (0.1, 0.1), (0.3, 1.0), (1.0, 0.5), (1.0, 3.0), (0.05, 2.0)):
        S, D, r_n, _ = common_direction(LIMIT, s, r)
        weight = worst_weight(LIMIT, r_n, D)
        yield (loss(LIMIT, r_n, D, weight), LIMIT, weight), S
    for n in (2, 9, 300):
        for weight in (1e-4, 0.03, 1.0, 20.0):
            yield (cheapest(n, weight), n, weight), n * (n - 1)
    for c in (0.5, 0.9):  # two samples, turned against each other: no cross-talk
        D = 4 * (1 - c)
        yield (loss(2, 0.0, D, 20.0), 2, 20.0), 2 * (1 - c**2)
    for Z in (features(7, 3), features(6, 9)):  # equal views: all of the loss is cross-talk
        K = gram(unit_rows(Z))
        cross_talk = (K**2).sum() - len(K)
        yield (1e-3 * cross_talk, len(K), 1e-3), cross_talk


def contrastive():
    def cheapest(n, w):
        c = min(1.0, 1 / (w * (n - 1)))
        return 2 * n * (1 - c) + w * n * (n - 1) * c**2

    return of_loss(lambda n, r, D, w: D + w * r**2, cheapest, lambda n, r, D: (r + D) / (r * (1 + 2 * r + D)))


def decorrelating():
    return of_loss(
        lambda n, r, D, w: D**2 / (4 * n) + w * r**2,
        lambda n, w: n * w * (n - 1) / (1 + w * (n - 1)),
        lambda n, r, D: (r + D) * D / (2 * n * r * (1 + 2 * r + D)),
    )


# --- from overlap to quantities --------------------------------------------------------------------------------------


def crossed_labels():
    """Two labellings of m^2 samples, every pair of labels once: no information, at the least overlap that allows it."""
    for m in (2, 3, 5):
        rows, columns = partition(np.arange(m * m) % m), partition(np.arange(m * m) // m)
        yield overlap(rows, columns), m * m, lambda alpha: 0.0
    yield 0.0, 4, lambda alpha: math.log(4)


def squared(K):
    """Overlap of a matrix with itself, its order, and the spectrum of its Hadamard square."""
    return overlap(K, K), len(K), np.linalg.eigvalsh(K * K).clip(0.0)


def small_joint_spectra():
    for rho in (0.0, 1e-2, 0.3, 0.8, 1.0):  # S = 2 rho^2 <= 2
        yield squared(np.array([[1.0, rho], [rho, 1.0]]))
    # Equal groups and a smaller one, or a larger one and single samples: the spectra that are least.
    for sizes in (
        [5],
        [2, 2],
        [4] * 3,
        [6, 6],
        [2, 2, 1],
        [3, 3, 2],
        [3, 1],
        [20, 20, 1],
        [5] * 10 + [1],
        [3, 1, 1, 1],
    ):
        yield squared(partition(np.repeat(np.arange(len(sizes)), sizes)))


def information():
    for S, n, value in crossed_labels():
        for alpha in (0.0, 0.5, 1.0, 2.0):
            yield (S, n, alpha), value(alpha)


def joint_entropy():
    for S, n, spectrum in small_joint_spectra():
        for alpha in (0.3, 0.8, 1.0, 1.5, 2.0, 2.5, 4.0, math.inf):
            yield (S, n, alpha), renyi(spectrum / n, alpha)


def coding_rate():
    for S, n, spectrum in small_joint_spectra():
        for mu in (0.01, 1.0, 30.0):
            yield (S, n, mu), float(np.log(mu + spectrum).sum())


def product():
    for n, mu in ((2, 0.1), (5, 1.0), (9, 30.0)):
        for rate in (math.log(mu + n) + (n - 1) * math.log(mu), n * math.log1p(mu)):
            yield (rate, n * math.log1p(mu), n, mu), n * math.log(1 + mu**2 + 2 * mu)
    for K in (np.array([[1.0, 0.6], [0.6, 1.0]]), np.ones((2, 2))):  # two by two: Schur's form is an equality
        for L in (np.array([[1.0, -0.3], [-0.3, 1.0]]), np.eye(2)):
            rates = [math.log(np.linalg.det(M + 0.5 * np.eye(2))) for M in (K, L)]
            joint = math.log(np.linalg.det(K * L + 1.25 * np.eye(2)))
            yield (*rates, 2, 0.5), joint


# --- distance and expansion ------------------------------------------------------------------------------------------


def js_upper():
    for T in (1e-3, 0.2, 0.9, 1.0):
        yield (T,), T * math.log(2)  # of diag(1 - T, T, 0) and diag(1 - T, 0, T)


def js_lower():
    for T in (1e-3, 0.2, 0.9, 1.0):
        p, q = np.array([1 + T, 1 - T]) / 2, np.array([1 - T, 1 + T]) / 2
        yield (T,), math.log(2) - (renyi(p, 1) + renyi(q, 1)) / 2


def continuity():
    for n, T in ((2, 0.1), (7, 0.3), (7, 6 / 7), (50, 0.9), (50, 1e-3)):
        spread = np.r_[1 - T, np.full(n - 1, T / (n - 1))]
        for alpha in (0.3, 0.5, 0.9, 1.0):
            yield (T, n, alpha), renyi(spread, alpha)  # against (1, 0, ..., 0)
            yield (1.0, n, alpha), math.log(n)  # 1 is an upper bound of every distance
    # One of n equal eigenvalues takes n T of the others.
    for n, T in ((2, 0.01), (8, 0.25), (10**6, 0.5), (10**6, 0.03)):
        yield (T, n, math.inf), math.log(1 + n * T)
        for alpha in (1.5, 2.0, 5.0):
            left = math.floor(n * (1 - T)) - 1
            yield (T, n, alpha), (math.log((1 + n * T) ** alpha + left) - math.log(n)) / (alpha - 1)


def remainder():
    for x in (1e-3, 1.0, 1e6):  # orthonormal features: d eigenvalues mu/d
        d, mu = 3, 3 * x
        exact = mp.log1p(mp.mpf(x)) - mp.mpf(x) + mp.mpf(x) ** 2 / 2
        yield (np.eye(d), mu), float(d * exact)


UPPER = {
    "cross_overlap_bound": (lambda f: f, cross),
    "spectral_contrastive_overlap_bound": (lambda f: lambda L, n, w: f(L, n, lambda_=w), contrastive),
    "barlow_twins_overlap_bound": (lambda f: lambda L, n, w: f(L, n, lambda_=w), decorrelating),
    "js_upper_bound": (lambda f: f, js_upper),
    "entropy_continuity_bound": (lambda f: lambda T, n, a: f(T, n, alpha=a), continuity),
    "mmae_remainder_bound": (lambda f: lambda F, mu: f(F, mu=mu), remainder),
}
LOWER = {
    "information_lower_bound": (lambda f: lambda S, n, a: f(S, n, alpha=a), information),
    "joint_entropy_lower_bound": (lambda f: lambda S, n, a: f(S, n, alpha=a), joint_entropy),
    "coding_rate_lower_bound": (lambda f: lambda S, n, mu: f(S, n, mu=mu), coding_rate),
    "product_coding_rate_lower_bound": (lambda f: lambda a, b, n, mu: f(a, b, n, mu=mu), product),
    "js_lower_bound": (lambda f: f, js_lower),
}
NAMES = (*UPPER, *LOWER)


def bound_of(name, namespace=None):
    """The function of (arguments of a case), from ``matinfo.bounds`` or from a namespace with a variant of it."""
    adapt, _ = (UPPER | LOWER)[name]
    return adapt(namespace[name] if namespace else getattr(bounds, name))


def cases(name):
    """Arguments and values: ``value <= bound`` for upper bounds, ``value >= bound`` for lower ones."""
    return list((UPPER | LOWER)[name][1]())


def slack(name, bound, arguments, value):
    """By how much the promise holds, in units of the value."""
    gap = float(bound(*arguments)) - value
    return (gap if name in UPPER else -gap) / (abs(value) + 1e-6)
