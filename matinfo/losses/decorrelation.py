"""Losses that decorrelate features: Barlow Twins."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_features, check_positive, check_same_shape
from matinfo.operands import normalize_rows
from matinfo.spectral.precision import at_least_float32


@quantity
def barlow_twins_loss(
    features1: Tensor, features2: Tensor, *, lambda_: float = 5.1e-3, center: bool = True
) -> Tensor:
    """Barlow Twins loss.

    ``sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2`` with ``C = Zb1^T Zb2``, where every column of Zb is that of the
    features over the batch, its mean subtracted if asked, divided by its l2 norm.

    Args:
        features1: ``(B, d)`` projections of the first view.
        features2: The same of the second view, row by row the same samples.
        lambda_: Weight of the off-diagonal terms, > 0; 5.1e-3 in the authors' code.
        center: Whether to subtract the batch means, as batch normalisation does in every implementation. The formula
            of Tan et al. has False, and their theorems hold for both.

    Returns:
        A scalar >= 0, a sum (some libraries multiply it by 0.1 or 0.024); dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, ``features1`` has fewer than two dimensions or is empty, or ``lambda_ <= 0``.
        TypeError: If the features are not real floating point.

    Notes:
        O(B d^2), in float32 at least, also under autocast. A column that is zero (or, centred, constant) has
        ``C_ij = 0`` throughout and zero gradient: it adds 1 to the loss. Finite, with finite gradient, for features
        of any size.

    References:
        Zbontar et al. (2021), Barlow Twins; Tan et al. (2024), Equation 3.

    Example:
        >>> import torch
        >>> from matinfo.losses import barlow_twins_loss
        >>> Z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> float(barlow_twins_loss(Z, Z)), float(barlow_twins_loss(Z, -Z))
        (0.0, 8.0)
    """
    check_positive(lambda_, "lambda_")
    check_features(features1, "features1")
    check_features(features2, "features2")
    check_same_shape(features1, features2, ("features1", "features2"))
    C = unit_columns(features1, center=center).mT @ unit_columns(features2, center=center)
    diagonal = C.diagonal(dim1=-2, dim2=-1)
    off_diagonal = C * (1 - torch.eye(C.shape[-1], dtype=C.dtype, device=C.device))
    return (1 - diagonal).square().sum(-1) + lambda_ * off_diagonal.square().sum((-2, -1))


def unit_columns(features: Tensor, *, center: bool) -> Tensor:
    """Columns divided by their l2 norm; those that are zero, up to the round-off of their mean, stay zero."""
    Z = features.to(at_least_float32(features.dtype))
    if center:
        size = Z.detach().abs().amax(-2, keepdim=True)
        Z = Z - Z.mean(-2, keepdim=True)
        roundoff = 4 * torch.finfo(Z.dtype).eps * size
        Z = torch.where(Z.detach().abs().amax(-2, keepdim=True) > roundoff, Z, 0.0 * Z)
    return normalize_rows(Z.mT).mT
