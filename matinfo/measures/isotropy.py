"""How evenly the variance of features is spread over directions, without eigenvalues where that is enough."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_features, check_in
from matinfo.entropy import entropy_of
from matinfo.operands import AnyGram
from matinfo.operands.gram import prepared_rows
from matinfo.spectrum import Spectrum, of_features


@quantity
def isoscore(features: Tensor | AnyGram | Spectrum) -> Tensor:
    """IsoScore: how evenly the variance of features is spread over all d directions.

    ``(PR - 1)/(d - 1)`` with ``PR = (sum_k lambda_k)^2 / sum_k lambda_k^2`` the participation ratio of the covariance.
    The paper's eight steps, from the isotropy defect on, reduce to it.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, centred here; or the :class:`~matinfo.Gram` or
            :class:`~matinfo.Spectrum` of features that are centred already.

    Returns:
        ``(...)``, between 0 (one direction) and 1 (isotropic), a pure number; NaN for d = 1.

    Raises:
        ValueError: If the features do not vary, or are a matrix's spectrum without a width.
        TypeError: If ``features`` is not real floating point.

    Notes:
        No eigenvalues: O(n d min(n, d)). Differentiable to every order, but for a Spectrum.

    References:
        Rudman, Gillman, Rayne and Eickhoff (2022), IsoScore, Section 4.

    Example:
        >>> import torch
        >>> from matinfo.measures import isoscore
        >>> float(isoscore(torch.cat([torch.eye(3), -torch.eye(3)])))
        1.0
    """
    K, d = of_features(features, "isoscore", center=True)
    return (entropy_of(K, 2.0).exp() - 1) / (d - 1 if d > 1 else math.nan)


@quantity
def isoscore_star(
    features: Tensor, *, shrinkage: float, reference: Tensor | np.ndarray | None = None
) -> Tensor:
    """IsoScore*: IsoScore of a covariance that is shrunk towards a stable one, for few samples.

    ``(PR - 1)/(d - 1)`` with PR the participation ratio of ``(1 - zeta) C + zeta C_0`` and C the sample covariance,
    over ``n - 1``.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, n >= 2, centred here.
        shrinkage: zeta in [0, 1]; at 0 it is :func:`isoscore`, whose C is singular for n <= d.
        reference: C_0, ``(d, d)``, the covariance of a larger set; None for the identity.

    Returns:
        ``(...)``, between 0 and 1, a pure number; NaN for d = 1.

    Raises:
        ValueError: If there is one row, ``shrinkage`` is outside [0, 1], or the reference is not a covariance of d
            columns.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(n d^2), no eigenvalues: differentiable to every order, as the I-STAR regulariser needs it.

    References:
        Rudman and Eickhoff (2024), Stable anisotropic regularization, Section 4.

    Example:
        >>> import torch
        >>> from matinfo.measures import isoscore_star
        >>> float(isoscore_star(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), shrinkage=1.0))  # the identity alone
        1.0
    """
    Z = check_features(features, "features", least=2).double()
    n, d = Z.shape[-2:]
    check_in(shrinkage, "shrinkage", "[0, 1]")
    Z = prepared_rows(Z, True, False)
    if reference is None:
        target = torch.eye(d, dtype=Z.dtype, device=Z.device)
    else:
        given = torch.as_tensor(reference).to(Z)
        if given.shape != (d, d):
            raise ValueError(f"Expected a reference of shape ({d}, {d}), got {tuple(given.shape)}.")
        target = given
    C = Z.mT @ Z * ((1 - shrinkage) / (n - 1)) + shrinkage * target
    return (entropy_of(C, 2.0).exp() - 1) / (d - 1 if d > 1 else math.nan)


@quantity
def self_clustering(features: Tensor | AnyGram | Spectrum) -> Tensor:
    """Self-clustering: how much more rows of unit length agree than random ones would.

    ``(|K|_F^2 - e) / (n^2 - e)`` with ``K`` the Gram matrix of the rows divided by their length and
    ``e = n + n (n - 1)/d`` what independent uniform directions give on the mean.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, divided by their length here; or the :class:`~matinfo.Gram` or
            :class:`~matinfo.Spectrum` of rows of unit length.

    Returns:
        ``(...)``: 1 if all rows are one direction, about 0 if they are uniform, negative if they avoid each other; NaN
        where n = 1 or d = 1.

    Raises:
        ValueError: If the features are all zero, or are a matrix's spectrum without a width.
        TypeError: If ``features`` is not real floating point.

    Notes:
        ``|K|_F^2 = (tr K)^2/PR``, so that no eigenvalues are needed: O(n d min(n, d)). Zero rows of features stay zero,
        and count in n; of a Gram or Spectrum ``tr K = n`` is taken for granted.

    References:
        Tsitsulin, Munkhoeva and Perozzi (2023), Unsupervised embedding quality evaluation, Section 3.

    Example:
        >>> import torch
        >>> from matinfo.measures import self_clustering
        >>> round(float(self_clustering(torch.ones(5, 3))), 4), round(float(self_clustering(torch.eye(3))), 4)
        (1.0, -0.5)
    """
    K, d = of_features(features, "self_clustering", normalize=True)
    n = K.shape[-1]
    expected = n + n * (n - 1) / d
    span = n**2 - expected
    total = (
        n if isinstance(features, AnyGram | Spectrum) else cast(AnyGram, K).trace()
    )  # rows that are not zero
    return (total**2 * (-entropy_of(K, 2.0)).exp() - expected) / (span if span > 0 else math.nan)


@quantity
def nesum(features: Tensor | AnyGram | Spectrum) -> Tensor:
    """NESum: the sum of the eigenvalues of the covariance over the largest.

    ``sum_k lambda_k / lambda_1``, the :func:`stable_rank` of centred features.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, centred here; or the :class:`~matinfo.Gram` or
            :class:`~matinfo.Spectrum` of features that are centred already.

    Returns:
        ``(...)``, between 1 and min(n - 1, d): a number of dimensions.

    Raises:
        ValueError: If the features do not vary, or are a matrix's spectrum without a width.
        TypeError: If ``features`` is not real floating point.

    References:
        He and Ozay (2022), Exploring the gap between collapsed and whitened features, Definition 4.1.

    Example:
        >>> import torch
        >>> from matinfo.measures import nesum
        >>> round(float(nesum(torch.cat([torch.eye(3), -torch.eye(3)]))), 4)
        3.0
    """
    K, _ = of_features(features, "nesum", center=True)
    return entropy_of(K, math.inf).exp()
