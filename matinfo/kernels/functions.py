"""Kernel matrices, and the correlation matrix of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_features, check_in, check_positive
from matinfo.kernels.bandwidth import bandwidth_of, sample_pair, squared_distances, unit_of
from matinfo.operands import normalize_rows
from matinfo.operands.gram import prepared_rows
from matinfo.spectral.normalize import widened

Kernel: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def evaluated(kernel: Kernel, A: Tensor, B: Tensor) -> Tensor:
    """A kernel of the user's own on two sets of samples."""
    block = kernel(A, B)
    if tuple(block.shape) != (len(A), len(B)):
        raise ValueError(
            f"Expected the kernel to give {(len(A), len(B))}, got {tuple(block.shape)}: it maps (m, d) and (n, d) to "
            "(m, n)."
        )
    return block


@quantity
def linear(X: Tensor, Y: Tensor | None = None) -> Tensor:
    """Linear kernel.

    ``K_ij = x_i . y_j``.

    Args:
        X: ``(..., n, d)``, Tensor or NumPy array, one row a sample.
        Y: ``(..., m, d)``; None for X.

    Returns:
        ``(..., n, m)``, dtype of the input, at least float32.

    Raises:
        ValueError: If the numbers of columns differ.
        TypeError: If an input is not real floating point.

    Notes:
        For entropies use ``Gram(X)``, which never forms this matrix.

    Example:
        >>> import torch
        >>> from matinfo.kernels import linear
        >>> linear(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        tensor([[5., 2.],
                [2., 1.]])
    """
    A, B = sample_pair(X, Y)
    return A @ B.mT


@quantity
def cosine(X: Tensor, Y: Tensor | None = None) -> Tensor:
    """Cosine kernel.

    ``K_ij = x_i . y_j / (|x_i| |y_j|)``. A zero row counts as a direction of its own: 1 with itself, 0 with others.

    Args:
        X: ``(..., n, d)``, Tensor or NumPy array, one row a sample.
        Y: ``(..., m, d)``; None for X.

    Returns:
        ``(..., n, m)``, dtype of the input, at least float32.

    Raises:
        ValueError: If the numbers of columns differ.
        TypeError: If an input is not real floating point.

    Notes:
        Zero rows have zero gradient. ``Gram(X, normalize=True)`` is this matrix for features without zero rows.

    Example:
        >>> import torch
        >>> from matinfo.kernels import cosine
        >>> cosine(torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
        tensor([[1., 1., 0.],
                [1., 1., 0.],
                [0., 0., 1.]])
    """
    A, B = sample_pair(X, Y)
    K = normalize_rows(A) @ normalize_rows(B).mT
    return _unit_diagonal(K) if Y is None else K


def _unit_diagonal(K: Tensor) -> Tensor:
    identity = torch.eye(K.shape[-1], dtype=torch.bool, device=K.device)
    return torch.where(identity & ~K.isnan(), 1.0, K)


@quantity
def rbf(X: Tensor, Y: Tensor | None = None, *, bandwidth: float | str = "median") -> Tensor:
    """Gaussian (radial basis function) kernel.

    ``K_ij = exp(-|x_i - y_j|^2 / (2 sigma^2))``.

    Args:
        X: ``(..., n, d)``, Tensor or NumPy array, one row a sample.
        Y: ``(..., m, d)``; None for X.
        bandwidth: sigma > 0, or the rule that finds it from X: ``"median"``, ``"scott"`` or ``"silverman"``.

    Returns:
        ``(..., n, m)``, unit diagonal for Y = None, dtype of the input, at least float32.

    Raises:
        ValueError: If the bandwidth is not positive or no known rule, or the numbers of columns differ.
        TypeError: If an input is not real floating point.

    Notes:
        O(n m d), distances in float64. The bandwidth found by a rule is a constant for the gradient.

    Example:
        >>> import torch
        >>> from matinfo.kernels import rbf
        >>> rbf(torch.tensor([[0.0], [1.0]]), bandwidth=1.0)
        tensor([[1.0000, 0.6065],
                [0.6065, 1.0000]])
    """
    A, B = sample_pair(X, Y)
    unit = unit_of(A, B)  # squares of distances have to exist
    squared = squared_distances(A / unit, None if Y is None else B / unit)
    sigma = bandwidth_of(X, bandwidth)[..., None, None] / unit
    return torch.exp(-squared / (2 * sigma) / sigma)


@quantity
def laplacian(X: Tensor, Y: Tensor | None = None, *, bandwidth: float | str = "median") -> Tensor:
    """Laplacian kernel.

    ``K_ij = exp(-|x_i - y_j|_1 / sigma)`` with the l1 distance.

    Args:
        X: ``(..., n, d)``, Tensor or NumPy array, one row a sample.
        Y: ``(..., m, d)``; None for X.
        bandwidth: sigma > 0, or the rule that finds it from X: ``"median"``, ``"scott"`` or ``"silverman"``
            (computed from l2 distances, as for :func:`rbf`).

    Returns:
        ``(..., n, m)``, unit diagonal for Y = None, dtype of the input, at least float32.

    Raises:
        ValueError: If the bandwidth is not positive or no known rule, or the numbers of columns differ.
        TypeError: If an input is not real floating point.

    Notes:
        O(n m d). At coinciding samples the gradient is 0.

    Example:
        >>> import torch
        >>> from matinfo.kernels import laplacian
        >>> laplacian(torch.tensor([[0.0], [1.0]]), bandwidth=1.0)
        tensor([[1.0000, 0.3679],
                [0.3679, 1.0000]])
    """
    A, B = sample_pair(X, Y)
    return torch.exp(-torch.cdist(A, B, p=1) / bandwidth_of(X, bandwidth)[..., None, None])


@quantity
def polynomial(
    X: Tensor, Y: Tensor | None = None, *, degree: int = 3, gamma: float | None = None, coef0: float = 1.0
) -> Tensor:
    """Polynomial kernel.

    ``K_ij = (gamma x_i . y_j + coef0)^degree``.

    Args:
        X: ``(..., n, d)``, Tensor or NumPy array, one row a sample.
        Y: ``(..., m, d)``; None for X.
        degree: Positive integer.
        gamma: Scale > 0; None for 1/d.
        coef0: Constant >= 0, so that the matrix is positive semi-definite.

    Returns:
        ``(..., n, m)``, dtype of the input, at least float32.

    Raises:
        ValueError: If a parameter is outside its domain, or the numbers of columns differ.
        TypeError: If an input is not real floating point.

    Example:
        >>> import torch
        >>> from matinfo.kernels import polynomial
        >>> polynomial(torch.tensor([[1.0], [2.0]]), degree=2, gamma=1.0)
        tensor([[ 4.,  9.],
                [ 9., 25.]])
    """
    if check_in(degree, "degree", "[1, inf)") != int(degree):
        raise ValueError(f"Expected degree to be an integer, got {degree}.")
    check_in(coef0, "coef0", "[0, inf)", "With a negative one the matrix need not be positive semi-definite.")
    A, B = sample_pair(X, Y)
    scale = 1 / A.shape[-1] if gamma is None else check_positive(gamma, "gamma")
    return (scale * (A @ B.mT) + coef0) ** int(degree)


@quantity
def correlation(features: Tensor, *, center: bool = False) -> Tensor:
    """Correlation matrix of features over the batch.

    ``K = Zb^T Zb`` where every *column* of Zb is the column of Z, its mean subtracted if asked, divided by its l2
    norm. A zero (or, centred, constant) column counts as a direction of its own: 1 with itself, 0 with others.

    Args:
        features: Z, ``(..., n, d)``, Tensor or NumPy array, one row a sample.
        center: Whether to subtract the column means: Pearson's correlation. The formula of Tan et al. does not.

    Returns:
        ``(..., d, d)``, unit diagonal, dtype of the input, at least float32.

    Raises:
        ValueError: If ``features`` has fewer than two dimensions or no entries.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(n d^2), accumulated in float64. Zero columns have zero gradient.

    References:
        Tan et al. (2024), Section 3.2.

    Example:
        >>> import torch
        >>> from matinfo import correlation
        >>> correlation(torch.tensor([[1.0, 2.0], [1.0, -2.0]]))
        tensor([[1., 0.],
                [0., 1.]])
    """
    Z = prepared_rows(check_features(features, "features"), center, normalize=False)
    columns = normalize_rows(widened(Z).mT)
    return _unit_diagonal(columns @ columns.mT)
