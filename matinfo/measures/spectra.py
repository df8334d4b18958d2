"""Measures that are functions of one spectrum."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_count, check_features, check_order
from matinfo.entropy import entropy_of
from matinfo.operands import AnyGram, Operand
from matinfo.operands.gram import prepared_rows
from matinfo.spectral.entropy_function import entropy_of_eigenvalues
from matinfo.spectrum import Spectrum, as_spectral, of_features, spectrum

_TIE = 1e-10
"""Eigenvalues relatively closer than this share the derivative of a largest or smallest one."""


class PowerLaw(NamedTuple):
    """A fit ``lambda_k ~ k^-exponent``, each entry of the shape of the batch.

    Attributes:
        exponent: alpha, by weighted least squares of log lambda on log k.
        error: Its standard error if the residuals were independent; those of neighbouring eigenvalues are not.
        r2: Weighted share of the variance of log lambda that the line explains.
        first: Rank of the first eigenvalue of the fit.
        last: Rank of the last one: the range asked for ends where round-off begins.
    """

    exponent: Tensor
    error: Tensor
    r2: Tensor
    first: int
    last: Tensor


def power_law(K: Operand | Spectrum, *, first: int = 6, last: int = 100, weighted: bool = True) -> PowerLaw:
    """Power law of the decay of a spectrum, with its range and error.

    ``alpha, c = argmin sum_k w_k (log lambda_k + alpha log k - c)^2`` over ``first <= k <= last``, k the rank of
    lambda_k.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`~matinfo.Gram` or a
            :class:`~matinfo.Spectrum`; of centred features for the eigenvalues of their covariance.
        first: First rank, at least 1. The default leaves out five, as the released code does.
        last: Last rank.
        weighted: Whether ``w_k = 1/k``, as in the released code, so that every octave of ranks weighs the same; else
            1, the regression that the paper names.

    Returns:
        A :class:`PowerLaw`, float64; NaN where fewer than three eigenvalues above round-off are in the range.

    Raises:
        ValueError: As :func:`matinfo.spectrum`; also if the range is empty.
        TypeError: If K is not real floating point.

    Notes:
        One decomposition, O(m) after it. Differentiable once.

    References:
        Agrawal, Mondal, Ghosh and Richards (2022), alpha-ReQ; Stringer, Pachitariu et al. (2019), High-dimensional
        geometry of population responses in visual cortex, for the weights.

    Example:
        >>> import numpy as np
        >>> from matinfo import Spectrum
        >>> from matinfo.measures import power_law
        >>> fit = power_law(Spectrum(np.arange(1, 101) ** -1.5))
        >>> round(float(fit.exponent), 6), fit.first, int(fit.last)
        (1.5, 6, 100)
    """
    S = spectrum(K)
    fit = _fit(S, first, last, weighted)
    return fit._replace(**{name: S.out(value) for name, value in fit._asdict().items() if name != "first"})


def _fit(S: Spectrum, first: int, last: int, weighted: bool) -> PowerLaw:
    if not check_count(first, "first") < check_count(last, "last"):
        raise ValueError(f"Expected first < last, got first={first}, last={last}.")
    x = S.eigenvalues
    k = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
    used = (k >= first) & (k <= last) & (x.detach() > S.noise.cut(x.detach().flip(-1)))
    count = used.sum(-1)
    w = used / k if weighted else used.double()
    w = w / w.sum(-1, keepdim=True)
    log_k, log_x = k.log(), torch.where(used, x, 1.0).log()
    u = log_k - (w * log_k).sum(-1, keepdim=True)
    v = log_x - (w * log_x).sum(-1, keepdim=True)
    spread = (w * u.square()).sum(-1)
    slope = torch.where(count > 2, (w * u * v).sum(-1) / spread, torch.nan)
    residual = (w * (v - slope[..., None] * u).square()).sum(-1)
    error = (residual / (spread * (count - 2).clamp_min(1))).sqrt()
    total = (w * v.square()).sum(-1)
    r2 = 1 - residual / total
    end = torch.where(count > 0, (k * used).amax(-1), torch.nan)
    return PowerLaw(-slope, error, r2, first, end)


@quantity
def alpha_req(K: Operand | Spectrum, *, first: int = 6, last: int = 100, weighted: bool = True) -> Tensor:
    """Alpha-ReQ: the exponent of the decay of a spectrum.

    ``alpha`` of :func:`power_law`, which gives its error and range too.

    Args:
        K: As for :func:`power_law`.
        first: First rank, at least 1.
        last: Last rank.
        weighted: Whether rank k weighs 1/k.

    Returns:
        ``(...)``, a pure number; NaN where fewer than three eigenvalues above round-off are in the range.

    Raises:
        ValueError: As :func:`power_law`.
        TypeError: If K is not real floating point.

    Notes:
        As :func:`power_law`. The value 1 is where the paper finds the best representations.

    References:
        Agrawal et al. (2022), alpha-ReQ.

    Example:
        >>> import numpy as np
        >>> from matinfo import Spectrum
        >>> from matinfo.measures import alpha_req
        >>> round(float(alpha_req(Spectrum(1 / np.arange(1, 51)))), 6)
        1.0
    """
    return _fit(_decomposed(K, "alpha_req"), first, last, weighted).exponent


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


@quantity
def isoscore(features: Tensor | AnyGram | Spectrum) -> Tensor:
    """IsoScore: how evenly the variance of features is spread over all d directions.

    ``(PR - 1)/(d - 1)`` with ``PR = (sum_k lambda_k)^2 / sum_k lambda_k^2`` the participation ratio of the covariance.
    The paper's eight steps, from the isotropy defect on, reduce to it.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, centred here; or the :class:`~matinfo.Gram` or
            :class:`~matinfo.Spectrum` of features that are centred already.

    Returns:
        ``(...)``, between 0 (one direction) and 1 (isotropic), a pure number; NaN for d = 1.

    Raises:
        ValueError: If the features do not vary, or are a matrix's spectrum without a width.
        TypeError: If ``features`` is not real floating point.

    Notes:
        No eigenvalues: O(n d min(n, d)). Differentiable to every order, but for a Spectrum.

    References:
        Rudman, Gillman, Rayne and Eickhoff (2022), IsoScore, Section 4.

    Example:
        >>> import torch
        >>> from matinfo.measures import isoscore
        >>> float(isoscore(torch.cat([torch.eye(3), -torch.eye(3)])))
        1.0
    """
    K, d = of_features(features, "isoscore", center=True)
    return (entropy_of(K, 2.0).exp() - 1) / (d - 1 if d > 1 else math.nan)


@quantity
def isoscore_star(
    features: Tensor, *, shrinkage: float, reference: Tensor | np.ndarray | None = None
) -> Tensor:
    """IsoScore*: IsoScore of a covariance that is shrunk towards a stable one, for few samples.

    ``(PR - 1)/(d - 1)`` with PR the participation ratio of ``(1 - zeta) C + zeta C_0`` and C the sample covariance,
    over ``n - 1``.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, n >= 2, centred here.
        shrinkage: zeta in [0, 1]; at 0 it is :func:`isoscore`, whose C is singular for n <= d.
        reference: C_0, ``(d, d)``, the covariance of a larger set; None for the identity.

    Returns:
        ``(...)``, between 0 and 1, a pure number; NaN for d = 1.

    Raises:
        ValueError: If there is one row, ``shrinkage`` is outside [0, 1], or the reference is not a covariance of d
            columns.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(n d^2), no eigenvalues: differentiable to every order, as the I-STAR regulariser needs it.

    References:
        Rudman and Eickhoff (2024), Stable anisotropic regularization, Section 4.

    Example:
        >>> import torch
        >>> from matinfo.measures import isoscore_star
        >>> float(isoscore_star(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), shrinkage=1.0))  # the identity alone
        1.0
    """
    Z = check_features(features, "features").double()
    n, d = Z.shape[-2:]
    if not 0 <= shrinkage <= 1 or n < 2:
        raise ValueError(f"Expected shrinkage in [0, 1] and at least two rows, got {shrinkage} and {n}.")
    Z = prepared_rows(Z, True, False)
    if reference is None:
        target = torch.eye(d, dtype=Z.dtype, device=Z.device)
    else:
        given = torch.as_tensor(reference).to(Z)
        if given.shape != (d, d):
            raise ValueError(f"Expected a reference of shape ({d}, {d}), got {tuple(given.shape)}.")
        target = given
    C = Z.mT @ Z * ((1 - shrinkage) / (n - 1)) + shrinkage * target
    return (entropy_of(C, 2.0).exp() - 1) / (d - 1 if d > 1 else math.nan)


@quantity
def self_clustering(features: Tensor | AnyGram | Spectrum) -> Tensor:
    """Self-clustering: how much more rows of unit length agree than random ones would.

    ``(|K|_F^2 - e) / (n^2 - e)`` with ``K`` the Gram matrix of the rows divided by their length and
    ``e = n + n (n - 1)/d`` what independent uniform directions give on the mean.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, divided by their length here; or the :class:`~matinfo.Gram` or
            :class:`~matinfo.Spectrum` of rows of unit length.

    Returns:
        ``(...)``: 1 if all rows are one direction, about 0 if they are uniform, negative if they avoid each other; NaN
        where n = 1 or d = 1.

    Raises:
        ValueError: If the features are all zero, or are a matrix's spectrum without a width.
        TypeError: If ``features`` is not real floating point.

    Notes:
        ``|K|_F^2 = n^2/PR``, so that no eigenvalues are needed: O(n d min(n, d)).

    References:
        Tsitsulin, Munkhoeva and Perozzi (2023), Unsupervised embedding quality evaluation, Section 3.

    Example:
        >>> import torch
        >>> from matinfo.measures import self_clustering
        >>> round(float(self_clustering(torch.ones(5, 3))), 4), round(float(self_clustering(torch.eye(3))), 4)
        (1.0, -0.5)
    """
    K, d = of_features(features, "self_clustering", normalize=True)
    n = K.shape[-1]
    expected = n + n * (n - 1) / d
    span = n**2 - expected
    return (n**2 * (-entropy_of(K, 2.0)).exp() - expected) / (span if span > 0 else math.nan)


@quantity
def nesum(features: Tensor | AnyGram | Spectrum) -> Tensor:
    """NESum: the sum of the eigenvalues of the covariance over the largest.

    ``sum_k lambda_k / lambda_1``, the :func:`stable_rank` of centred features.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, centred here; or the :class:`~matinfo.Gram` or
            :class:`~matinfo.Spectrum` of features that are centred already.

    Returns:
        ``(...)``, between 1 and min(n - 1, d): a number of dimensions.

    Raises:
        ValueError: If the features do not vary, or are a matrix's spectrum without a width.
        TypeError: If ``features`` is not real floating point.

    Notes:
        As :func:`stable_rank`.

    References:
        He and Ozay (2022), Exploring the gap between collapsed and whitened features, Definition 4.1.

    Example:
        >>> import torch
        >>> from matinfo.measures import nesum
        >>> round(float(nesum(torch.cat([torch.eye(3), -torch.eye(3)]))), 4)
        3.0
    """
    K, _ = of_features(features, "nesum", center=True)
    return entropy_of(K, math.inf).exp()


def _decomposed(K: Operand | Spectrum, function: str) -> Spectrum:
    return spectrum(as_spectral(K, "K", function))
