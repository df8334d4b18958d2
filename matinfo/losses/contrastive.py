"""Contrastive losses: spectral, InfoNCE, NT-Xent; of several modalities, GRAM, the volume that their vectors span."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_choice, check_in, check_positive, check_views
from matinfo.losses._batch import log_probabilities, off_diagonal_squares, one_batch, unit_rows
from matinfo.operands import normalize_rows
from matinfo.spectral.functions import root
from matinfo.spectral.normalize import widened


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
        O(B^2 d). HaoChen et al. average instead: ``2 - 2 mean_i a_i . b_i`` and the mean over pairs i != j, which is
        this loss over B at ``lambda_ = 1/(B - 1)``. Zero rows have similarity 0 with every other and zero gradient.
        Zero only for aligned orthonormal rows, hence only if B <= d.

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
        O(B^2 d); never NaN, whatever the temperature (log-sum-exp). The constant in front of Equation 1 of Tan et al.
        is illegible in print; the mean is our reading.

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
        O(B^2 d); never NaN, whatever the temperature (log-sum-exp).

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


@quantity
def gram_volume(modalities: Tensor) -> Tensor:
    """Volume of the parallelotope that the vectors of one sample in several modalities span.

    ``sqrt(det(V V^T))`` with V the M l2-normalised vectors of a sample.

    Args:
        modalities: ``(M, B, d)``, or ``(..., M, B, d)``: M modalities of each of B samples.

    Returns:
        ``(..., B)`` in [0, 1]: 0 where the vectors depend on each other, 1 where they are orthogonal; dtype of the
        input, at least float32.

    Raises:
        ValueError: If ``modalities`` has fewer than three dimensions or no entries.
        TypeError: If ``modalities`` is not real floating point.

    Notes:
        O(M^2 B d), in float64, by Gram-Schmidt instead of a determinant: a small volume keeps its digits, and its
        gradient is finite. Where it is exactly zero the gradient is zero. A zero vector has volume 0.

    References:
        Cicchetti et al. (2025), Gramian multimodal representation learning and alignment.

    Example:
        >>> import torch
        >>> from matinfo.losses import gram_volume
        >>> gram_volume(torch.eye(3)[:, None])  # three orthogonal vectors of one sample
        tensor([1.])
    """
    V = normalize_rows(widened(check_views(modalities, "modalities")))
    return _span(V)[1]


@quantity
def gram_loss(
    anchors: Tensor, others: Tensor, *, temperature: float = 0.07, smoothing: float = 0.1
) -> Tensor:
    """GRAM contrastive loss: each anchor spans its smallest volume with the other modalities of its own sample.

    Cross-entropy, in both directions and averaged, of ``softmax(-Vol/t)`` over the batch against targets of
    ``1 - smoothing`` on the own sample plus ``smoothing/B`` on every one, with ``Vol_ij`` the :func:`gram_volume` of
    anchor i and the other modalities of sample j.

    Args:
        anchors: ``(B, d)`` features of the anchoring modality (language in the paper).
        others: ``(M - 1, B, d)`` features of the other modalities, row by row the same samples.
        temperature: t > 0; learned from 0.07 in the released code.
        smoothing: In [0, 1]; 0.1 in the released code.

    Returns:
        A scalar >= 0 in nats; dtype of the input, at least float32. ``log B`` where all volumes are equal.

    Raises:
        ValueError: If the shapes do not fit together, a tensor is empty, temperature <= 0, or ``smoothing`` is outside
            [0, 1].
        TypeError: If an argument is not real floating point.

    Notes:
        O(M B^2 d), in float64: an orthonormal basis of the other modalities of each sample, and the residual of every
        anchor. The paper's second term, a matching network, is not part of it.

    References:
        Cicchetti et al. (2025), Gramian multimodal representation learning and alignment.

    Example:
        >>> import torch
        >>> from matinfo.losses import gram_loss
        >>> same = torch.ones(4, 3)
        >>> round(float(gram_loss(same, same[None])), 4)  # collapsed: log 4
        1.3863
    """
    check_positive(temperature, "temperature")
    check_in(smoothing, "smoothing", "[0, 1]")
    a = one_batch(anchors, "anchors")
    V = one_batch(check_views(others, "others"), "others", "(M - 1, B, d)")
    if a.shape != V.shape[1:]:
        raise ValueError(
            "Expected anchors and others of the same samples and dimensions, "
            f"got {tuple(a.shape)} and {tuple(V.shape)}."
        )
    basis, volumes = _span(normalize_rows(widened(V)))
    residual = 1 - torch.einsum("id,mjd->mij", normalize_rows(widened(a)), basis).square().sum(0)
    scores = -root(residual) * volumes
    terms = []
    for S in (scores, scores.mT):
        log_p = log_probabilities(S, temperature)
        terms.append(-(1 - smoothing) * log_p.diagonal().mean() - smoothing * log_p.mean())
    return (terms[0] + terms[1]) / 2


def _span(V: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal bases ``(..., M, B, d)`` of unit vectors, by Gram-Schmidt done twice, and volumes ``(..., B)``."""
    basis: list[Tensor] = []
    volume = torch.ones_like(V[..., 0, :, 0])
    for v in V.unbind(-3):
        length = v.detach().square().sum(-1)
        for _ in range(2):  # once leaves round-off of the first vectors in a small residual
            for e in basis:
                v = v - (v * e).sum(-1, keepdim=True) * e
        # What is left of a dependent vector is round-off: no direction.
        v = torch.where((v.detach().square().sum(-1) > 1e-28 * length)[..., None], v, 0.0 * v)
        volume = volume * root(v.square().sum(-1))
        basis.append(normalize_rows(v))
    return torch.stack(basis, -3), volume
