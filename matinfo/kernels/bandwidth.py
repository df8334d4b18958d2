"""Bandwidths by rule, and the distances that they and the kernels are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._memory import check_matrix_fits
from matinfo._validation import check_choice, check_features, check_positive
from matinfo.spectral.normalize import widened

_MEDIAN_SAMPLE = 2048
"""Their distances are a matrix of 32 MiB."""


def sample_pair(X: Tensor, Y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both sample sets in float64 (the Gram product is where digits are lost), if their kernel matrix fits."""
    X = check_features(X, "X")
    Y = X if Y is None else check_features(Y, "Y")
    if X.shape[-1] != Y.shape[-1]:
        raise ValueError(
            f"Expected X and Y with the same number of columns, got {X.shape[-1]} and {Y.shape[-1]}."
        )
    check_matrix_fits((*X.shape[:-1], Y.shape[-2]), torch.float64, X.device)
    return widened(X), widened(Y)


def unit_of(*samples: Tensor) -> Tensor:
    """A power of two about as large as the largest entry of all of them, ``(..., 1, 1)``, a constant."""
    largest = [X.detach().abs().amax((-2, -1), keepdim=True).double() for X in samples]
    size = torch.stack(torch.broadcast_tensors(*largest)).amax(0)
    return torch.where((size > 0) & size.isfinite(), size, 1.0).log2().round().exp2()


def squared_distances(X: Tensor, Y: Tensor | None) -> Tensor:
    """Squared Euclidean distances ``(..., n, m)``, float64, exactly zero between a sample and itself for Y = None."""
    A, B = sample_pair(X, Y)
    centre = A.detach().mean(-2, keepdim=True)  # distances do not change, their round-off shrinks
    A, B = A - centre, B - centre
    squared = A.square().sum(-1)[..., :, None] + B.square().sum(-1)[..., None, :] - 2 * A @ B.mT
    if Y is None:
        n = squared.shape[-1]
        squared = squared.masked_fill(torch.eye(n, dtype=torch.bool, device=squared.device), 0.0)
    return squared.clamp_min(0.0)


def bandwidth_of(X: Tensor, rule: object) -> Tensor:
    """The given bandwidth, or that of the named rule, ``(...)``, float64."""
    if not isinstance(rule, str):
        if isinstance(rule, Tensor) and rule.ndim == 0:  # such as median_bandwidth gives
            rule = rule.item()
        value = check_positive(rule, "bandwidth")
        return torch.full(X.shape[:-2], value, dtype=torch.float64, device=X.device)
    rules = {"median": median_bandwidth, "scott": scott_bandwidth, "silverman": silverman_bandwidth}
    return rules[check_choice(rule, "bandwidth", tuple(rules))](X.detach()).double()


def sampled_bandwidth(X: Tensor, rule: float | str) -> Tensor:
    """The same where no kernel matrix is formed: the median is that of at most so many evenly strided samples."""
    step = -(-X.shape[-2] // _MEDIAN_SAMPLE) if rule == "median" else 1
    return bandwidth_of(X[..., ::step, :], rule)


@quantity
def median_bandwidth(X: Tensor) -> Tensor:
    """Median heuristic: the median Euclidean distance between two different samples.

    ``sigma = median_{i<j} |x_i - x_j|``; 1 if that is 0 (more than half of the pairs coincide) or n = 1.

    Args:
        X: ``(..., n, d)``, Tensor or NumPy array, one row a sample.

    Returns:
        ``(...)``, > 0, without gradient.

    Raises:
        ValueError: If X has fewer than two dimensions or no entries.
        TypeError: If X is not real floating point.

    Notes:
        O(n^2 d) time, O(n^2) memory.

    References:
        Garreau, Jitkrittum and Kanagawa (2017), Large sample analysis of the median heuristic.

    Example:
        >>> import torch
        >>> from matinfo.kernels import median_bandwidth
        >>> float(median_bandwidth(torch.tensor([[0.0], [1.0], [3.0]])))  # distances 1, 2, 3
        2.0
    """
    X = check_features(X, "X").detach()
    n = X.shape[-2]
    if n == 1:
        return torch.ones(X.shape[:-2], dtype=torch.float64, device=X.device)
    i, j = torch.triu_indices(n, n, 1, device=X.device)
    unit = unit_of(X)
    median = squared_distances(X / unit, None)[..., i, j].sqrt().sort(-1).values * unit[..., 0]
    count = median.shape[-1]
    median = (median[..., (count - 1) // 2] + median[..., count // 2]) / 2
    return torch.where(median == 0, 1.0, median)


@quantity
def scott_bandwidth(X: Tensor) -> Tensor:
    """Scott's rule.

    ``sigma = n^(-1/(d+4)) * s`` with s the root mean square of the columns' standard deviations; 1 if s = 0.

    Args:
        X: ``(..., n, d)``, Tensor or NumPy array, one row a sample.

    Returns:
        ``(...)``, > 0, without gradient.

    Raises:
        ValueError: If X has fewer than two dimensions or no entries.
        TypeError: If X is not real floating point.

    Notes:
        O(n d). Standard deviations are unbiased; one sample gives 1.

    References:
        Scott (1992), Multivariate density estimation.

    Example:
        >>> import torch
        >>> from matinfo.kernels import scott_bandwidth
        >>> round(float(scott_bandwidth(torch.tensor([[-1.0], [0.0], [1.0]]))), 4)  # 3^(-1/5)
        0.8027
    """
    return _density_bandwidth(X, 1.0)


@quantity
def silverman_bandwidth(X: Tensor) -> Tensor:
    """Silverman's rule.

    ``sigma = (n (d+2)/4)^(-1/(d+4)) * s``: Scott's with the constant that is optimal for a Gaussian.

    Args:
        X: ``(..., n, d)``, Tensor or NumPy array, one row a sample.

    Returns:
        ``(...)``, > 0, without gradient.

    Raises:
        ValueError: If X has fewer than two dimensions or no entries.
        TypeError: If X is not real floating point.

    References:
        Silverman (1986), Density estimation for statistics and data analysis.

    Example:
        >>> import torch
        >>> from matinfo.kernels import silverman_bandwidth
        >>> round(float(silverman_bandwidth(torch.tensor([[-1.0], [0.0], [1.0]]))), 4)
        0.8503
    """
    return _density_bandwidth(X, (check_features(X, "X").shape[-1] + 2) / 4)


def _density_bandwidth(X: Tensor, constant: float) -> Tensor:
    X = check_features(X, "X").detach().double()
    n, d = X.shape[-2:]
    if n == 1:
        return torch.ones(X.shape[:-2], dtype=torch.float64, device=X.device)
    unit = unit_of(X)
    Z = X / unit
    spread = ((Z - Z.mean(-2, keepdim=True)).square().sum((-2, -1)) / ((n - 1) * d)).sqrt() * unit[..., 0, 0]
    return torch.where(spread == 0, 1.0, spread * (n * constant) ** (-1 / (d + 4)))
