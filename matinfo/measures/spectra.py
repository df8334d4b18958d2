"""Ranks, norms and entropies that are functions of one spectrum, LiDAR of that of a discriminant matrix among them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_count, check_in, check_order, check_positive, check_trace, check_views
from matinfo.entropy import entropy_of
from matinfo.operands import AnyGram, Operand
from matinfo.rank import rank_of_shares
from matinfo.spectral.entropy_function import entropy_of_eigenvalues
from matinfo.spectral.whitening import whitened_matrix
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
    top = x[..., :1]
    above = x > check_in(rtol, "rtol", "[0, 1)") * top
    return torch.where(top[..., 0].isnan(), torch.nan, above.sum(-1).double())


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
    complete = x.shape[-1] == min(S.rows, S.width or S.rows)  # what a Spectrum leaves out is zero
    singular = ~(above.all(-1) & complete) & ~known[..., 0].isnan()
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


@quantity
def lidar(views: Tensor, *, delta: float = 1e-4, offset: float = 0.0) -> Tensor:
    """LiDAR: the effective rank of the linear-discriminant matrix of samples and their augmentations.

    ``exp(-sum_k p_k log p_k)`` with ``p_k = lambda_k / sum lambda + offset`` and lambda the eigenvalues of
    ``S_w^{-1/2} S_b S_w^{-1/2}``; ``S_b = mean_i (m_i - m)(m_i - m)^T`` for the mean m_i of the views of sample i and
    the mean m of all, ``S_w = mean_{vi} (z_{vi} - m_i)(z_{vi} - m_i)^T + delta I``.

    Args:
        views: ``(..., V, n, d)``, V >= 2 views of n >= 2 samples, Tensor or NumPy array.
        delta: Ridge, > 0, in squared units of the features; the paper's 1e-4.
        offset: Added to every p_k; the paper adds a small constant, the released ports 1e-7.

    Returns:
        ``(...)``, between 1 and min(n - 1, d) for offset 0: a number of dimensions.

    Raises:
        ValueError: If ``views`` has fewer than three dimensions or two views, delta <= 0, or the samples do not differ.
        TypeError: If ``views`` is not real floating point.

    Notes:
        O(V n d^2 + d^3), in float64. First derivative. :class:`matinfo.streaming.LidarAccumulator` takes batches.

    References:
        Thilak et al. (2024), LiDAR: sensing linear probing performance in joint embedding SSL architectures, Equations
        1 to 4.

    Example:
        >>> import torch
        >>> from matinfo.measures import lidar
        >>> samples = torch.eye(4)[:3] + torch.zeros(2, 1, 1)  # three samples, in two views that agree
        >>> round(float(lidar(samples)), 4)
        2.0
    """
    Z = check_views(views, "views", least=2).double()
    means = Z.mean(-3, keepdim=True)
    apart, within = means - means.mean(-2, keepdim=True), Z - means
    count = Z.shape[-2]
    between = (apart.mT @ apart).squeeze(-3) / count
    return lidar_of(between, (within.mT @ within).sum(-3) / (count * Z.shape[-3]), delta, offset)


def lidar_of(between: Tensor, within: Tensor, delta: float, offset: float) -> Tensor:
    """LiDAR of the two covariances ``(..., d, d)``, float64."""
    ridge = check_positive(delta, "delta") * torch.eye(
        within.shape[-1], dtype=within.dtype, device=within.device
    )
    S = spectrum(whitened_matrix(between, within + ridge))
    x = S.eigenvalues
    check_trace(x.detach().sum(-1), "the covariance of the means of the samples")
    return rank_of_shares(torch.where(x.detach() > S.noise.cut(x.detach().flip(-1)), x, 0.0 * x), offset)


def _decomposed(K: Operand | Spectrum, function: str) -> Spectrum:
    return spectrum(as_spectral(K, "K", function))
