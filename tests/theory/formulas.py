"""The terms that the statements are made of, as floats."""

from __future__ import annotations

import math

import numpy as np

import matinfo
from matinfo.losses import barlow_twins_loss, spectral_contrastive_loss


def H(*args):
    """`H(K1, ..., Km, alpha)`: joint entropy of order alpha of one or more matrices."""
    *Ks, alpha = args
    return float(matinfo.joint_entropy(*Ks, alpha=alpha))


def I(K, L, alpha):  # noqa: E743
    """`I_alpha(K; L)`."""
    return float(matinfo.mutual_information(K, L, alpha))


def tcr(K, mu):
    """`log det(mu I + K)`."""
    return float(matinfo.matrix_tcr(K, mu))


def kl(K, L):
    """`tr[K (log K - log L)]` for unit diagonals."""
    return float(matinfo.matrix_kl(K, L))


def js(K, L):
    """Matrix Jensen-Shannon divergence."""
    return float(matinfo.matrix_js(K, L))


def spectral_contrastive(A, B, lambda_):
    """Loss of two views with unit rows."""
    return float(spectral_contrastive_loss(A, B, lambda_=lambda_))


def barlow_twins(A, B, lambda_):
    """Loss of two views whose unit vectors, the features over the batch, are the rows of A and B."""
    return float(barlow_twins_loss(A.T, B.T, lambda_=lambda_, center=False))


def squares(K):
    """`|K|_F^2`."""
    return float((K**2).sum())


def overlap(K, L):
    """`1/2 sum_{i != j} (K_ij^2 + L_ij^2)`."""
    return (squares(K) + squares(L)) / 2 - len(K)


def rank(K):
    """Numerical rank."""
    eigenvalues = np.linalg.eigvalsh(K)
    return int((eigenvalues > 1e-12 * eigenvalues[-1]).sum())


def eigenvalues(K):
    """Non-negative eigenvalues, ascending."""
    return np.linalg.eigvalsh(K).clip(0.0)


def shannon(p):
    """Entropy of a probability vector."""
    return float(-sum(x * math.log(x) for x in p if x > 0))


def renyi(p, alpha):
    """Rényi entropy of a probability vector."""
    p = [x for x in p if x > 0]
    if alpha == 1:
        return shannon(p)
    if math.isinf(alpha):
        return -math.log(max(p))
    return math.log(sum(x**alpha for x in p)) / (1 - alpha)
