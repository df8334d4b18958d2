"""Entropies with error bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from matinfo._keywords import answers_keywords
from matinfo._validation import check_positive
from matinfo.estimate.estimator import SMALLEST, Entropy, Quadrature, check_arguments, solve
from matinfo.estimate.result import Estimate
from matinfo.operands import Gram
from matinfo.operands.kernel_operator import KernelOperator
from matinfo.operands.operator import as_operator, smaller_operator
from matinfo.spectral.operator import check_definite, checked_moments
from matinfo.spectral.precision import without_autocast

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
