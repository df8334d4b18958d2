"""Test matrices with prescribed spectra, hard cases seen in training, and Hypothesis strategies for them.

Everything is float64 NumPy and reproducible from a seed; tests choose dtype and framework.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

# --- spectra -------------------------------------------------------------------------------------------------

GAPS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)


def _random_spectrum(n, rng):
    return rng.uniform(0.1, 2.0, n)


def _nearly_repeated(gap):
    """Pairs of eigenvalues whose relative distance is `gap`."""

    def build(n, rng):
        lam = np.repeat(rng.uniform(0.5, 2.0, (n + 1) // 2), 2)[:n]
        lam[1::2] *= 1.0 + gap
        return lam

    return build


def _with_zeros(n, rng):
    lam = rng.uniform(0.5, 2.0, n)
    lam[: n // 2] = 0.0
    return lam


SPECTRA = {
    "flat": lambda n, rng: np.ones(n),
    "random": _random_spectrum,
    "two_level": lambda n, rng: np.where(np.arange(n) < n // 2, 1.0, 3.0),
    "triple": lambda n, rng: np.r_[np.full(min(3, n), 1.5), rng.uniform(0.2, 1.0, n - min(3, n))],
    "spiked": lambda n, rng: np.r_[10.0, rng.uniform(0.01, 0.02, n - 1)],
    "log_spaced_1e3": lambda n, rng: np.logspace(-3, 0, n),
    "log_spaced_1e6": lambda n, rng: np.logspace(-6, 0, n),
    "log_spaced_1e10": lambda n, rng: np.logspace(-10, 0, n),
} | {f"gap_{gap:.0e}": _nearly_repeated(gap) for gap in GAPS}

SINGULAR_SPECTRA = {
    "half_zero": _with_zeros,
    "rank_one": lambda n, rng: np.r_[np.zeros(n - 1), 2.0],
    "repeated_and_zero": lambda n, rng: np.r_[np.zeros(n // 2), np.ones(n - n // 2)],
}


def spectrum(name, n, seed=0):
    """The named spectrum, ascending order not promised."""
    return (SPECTRA | SINGULAR_SPECTRA)[name](n, np.random.default_rng(seed))


# --- matrices ------------------------------------------------------------------------------------------------


def orthogonal(n, seed=0):
    """A Haar-distributed orthogonal matrix."""
    Q, R = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    return Q * np.sign(np.diag(R))


def symmetric(A):
    """The symmetric part, exact to the last bit."""
    return (A + np.swapaxes(A, -1, -2)) / 2


def from_spectrum(lam, seed=0):
    """A symmetric matrix with eigenvalues `lam` and random eigenvectors."""
    lam = np.asarray(lam, dtype=np.float64)
    Q = orthogonal(len(lam), seed)
    return symmetric((Q * lam) @ Q.T)


def named(name, n, seed=0):
    """A matrix with the named spectrum."""
    return from_spectrum(spectrum(name, n, seed), seed + 1)


def unit_diagonal(K):
    """`D^-1/2 K D^-1/2` with an exact unit diagonal."""
    scale = 1.0 / np.sqrt(np.diag(K))
    out = symmetric(K * scale[:, None] * scale[None, :])
    np.fill_diagonal(out, 1.0)
    return out


def random_correlation(n, seed=0, rank=None):
    """A unit-diagonal PSD matrix of the given rank (full by default)."""
    Z = np.random.default_rng(seed).standard_normal((n, rank or 2 * n))
    return unit_diagonal(Z @ Z.T)


def equicorrelated(n, rho):
    """1 on the diagonal and rho beside it: eigenvalues 1 + (n-1) rho once and 1 - rho (n-1 times)."""
    return (1.0 - rho) * np.eye(n) + rho * np.ones((n, n))


def partition(labels):
    """`K(i, j) = 1` where samples i and j carry the same label, else 0 (eigenvalues: the label counts)."""
    labels = np.asarray(labels)
    return (labels[:, None] == labels[None, :]).astype(np.float64)


def partition_pair(table):
    """Two partition matrices from a contingency table: rows count label 1, columns label 2."""
    table = np.asarray(table)
    pairs = [(i, j) for i in range(table.shape[0]) for j in range(table.shape[1]) for _ in range(table[i, j])]
    return partition([i for i, _ in pairs]), partition([j for _, j in pairs])


def rbf_gram(n, d=16, bandwidth=4.0, seed=0):
    """RBF Gram matrix of Gaussian points; a wide bandwidth makes it ill-conditioned."""
    X = np.random.default_rng(seed).standard_normal((n, d))
    squared = ((X[:, None, :] - X[None, :, :]) ** 2).sum(-1)
    return np.exp(-squared / (2.0 * bandwidth**2))


# --- features ------------------------------------------------------------------------------------------------


def features(n, d, seed=0):
    """Gaussian features."""
    return np.random.default_rng(seed).standard_normal((n, d))


def views(n=8, d=5, noise=0.5, seed=0):
    """Features of two views: some with a mean, and the same with noise."""
    first = features(n, d, seed) + 0.3
    return first, first + noise * features(n, d, seed + 1)


def low_rank_features(n, d, rank, seed=0):
    """Features of exact rank `rank` up to rounding."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d))


def collapsed_features(n, d, clusters=4, noise=1e-3, seed=0):
    """Unit rows around a few cluster centres: the shape of a collapsing representation."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, d))
    Z = centres[np.arange(n) % clusters] + noise * rng.standard_normal((n, d))
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


def relu_features(n, d, dead_units=0.3, dead_rows=0, seed=0):
    """ReLU features with units that never fire and, on request, rows that are entirely zero."""
    rng = np.random.default_rng(seed)
    Z = np.maximum(rng.standard_normal((n, d)), 0.0)
    Z[:, rng.permutation(d)[: int(dead_units * d)]] = 0.0
    Z[:dead_rows] = 0.0
    return Z


DEGENERATE = {
    "zero": np.zeros((6, 4)),
    "collapsed": np.ones((6, 4)),
    "collapsed_far_from_zero": np.full((6, 4), 0.1) + 1e4,
    "one_zero_row": np.pad(features(5, 4), ((0, 1), (0, 0))),
    "one_zero_row_and_column": np.pad(features(5, 3), ((0, 1), (0, 1))),
    "large": 1e8 * features(6, 4),
    "huge": 1e18 * features(6, 4),
    "tiny": 1e-30 * features(6, 4),
    "one_sample": features(1, 4),
    "one_feature": features(6, 1),
}
"""Features where a division by a length, a variance or a difference goes wrong."""


# --- the families on which float32 LAPACK fails ---------------------------------------------------------------


def _sparse_vector(n, density, rng):
    v = np.zeros(n)
    support = rng.choice(n, max(2, int(density * n)), replace=False)
    v[support] = rng.standard_normal(len(support))
    return v


def _rank_one(density):
    return lambda n, rng: _sparse_vector(n, density, rng)[None]


def _dead_relu_batch(batch):
    return lambda n, rng: np.maximum(rng.standard_normal((batch, n)), 0.0) * (rng.random(n) > 0.7)


def _sparse_batch(batch):
    return lambda n, rng: np.stack([_sparse_vector(n, 0.05, rng) for _ in range(batch)])


# d x d covariances Z^T Z of sparse or half-dead features. On most of them float32 `torch.linalg.eigh` raises
# "failed to converge" (PyTorch #145801): subnormal numbers in the tridiagonal form.
HARD_FAMILIES = (
    {f"rank_one_density_{density}": _rank_one(density) for density in (0.02, 0.05, 0.1, 0.25, 0.5)}
    | {f"dead_relu_batch_{batch}": _dead_relu_batch(batch) for batch in (2, 3, 4, 8, 16, 32)}
    | {f"sparse_batch_{batch}": _sparse_batch(batch) for batch in (4, 16)}
    | {
        "rank_one_positive": lambda n, rng: np.abs(_sparse_vector(n, 0.1, rng))[None],
        "rank_one_decaying": lambda n, rng: (_sparse_vector(n, 0.3, rng) * np.logspace(0, -12, n))[None],
        "one_hot": lambda n, rng: np.eye(n)[rng.choice(n, 8)] * rng.uniform(0.5, 1.0, (8, 1)),
    }
)


def hard_features(family, n, seed=0):
    """Features (batch, n) whose n x n covariance belongs to the named hard family."""
    return HARD_FAMILIES[family](n, np.random.default_rng(seed))


# --- Hypothesis strategies -----------------------------------------------------------------------------------

seeds = st.integers(0, 2**32 - 2)
sizes = st.integers(1, 12)
orders = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 4.0, float("inf")]),
    st.floats(0.05, 20.0),
    st.floats(-9.0, -1.0).flatmap(lambda e: st.sampled_from([1.0 + 10.0**e, 1.0 - 10.0**e])),
)
positive_orders = orders.filter(lambda a: a > 0)


@st.composite
def psd_matrices(draw, min_n=1, max_n=10, singular=True):
    """PSD matrices of every named spectrum, with a scale between 1e-3 and 1e3."""
    names = sorted(SPECTRA) + (sorted(SINGULAR_SPECTRA) if singular else [])
    n = draw(st.integers(min_n, max_n))
    name = draw(st.sampled_from(names))
    return named(name, n, draw(seeds)) * 10.0 ** draw(st.integers(-3, 3))


@st.composite
def correlation_matrices(draw, n=None, full_rank=False):
    """Unit-diagonal PSD matrices: random of any rank, equicorrelated, partitions, identity, all ones."""
    n = draw(st.integers(2, 10)) if n is None else n
    seed = draw(seeds)
    kinds = ["random", "equicorrelated", "identity"] + (
        [] if full_rank else ["low_rank", "partition", "ones"]
    )
    kind = draw(st.sampled_from(kinds))
    if kind == "random":
        return random_correlation(n, seed)
    if kind == "equicorrelated":
        return equicorrelated(n, draw(st.floats(0.0, 0.95)))
    if kind == "identity":
        return np.eye(n)
    if kind == "low_rank":
        return random_correlation(n, seed, rank=draw(st.integers(1, n)))
    if kind == "partition":
        return partition(np.random.default_rng(seed).integers(0, draw(st.integers(1, n)), n))
    return np.ones((n, n))


@st.composite
def correlation_tuples(draw, count=2, full_rank=False):
    """Several unit-diagonal matrices of one size."""
    n = draw(st.integers(2, 9))
    return tuple(draw(correlation_matrices(n=n, full_rank=full_rank)) for _ in range(count))


@st.composite
def feature_matrices(draw, max_n=12, max_d=12):
    """Features: Gaussian, low-rank, collapsed, or ReLU with dead units; never entirely zero."""
    n, d, seed = draw(st.integers(2, max_n)), draw(st.integers(2, max_d)), draw(seeds)
    kind = draw(st.sampled_from(["gaussian", "low_rank", "collapsed", "relu"]))
    if kind == "gaussian":
        return features(n, d, seed)
    if kind == "low_rank":
        return low_rank_features(n, d, draw(st.integers(1, min(n, d))), seed)
    if kind == "collapsed":
        return collapsed_features(
            n, d, clusters=min(3, n), noise=10.0 ** draw(st.integers(-6, -1)), seed=seed
        )
    Z = relu_features(n, d, seed=seed)
    return Z if Z.any() else features(n, d, seed)


def decays(n) -> dict[str, np.ndarray]:
    """Spectra of order n that estimates find easy or hard: two decays, nearly flat, and of rank 24."""
    return {
        "power law": np.arange(1.0, n + 1) ** -1.5,
        "exponential": np.exp(-np.arange(n) / 20.0),
        "near identity": 1 + 0.05 * np.random.default_rng(3).standard_normal(n),
        "low rank": np.r_[np.random.default_rng(4).uniform(0.5, 2.0, 24), np.zeros(n - 24)],
    }
