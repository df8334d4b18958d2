"""Coding rates: Propositions 4.10 and 4.11, Theorems 4.17 and 5.2, Lemmas A.12 and A.14."""

from __future__ import annotations

from math import log, log1p, sqrt

import numpy as np
import strategies as some
from formulas import barlow_twins, eigenvalues, kl, squares, tcr
from hypothesis import strategies as st
from statement import Statement, distance

from matinfo.bounds import (
    barlow_twins_overlap_bound,
    coding_rate_lower_bound,
    cross_overlap_bound,
    mmae_convergence_ratio,
    mmae_remainder,
    mmae_remainder_bound,
)
from matinfo.losses import mmae_tcr_loss, umae_uniformity_loss

views_with_two_numbers = some.with_number(some.with_number(some.view_pairs()))
scaled_batches = st.tuples(some.feature_batches(), some.decades, st.sampled_from(["code", "paper"])).map(
    lambda x: (x[0][0], x[1], x[2])
)


def _rate(A, B, mu):
    return tcr(some.gram(A) * some.gram(B), mu)


def _oppenheim_schur(K, L, mu, *, minus=1.0):
    """`det(A o B) >= det A prod b_ii + det B prod a_ii - det A det B` with `A = K + mu I`, `B = L + mu I`, in logs."""
    top = len(K) * log1p(mu)
    a, b = tcr(K, mu) - top, tcr(L, mu) - top  # both <= 0
    floor = np.exp(a) + np.exp(b) - minus * np.exp(a + b)
    return tcr(K * L, mu**2 + 2 * mu) - 2 * top - log(max(floor, 1e-300))


def _printed(A, B, lambda_, mu, *, first=2.0, root=4.0, ridge=lambda mu: 1 / (2 * mu**2)):
    d, L = len(A), barlow_twins(A, B, lambda_)
    floor = d * log1p(mu) - ridge(mu) * (first * L / lambda_ + root * (d - 1) * sqrt(d * L))
    return (_rate(A, B, mu) - floor) / (1 + abs(floor))


def _sharp(A, B, lambda_, mu):
    n = len(A)
    bounds = [float(cross_overlap_bound(A @ B.T))]
    bounds += [barlow_twins_overlap_bound(barlow_twins(A, B, lambda_), n, lambda_=lambda_)]
    return min(_rate(A, B, mu) - coding_rate_lower_bound(S, n, mu=mu) for S in bounds)


def _curvature(mu):
    """The best constant `log(1 + 1/mu) - 1/(1 + mu)` of the quadratic lower bound."""
    return log1p(1 / mu) - 1 / (1 + mu)


def _quadratic(K, mu, *, factor=1.0):
    return tcr(K, mu) - len(K) * log1p(mu) + factor * _curvature(mu) * (squares(K) - len(K))


def _least_rate(K, mu, *, factor=1.0):
    """The extremal spectrum is a lower bound, and never below the quadratic one."""
    n, P = len(K), max(squares(K) - len(K), 0.0)
    S = P if P >= 2 else sqrt(2 * P)
    floor = coding_rate_lower_bound(min(factor * S, n * (n - 1)), n, mu=mu)
    return min(tcr(K, mu) - floor, floor - n * log1p(mu) + _curvature(mu) * P)


def _lemma_a_12(x, a, *, half=0.5):
    return log1p(x) - (log1p(a) - half * (x - a) ** 2 + (x - a) / (1 + a))


def _lemma_a_12_sharper(x, a, *, factor=1.0):
    """The best constant for given a > 0: attained at x = 0."""
    constant = 0.5 if a < 1e-4 else (log1p(a) - a / (1 + a)) / a**2
    return _lemma_a_12(x, a, half=factor * constant)


def _lemma_a_14(x, y, n, *, floor=0):
    return (n + x.sum()) * (n + y.sum()) / (n + (x * y).sum()) - n - floor


def _expansion(F, mu, scale, *, sign=1.0, half=0.5):
    """M-MAE is its linear term plus the U-MAE term less the remainder."""
    n, d = F.shape
    m = mu if scale == "paper" else d / mu
    loss = float(mmae_tcr_loss(F, mu=mu, scale=scale)) + (d * log(mu) if scale == "paper" else 0.0)
    quadratic = half * n**2 / m**2 * float(umae_uniformity_loss(F))
    rest = float(mmae_remainder(F, mu=mu, scale=scale))
    return distance(loss + sign * rest, -n / m + quadratic)


def _variables(F, mu, scale):
    return eigenvalues(F.T @ F) / (mu if scale == "paper" else F.shape[1] / mu)


def _remainder_between(F, mu, scale, *, upper=2.0, lower=3.0):
    x, r = _variables(F, mu, scale), float(mmae_remainder(F, mu=mu, scale=scale))
    size = (x**3 / (3 + 2 * x)).sum()
    ceiling, floor = (x**3 / (3 + upper * x)).sum(), (x**3 / (3 + lower * x)).sum()
    return min(ceiling - r, r - floor) / (1e-300 + size)


def _remainder_share(F, mu, scale, *, factor=2.0):
    """Remainder over U-MAE term against `2 r/(3 + 2 r)`, r the convergence ratio."""
    m = mu if scale == "paper" else F.shape[1] / mu
    quadratic = len(F) ** 2 / (2 * m**2) * float(umae_uniformity_loss(F))
    r = float(mmae_convergence_ratio(F, mu=mu, scale=scale))
    return factor * r / (3 + 2 * r) - float(mmae_remainder(F, mu=mu, scale=scale)) / quadratic


def _taylor(F, mu, scale, terms, *, radius=1.0):
    """The remainder after N terms lies between `sum x^(N+1)/((N+1)(1+x))` and `sum x^(N+1)/(N+1)`.

    Hence the series converges if no x exceeds 1 and diverges otherwise.
    """
    x = _variables(F, mu, scale)
    x = x / max(x.max(), 1e-300) * min(x.max(), 3.0)  # keeps the powers in range
    partial = sum(-((-x) ** k) / k for k in range(1, terms + 1))
    rest = np.abs(np.log1p(x) - partial)
    power = x ** (terms + 1) / (terms + 1)
    noise = 1e-15 * (1 + x**terms)
    return float(min((power - rest + noise).min(), (rest - power / (1 + radius * x) + noise).min()))


STATEMENTS = [
    Statement(
        "Proposition 4.10",
        "the coding rate is d log(1 + mu) less a divergence",
        some.with_number(some.matrices()),
        lambda K, mu: distance(
            tcr(K, mu), len(K) * log1p(mu) - kl(np.eye(len(K)), (mu * np.eye(len(K)) + K) / (1 + mu))
        ),
        {
            "divergence the other way": lambda K, mu: distance(
                tcr(K, mu), len(K) * log1p(mu) - kl((mu * np.eye(len(K)) + K) / (1 + mu), np.eye(len(K)))
            ),
            "log mu for log(1 + mu)": lambda K, mu: distance(
                tcr(K, mu), len(K) * log(mu) - kl(np.eye(len(K)), (mu * np.eye(len(K)) + K) / (1 + mu))
            ),
        },
    ),
    Statement(
        "Proposition 4.11",
        "the coding rate of the product at mu^2 + 2 mu is at least the sum of those of the factors at mu",
        some.with_number(some.pairs),
        lambda K, L, mu: tcr(K * L, mu**2 + 2 * mu) - tcr(K, mu) - tcr(L, mu),
        {
            "at mu^2": lambda K, L, mu: tcr(K * L, mu**2) - tcr(K, mu) - tcr(L, mu),
            "at mu": lambda K, L, mu: tcr(K * L, mu) - tcr(K, mu) - tcr(L, mu),
            "at most": lambda K, L, mu: tcr(K, mu) + tcr(L, mu) - tcr(K * L, mu**2 + 2 * mu),
        },
    ),
    Statement(
        "Proposition 4.11, sharper",
        "the larger of the two coding rates may be joined by that of the identity",
        some.with_number(some.pairs),
        lambda K, L, mu: tcr(K * L, mu**2 + 2 * mu) - max(tcr(K, mu), tcr(L, mu)) - len(K) * log1p(mu),
        {
            "both by that of the identity": lambda K, L, mu: (
                tcr(K * L, mu**2 + 2 * mu) - tcr(np.eye(len(K)), mu) - tcr(K, mu) / 2 - len(K) * log1p(mu) / 2
            ),
            "at mu^2 + mu": lambda K, L, mu: (
                tcr(K * L, mu**2 + mu) - max(tcr(K, mu), tcr(L, mu)) - len(K) * log1p(mu)
            ),
        },
    ),
    Statement(
        "Proposition 4.11, sharper",
        "the inequality of Oppenheim and Schur for the determinants",
        some.with_number(some.pairs),
        _oppenheim_schur,
        {
            "without the product": lambda K, L, mu: _oppenheim_schur(K, L, mu, minus=0.0),
            "with 0.9 of the product": lambda K, L, mu: _oppenheim_schur(K, L, mu, minus=0.9),
        },
    ),
    Statement(
        "Theorem 4.17",
        "the Barlow Twins loss bounds the joint coding rate as printed",
        views_with_two_numbers,
        _printed,
        {
            "mu for 1/(2 mu^2)": lambda *example: _printed(*example, ridge=lambda mu: mu / 100),
            "without the root": lambda *example: _printed(*example, root=0.0),
            "both terms a hundredth": lambda *example: _printed(*example, first=0.02, root=0.04),
            "sign flipped": lambda *example: -_printed(*example),
        },
    ),
    Statement(
        "Theorem 4.17, sharper",
        "losses and cross-products bound the joint coding rate",
        views_with_two_numbers,
        _sharp,
        {
            "by that of the identity": lambda A, B, w, mu: _rate(A, B, mu) - len(A) * log1p(mu),
            "in the other direction": lambda *example: -_sharp(*example),
        },
    ),
    Statement(
        "Theorem 4.17, sharper",
        "the constant 1/(2 mu^2) improves to log(1 + 1/mu) - 1/(1 + mu)",
        some.with_number(some.matrices()),
        _quadratic,
        {
            "half of it": lambda K, mu: _quadratic(K, mu, factor=0.5),
            "0.9 of it": lambda K, mu: _quadratic(K, mu, factor=0.9),
        },
    ),
    Statement(
        "Theorem 4.17, sharper",
        "no spectrum of the same sum of squares has a smaller coding rate than the extremal one",
        some.with_number(some.matrices()),
        _least_rate,
        {"nor than that of 0.9 of it": lambda K, mu: _least_rate(K, mu, factor=0.9)},
        tolerance=1e-7,
    ),
    Statement(
        "Lemma A.12",
        "the logarithm lies above a parabola",
        st.tuples(some.non_negative, some.non_negative),
        _lemma_a_12,
        {
            "curvature halved": lambda x, a: _lemma_a_12(x, a, half=0.25),
            "without the square": lambda x, a: _lemma_a_12(x, a, half=0.0),
            "below it": lambda x, a: -_lemma_a_12(x, a),
        },
    ),
    Statement(
        "Lemma A.12, sharper",
        "with the best curvature for each tangent point",
        st.tuples(some.non_negative, some.non_negative),
        _lemma_a_12_sharper,
        {"0.9 of it": lambda x, a: _lemma_a_12_sharper(x, a, factor=0.9)},
    ),
    Statement(
        "Lemma A.14",
        "a ratio on the unit cube is at least n",
        some.unit_cube_pairs(),
        _lemma_a_14,
        {
            "at least n + 1/10": lambda x, y, n: _lemma_a_14(x, y, n, floor=0.1),
            "beyond the cube": lambda x, y, n: _lemma_a_14(10 * x, 10 * y, n),
        },
    ),
    Statement(
        "Lemma A.14, sharper",
        "the ratio is at least n plus the larger sum, hence n only at zero",
        some.unit_cube_pairs(),
        lambda x, y, n: _lemma_a_14(x, y, n, floor=max(x.sum(), y.sum())),
        {
            "plus both sums": lambda x, y, n: _lemma_a_14(x, y, n, floor=x.sum() + y.sum()),
            "plus 1.1 times the larger sum": lambda x, y, n: _lemma_a_14(
                x, y, n, floor=1.1 * max(x.sum(), y.sum())
            ),
        },
    ),
    Statement(
        "Theorem 5.2",
        "U-MAE is M-MAE up to its linear term and the remainder",
        scaled_batches,
        _expansion,
        {
            "without the remainder": lambda F, mu, scale: _expansion(F, mu, scale, sign=0.0),
            "remainder of the other sign": lambda F, mu, scale: _expansion(F, mu, scale, sign=-1.0),
            "U-MAE term doubled": lambda F, mu, scale: _expansion(F, mu, scale, half=1.0),
        },
    ),
    Statement(
        "Theorem 5.2, remainder",
        "lies between sum x^3/(3 + 3x) and sum x^3/(3 + 2x) inside the radius and outside",
        scaled_batches,
        _remainder_between,
        {
            "at most sum x^3/(3 + 2.5x)": lambda F, mu, scale: _remainder_between(F, mu, scale, upper=2.5),
            "at least sum x^3/(3 + 2x)": lambda F, mu, scale: _remainder_between(F, mu, scale, lower=2.0),
            "at least the Taylor term": lambda F, mu, scale: _remainder_between(F, mu, scale, lower=0.0),
        },
    ),
    Statement(
        "Theorem 5.2, remainder",
        "the bound of the package is sum x^3/(3 + 2x)",
        scaled_batches,
        lambda F, mu, scale: distance(
            mmae_remainder_bound(F, mu=mu, scale=scale),
            (lambda x: (x**3 / (3 + 2 * x)).sum())(_variables(F, mu, scale)),
        ),
        {
            "of the other scale": lambda F, mu, scale: distance(
                mmae_remainder_bound(F, mu=mu, scale="code" if scale == "paper" else "paper"),
                (lambda x: (x**3 / (3 + 2 * x)).sum())(_variables(F, mu, scale)),
            )
        },
    ),
    Statement(
        "Theorem 5.2, remainder",
        "is at most 2r/(3 + 2r) of the U-MAE term, r the convergence ratio",
        scaled_batches,
        _remainder_share,
        {"at most half of that": lambda F, mu, scale: _remainder_share(F, mu, scale, factor=1.0)},
    ),
    Statement(
        "Theorem 5.2, radius",
        "the series converges where the largest variable is at most 1 and diverges beyond",
        st.tuples(scaled_batches, st.integers(1, 30)).map(lambda x: (*x[0], x[1])),
        _taylor,
        {"remainder at least the next term": lambda *example: _taylor(*example, radius=0.0)},
    ),
    Statement(
        "Two scales of mu",
        "the code's loss at mu is the printed one at d/mu but for a constant",
        st.tuples(some.feature_batches(), some.decades).map(lambda x: (x[0][0], x[1])),
        lambda F, mu: distance(
            mmae_tcr_loss(F, mu=mu, scale="code"),
            float(mmae_tcr_loss(F, mu=F.shape[1] / mu, scale="paper")) + F.shape[1] * log(F.shape[1] / mu),
        ),
        {
            "at mu itself": lambda F, mu: distance(
                mmae_tcr_loss(F, mu=mu, scale="code"),
                float(mmae_tcr_loss(F, mu=mu, scale="paper")) + F.shape[1] * log(mu),
            ),
        },
    ),
]
