"""Losses that decorrelate features: Barlow Twins, VICReg."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_choice, check_features, check_positive
from matinfo.losses._batch import aligned, off_diagonal_squares
from matinfo.operands import dtype_given, normalize_rows
from matinfo.spectral.normalize import widened
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
        ValueError: If the shapes differ, ``features1`` does not have two dimensions or is empty, or ``lambda_ <= 0``.
        TypeError: If the features are not real floating point.

    Notes:
        O(B d^2). A column that is zero (or, centred, constant) has ``C_ij = 0`` throughout and zero gradient: it adds 1
        to the loss. Finite, with finite gradient, for features of any size.

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
    Z1, Z2 = aligned(features1=features1, features2=features2)
    C = unit_columns(Z1, center=center).mT @ unit_columns(Z2, center=center)
    diagonal = C.diagonal(dim1=-2, dim2=-1)
    return (1 - diagonal).square().sum(-1) + lambda_ * off_diagonal_squares(C)


@quantity
def vicreg_loss(
    features1: Tensor,
    features2: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    form: str = "paper",
) -> Tensor:
    """VICReg loss.

    ``invariance mean_bj (Z1 - Z2)_bj^2 + variance (v(Z1) + v(Z2)) + covariance (c(Z1) + c(Z2))`` with
    ``v(Z) = mean_j max(0, 1 - sqrt(Cov_jj + 1e-4))``, ``c(Z) = sum_{i != j} Cov_ij^2 / d`` and the unbiased covariance
    ``Cov = (Z - mean)^T (Z - mean) / (B - 1)``. ``"code"`` halves the variance term: ``variance (v(Z1) + v(Z2))/2``.

    Args:
        features1: ``(B, d)`` projections of the first view, B >= 2.
        features2: The same of the second view, row by row the same samples.
        invariance: Weight of the mean squared error, > 0.
        variance: Weight of the hinges, > 0.
        covariance: Weight of the off-diagonal covariances, > 0.
        form: ``"paper"`` sums the hinges of the two views, ``"code"`` averages them, as the authors' code does.

    Returns:
        A scalar >= 0; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, ``features1`` does not have two dimensions, or has fewer than two rows or
            no column, a weight is not positive, or ``form`` is unknown.
        TypeError: If the features are not real floating point.

    Notes:
        O(B d^2). Libraries differ on ``form``. The invariance term is a mean over all B d entries, as in the authors'
        pseudocode and code, where their Equation 5 is a mean over the batch. The 1e-4 keeps the gradient finite at
        collapsed features; it is zero there. The covariance term grows with the fourth power of the features: in
        float32 it is infinite, not NaN, where they vary by more than about 1e9.

    References:
        Bardes et al. (2022), VICReg: Variance-invariance-covariance regularization, Equations 1 to 6, Algorithm 1.

    Example:
        >>> import torch
        >>> from matinfo.losses import vicreg_loss
        >>> same = torch.ones(4, 2)  # collapsed: each hinge is 1 - sqrt(1e-4)
        >>> float(vicreg_loss(same, same)), float(vicreg_loss(same, same, form="code"))
        (49.5, 24.75)
    """
    for weight, name in ((invariance, "invariance"), (variance, "variance"), (covariance, "covariance")):
        check_positive(weight, name)
    check_choice(form, "form", ("paper", "code"))
    Z1, Z2 = aligned(features1=features1, features2=features2)
    check_features(Z1, "features1", least=2)
    hinge1, redundancy1 = _spread(Z1)
    hinge2, redundancy2 = _spread(Z2)
    hinges = hinge1 + hinge2 if form == "paper" else (hinge1 + hinge2) / 2
    return (
        invariance * (Z1 - Z2).square().mean((-2, -1))
        + variance * hinges
        + covariance * (redundancy1 + redundancy2)
    )


def _spread(Z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean hinge of the standard deviations, and the squared off-diagonal covariances over d."""
    samples, width = Z.shape[-2:]
    scale = _scale_of(Z, (-2, -1))  # their products would give inf - inf
    U = Z / scale
    U = U - U.mean(-2, keepdim=True)
    variances = scale[..., 0] * (scale[..., 0] * (U.square().sum(-2) / (samples - 1)))
    C = scale * (scale * (U.mT @ U / (samples - 1)))
    itself = torch.eye(width, dtype=torch.bool, device=Z.device)
    redundancy = C.masked_fill(itself, 0.0).square().sum((-2, -1)) / width
    return (1 - (variances + 1e-4).sqrt()).relu().mean(-1), redundancy


def _scale_of(Z: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The largest magnitude over ``dims`` where it is far from 1, else 1, so that ordinary features keep their bits."""
    size = Z.detach().abs().amax(dims, keepdim=True)
    return torch.where((size > 1e4) | ((size > 0) & (size < 1e-30)), size, 1.0)


def unit_columns(features: Tensor, *, center: bool) -> Tensor:
    """Columns divided by their l2 norm; those that are zero, up to the round-off of their mean, stay zero."""
    Z = features.to(at_least_float32(features.dtype))
    if center:
        # Their mean would overflow, or lose its digits; in float64, where the derivative of the division exists.
        Z = (widened(Z) / _scale_of(Z, (-2,))).to(Z.dtype)
        given = at_least_float32(dtype_given(features))
        roundoff = 4 * torch.finfo(given).eps * Z.detach().abs().amax(-2, keepdim=True)
        Z = Z - Z.mean(-2, keepdim=True)
        Z = torch.where(Z.detach().abs().amax(-2, keepdim=True) > roundoff, Z, 0.0 * Z)
    return normalize_rows(Z.mT).mT
