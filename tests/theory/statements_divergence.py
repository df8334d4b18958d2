"""Appendix C.3: divergences between the branches, and the continuity of entropy."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import strategies as some
from formulas import H, eigenvalues, js, shannon
from hypothesis import strategies as st
from statement import Statement, distance

import matinfo
from matinfo.bounds import entropy_continuity_bound, js_lower_bound, js_upper_bound


def _classical_js(p, q):
    return shannon((p + q) / 2) - (shannon(p) + shannon(q)) / 2


def _generated(p, q, *, first=1.0, second=-1.0, half=0.5):
    """`sum q_i f(p_i/q_i)` with `f(x) = first x log x + second (x + 1) log((x + 1)/2)`, limits at q_i = 0 included."""
    total = 0.0
    for x, y in zip(p, q, strict=True):
        total += first * (x * log(x / y) if x > 0 and y > 0 else 0.0)
        if x + y > 0 and y > 0:
            total += second * (x + y) * log((x + y) / (2 * y))
        elif x > 0:  # x/y -> inf: x log(x/y) - x log(x/(2y)) = x log 2
            total += x * log(2)
    return distance(half * total, _classical_js(p, q))


def _triangle(K, L, M, *, power=0.5):
    a, b, c = (max(js(*pair), 0.0) ** power for pair in ((K, L), (L, M), (K, M)))
    return a + b - c


def trace_distance(K, L):
    """Half the trace norm of the difference of two density matrices."""
    return float(np.abs(np.linalg.eigvalsh(K - L)).sum() / 2)


def _by_distance(K, L, *, upper=1.0, lower=1.0):
    """Between the least and the largest divergence at the trace distance, times factors."""
    T, value = trace_distance(K, L), js(K, L)
    return min(upper * js_upper_bound(T) - value, value - lower * js_lower_bound(min(T, 1.0)))


def _continuity(K, L, alpha, *, factor=1.0, order=None):
    T = min(factor * trace_distance(K, L), 1.0)
    return entropy_continuity_bound(T, len(K), alpha=order or alpha) - abs(H(K, alpha) - H(L, alpha))


def _continuity_attained(_, K, *, largest=1.0):
    """The pair (1 - T, T/(n-1), ...) and (1, 0, ...) has the largest difference there is."""
    n = len(K)
    worst = 0.0
    for T in (0.1 * (1 - 1 / n), 0.5 * (1 - 1 / n), 1 - 1 / n):
        p, q = np.diag([1 - T, *[T / (n - 1)] * (n - 1)]) if n > 1 else np.eye(1), np.diag(np.eye(n)[0])
        for alpha in (0.5, 1.0):
            gap = abs(H(p, alpha) - H(q, alpha))
            worst = max(worst, abs(entropy_continuity_bound(T, n, alpha=alpha) * largest - gap))
    return -worst


def _frobenius(K, L, *, root=sqrt):
    return root(len(K)) / 2 * float(np.linalg.norm(K - L)) - trace_distance(K, L)


STATEMENTS = [
    Statement(
        "Appendix C.1",
        "x log x - (x + 1) log((x + 1)/2) generates twice the Jensen-Shannon divergence",
        some.probability_pairs(),
        _generated,
        {
            "with the signs as printed": lambda p, q: _generated(p, q, second=1.0),
            "the divergence itself": lambda p, q: _generated(p, q, half=1.0),
        },
    ),
    Statement(
        "Definition C.2",
        "matrix JS lies between 0 and log 2",
        some.densities(),
        lambda K, L: min(js(K, L), log(2) - js(K, L)),
        {
            "at most half of log 2": lambda K, L: log(2) / 2 - js(K, L),
            "for mixtures weighted by the trace of 3 and 1": lambda K, L: min(
                0.0, H(0.75 * K + 0.25 * L, 1) - (H(K, 1) + H(L, 1)) / 2
            ),
        },
    ),
    Statement(
        "Definition C.2",
        "matrix JS is the mean divergence from the mixture",
        some.densities(),
        lambda K, L: distance(
            js(K, L), (matinfo.matrix_kl(K, (K + L) / 2) + matinfo.matrix_kl(L, (K + L) / 2)) / 2
        ),
        {
            "of the mixture": lambda K, L: distance(
                js(K, L), (matinfo.matrix_kl((K + L) / 2, K) + matinfo.matrix_kl((K + L) / 2, L)) / 2
            )
        },
        tolerance=1e-7,
    ),
    Statement(
        "Definition C.2, sharper",
        "matrix JS is at most log 2 times the trace distance, and at least that of two coins",
        st.one_of(some.densities(), some.nearby_densities()),
        _by_distance,
        {
            "at most half of it": lambda K, L: _by_distance(K, L, upper=0.5),
            "at most 0.9 of it": lambda K, L: _by_distance(K, L, upper=0.9),
            "at least 1.5 times the coins": lambda K, L: _by_distance(K, L, lower=1.5),
        },
        tolerance=1e-8,
    ),
    Statement(
        "Appendix C.3",
        "eigenspace JS is at most matrix JS",
        some.densities(),
        lambda K, L: js(K, L) - float(matinfo.spectrum_js(K, L)),
        {
            "at least": lambda K, L: float(matinfo.spectrum_js(K, L)) - js(K, L),
            "with spectra paired in opposite order": lambda K, L: (
                js(K, L) - _classical_js(eigenvalues(K) / np.trace(K), eigenvalues(L)[::-1] / np.trace(L))
            ),
        },
        tolerance=1e-8,
    ),
    Statement(
        "Metric",
        "the root of matrix JS obeys the triangle inequality",
        some.densities(count=3),
        _triangle,
        {
            "matrix JS itself": lambda K, L, M: _triangle(K, L, M, power=1.0),
            "its power 0.6": lambda K, L, M: _triangle(K, L, M, power=0.6),
        },
        tolerance=1e-6,
    ),
    Statement(
        "Fannes–Audenaert",
        "entropies of nearby matrices differ by at most the continuity bound at every order",
        some.with_order(some.nearby_densities(), some.orders),
        _continuity,
        {
            "distance 0.9 times, at order one": lambda K, L, alpha: _continuity(K, L, 1.0, factor=0.9),
            "the bound of order one at order one half": lambda K, L, alpha: _continuity(K, L, 0.5, order=1.0),
            "the bound of order one at order two": lambda K, L, alpha: _continuity(K, L, 2.0, factor=0.1),
        },
        tolerance=2e-7,
    ),
    Statement(
        "Fannes–Audenaert",
        "the bound is attained up to order one",
        some.densities(),
        _continuity_attained,
        {"0.9 of it": lambda K, L: _continuity_attained(K, L, largest=0.9)},
    ),
    Statement(
        "Fannes–Audenaert",
        "trace distance is at most half the root of n times the Frobenius distance",
        some.nearby_densities(),
        _frobenius,
        {"half the Frobenius distance": lambda K, L: _frobenius(K, L, root=lambda n: 1.0)},
    ),
]
