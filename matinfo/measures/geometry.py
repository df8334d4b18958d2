"""Measures of where rows lie: on the sphere, along a trajectory, between the axes of a basis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_features, check_positive, check_same_shape
from matinfo.operands import normalize_rows
from matinfo.spectral.singular import singular_system


def _rows(features: Tensor, name: str = "features", *, normalize: bool = False, least: int = 1) -> Tensor:
    """Rows in float64, so many at least, of length one if asked for."""
    Z = check_features(features, name, least=least).double()
    return normalize_rows(Z) if normalize else Z


@quantity
def uniformity(features: Tensor, *, t: float = 2.0, normalize: bool = True) -> Tensor:
    """Uniformity: the logarithm of the mean Gaussian potential between rows.

    ``log mean_{i<j} exp(-t |z_i - z_j|^2)``, with rows of length one.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, n >= 2.
        t: Inverse scale, > 0.
        normalize: Whether to divide each row by its l2 norm, as the definition assumes.

    Returns:
        ``(...)``, between ``-4 t`` and 0 for unit rows, in nats. The loss to be minimised.

    Raises:
        ValueError: If there are fewer than two rows, or t <= 0.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(n^2 d) time, O(n^2) memory. Differentiable to every order.

    References:
        Wang and Isola (2020), Equation 4.

    Example:
        >>> import torch
        >>> from matinfo.measures import uniformity
        >>> float(uniformity(torch.tensor([[1.0, 0.0], [0.0, 1.0]])))  # squared distance 2
        -4.0
    """
    scale = check_positive(t, "t")
    Z = _rows(features, normalize=normalize, least=2)
    n = Z.shape[-2]
    K = Z @ Z.mT
    squares = K.diagonal(dim1=-2, dim2=-1)
    distances = squares[..., :, None] + squares[..., None, :] - 2 * K
    i, j = torch.triu_indices(n, n, offset=1, device=Z.device)
    return (-scale * distances[..., i, j].clamp_min(0.0)).logsumexp(-1) - math.log(n * (n - 1) / 2)


@quantity
def alignment(Z1: Tensor, Z2: Tensor, *, alpha: float = 2.0, normalize: bool = True) -> Tensor:
    """Alignment: the mean distance between two views of the same samples.

    ``mean_i |z_i - z'_i|^alpha``, with rows of length one.

    Args:
        Z1: ``(..., n, d)``, Tensor or NumPy array.
        Z2: The same shape; row i of each is the same sample.
        alpha: Power of the distance, > 0.
        normalize: Whether to divide each row by its l2 norm, as the definition assumes.

    Returns:
        ``(...)``, between 0 and ``2^alpha`` for unit rows. The loss to be minimised.

    Raises:
        ValueError: If the shapes differ, or alpha <= 0.
        TypeError: If an argument is not real floating point.

    Notes:
        O(n d). The gradient of a distance of zero is zero.

    References:
        Wang and Isola (2020), Equation 3.

    Example:
        >>> import torch
        >>> from matinfo.measures import alignment
        >>> float(alignment(torch.eye(2), -torch.eye(2)))
        4.0
    """
    power = check_positive(alpha, "alpha")
    first, second = _rows(Z1, "Z1", normalize=normalize), _rows(Z2, "Z2", normalize=normalize)
    check_same_shape(first, second, ("Z1", "Z2"))
    squared = (first - second).square().sum(-1)
    apart = squared > 0
    distance = torch.where(apart, torch.where(apart, squared, 1.0) ** (power / 2), 0.0 * squared)
    return distance.mean(-1)


@quantity
def mean_cosine(features: Tensor) -> Tensor:
    """Mean cosine similarity of pairs of different rows.

    ``(|sum_i u_i|^2 - sum_i |u_i|^2) / (n (n - 1))`` with ``u_i = z_i/|z_i|``, and 0 for zero rows.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, n >= 2.

    Returns:
        ``(...)``, between ``-1/(n - 1)`` and 1, a pure number: 0 for isotropic rows, near 1 in a narrow cone.

    Raises:
        ValueError: If there are fewer than two rows.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(n d): no pair is formed. Differentiable to every order. The CosReg regulariser divides by ``n^2`` instead.

    References:
        Ethayarajh (2019), How contextual are contextualized word representations?, for the measure; Gao et al. (2019)
        for CosReg.

    Example:
        >>> import torch
        >>> from matinfo.measures import mean_cosine
        >>> float(mean_cosine(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))), float(mean_cosine(torch.eye(2)))
        (1.0, 0.0)
    """
    Z = _rows(features, normalize=True, least=2)
    n = Z.shape[-2]
    return (Z.sum(-2).square().sum(-1) - Z.square().sum((-2, -1))) / (n * (n - 1))


@quantity
def coherence(features: Tensor) -> Tensor:
    """Coherence: how much of the space of features one sample holds for itself.

    ``(n/r) max_i sum_k U_ik^2`` with U the r left singular vectors of non-zero singular value; ``sum_k U_ik^2`` is the
    leverage of sample i.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array.

    Returns:
        ``(...)``, between 1 (all samples alike) and n/r (one is the only one in its direction), without a gradient.

    Raises:
        ValueError: If ``features`` has fewer than two dimensions or no entries.
        TypeError: If ``features`` is not real floating point.

    Notes:
        One singular value decomposition, in float64: O(n d min(n, d)). NaN for features that are all zero. The
        released code takes min(n, d) for r, which is the same at full rank.

    References:
        Candès and Recht (2009), Definition 1.2; Tsitsulin, Munkhoeva and Perozzi (2023).

    Example:
        >>> import torch
        >>> from matinfo.measures import coherence
        >>> round(float(coherence(torch.eye(3).repeat(2, 1))), 6), round(float(coherence(torch.eye(3)[[0, 1, 1]])), 6)
        (1.0, 1.5)
    """
    Z = _rows(features).detach()
    sigma, U, _ = singular_system(Z)
    above = sigma > max(Z.shape[-2:]) * torch.finfo(Z.dtype).eps * sigma[..., :1]
    leverage = (U * above[..., None, :]).square().sum(-1) + 0.0 * sigma[..., :1]
    return leverage.amax(-1) * Z.shape[-2] / above.sum(-1)


@quantity
def curvature(tokens: Tensor, *, absolute: bool = False) -> Tensor:
    """Mean curvature of a trajectory of tokens.

    ``mean_k angle(v_k, v_{k+1})`` with the steps ``v_k = z_{k+1} - z_k``; with ``absolute`` the angle of two lines,
    ``arccos |cos|``, as the released code of "Layer by layer" has it.

    Args:
        tokens: ``(..., T, d)``, Tensor or NumPy array, T >= 3, in the order of the sequence.
        absolute: Whether a step back counts as straight on.

    Returns:
        ``(...)``, between 0 (straight) and pi (to and fro), or pi/2 with ``absolute``, in radians. A step of length
        zero has no direction: angles with it are left out, and NaN comes where none is left. (The released code counts
        them as 0.)

    Raises:
        ValueError: If there are fewer than three tokens.
        TypeError: If ``tokens`` is not real floating point.

    Notes:
        O(T d). The angle is ``2 atan2(|u - w|, |u + w|)`` of unit steps, accurate at 0 and pi, where arccos is not.

    References:
        Hosseini and Fedorenko (2023), Large language models implicitly learn to straighten neural sentence
        trajectories; Skean et al. (2025), Equation 4.

    Example:
        >>> import torch
        >>> from matinfo.measures import curvature
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> round(float(curvature(corner)), 4)  # pi/2
        1.5708
    """
    step = normalize_rows(_rows(tokens, "tokens", least=3).diff(dim=-2))
    u, w = step[..., :-1, :], step[..., 1:, :]
    moved = (u.detach() != 0).any(-1) & (w.detach() != 0).any(-1)
    if absolute:
        w = torch.where((u.detach() * w.detach()).sum(-1, keepdim=True) < 0, -w, w)
    norm = torch.linalg.vector_norm
    angle = 2 * torch.atan2(norm(u - w, dim=-1), torch.where(moved, norm(u + w, dim=-1), 1.0))
    return torch.where(moved, angle, 0.0).sum(-1) / moved.sum(-1)


@quantity
def matrix_nuclear_norm(features: Tensor) -> Tensor:
    """Matrix nuclear norm: a surrogate of the nuclear norm per row, without a decomposition.

    ``(1/n) sum_{k<=D} |c_k|`` with the columns ``c_k`` in descending order of length and ``D = min(n, d)``.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, used as they are: the definition has tokens of a response less
            their mean and of length one, ``normalize_rows(Z - Z.mean(-2, keepdim=True))``.

    Returns:
        ``(...)``, >= 0; at most 1 for rows of length one and d <= n.

    Raises:
        ValueError: If ``features`` has fewer than two dimensions or no entries.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(n d). Depends on the basis of the features, other than :func:`nuclear_norm`; at least that for d <= n.
        Differentiable where no column is zero.

    References:
        Li et al. (2024), Large language model evaluation via matrix nuclear-norm, Equation 9.

    Example:
        >>> import torch
        >>> from matinfo.measures import matrix_nuclear_norm
        >>> float(matrix_nuclear_norm(torch.eye(4)))
        1.0
    """
    Z = _rows(features)
    lengths = torch.linalg.vector_norm(Z, dim=-2).sort(-1, descending=True).values
    return lengths[..., : min(Z.shape[-2:])].sum(-1) / Z.shape[-2]
