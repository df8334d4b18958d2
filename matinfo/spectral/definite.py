"""Whether a symmetric matrix is positive semi-definite, for routes that compute no eigenvalues.

Both answers are one-sided: yes can be trusted as far as it is said here, no means *look at the eigenvalues*.

Cholesky. ``K + delta I`` has a factor exactly if every eigenvalue is above -delta; ``n^3/3`` flops.

Lanczos. The eigenvalues of the tridiagonal ``T = V^T K V`` lie between those of K, so a negative one proves K
indefinite; none proves little. k products of a matrix of order n see an eigenvalue of ``-eps lambda_max`` if k is about
``log(n)/sqrt(eps)``, and no method does with substantially fewer (Needell, Swartworth and Woodruff, 2022). What occurs
is seen much earlier, because it has many negative eigenvalues: of thresholded similarities, neighbour graphs, overlap
coefficients and tanh kernels of order 65 to 1024 with a smallest eigenvalue of -0.04 to -1.5 of the largest all are
after four products, correlations with 30 % of the values missing (-0.01 to -0.1) after three to nine.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from matinfo.spectral.rows import row_products, rows_are_faster


def steps(n: int) -> int:
    """Number of products with a matrix of order n.

    Eight where it stays in the cache. Beyond, four: with the one by which symmetry is checked, and the norm, six passes
    over K. Order 2 of a matrix of order 1024 then takes about a hundredth of the time of ``eigvalsh``
    (``python -m benchmarks --case small``), three quarters of it in those passes.
    """
    return 8 if n <= 512 else 4


TINY = 1e-30
"""For the zero matrix, and against division by zero where the Krylov space is exhausted; matrices have been scaled to
sizes far above."""


def cholesky_failure(K: Tensor, shift: Tensor | float) -> Tensor:
    """Where ``K + shift I`` is positive definite 0, else not 0, ``(...)``. Shifts are a number or ``(..., 1)``."""
    A = K.clone()
    A.diagonal(dim1=-2, dim2=-1).add_(shift + TINY)
    info: Tensor = torch.linalg.cholesky_ex(A).info
    return info


def probe(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Unit vector of n entries without a pattern, always the same: chance without a generator.

    From ``i^2 phi mod 1``, which is equidistributed for irrational phi (Weyl, 1916). Entries are from 1/2 to 3/2 in
    size before it is normalised. No entry is small, so that a product shows an error in any single entry of the matrix;
    no two are equal in size, so that it has a part along the difference of any two directions.
    """
    i = torch.arange(1, n + 1, dtype=torch.float64, device=device)
    x = 2 * (i * i * 0.6180339887498949).frac()
    x = torch.where(x < 1, x + 0.5, 0.5 - x)
    return (x / torch.linalg.vector_norm(x)).to(dtype)


cached_probe = functools.lru_cache(maxsize=64)(probe)


def krylov_is_semidefinite(K: Tensor, image: Tensor, tolerance: float, *, single: bool) -> Any:
    """Whether no Ritz value of K is below ``-tolerance lambda_max``, ``(...)``; False for NaN.

    Args:
        K: Symmetric, ``(..., n, n)``, without a graph.
        image: ``K probe``, ``(..., n)``: the first product.
        tolerance: Relative size from which a negative eigenvalue is an error.
        single: Whether K is one matrix whose values may be read. Then the result is a bool, and Python numbers take the
            place of tensors that hold one, which take three times as long.
    """

    def dot(x: Tensor, y: Tensor) -> Any:
        return torch.dot(x, y).item() if single else torch.linalg.vecdot(x, y)[..., None]

    last, by_rows = steps(K.shape[-1]) - 1, single and rows_are_faster(K)
    # A Lanczos vector is u / beta: divided where it is used, it costs no operation of its own.
    u, w, beta, square = (cached_probe if single else probe)(K.shape[-1], K.dtype, K.device), image, 1.0, 0.0
    if single:
        u, w = u.clone(), w.clone()  # worked on in place
    shift = tolerance * dot(image, image) ** 0.5 + TINY  # |K v| <= lambda_max
    positive: Any = True
    pivot = 1.0
    for step in range(last + 1):
        alpha = dot(u, w) / beta
        # The pivots of T + shift I are positive exactly if no eigenvalue of T is below -shift.
        pivot = alpha + shift - square / (pivot + TINY)
        positive = positive & (pivot > 0)
        if step == last:
            break
        w = w.sub_(u, alpha=alpha / beta) if single else w - alpha / beta * u
        previous, before, u = u, beta, w
        square = dot(u, u)
        beta = square**0.5 + TINY
        if by_rows:
            w = row_products(K, u).mul_(1 / beta).sub_(previous, alpha=beta / before)
        elif single:
            w = torch.addmv(previous, K, u, beta=-beta / before, alpha=1 / beta, out=previous)
        else:
            w = (K @ u[..., None])[..., 0] / beta - beta / before * previous
    return positive if single else positive[..., 0]
