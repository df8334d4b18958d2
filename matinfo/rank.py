"""Effective dimensions: how many directions a spectrum occupies."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_features, check_in, check_order, check_trace
from matinfo.entropy import entropy_of
from matinfo.operands import AnyGram, Gram, Operand
from matinfo.spectral.entropy_function import shannon_entropy
from matinfo.spectral.normalize import without_scale
from matinfo.spectral.singular import singular_values
from matinfo.spectrum import Spectrum, as_spectral, spectrum


@quantity
def effective_rank(K: Operand | Spectrum, alpha: float = 1.0, *, precision: str = "auto") -> Tensor:
    """Effective rank of a positive semi-definite matrix.

    ``erank(K) = exp(H_alpha(K))``. At alpha = 1 this is Roy and Vetterli's effective rank of K, whose singular
    values are its eigenvalues. For features Z, ``effective_rank(Gram(Z))`` is that of ``Z Z^T`` (or ``Z^T Z``);
    the effective rank of Z itself is :func:`rankme`.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`Gram` or a
            :class:`Spectrum`.
        alpha: Order in [0, inf].
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``, between 1 and n: a number of dimensions.

    Raises:
        ValueError: As :func:`renyi_entropy`.
        TypeError: If K is not real floating point.

    Notes:
        Cost and derivatives as :func:`renyi_entropy`.

    References:
        Roy and Vetterli (2007), The effective rank; Tan et al. (2024), Definition 5.1.

    Example:
        >>> import torch
        >>> from matinfo import effective_rank
        >>> round(float(effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0.0])))), 4)
        2.0
    """
    order = check_order(alpha)
    return entropy_of(as_spectral(K, "K", "effective_rank"), order, precision=precision).exp()


@quantity
def participation_ratio(K: Operand | Spectrum) -> Tensor:
    """Participation ratio of a spectrum.

    ``PR(K) = (tr K)^2 / |K|_F^2 = exp(H_2(K))``.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`Gram` or a
            :class:`Spectrum`. For the participation ratio of principal component variances pass the Gram of centred
            features.

    Returns:
        ``(...)``, between 1 and n: a number of dimensions.

    Raises:
        ValueError: As :func:`renyi_entropy`.
        TypeError: If K is not real floating point.

    Notes:
        O(n^2) for a matrix; no eigenvalues. Differentiable to every order.

    References:
        Gao et al. (2017), A theory of multineuronal dimensionality.

    Example:
        >>> import torch
        >>> from matinfo import participation_ratio
        >>> float(participation_ratio(torch.eye(5)))
        5.0
    """
    return entropy_of(as_spectral(K, "K", "participation_ratio"), 2.0).exp()


@quantity
def vendi_score(K: Operand | Spectrum, q: float = 1.0, *, precision: str = "auto") -> Tensor:
    """Vendi score of a sample: its effective number of distinct elements.

    ``VS_q(K) = exp(H_q(K/n))`` for a similarity matrix K with unit diagonal.

    Args:
        K: Similarity matrices ``(..., n, n)`` as Tensor or NumPy array, :class:`Gram` of embeddings (use
            ``normalize=True`` for cosine similarity), or the :class:`Spectrum` of either.
        q: Order in [0, inf]; small orders count rare elements, large ones the dominant ones.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``, between 1 and n.

    Raises:
        ValueError: As :func:`renyi_entropy`.
        TypeError: If K is not real floating point.

    Notes:
        Cost and derivatives as :func:`renyi_entropy`. A diagonal other than 1 is divided out by the trace.

    References:
        Friedman and Dieng (2023), The Vendi score; Pasarkar and Dieng (2024) for the orders.

    Example:
        >>> import numpy as np
        >>> from matinfo import vendi_score
        >>> same = np.ones((3, 3))
        >>> round(float(vendi_score(np.kron(np.eye(2), same))), 4)  # two kinds, three copies each
        2.0
    """
    order = check_order(q, "q")
    return entropy_of(as_spectral(K, "K", "vendi_score"), order, precision=precision).exp()


@quantity
def rankme(features: Tensor | AnyGram | Spectrum, *, offset: float = 0.0) -> Tensor:
    """RankMe: the effective rank of a feature matrix itself.

    ``exp(-sum_k p_k log p_k)`` with ``p_k = sigma_k / sum sigma + offset`` and sigma the singular values of the
    features.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, used as they are (neither centred nor normalised); or
            their :class:`Gram`, or its :class:`Spectrum`: sigma are the roots of its eigenvalues.
        offset: Added to every p_k; RankMe's authors use 1e-7, Roy and Vetterli 0.

    Returns:
        ``(...)``, between 1 and min(n, d) for offset 0: a number of dimensions.

    Raises:
        ValueError: If ``features`` has fewer than two dimensions, no entries, or is entirely zero.
        TypeError: If ``features`` is not real floating point.

    Notes:
        float32 features: eigenvalues of the float64 Gram matrix of the smaller side, O(n d min(n, d)); float64
        features: a singular value decomposition. First derivative only; singular values in the round-off count as
        zero and have zero gradient: of a Gram or Spectrum, those below about 1e-8 of the largest. Not
        ``effective_rank(Gram(features))``, whose p_k are the *squared* values.

    References:
        Garrido et al. (2023), RankMe; Roy and Vetterli (2007).

    Example:
        >>> import torch
        >>> from matinfo import rankme
        >>> round(float(rankme(torch.diag(torch.tensor([2.0, 1.0, 0.0])))), 4)
        1.8899
    """
    if not isinstance(features, AnyGram | Spectrum):
        features = check_features(features, "features")
    if isinstance(features, Tensor) and features.dtype == torch.float64:
        sigma = singular_values(without_scale(features, features.dtype)[0])
    else:  # of coarser features a float64 Gram matrix keeps all the digits
        sigma = spectrum(Gram(features) if isinstance(features, Tensor) else features).roots()
    check_trace(sigma.detach().sum(-1), "features")
    return rank_of_shares(sigma, offset)


def rank_of_shares(x: Tensor, offset: float) -> Tensor:
    """``exp(-sum_k p_k log p_k)`` with ``p_k = x_k / sum x + offset`` of ``x >= 0``; zeros have a zero derivative."""
    return shannon_entropy(x / x.sum(-1, keepdim=True) + check_offset(offset)).exp()


def check_offset(offset: object) -> float:
    """Accept what may be added to every share."""
    return check_in(offset, "offset", "[0, inf)", "RankMe's published value is 1e-7.")
