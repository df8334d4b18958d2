"""Coding rates: log-determinants of regularised second moments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import (
    check_choice,
    check_features,
    check_labels,
    check_positive,
    check_probabilities,
)
from matinfo.operands import AnyGram, Gram, Operand, Side, is_readable, smaller_side
from matinfo.spectral.functions import LogShift
from matinfo.spectral.logdet import logdet_shifted
from matinfo.spectral.normalize import times_power_of_four
from matinfo.spectral.singular import singular_values
from matinfo.spectral.trace_function import trace_function
from matinfo.spectral.traces import spectrum
from matinfo.spectrum import Spectrum, as_spectral, check_decomposed, of_features

METHODS = ("auto", "eigh")


_LARGEST_FEATURES = 2**24
"""Entries of features that may go through a singular value decomposition, some ten times as dear as Cholesky."""


def logdet_of(
    K: Operand | Spectrum, mu: float, order: int, *, method: str = "auto", precision: str = "auto"
) -> Tensor:
    """``log det(mu I + K)`` of an operand seen as a matrix of the given order (the rest of its spectrum is zero)."""
    check_choice(method, "method", METHODS)
    check_positive(mu, "mu", "log det(mu I + K) of a singular K is -inf at mu = 0.")
    if isinstance(K, Spectrum):
        check_decomposed(method, precision)
        x = K.eigenvalues
        return LogShift(mu).value(x).sum(-1) + (order - x.shape[-1]) * math.log(mu)
    side = smaller_side(K, precision=precision)
    if side.dtype == torch.float32 and precision == "auto" and _drowns(mu, side):
        side = smaller_side(K, precision="float64")
    if side.exponent is not None and is_readable(side.given):
        eigenvalues = spectrum(side.matrix, side.noise, side=side.name)
        return _sum_of_logarithms(eigenvalues, side.exponent, mu, order)
    if isinstance(K, Gram) and precision != "float32" and _drowns(mu, side):
        gram, exponent = K.without_scale()
        if gram.width * order <= _LARGEST_FEATURES:
            singular = singular_values(gram.features(torch.float64))
            return _sum_of_logarithms(singular.square(), exponent, mu, order)
    matrix = side.definite(thorough=True) if method == "auto" else side.matrix
    if side.exponent is not None:
        matrix = times_power_of_four(matrix, side.exponent / 2, matrix.dtype)
    padding = (order - matrix.shape[-1]) * math.log(mu)
    if method == "auto":
        value = logdet_shifted(matrix, mu, side=side.name)
        if not _failed(value, side):
            return value + padding if padding else value
    return trace_function(matrix, LogShift(mu), noise=side.noise, side=side.name) + padding


def _drowns(mu: float, side: Side) -> bool:
    """Whether mu drowns in the round-off of the matrix, by the bound ``lambda_max <= tr K``."""
    floor = 32 * torch.finfo(side.dtype).eps
    if isinstance(side.total, float):
        return side.total * floor > mu
    return is_readable(side.given) and bool((side.total * floor > mu).any())


def _sum_of_logarithms(x: Tensor, exponent: Tensor, mu: float, order: int) -> Tensor:
    """``sum_i log(mu + 2^exponent x_i)`` without the power of two, and log mu for eigenvalues that are not there."""
    zero = x <= 0
    logarithms = torch.where(zero, 1.0, x).log() + exponent[..., None] * math.log(2)
    floor = math.log(mu)
    total = torch.where(zero, floor, torch.logaddexp(logarithms, torch.full_like(x, floor))).sum(-1)
    return total + (order - x.shape[-1]) * floor


def _failed(value: Tensor, side: Side) -> bool:
    """Whether Cholesky broke down on finite input: then eigenvalues decide (and refuse an indefinite matrix)."""
    if not is_readable(value) or not (
        math.isnan(value.item()) if value.ndim == 0 else bool(value.isnan().any())
    ):
        return False
    finite = side.given.detach().isfinite().all(-1).all(-1)
    return bool((value.isnan() & finite).any())


@quantity
def tcr(
    features: Tensor | AnyGram | Spectrum,
    mu: float = 1.0,
    *,
    normalize: bool = False,
    method: str = "auto",
    precision: str = "auto",
) -> Tensor:
    """Total coding rate of features.

    ``TCR_mu(Z) = log det(mu I_d + Z^T Z)``.

    Args:
        features: Z, ``(..., n, d)``, Tensor or NumPy array, one row a sample; or their :class:`Gram`, or its
            :class:`Spectrum`.
        mu: Ridge, > 0. The released M-MAE code's ``log det(I + (mu_c/d) Z^T Z)`` is this at ``mu = d/mu_c`` plus
            the constant ``-d log(mu)``.
        normalize: Whether to divide each row by its l2 norm first, as the definition assumes.
        method: ``"auto"`` (Cholesky) or ``"eigh"``.
        precision: ``"auto"``, ``"float32"`` or ``"float64"``.

    Returns:
        ``(...)``, at least ``d log mu``, in nats; dtype of the input, at least float32.

    Raises:
        ValueError: If ``features`` has fewer than two dimensions or no entries, or mu <= 0.
        TypeError: If ``features`` is not real floating point.

    Notes:
        One Cholesky factorisation of the smaller side: ``n d min(n, d) + min(n, d)^3/3`` flops, twice that for the
        gradient ``2 Z (mu I + Z^T Z)^{-1}``. Differentiable to every order. If mu is below the round-off of
        ``Z^T Z`` the eigenvalues are used instead.

    References:
        Tan et al. (2024), Definition 4.8; Ma et al. (2007).

    Example:
        >>> import torch
        >>> from matinfo import tcr
        >>> round(float(tcr(torch.eye(3), mu=1.0)), 4)  # 3 log 2
        2.0794
    """
    if normalize and isinstance(features, AnyGram | Spectrum):
        raise ValueError(
            f"Expected tcr(features, normalize=True) of features, got a {type(features).__name__}, whose rows are what "
            "they are. Normalise where it is made: Gram(features, normalize=True)."
        )
    K, width = of_features(features, "tcr", normalize=normalize)
    return logdet_of(K, mu, width, method=method, precision=precision)


@quantity
def matrix_tcr(
    K: Operand | Spectrum, mu: float = 1.0, *, method: str = "auto", precision: str = "auto"
) -> Tensor:
    """Total coding rate of a positive semi-definite matrix.

    ``TCR_mu(K) = log det(mu I + K)``.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`Gram` or a
            :class:`Spectrum`. Not normalised: scale matters.
        mu: Ridge, > 0.
        method: ``"auto"`` (Cholesky) or ``"eigh"``.
        precision: ``"auto"``, ``"float32"`` or ``"float64"``.

    Returns:
        ``(...)``, at least ``n log mu``, in nats; dtype of the input, at least float32.

    Raises:
        ValueError: If K is not square, not symmetric or clearly indefinite, or mu <= 0.
        TypeError: If K is not real floating point.

    Notes:
        As :func:`tcr`; for a Gram the smaller side is factored and ``(n - d) log mu`` added.

    References:
        Tan et al. (2024), Equation 6 and Proposition 4.10.

    Example:
        >>> import torch
        >>> from matinfo import matrix_tcr
        >>> round(float(matrix_tcr(torch.eye(3), mu=1.0)), 4)  # 3 log 2
        2.0794
    """
    K = as_spectral(K, "K", "matrix_tcr")
    return logdet_of(K, mu, K.shape[-1], method=method, precision=precision)


@quantity
def coding_rate(
    features: Tensor | AnyGram | Spectrum, *, eps: float = 0.5, precision: str = "auto"
) -> Tensor:
    """Coding rate of MCR².

    ``R(Z) = 1/2 log det(I + d/(n eps^2) Z^T Z)``.

    Args:
        features: Z, ``(..., n, d)``, Tensor or NumPy array; or their :class:`Gram`, or its :class:`Spectrum`. MCR²
            uses l2-normalised rows.
        eps: Distortion, > 0. (Published codes pass ``eps^2`` under this name.)
        precision: ``"auto"``, ``"float32"`` or ``"float64"``.

    Returns:
        ``(...)``, >= 0, in nats; dtype of the input, at least float32.

    Raises:
        ValueError: If ``features`` has fewer than two dimensions or no entries, or eps <= 0.
        TypeError: If ``features`` is not real floating point.

    Notes:
        As :func:`tcr`.

    References:
        Yu et al. (2020), Learning diverse and discriminative representations via the principle of maximal coding
        rate reduction.

    Example:
        >>> import torch
        >>> from matinfo import coding_rate
        >>> round(float(coding_rate(torch.eye(4), eps=1.0)), 4)  # 2 log 2
        1.3863
    """
    check_positive(eps, "eps")
    K, width = of_features(features, "coding_rate")
    return _rate(K, width, K.shape[-1], eps, precision)


def _rate(K: AnyGram | Spectrum, width: int, count: int, eps: float, precision: str) -> Tensor:
    ridge = count * eps**2 / width
    order = min(K.shape[-1], width)  # of a stream n is huge, and n log ridge twice would leave its round-off
    return 0.5 * (logdet_of(K, ridge, order, precision=precision) - order * math.log(ridge))


@quantity
def rate_reduction(features: Tensor, labels: Tensor, *, eps: float = 0.5, precision: str = "auto") -> Tensor:
    """Coding rate reduction of MCR².

    ``R(Z) - sum_j (n_j/n) R(Z_j)`` with Z_j the n_j rows of class j; with soft memberships Pi,
    ``n_j = sum_i Pi_ij`` and ``Z_j^T Z_j`` becomes ``Z^T diag(Pi_j) Z``.

    Args:
        features: Z, ``(..., n, d)``, Tensor or NumPy array; MCR² uses l2-normalised rows.
        labels: Classes ``(n,)`` (integers) or memberships ``(n, k)``, non-negative with rows that sum to 1.
        eps: Distortion, > 0.
        precision: ``"auto"``, ``"float32"`` or ``"float64"``.

    Returns:
        ``(...)``, >= 0 for labels, in nats; dtype of the features (or of floating-point memberships, if that is wider),
        at least float32. MCR² maximises it.

    Raises:
        ValueError: If the number of labels is not n, memberships are no distributions (looked at on the CPU only), or
            eps <= 0.
        TypeError: If ``features`` is not real floating point.

    Notes:
        One coding rate for each class and one for all, derivatives as of :func:`tcr`; soft memberships have a gradient
        too. Empty classes add nothing.

    References:
        Yu et al. (2020), Equations 4 to 6.

    Example:
        >>> import torch
        >>> from matinfo import rate_reduction
        >>> Z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(float(rate_reduction(Z, torch.tensor([0, 0, 1, 1]), eps=1.0)), 4)
        0.1438
    """
    Z = check_features(features, "features")
    check_positive(eps, "eps")
    n = Z.shape[-2]
    if isinstance(labels, Tensor) and (labels.ndim not in (1, 2) or labels.shape[0] != n):
        raise ValueError(
            f"Expected labels of shape ({n},) or memberships ({n}, k), got {tuple(labels.shape)}."
        )
    d = Z.shape[-1]
    total = _rate(Gram(Z), d, n, eps, precision)
    if not isinstance(labels, Tensor) or labels.ndim == 1:
        labels = check_labels(labels, n)
        for label in labels.unique():
            members = Z[..., labels == label, :]
            total = total - members.shape[-2] / n * _rate(Gram(members), d, members.shape[-2], eps, precision)
        return total
    memberships = labels if labels.is_floating_point() else labels.double()  # such as one_hot of torch
    check_probabilities(memberships, "memberships", "For classes pass labels of shape (n,).")
    wide = Z.double()
    for column in memberships.double().unbind(-1):
        count = column.sum()
        if float(count.detach()) != 0:  # NaN is not an empty class
            scaled = wide.mT @ (column[:, None] * wide) * (d / (count * eps**2))
            total = total - 0.5 * count / n * logdet_of(scaled, 1.0, d, precision=precision)
    return total
