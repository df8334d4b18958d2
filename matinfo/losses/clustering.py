"""Losses against cluster assignments: SwAV with its Sinkhorn codes, DeepCluster."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import (
    check_count,
    check_features,
    check_positive,
    check_tensor,
    values_are_readable,
)
from matinfo.losses._batch import aligned, log_probabilities, one_batch, scaled


@quantity
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes that spread a batch evenly over the prototypes, by Sinkhorn's iterations.

    ``Q = exp(scores/epsilon)``, then ``iterations`` times: each column divided by its sum, each row by its sum. The
    rows of the result sum to 1; its columns to B/K in the limit.

    Args:
        scores: ``(..., B, K)`` similarities of B samples to K prototypes.
        epsilon: Temperature, > 0; smaller is nearer to a hard assignment.
        iterations: Number of iterations, >= 1.

    Returns:
        ``(..., B, K)`` codes, without gradient; dtype of the input, at least float32.

    Raises:
        ValueError: If ``scores`` does not have two dimensions or is empty, ``epsilon <= 0`` or ``iterations < 1``.
        TypeError: If ``scores`` is not real floating point or ``iterations`` not an integer.

    Notes:
        O(iterations B K), on logarithms: finite for scores of any size. The relative error of a code is round-off times
        ``|score|/epsilon``.

    References:
        Cuturi (2013), Sinkhorn distances; Caron et al. (2020), Unsupervised learning of visual features by contrasting
        cluster assignments, Equations 3 to 5.

    Example:
        >>> import torch
        >>> from matinfo.losses import sinkhorn
        >>> sinkhorn(torch.tensor([[1.0, 0.0], [1.0, 0.5]])).round(decimals=3)  # both prefer the first
        tensor([[1.0000, 0.0000],
                [0.1430, 0.8570]])
    """
    check_positive(epsilon, "epsilon")
    check_count(iterations, "iterations")
    check_features(scores, "scores")
    log_q = scaled(scores.detach(), epsilon, (-2, -1))
    for _ in range(iterations):
        log_q = log_q.log_softmax(-2).log_softmax(-1)
    return log_q.exp()


@quantity
def swav_loss(
    scores1: Tensor,
    scores2: Tensor,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    queue1: Tensor | None = None,
    queue2: Tensor | None = None,
) -> Tensor:
    """SwAV loss of two views: each predicts the codes of the other.

    ``-(1/2B) sum_b [q1_b . log softmax(s2_b/t) + q2_b . log softmax(s1_b/t)]`` with the codes
    ``q = sinkhorn(s, epsilon, iterations)`` of each view's scores s.

    Args:
        scores1: ``(B, K)`` similarities of the first view's features to the prototypes, both l2-normalised.
        scores2: The same of the second view, row by row the same samples.
        temperature: t > 0.
        epsilon: Temperature of the codes, > 0.
        iterations: Sinkhorn iterations, >= 1.
        queue1: ``(Q, K)`` scores of earlier samples, which share the prototypes with the first view's batch when its
            codes are computed; their own codes are not used. For batches that are small beside K.
        queue2: The same for the second view.

    Returns:
        A scalar >= 0 in nats; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, ``scores1`` does not have two dimensions or is empty, a queue does not have
            K columns, a temperature <= 0 or ``iterations < 1``.
        TypeError: If the scores are not real floating point or ``iterations`` is not an integer.

    Notes:
        O(iterations (B + Q) K); finite for scores up to 1e30, never NaN. Stop-gradient: none flows through the codes
        nor to the queues.

    References:
        Caron et al. (2020), Equations 1 to 5.

    Example:
        >>> import torch
        >>> from matinfo.losses import swav_loss
        >>> round(float(swav_loss(torch.ones(6, 3), torch.ones(6, 3))), 4)  # collapsed: log 3
        1.0986
    """
    check_positive(temperature, "temperature")
    scores1, scores2 = aligned(scores1=scores1, scores2=scores2)
    terms = []
    for scores, other, queue, name in (
        (scores1, scores2, queue1, "queue1"),
        (scores2, scores1, queue2, "queue2"),
    ):
        pool = scores
        if queue is not None:
            rows = one_batch(queue, name)
            if rows.shape[-1] != scores.shape[-1]:
                raise ValueError(
                    f"Expected {name} of shape {('Q', scores.shape[-1])}, got {tuple(rows.shape)}."
                )
            pool = torch.cat([scores, rows])  # in the wider of the two dtypes
        codes = sinkhorn(pool, epsilon=epsilon, iterations=iterations)[..., : scores.shape[-2], :]
        terms.append(-(codes * log_probabilities(other, temperature)).sum(-1).mean(-1))
    return (terms[0] + terms[1]) / 2


@quantity
def deepcluster_loss(scores: Tensor, assignments: Tensor, *, temperature: float = 0.1) -> Tensor:
    """DeepCluster loss: cross-entropy of the prototypes' softmax against given assignments.

    ``mean_h mean_{b: a_hb >= 0} -log softmax(scores_hb/t)_{a_hb}``, the first mean over the heads and the second over
    the samples that have an assignment.

    Args:
        scores: ``(H, B, K)`` similarities to the prototypes of each of H heads, or ``(B, K)`` for a single one.
        assignments: ``(H, B)`` or ``(B,)`` clusters 0, ..., K - 1 (integers); -1 for a sample to be ignored.
        temperature: t > 0.

    Returns:
        A scalar >= 0 in nats; dtype of the input, at least float32. A head whose samples are all ignored counts as 0
        in the mean over heads, with zero gradient.

    Raises:
        ValueError: If the shapes do not fit together, ``scores`` is empty, an assignment is outside -1, ..., K - 1, or
            temperature <= 0.
        TypeError: If ``scores`` is not real floating point or ``assignments`` are not integers.

    Notes:
        O(H B K); finite for scores up to 1e30, never NaN. The range of the assignments is checked on the CPU only.

    References:
        Caron et al. (2018), Deep clustering for unsupervised learning of visual features; Caron et al. (2020) for
        several heads and the temperature (DeepCluster-v2).

    Example:
        >>> import torch
        >>> from matinfo.losses import deepcluster_loss
        >>> round(float(deepcluster_loss(torch.zeros(3, 5), torch.tensor([0, 4, -1]))), 4)  # log 5
        1.6094
    """
    check_positive(temperature, "temperature")
    check_features(scores, "scores")
    if scores.ndim > 3 or scores.shape[0] == 0:
        raise ValueError(f"Expected scores of shape (H, B, K) or (B, K), got {tuple(scores.shape)}.")
    check_tensor(assignments, "assignments")
    if assignments.is_floating_point() or assignments.is_complex() or assignments.dtype == torch.bool:
        raise TypeError(f"Expected integer assignments, got {assignments.dtype}. Use assignments.long().")
    if assignments.shape != scores.shape[:-1]:
        raise ValueError(
            f"Expected assignments of shape {tuple(scores.shape[:-1])}, got {tuple(assignments.shape)}."
        )
    if assignments.device.type == "cpu" and values_are_readable(assignments):
        smallest, largest = assignments.min().item(), assignments.max().item()
        if smallest < -1 or largest >= scores.shape[-1]:
            raise ValueError(
                f"Expected assignments in -1, ..., {scores.shape[-1] - 1}, got values from {smallest} to {largest}."
            )
    chosen = assignments.long().clamp(min=0).unsqueeze(-1)
    picked = log_probabilities(scores, temperature).gather(-1, chosen).squeeze(-1)
    kept = assignments >= 0
    heads = -torch.where(kept, picked, 0.0).sum(-1) / kept.sum(-1).clamp(min=1)
    return heads.mean() if heads.ndim else heads
