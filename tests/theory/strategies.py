"""Examples for the statements: Hypothesis strategies that reach the places where a bound is most likely to break.

Unit-diagonal matrices: partitions, equicorrelated down to -1/(n-1), rank one with signs, near the identity, near
collapse, orthogonal rows, more and fewer dimensions than samples, from n = 1 on. Two views: identical, aligned up to
10^-6 ... 10^1, opposite, permuted, orthonormal (loss 0), collapsed, pulled apart symmetrically. Weights and ridges run
over decades.
"""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st
from matrices import equicorrelated, orthogonal, partition, random_correlation, seeds, unit_diagonal

ORDERS = (0.5, 0.75, 0.9, 1.0, 1.0 + 1e-7, 1.1, 1.5, 2.0, 3.0, 5.0, 20.0, math.inf)

orders = st.sampled_from(ORDERS)
orders_with_zero = st.sampled_from((0.0, 0.25, *ORDERS))
orders_up_to_one = st.sampled_from((0.5, 0.75, 0.9, 1.0))
orders_from_half = orders  # where the sandwiched divergence obeys data processing
decades = st.floats(-3.0, 3.0).map(lambda e: 10.0**e)
small_steps = st.sampled_from([0.0, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1.0, 10.0])


def unit_rows(Z):
    """Rows divided by their length."""
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


def gram(Z):
    """`Z Z^T`, exactly symmetric, for unit rows with exact unit diagonal."""
    K = Z @ Z.T
    K = (K + K.T) / 2
    np.fill_diagonal(K, 1.0)
    return K


# --- unit-diagonal positive semi-definite matrices ------------------------------------------------------------


def _signs(n, rng):
    s = rng.choice([-1.0, 1.0], n)
    return np.outer(s, s)


def _near_identity(n, rng):
    return unit_diagonal(
        np.eye(n) + 10.0 ** rng.uniform(-6, -1) * (lambda G: G @ G.T)(rng.standard_normal((n, n)))
    )


def _near_collapse(n, rng):
    Z = np.ones((n, 3)) + 10.0 ** rng.uniform(-5, -1) * rng.standard_normal((n, 3))
    return gram(unit_rows(Z))


def _block(n, rng):
    K, size = np.eye(n), int(rng.integers(1, n + 1))
    start = int(rng.integers(0, n - size + 1))
    K[start : start + size, start : start + size] = 1.0
    return K


MATRICES = {
    "identity": lambda n, rng: np.eye(n),
    "ones": lambda n, rng: np.ones((n, n)),
    "signs": _signs,
    "random": lambda n, rng: random_correlation(n, int(rng.integers(2**31))),
    "low_rank": lambda n, rng: random_correlation(
        n, int(rng.integers(2**31)), rank=int(rng.integers(1, n + 1))
    ),
    "partition": lambda n, rng: partition(rng.integers(0, rng.integers(1, n + 1), n)),
    "uneven_partition": lambda n, rng: partition(rng.random(n) < rng.uniform(0.1, 0.9)),
    "block": _block,
    "equicorrelated": lambda n, rng: equicorrelated(n, rng.uniform(-1 / max(n - 1, 1), 1.0)),
    "near_identity": _near_identity,
    "near_collapse": _near_collapse,
}


def matrix(kind, n, seed):
    """The matrix of that kind."""
    return MATRICES[kind](n, np.random.default_rng(seed))


@st.composite
def matrices(draw, min_n=1, max_n=8, count=1, kinds=tuple(MATRICES)):
    """`count` unit-diagonal matrices of one order, as a tuple."""
    n = draw(st.integers(min_n, max_n))
    return tuple(matrix(draw(st.sampled_from(kinds)), n, draw(seeds)) for _ in range(count))


def with_order(strategy, alphas=orders):
    """Examples followed by an order alpha."""
    return st.tuples(strategy, alphas).map(lambda pair: (*pair[0], pair[1]))


def with_number(strategy, numbers=decades):
    """Examples followed by a positive number."""
    return st.tuples(strategy, numbers).map(lambda pair: (*pair[0], pair[1]))


pairs = matrices(count=2)
triples = matrices(count=3, max_n=7)
invertible_pairs = matrices(count=2, kinds=("identity", "random", "near_identity"), min_n=2)


@st.composite
def label_pairs(draw, max_n=8):
    """Two partition matrices."""
    return draw(matrices(max_n=max_n, count=2, kinds=("partition", "uneven_partition", "block")))


@st.composite
def circulant_pairs(draw, max_n=8):
    """Two unit-diagonal circulant matrices: stationary kernels on a ring."""
    n = draw(st.integers(1, max_n))
    return tuple(_circulant(n, np.random.default_rng(draw(seeds))) for _ in range(2))


def _circulant(n, rng):
    power = rng.dirichlet(np.full(n, 10.0 ** rng.uniform(-1.5, 1)))
    power = (power + power[-np.arange(n) % n]) / 2  # a symmetric spectrum makes a real matrix
    first = np.fft.fft(power).real
    return first[(np.arange(n)[:, None] - np.arange(n)) % n] / first[0]


# --- two views ------------------------------------------------------------------------------------------------


def _orthonormal(n, d, rng):
    size = max(n, d)
    return orthogonal(size, int(rng.integers(2**31)))[:n, :d]


def _anchor(n, d, rng):
    """First view: generic, orthonormal where d >= n, collapsed, or clustered."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.standard_normal((n, d))
    if kind == 1:
        return _orthonormal(n, d, rng) if d >= n else rng.standard_normal((n, d))
    if kind == 2:
        return np.ones((n, d)) + 10.0 ** rng.uniform(-4, 0) * rng.standard_normal((n, d))
    return rng.standard_normal((min(3, n), d))[np.arange(n) % min(3, n)]


def _symmetric_pull(n, d, step, rng):
    """Two views on either side of an orthonormal one: the first-order worst case of the alignment term."""
    M, S = _orthonormal(n, max(n, d), rng), rng.standard_normal((n, n))
    if rng.random() < 0.5:  # every row pulled as far
        S = S[0][(np.arange(n)[:, None] - np.arange(n)) % n]
    S = step * (S + S.T)
    np.fill_diagonal(S, 0.0)
    return M + S @ M, M - S @ M


VIEWS = (
    "aligned",
    "aligned",
    "symmetric",
    "symmetric",
    "opposite",
    "permuted",
    "independent",
    "one_off",
    "zero_loss",
)


def views(kind, n, d, step, seed):
    """Two n x d feature matrices with unit rows."""
    rng = np.random.default_rng(seed)
    if kind == "zero_loss":
        Z = unit_rows(_orthonormal(n, max(n, d), rng))
        return Z, Z.copy()
    if kind == "symmetric":
        return tuple(unit_rows(Z) for Z in _symmetric_pull(n, d, step, rng))
    A = _anchor(n, d, rng)
    B = A + step * rng.standard_normal((n, d))
    if kind == "opposite":
        B = -B
    elif kind == "permuted":
        B = B[rng.permutation(n)]
    elif kind == "independent":
        B = rng.standard_normal((n, d))
    elif kind == "one_off":
        B = A.copy()
        B[0] += step * rng.standard_normal(d)
    return unit_rows(A), unit_rows(B)


@st.composite
def view_pairs(draw, max_n=8, max_d=10, kinds=VIEWS):
    """Unit rows of two branches: `(A, B)`, each (n, d)."""
    n, d = draw(st.integers(1, max_n)), draw(st.integers(1, max_d))
    return views(draw(st.sampled_from(kinds)), n, d, draw(small_steps), draw(seeds))


zero_loss_views = view_pairs(kinds=("zero_loss",))


@st.composite
def feature_batches(draw, max_n=10, max_d=10):
    """Unit rows of one branch, from collapsed to orthonormal."""
    n, d = draw(st.integers(1, max_n)), draw(st.integers(1, max_d))
    return (unit_rows(_anchor(n, d, np.random.default_rng(draw(seeds)))),)


@st.composite
def unit_vectors(draw, max_d=6):
    """Three unit vectors a, b, b', the last two at any distance."""
    d, rng = draw(st.integers(1, max_d)), np.random.default_rng(draw(seeds))
    a, b, c = unit_rows(rng.standard_normal((3, d)))
    moved = b + draw(small_steps) * c
    return a, b, unit_rows(moved[None])[0] if moved.any() else -b


# --- spectra and numbers --------------------------------------------------------------------------------------


@st.composite
def probability_pairs(draw, max_n=12, min_n=1):
    """Two probability vectors of one length, from uniform to concentrated."""
    n, rng = draw(st.integers(min_n, max_n)), np.random.default_rng(draw(seeds))
    return tuple(_probabilities(n, draw(st.integers(0, 3)), rng) for _ in range(2))


def _probabilities(n, kind, rng):
    if kind == 0:
        return rng.dirichlet(np.full(n, 10.0 ** rng.uniform(-1.5, 1.0)))
    if kind == 1:
        return np.full(n, 1.0 / n)
    if kind == 2:
        return np.eye(n)[rng.integers(n)]
    rest = rng.uniform(0, 1)
    return np.r_[1 - rest, np.full(n - 1, rest / (n - 1))] if n > 1 else np.ones(1)


@st.composite
def densities(draw, count=2, max_n=6):
    """Density matrices of one order that share an eigenbasis or do not."""
    n = draw(st.integers(1, max_n))
    made = []
    for _ in range(count):
        rng = np.random.default_rng(draw(seeds))
        p, Q = _probabilities(n, draw(st.integers(0, 3)), rng), orthogonal(n, int(rng.integers(2**31)))
        Q = np.eye(n) if draw(st.booleans()) else Q
        made.append((lambda K: (K + K.T) / 2)((Q * p) @ Q.T))
    return tuple(made)


@st.composite
def nearby_densities(draw, max_n=8):
    """A density matrix and a perturbed one, from 1e-6 apart to unrelated."""
    K, L = draw(densities(max_n=max_n))
    step = draw(st.sampled_from([1e-6, 1e-3, 0.1, 0.5, 1.0]))
    return K, (1 - step) * K + step * L


non_negative = st.one_of(st.sampled_from([0.0, 1e-8, 1e-3, 0.5, 1.0, 10.0]), st.floats(0.0, 1e3))


@st.composite
def unit_cube_pairs(draw, max_m=8):
    """Two points of [0, 1]^m and n >= 1, corners included."""
    m, rng = draw(st.integers(1, max_m)), np.random.default_rng(draw(seeds))
    points = [rng.integers(0, 2, m) * 1.0 if draw(st.booleans()) else rng.random(m) for _ in range(2)]
    return points[0], points[1], draw(st.integers(1, 10))
