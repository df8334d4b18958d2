"""Entropies with error bars, and of approximated matrices whose missing trace is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._keywords import answers_keywords
from matinfo._validation import check_order, check_positive
from matinfo.entropy import entropy_of
from matinfo.estimate.estimator import SMALLEST, Entropy, Quadrature, check_arguments, solve
from matinfo.estimate.result import Estimate
from matinfo.operands import AnyGram, Gram
from matinfo.operands.kernel_operator import KernelOperator
from matinfo.operands.operator import as_operator, smaller_operator
from matinfo.spectral.operator import check_definite, checked_moments
from matinfo.spectral.precision import without_autocast

_ROUNDINGS = 4
"""A share of the trace below so many roundings is not missing: storing entries moves their squares by up to one, and
normalising them or taking products of terms by some more. The mean over rows is no larger."""

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix
    from scipy.sparse.linalg import LinearOperator

    Estimable: TypeAlias = Tensor | np.ndarray | Gram | KernelOperator | LinearOperator | sparray | spmatrix


@answers_keywords
def estimate_entropy(
    K: Estimable,
    alpha: float = 1.0,
    *,
    rtol: float | None = None,
    probes: int | None = None,
    degree: int | None = None,
    generator: torch.Generator | None = None,
    trace: float | None = None,
) -> Estimate:
    """Matrix-based Rényi entropy from matrix-vector products alone, with error bars.

    ``H_alpha(K) = log(tr((K/tr K)^alpha)) / (1 - alpha)``, and ``-tr(P log P)``, P = K/tr K, for alpha = 1, where the
    trace is the mean of ``z^T f(P) z`` over random signs z, each by a Lanczos quadrature. ``tr P`` and ``|P|_F`` are
    exact, and only what they do not explain is estimated.

    Args:
        K: One positive semi-definite matrix ``(n, n)``: Tensor, NumPy array, :class:`~matinfo.Gram`,
            :class:`KernelOperator`, SciPy sparse matrix or ``LinearOperator``.
        alpha: Order, 0 < alpha < inf.
        rtol: Accepted relative half-width of the 95 % interval (of entropies below 0.01 nats: relative to
            that). Probes and degree are then raised until it is met.
        probes: Number of random vectors, at least 2 (default 32); with ``rtol`` the most allowed (default 1024).
            As many as rows make the value exact.
        degree: Number of Lanczos steps, raised to ``alpha/2 + 1`` (default: as many as keep the truncation below an
            eighth of the standard error, at most 24); with ``rtol`` the most allowed (default 128). Integer orders take
            ``alpha/2``, after which the rule is exact.
        generator: Source of the random signs, on the device of K; None for torch's own.
        trace: The exact trace, for a ``LinearOperator`` and only there.

    Returns:
        An :class:`Estimate`, in nats, with Python numbers.

    Raises:
        ValueError: If K is not one square symmetric matrix with finite positive trace, has a clearly negative
            eigenvalue, the given trace is clearly wrong, alpha is outside (0, inf), or a number is not positive.
        TypeError: If K is not real floating point.

    Warns:
        RuntimeWarning: If ``rtol`` was not reached; ``converged`` is then False and the error is that reached.

    Notes:
        ``probes * degree`` products with K. Up to 32 probes share one basis (block Lanczos): O(n probes 32 degree^2)
        flops and O(n 32 degree) memory besides. alpha = 2 needs no probes where the norm is known. ``bias_bound`` is
        half the distance of two quadrature rules that lie on either side of the truth, plus what rounding of the
        entries and of the recurrence can do: for alpha < 1, a singular matrix and entries in single precision the
        latter dominates. All work is in float64. Negative eigenvalues within round-off count as zero. No gradient.
        Below some thousand rows :func:`matinfo.renyi_entropy` is exact and as fast.

    References:
        Golub and Meurant (1994), Matrices, moments and quadrature; Ubaru, Chen and Saad (2017), Fast estimation of
        tr(f(A)) via stochastic Lanczos quadrature.

    Example:
        >>> import torch
        >>> from matinfo.estimate import KernelOperator, estimate_entropy
        >>> X = torch.linspace(0, 50, 1000, dtype=torch.float64)[:, None]
        >>> seed = torch.Generator().manual_seed(0)
        >>> estimate = estimate_entropy(KernelOperator(X, bandwidth=1.0), rtol=0.05, generator=seed)
        >>> estimate.converged and estimate.error() <= 0.05 * estimate.value
        True
    """
    order = check_arguments(alpha, probes, degree)
    if rtol is not None:
        check_positive(rtol, "rtol")
    with torch.no_grad():
        operator = smaller_operator(as_operator(K, total=trace))
        with without_autocast(operator.device):
            checked_moments(operator)
            term = Entropy(operator, order)
            if order == 2 and term.collision is not None:
                check_definite(operator)
                return Estimate(term.collision, 0.0, term.rounding, 0, 0)
            goal = None if rtol is None else lambda value: rtol * max(abs(value), SMALLEST)
            sampler = Quadrature([term], generator, degree=degree, goal=goal)
            found = solve(sampler, probes)
            return found.judged(f"rtol={rtol or 0:g}", max(abs(found.value), SMALLEST), goal)


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
