"""Entropies of approximated matrices whose missing trace is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_order, check_positive
from matinfo.entropy import entropy_of
from matinfo.operands import AnyGram

_ROUNDINGS = 4
"""A share of the trace below so many roundings is not missing: storing entries moves their squares by up to one, and
normalising them or taking products of terms by some more. The mean over rows is no larger."""


@quantity
def tail_corrected_entropy(K: AnyGram, alpha: float = 1.0, *, trace: float | None = None) -> Tensor:
    """Matrix-based Rényi entropy of a low-rank approximation, its missing trace spread evenly over the tail.

    The entropy of the spectrum ``q p_1, ..., q p_r`` and ``n - r`` times ``(1 - q)/(n - r)``, with p the normalised
    eigenvalues of the approximation, r its number of features and ``q = tr K/trace`` its share of the trace.

    Args:
        K: A :class:`~matinfo.Gram` with fewer features than samples, e.g. of :func:`matinfo.kernels.nystrom`.
        alpha: Order, 0 <= alpha <= inf.
        trace: The trace of the approximated matrix; None for n, the trace of kernels of unit diagonal.

    Returns:
        ``(...)``, in nats, dtype of the features, at least float32. The plain entropy where no trace is missing: no
        share above ``4 eps`` of the dtype that the features came in.

    Raises:
        ValueError: If alpha is outside [0, inf] or the trace not positive.
        TypeError: If K is not a Gram.

    Notes:
        Cost of :func:`matinfo.renyi_entropy` of the Gram. The flat tail is an assumption: of all tails of this trace
        the one of largest entropy, so that the result may be too large. Differentiable, through q too.

    References:
        Williams and Seeger (2001) for the approximation; the correction is ours.

    Example:
        >>> import torch
        >>> from matinfo import Gram
        >>> from matinfo.estimate import tail_corrected_entropy
        >>> half = Gram(torch.eye(4, dtype=torch.float64)[:, :2])  # two of the four eigenvalues of the identity
        >>> round(float(tail_corrected_entropy(half)), 4)  # log 4
        1.3863
    """
    order = check_order(alpha)
    if not isinstance(K, AnyGram):
        raise TypeError(f"Expected K to be a Gram of features, got {type(K).__name__}.")
    n, rank = K.shape[-1], min(K.width, K.shape[-1])
    whole = float(n) if trace is None else check_positive(trace, "trace")
    head = entropy_of(K, order).double()
    if rank == n:
        return head
    q = (K.trace() / whole).clamp(max=1.0)
    missing = 1 - q
    is_missing = missing > _ROUNDINGS * K.rounding
    missing = torch.where(is_missing, missing, 1.0)
    return torch.where(is_missing, _joined(head, q, missing, n - rank, order), head)


def _joined(head: Tensor, q: Tensor, missing: Tensor, count: int, alpha: float) -> Tensor:
    """Entropy of a spectrum of entropy ``head`` and mass q beside ``count`` equal eigenvalues of mass ``missing``."""
    surprise_of_head = head - q.log()
    surprise_of_tail = math.log(count) - missing.log()
    if alpha == 0:
        return torch.logaddexp(head, torch.full_like(head, math.log(count)))
    if alpha == math.inf:
        return torch.minimum(surprise_of_head, surprise_of_tail)
    e = alpha - 1
    if e == 0:
        return q * surprise_of_head + missing * surprise_of_tail
    excess = q * torch.expm1(-e * surprise_of_head) + missing * torch.expm1(-e * surprise_of_tail)
    return -torch.log1p(excess) / e
