"""Losses of several modalities of one sample: GRAM, the volume that their vectors span."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_positive, check_views
from matinfo.losses._batch import log_probabilities, one_batch
from matinfo.operands import normalize_rows
from matinfo.spectral.normalize import widened


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
    if smoothing != 0 and check_positive(smoothing, "smoothing") > 1:
        raise ValueError(f"Expected smoothing in [0, 1], got {smoothing}.")
    a = one_batch(anchors, "anchors")
    V = one_batch(check_views(others, "others"), "others", "(M - 1, B, d)")
    if a.shape != V.shape[1:]:
        raise ValueError(
            "Expected anchors and others of the same samples and dimensions, "
            f"got {tuple(a.shape)} and {tuple(V.shape)}."
        )
    basis, volumes = _span(normalize_rows(widened(V)))
    residual = 1 - torch.einsum("id,mjd->mij", normalize_rows(widened(a)), basis).square().sum(0)
    scores = -_root(residual) * volumes
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
        volume = volume * _root(v.square().sum(-1))
        basis.append(normalize_rows(v))
    return torch.stack(basis, -3), volume


def _root(x: Tensor) -> Tensor:
    """``sqrt(max(x, 0))`` with gradient zero at zero."""
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0 * x)
