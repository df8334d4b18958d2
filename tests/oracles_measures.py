"""Naive definitions of the measures without labels, in float64 NumPy, step by step as their papers have them.

Nothing here imports the package. Samples are rows.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np


def centred(Z):
    return Z - Z.mean(0)


def unit(Z):
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


def eigenvalues(Z):
    """Of the covariance, but for the number of samples, descending."""
    return np.linalg.svd(Z, compute_uv=False) ** 2


def shannon(p):
    p = p[p > 0]
    return -(p * np.log(p)).sum()


def von_neumann(K):
    x = np.linalg.eigvalsh(K)
    return shannon(x[x > 1e-12] / x.sum())


def vendi(K):
    return math.exp(von_neumann(K))


def power_law(lam, first, last, weighted):
    """Weighted regression by NumPy's own least squares."""
    k = np.arange(first, min(last, len(lam)) + 1)
    w = 1 / k if weighted else np.ones(len(k))
    A = np.column_stack([np.log(k), np.ones(len(k))])
    root = np.sqrt(w)[:, None]
    solution = np.linalg.lstsq(root * A, root[:, 0] * np.log(lam[k - 1]), rcond=None)[0]
    residual = np.log(lam[k - 1]) - A @ solution
    covariance = np.linalg.inv(A.T @ (w[:, None] * A)) * (w * residual**2).sum() / (len(k) - 2)
    return -solution[0], math.sqrt(covariance[0, 0])


def isoscore(Z):
    """The eight steps of Rudman et al."""
    d = Z.shape[1]
    variances = np.zeros(d)
    found = eigenvalues(centred(Z)) / (len(Z) - 1)
    variances[: len(found)] = found
    normalised = math.sqrt(d) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normalised - 1) / math.sqrt(2 * (d - math.sqrt(d)))
    share = (d - defect**2 * (d - math.sqrt(d))) ** 2 / d**2
    return (d * share - 1) / (d - 1)


def self_clustering(Z):
    n, d = Z.shape
    expected = n + n * (n - 1) / d
    return (((unit(Z) @ unit(Z).T) ** 2).sum() - expected) / (n**2 - expected)


def uniformity(Z, t):
    Z = unit(Z)
    pairs = [math.exp(-t * ((Z[i] - Z[j]) ** 2).sum()) for i in range(len(Z)) for j in range(i)]
    return math.log(sum(pairs) / len(pairs))


def mean_cosine(Z):
    Z = unit(Z)
    return np.mean([Z[i] @ Z[j] for i in range(len(Z)) for j in range(len(Z)) if i != j])


def coherence(Z):
    U, s, _ = np.linalg.svd(Z, full_matrices=False)
    U = U[:, s > 1e-10 * s[0]]
    return (np.linalg.norm(U, axis=1) ** 2).max() * len(Z) / U.shape[1]


def curvature(Z, absolute):
    steps = np.diff(Z, axis=0)
    cosines = [u @ w / np.linalg.norm(u) / np.linalg.norm(w) for u, w in pairwise(steps)]
    return np.mean([math.acos(abs(c) if absolute else c) for c in cosines])


def matrix_nuclear_norm(Z):
    return np.sort(np.linalg.norm(Z, axis=0))[::-1][: min(Z.shape)].sum() / len(Z)


def distances(Z):
    return np.sort(np.linalg.norm(Z[:, None] - Z[None], axis=-1), axis=1)[:, 1:]


def two_nn(Z, discard):
    r = distances(Z)
    n = len(r)
    mu = np.sort(r[:, 1] / r[:, 0])[: int(n * (1 - discard))]
    x, y = np.log(mu), -np.log(1 - np.arange(1, len(mu) + 1) / n)
    return (x @ y) / (x @ x)


def mle_dimension(Z, k, average):
    r = distances(Z)[:, :k]
    m = [(k - 1) / sum(math.log(row[-1] / row[j]) for j in range(k - 1)) for row in r]
    return 1 / np.mean(1 / np.array(m)) if average == "inverse" else np.mean(m)


def local_participation_ratio(Z, k):
    D = np.linalg.norm(Z[:, None] - Z[None], axis=-1)
    ratios = []
    for row in D.argsort(1)[:, : k + 1]:
        x = eigenvalues(centred(Z[row]))
        ratios.append(x.sum() ** 2 / (x**2).sum())
    return np.mean(ratios)


def cluster_learnability(Z, labels, k):
    D = np.linalg.norm(Z[:, None] - Z[None], axis=-1)
    np.fill_diagonal(D, np.inf)
    right = 0
    for i, row in enumerate(D.argsort(1)[:, :k]):
        classes, votes = np.unique(labels[row], return_counts=True)
        right += classes[votes.argmax()] == labels[i]
    return right / len(Z)


def lidar(views, delta, offset):
    """Equations 1 to 4 of Thilak et al.; views (V, n, d)."""
    V, n, d = views.shape
    means = views.mean(0)
    S_b = sum(np.outer(m - means.mean(0), m - means.mean(0)) for m in means) / n
    S_w = sum(np.outer(z - m, z - m) for view in views for z, m in zip(view, means, strict=True)) / (n * V)
    x, Q = np.linalg.eigh(S_w + delta * np.eye(d))
    root = Q @ np.diag(x**-0.5) @ Q.T
    lam = np.linalg.eigvalsh(root @ S_b @ root)
    lam = np.where(lam > 1e-12 * lam.max(), lam, 0)
    return math.exp(shannon(lam / lam.sum() + offset))


def ken(K, n, eta):
    """The general matrix of Zhang et al., whose positive eigenvalues are those of the difference."""
    m = len(K) - n
    xx, xy, yy = K[:n, :n] / n, K[:n, n:] / math.sqrt(n * m), K[n:, n:] / m
    full = np.block([[xx, math.sqrt(eta) * xy], [-math.sqrt(eta) * xy.T, -eta * yy]])
    x = np.linalg.eigvals(full).real
    x = x[x > 1e-12]
    return -(x * np.log(x / x.sum())).sum() if len(x) else 0.0


def relative_rke(K12):
    return -math.log(np.linalg.svd(K12 / math.sqrt(K12.size), compute_uv=False).sum() ** 2)


def truncated_vendi(K, keep, q):
    p = np.sort(np.linalg.eigvalsh(K / np.trace(K)))[::-1][:keep]
    p = p + (1 - p.sum()) / keep if keep < len(K) else p
    return math.exp(shannon(p)) if q == 1 else (p**q).sum() ** (1 / (1 - q))


def representation_js(phi, n):
    """From explicit features of both sets."""
    x, y = phi[:n], phi[n:]
    C_x, C_y = x.T @ x / len(x), y.T @ y / len(y)
    return von_neumann((C_x + C_y) / 2) - (von_neumann(C_x) + von_neumann(C_y)) / 2


def semantic_kernel(W, kind, time, nu, kappa):
    L = np.diag(W.sum(1)) - W
    x, Q = np.linalg.eigh(L)
    f = np.exp(-time * x) if kind == "heat" else (2 * nu / kappa**2 + x) ** -nu
    K = Q @ np.diag(f) @ Q.T
    return K / np.sqrt(np.outer(K.diagonal(), K.diagonal()))
