"""Entropies and coding rates of features, with gradients, from the singular values in float64.

With ``Z = U diag(sigma) V^T`` and ``p = sigma^2 / sum sigma^2`` the entropy is a sum over p, and

    dH/dZ = 2/T U diag(sigma h) V^T,    h_i = alpha/(1 - alpha) (p_i^(alpha-1)/sum p^alpha - 1),    -(log p_i + H) at 1,

T = sum sigma^2. Zero singular values have no part in it (for alpha > 1/2, where the derivative exists). The tests
compare this with 50-digit arithmetic.
"""

from __future__ import annotations

import numpy as np

_RANK = 1e-10
"""Singular values below this share of the largest are zero: the families have none between 1e-4 and 1e-14."""


def entropy_and_gradient(Z: np.ndarray, alpha: float) -> tuple[float, np.ndarray]:
    """Entropy of order alpha of ``Z^T Z`` and its gradient in Z."""
    U, sigma, V = _svd(Z)
    total = (sigma**2).sum()
    p = sigma**2 / total
    if alpha == 1:
        value = float(-(p * np.log(p)).sum())
        h = -(np.log(p) + value)
    else:
        S = (p**alpha).sum()
        value = float(np.log(S) / (1 - alpha))
        h = alpha / (1 - alpha) * (p ** (alpha - 1) / S - 1)
    return value, 2 / total * (U * (sigma * h)) @ V


def coding_rate_and_gradient(Z: np.ndarray, mu: float) -> tuple[float, np.ndarray]:
    """``log det(mu I + Z^T Z)`` and its gradient in Z."""
    U, sigma, V = _svd(Z)
    value = np.log1p(sigma**2 / mu).sum() + Z.shape[1] * np.log(mu)
    return float(value), (U * (2 * sigma / (mu + sigma**2))) @ V


def _svd(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    U, sigma, V = np.linalg.svd(np.asarray(Z, dtype=np.float64), full_matrices=False)
    kept = sigma > _RANK * sigma[0]
    return U[:, kept], sigma[kept], V[kept]
