"""LiDAR: the rank of what tells samples apart beyond what augmentation changes."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_positive, check_trace, check_views
from matinfo.rank import rank_of_shares
from matinfo.spectral.whitening import whitened_matrix
from matinfo.spectrum import spectrum


@quantity
def lidar(views: Tensor, *, delta: float = 1e-4, offset: float = 0.0) -> Tensor:
    """LiDAR: the effective rank of the linear-discriminant matrix of samples and their augmentations.

    ``exp(-sum_k p_k log p_k)`` with ``p_k = lambda_k / sum lambda + offset`` and lambda the eigenvalues of
    ``S_w^{-1/2} S_b S_w^{-1/2}``; ``S_b = mean_i (m_i - m)(m_i - m)^T`` for the mean m_i of the views of sample i and
    the mean m of all, ``S_w = mean_{vi} (z_{vi} - m_i)(z_{vi} - m_i)^T + delta I``.

    Args:
        views: ``(..., V, n, d)``, V >= 2 views of n >= 2 samples, Tensor or NumPy array.
        delta: Ridge, > 0, in squared units of the features; the paper's 1e-4.
        offset: Added to every p_k; the paper adds a small constant, the released ports 1e-7.

    Returns:
        ``(...)``, between 1 and min(n - 1, d) for offset 0: a number of dimensions.

    Raises:
        ValueError: If ``views`` has fewer than three dimensions or two views, delta <= 0, or the samples do not differ.
        TypeError: If ``views`` is not real floating point.

    Notes:
        O(V n d^2 + d^3), in float64. First derivative. :class:`matinfo.streaming.LidarAccumulator` takes batches.

    References:
        Thilak et al. (2024), LiDAR: sensing linear probing performance in joint embedding SSL architectures, Equations
        1 to 4.

    Example:
        >>> import torch
        >>> from matinfo.measures import lidar
        >>> samples = torch.eye(4)[:3] + torch.zeros(2, 1, 1)  # three samples, in two views that agree
        >>> round(float(lidar(samples)), 4)
        2.0
    """
    Z = check_views(views, "views", least=2).double()
    means = Z.mean(-3, keepdim=True)
    apart, within = means - means.mean(-2, keepdim=True), Z - means
    count = Z.shape[-2]
    between = (apart.mT @ apart).squeeze(-3) / count
    return lidar_of(between, (within.mT @ within).sum(-3) / (count * Z.shape[-3]), delta, offset)


def lidar_of(between: Tensor, within: Tensor, delta: float, offset: float) -> Tensor:
    """LiDAR of the two covariances ``(..., d, d)``, float64."""
    ridge = check_positive(delta, "delta") * torch.eye(
        within.shape[-1], dtype=within.dtype, device=within.device
    )
    S = spectrum(whitened_matrix(between, within + ridge))
    x = S.eigenvalues
    check_trace(x.detach().sum(-1), "the covariance of the means of the samples")
    return rank_of_shares(torch.where(x.detach() > S.noise.cut(x.detach().flip(-1)), x, 0.0 * x), offset)
