"""Contrastive losses: spectral, InfoNCE, NT-Xent."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_choice, check_positive
from matinfo.losses._batch import log_probabilities, off_diagonal_squares, unit_rows


@quantity
def spectral_contrastive_loss(features1: Tensor, features2: Tensor, *, lambda_: float = 1.0) -> Tensor:
    """Spectral contrastive loss.

    ``sum_i |a_i - b_i|^2 + lambda sum_{i != j} (a_i . b_j)^2`` with a and b the l2-normalised rows of the features.

    Args:
        features1: ``(B, d)`` projections of the first view.
        features2: The same of the second view, row by row the same samples.
        lambda_: Weight of the second sum, > 0.

    Returns:
        A scalar >= 0, a sum over the batch; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, ``features1`` does not have two dimensions or is empty, or ``lambda_ <= 0``.
        TypeError: If the features are not real floating point.

    Notes:
        O(B^2 d), in float32 at least, also under autocast. HaoChen et al. average instead: ``2 - 2 mean_i a_i . b_i``
        and the mean over pairs i != j, which is this loss over B at ``lambda_ = 1/(B - 1)``. Zero rows have similarity
        0 with every other and zero gradient. Zero only for aligned orthonormal rows, hence only if B <= d.

    References:
        HaoChen et al. (2021), Provable guarantees for self-supervised deep learning with spectral contrastive loss;
        Tan et al. (2024), Equation 2.

    Example:
        >>> import torch
        >>> from matinfo.losses import spectral_contrastive_loss
        >>> float(spectral_contrastive_loss(torch.eye(3), torch.eye(3)))
        0.0
        >>> float(spectral_contrastive_loss(torch.ones(3, 3), torch.ones(3, 3)))  # collapsed: B (B - 1) pairs
        6.0
    """
    check_positive(lambda_, "lambda_")
    a, b = unit_rows(features1=features1, features2=features2)
    C = a @ b.mT
    return (a - b).square().sum((-2, -1)) + lambda_ * off_diagonal_squares(C)


@quantity
def infonce_loss(
    features1: Tensor, features2: Tensor, *, temperature: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """InfoNCE loss between two views, in both directions.

    ``-sum_i log softmax_j(a_i . b_j/t)_i - sum_i log softmax_j(b_i . a_j/t)_i`` with a and b the l2-normalised rows,
    divided by 2B for ``"mean"``. The B candidates are those of the other view, the positive among them.

    Args:
        features1: ``(B, d)`` projections of the first view.
        features2: The same of the second view, row by row the same samples.
        temperature: t > 0; Tan et al. write none, which is 1.
        reduction: ``"mean"`` over the 2B terms or ``"sum"``.

    Returns:
        A scalar >= 0; dtype of the input, at least float32. ``log B`` (as a mean) for identical features.

    Raises:
        ValueError: If the shapes differ, ``features1`` does not have two dimensions or has no entries,
            temperature <= 0, or ``reduction`` is unknown.
        TypeError: If the features are not real floating point.

    Notes:
        O(B^2 d), in float32 at least, also under autocast; never NaN, whatever the temperature (log-sum-exp). The
        constant in front of Equation 1 of Tan et al. is illegible in print; the mean is our reading.

    References:
        van den Oord et al. (2018), Representation learning with contrastive predictive coding; Tan et al. (2024),
        Equation 1; Radford et al. (2021) for the two directions.

    Example:
        >>> import torch
        >>> from matinfo.losses import infonce_loss
        >>> round(float(infonce_loss(torch.ones(4, 2), torch.ones(4, 2))), 4)  # log 4
        1.3863
    """
    check_positive(temperature, "temperature")
    check_choice(reduction, "reduction", ("mean", "sum"))
    a, b = unit_rows(features1=features1, features2=features2)
    C = a @ b.mT
    terms = [-log_probabilities(scores, temperature).diagonal() for scores in (C, C.mT)]
    return _reduce(torch.cat(terms), reduction)


@quantity
def ntxent_loss(
    features1: Tensor, features2: Tensor, *, temperature: float = 0.5, reduction: str = "mean"
) -> Tensor:
    """NT-Xent loss of SimCLR.

    ``mean_i -log softmax_{j != i}(u_i . u_j/t)_{p(i)}`` over the 2B l2-normalised rows u of both views, p(i) the other
    view of sample i: the candidates are the other 2B - 1 rows.

    Args:
        features1: ``(B, d)`` projections of the first view.
        features2: The same of the second view, row by row the same samples.
        temperature: t > 0.
        reduction: ``"mean"`` over the 2B terms or ``"sum"``.

    Returns:
        A scalar >= 0; dtype of the input, at least float32. ``log(2B - 1)`` (as a mean) for identical features.

    Raises:
        ValueError: If the shapes differ, ``features1`` does not have two dimensions or has no entries,
            temperature <= 0, or ``reduction`` is unknown.
        TypeError: If the features are not real floating point.

    Notes:
        O(B^2 d), in float32 at least, also under autocast; never NaN, whatever the temperature (log-sum-exp).

    References:
        Chen et al. (2020), A simple framework for contrastive learning of visual representations.

    Example:
        >>> import torch
        >>> from matinfo.losses import ntxent_loss
        >>> round(float(ntxent_loss(torch.ones(4, 2), torch.ones(4, 2))), 4)  # log 7
        1.9459
    """
    check_positive(temperature, "temperature")
    check_choice(reduction, "reduction", ("mean", "sum"))
    a, b = unit_rows(features1=features1, features2=features2)
    size = a.shape[-2]
    rows = torch.cat([a, b], -2)
    itself = torch.eye(2 * size, dtype=torch.bool, device=rows.device)
    scores = (rows @ rows.mT).masked_fill(itself, -torch.inf).roll(size, -1)  # the positives on the diagonal
    return _reduce(-log_probabilities(scores, temperature).diagonal(), reduction)


def _reduce(terms: Tensor, reduction: str) -> Tensor:
    return terms.mean() if reduction == "mean" else terms.sum()
