"""Ranks, norms and entropies that are functions of one spectrum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_count, check_order
from matinfo.entropy import entropy_of
from matinfo.operands import AnyGram, Operand
from matinfo.spectral.entropy_function import entropy_of_eigenvalues
from matinfo.spectrum import Spectrum, as_spectral, spectrum

_TIE = 1e-10
"""Eigenvalues relatively closer than this share the derivative of a largest or smallest one."""


@quantity
def stable_rank(K: Operand | Spectrum) -> Tensor:
    """Stable rank.

    ``tr K / lambda_max(K) = exp(H_inf(K))``; of ``K = Z Z^T`` it is ``|Z|_F^2 / |Z|_2^2``, the stable rank of Z.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`~matinfo.Gram` or a
            :class:`~matinfo.Spectrum`. Of centred features it is NESum, ``sum_k lambda_k / lambda_1`` of their
            covariance; of the tokens of a response it is the reward of SR-GRPO.

    Returns:
        ``(...)``, between 1 and n: a number of dimensions.

    Raises:
        ValueError: As :func:`matinfo.renyi_entropy`.
        TypeError: If K is not real floating point.

    Notes:
        As :func:`matinfo.renyi_entropy` at alpha = inf.

    References:
        Rudelson and Vershynin (2007); He and Ozay (2022), Definition 4.1, for NESum; Tang and Yang (2025), SR-GRPO.

    Example:
        >>> import torch
        >>> from matinfo.measures import stable_rank
        >>> float(stable_rank(torch.diag(torch.tensor([4.0, 2.0, 2.0]))))
        2.0
    """
    return entropy_of(as_spectral(K, "K", "stable_rank"), math.inf).exp()


@quantity
def numerical_rank(K: Operand | Spectrum, *, rtol: float | None = None) -> Tensor:
    """Numerical rank.

    The number of eigenvalues above ``rtol lambda_max``; for features, of singular values above ``sqrt(rtol)`` of the
    largest.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`~matinfo.Gram` or a
            :class:`~matinfo.Spectrum`.
        rtol: Relative threshold in [0, 1); None for the round-off that K carries, as at alpha = 0.

    Returns:
        ``(...)``, between 0 and n: a number of dimensions, without a gradient.

    Raises:
        ValueError: As :func:`matinfo.spectrum`; also if ``rtol`` is outside [0, 1).
        TypeError: If K is not real floating point.

    Notes:
        One decomposition.

    References:
        Golub and Van Loan (2013), Section 5.4.1.

    Example:
        >>> import torch
        >>> from matinfo.measures import numerical_rank
        >>> K = torch.diag(torch.tensor([1.0, 1e-3, 0.0]))
        >>> int(numerical_rank(K)), int(numerical_rank(K, rtol=0.01))
        (2, 1)
    """
    S = _decomposed(K, "numerical_rank")
    x = S.eigenvalues.detach()
    if rtol is None:
        return S.noise.rank(x)
    if not 0 <= rtol < 1:
        raise ValueError(f"Expected rtol in [0, 1), got {rtol}.")
    top = x[..., :1]
    return torch.where(top[..., 0].isnan(), torch.nan, (x > rtol * top).sum(-1).double())


@quantity
def condition_number(K: Operand | Spectrum, *, pseudo: bool = False) -> Tensor:
    """Condition number of a positive semi-definite matrix.

    ``lambda_1 / lambda_m``, m = min(n, d) for features and n for a matrix; with ``pseudo``, lambda_m is the smallest
    eigenvalue above round-off. The condition number of the features is the square root.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`~matinfo.Gram` or a
            :class:`~matinfo.Spectrum`.
        pseudo: Whether to leave zero eigenvalues out, as in ``|Z| |Z^+|`` with the pseudo-inverse.

    Returns:
        ``(...)``, at least 1, a pure number; infinite, without ``pseudo``, where an eigenvalue is in the round-off.

    Raises:
        ValueError: As :func:`matinfo.renyi_entropy`.
        TypeError: If K is not real floating point.

    Notes:
        One decomposition. First derivative; eigenvalues that tie with an extreme one share it.

    References:
        Tsitsulin, Munkhoeva and Perozzi (2023), Unsupervised embedding quality evaluation, whose released code returns
        the reciprocal of the smallest and largest singular value, zero ones included.

    Example:
        >>> import torch
        >>> from matinfo.measures import condition_number
        >>> K = torch.diag(torch.tensor([8.0, 2.0, 0.0]))
        >>> float(condition_number(K)), float(condition_number(K, pseudo=True))
        (inf, 4.0)
    """
    S = _decomposed(K, "condition_number")
    x = S.eigenvalues[..., : min(S.rows, S.width or S.rows)]
    known = x.detach()
    above = known > S.noise.cut(S.eigenvalues.detach().flip(-1))
    smallest = torch.where(above, known, torch.inf).amin(-1, keepdim=True)
    ratio = _mean_of_ties(x, known[..., :1]) / _mean_of_ties(x, smallest)
    if pseudo:
        return ratio
    singular = ~above.all(-1) & ~known[..., 0].isnan()
    return torch.where(singular, torch.inf, ratio)


def _mean_of_ties(x: Tensor, at: Tensor) -> Tensor:
    """The eigenvalue ``at``, as the mean of those that cannot be told from it; NaN stays NaN."""
    share = ((x.detach() - at).abs() <= _TIE * at).to(x.dtype)
    return (x * share).sum(-1) / share.sum(-1)


@quantity
def normalized_entropy(K: Operand | Spectrum, alpha: float = 1.0) -> Tensor:
    """Matrix entropy as a share of its largest possible value.

    ``H_alpha(K) / log min(n, d)``, d = n for a matrix; 0 where there is one dimension. With the tokens of a prompt as
    rows it is the prompt entropy of "Layer by layer" in its ``maxEntropy`` normalisation, with one row a prompt the
    dataset entropy: :func:`matinfo.layers.layerwise` has both un-normalised.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`~matinfo.Gram` or a
            :class:`~matinfo.Spectrum`.
        alpha: Order in [0, inf].

    Returns:
        ``(...)``, between 0 and 1, a pure number.

    Raises:
        ValueError: As :func:`matinfo.renyi_entropy`.
        TypeError: If K is not real floating point.

    Notes:
        As :func:`matinfo.renyi_entropy`. The released code sets negative entries of the Gram matrix to zero before it
        decomposes it, so that its numbers are those of another matrix, which may be indefinite.

    References:
        Skean et al. (2025), Layer by layer, Section 3.

    Example:
        >>> import torch
        >>> from matinfo.measures import normalized_entropy
        >>> float(normalized_entropy(torch.eye(5)))
        1.0
    """
    K = as_spectral(K, "K", "normalized_entropy")
    dimensions = min(K.shape[-1], (K.width if isinstance(K, AnyGram | Spectrum) else None) or K.shape[-1])
    return entropy_of(K, check_order(alpha)) / (math.log(dimensions) if dimensions > 1 else math.inf)


@quantity
def nuclear_norm(K: Operand | Spectrum) -> Tensor:
    """Nuclear norm of features, from the spectrum of their Gram matrix.

    ``|Z|_* = sum_k sigma_k`` with ``sigma_k = sqrt(lambda_k(Z Z^T))``.

    Args:
        K: :class:`~matinfo.Gram` of features, its :class:`~matinfo.Spectrum`, or any positive semi-definite matrices
            ``(..., n, n)``, for which it is the trace of the square root.

    Returns:
        ``(...)``, >= 0, in the unit of the features.

    Raises:
        ValueError: As :func:`matinfo.spectrum`.
        TypeError: If K is not real floating point.

    Notes:
        One decomposition. First derivative, zero along directions in the round-off.

    References:
        Cui et al. (2020), Batch nuclear-norm maximization. :func:`matrix_nuclear_norm` is the surrogate without a
        decomposition.

    Example:
        >>> import torch
        >>> from matinfo import Gram
        >>> from matinfo.measures import nuclear_norm
        >>> float(nuclear_norm(Gram(torch.diag(torch.tensor([3.0, 1.0])))))
        4.0
    """
    return _decomposed(K, "nuclear_norm").roots().sum(-1)


@quantity
def truncated_vendi(K: Operand | Spectrum, keep: int, q: float = 1.0) -> Tensor:
    """Truncated Vendi score, whose value converges at a number of samples that does not grow with the dimension.

    ``exp(H_q(p'))`` with ``p'_k = p_k + (1 - sum_{j<=t} p_j)/t`` for the t largest eigenvalues ``p_1 .. p_t`` of
    ``K / tr K``.

    Args:
        K: Similarity matrices ``(..., n, n)`` as Tensor or NumPy array, :class:`~matinfo.Gram` of embeddings, or a
            :class:`~matinfo.Spectrum`.
        keep: t >= 1; all eigenvalues if there are no more.
        q: Order in [0, inf].

    Returns:
        ``(...)``, between 1 and t: a number of kinds.

    Raises:
        ValueError: As :func:`matinfo.vendi_score`; also if ``keep`` < 1.
        TypeError: If K is not real floating point.

    Notes:
        One decomposition; derivative as that of :func:`matinfo.renyi_entropy` of a spectrum.

    References:
        Ospanov and Farnia (2025), Do Vendi scores converge with finite samples?, Section 5.

    Example:
        >>> import torch
        >>> from matinfo.measures import truncated_vendi
        >>> round(float(truncated_vendi(torch.eye(8), keep=4)), 4)
        4.0
    """
    order, keep = check_order(q, "q"), check_count(keep, "keep")
    S = _decomposed(K, "truncated_vendi")
    p = S.eigenvalues / S.eigenvalues.sum(-1, keepdim=True)
    top = p[..., :keep]
    if keep < p.shape[-1]:
        top = top + (1 - top.sum(-1, keepdim=True)) / keep
    return entropy_of_eigenvalues(top, order, S.noise).exp()


def _decomposed(K: Operand | Spectrum, function: str) -> Spectrum:
    return spectrum(as_spectral(K, "K", function))
