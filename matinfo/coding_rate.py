"""Coding rates: log-determinants of regularised second moments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_choice, check_features, check_positive, values_are_readable
from matinfo.operands import Gram, Operand, Side, smaller_side
from matinfo.spectral.functions import LogShift
from matinfo.spectral.logdet import logdet_shifted
from matinfo.spectral.trace_function import trace_function
from matinfo.spectral.traces import trace
from matinfo.spectrum import Spectrum, as_spectral, check_decomposed

METHODS = ("auto", "eigh")


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
    side = smaller_side(K, precision=precision, sensitive=_float32_is_too_coarse(K, mu))
    padding = (order - side.given.shape[-1]) * math.log(mu)
    if method == "auto":
        value = logdet_shifted(side.matrix, mu, side=side.name)
        if not _failed(value, side):
            return value + padding
    return trace_function(side.matrix, LogShift(mu), noise=side.noise, side=side.name) + padding


def _float32_is_too_coarse(K: Operand, mu: float) -> bool:
    """Whether mu drowns in the float32 round-off of K, by the bound ``lambda_max <= tr K``."""
    if (K.given_dtype if isinstance(K, Gram) else K.dtype) == torch.float64:
        return False  # no choice to be made
    if isinstance(K, Gram):
        first = K.terms[0][0].detach()
        if K.device.type != "cpu" or not values_are_readable(first):
            return False
        total = sum(_hadamard_trace(term) for term in K.terms)
    else:
        if K.device.type != "cpu" or not values_are_readable(K):
            return False
        total = trace(K.detach())
    return bool((torch.as_tensor(total) * (32 * torch.finfo(torch.float32).eps) > mu).any())


def _hadamard_trace(term: tuple[Tensor, ...]) -> Tensor:
    squares = [Z.detach().double().square().sum(-1) for Z in term]
    return math.prod(squares[1:], start=squares[0]).sum(-1)


def _failed(value: Tensor, side: Side) -> bool:
    """Whether Cholesky broke down on finite input: then eigenvalues decide (and refuse an indefinite matrix)."""
    if value.device.type != "cpu" or not values_are_readable(value) or not bool(value.isnan().any()):
        return False
    finite = side.given.detach().isfinite().all(-1).all(-1)
    return bool((value.isnan() & finite).any())


@quantity
def tcr(
    features: Tensor | Gram | Spectrum,
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
    K, width = _of_features(features, "tcr", normalize=normalize)
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
def coding_rate(features: Tensor | Gram | Spectrum, *, eps: float = 0.5, precision: str = "auto") -> Tensor:
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
    K, width = _of_features(features, "coding_rate")
    return _rate(K, width, K.shape[-1], eps, precision)


def _of_features(
    features: Tensor | Gram | Spectrum, function: str, *, normalize: bool = False
) -> tuple[Gram | Spectrum, int]:
    """What stands for the Gram matrix of features, and their number of columns."""
    if not isinstance(features, Gram | Spectrum):
        Z = check_features(features, "features")
        return Gram(Z, normalize), Z.shape[-1]
    if normalize:
        raise ValueError(
            f"Expected {function}(features, normalize=True) of features, got a {type(features).__name__}, whose rows "
            "are what they are. Normalise where it is made: Gram(features, normalize=True)."
        )
    if features.width is None:
        raise ValueError(
            f"Expected {function} of features, got the Spectrum of a matrix. Use matrix_tcr(S) for the matrix, or "
            "spectrum(Gram(features))."
        )
    return features, features.width


def _rate(K: Gram | Spectrum, width: int, count: int, eps: float, precision: str) -> Tensor:
    ridge = count * eps**2 / width
    n = K.shape[-1]
    return 0.5 * (logdet_of(K, ridge, n, precision=precision) - n * math.log(ridge))


@quantity
def rate_reduction(features: Tensor, labels: Tensor, *, eps: float = 0.5, precision: str = "auto") -> Tensor:
    """Coding rate reduction of MCR².

    ``R(Z) - sum_j (n_j/n) R(Z_j)`` with Z_j the n_j rows of class j; with soft memberships Pi,
    ``n_j = sum_i Pi_ij`` and ``Z_j^T Z_j`` becomes ``Z^T diag(Pi_j) Z``.

    Args:
        features: Z, ``(..., n, d)``, Tensor or NumPy array; MCR² uses l2-normalised rows.
        labels: Classes ``(n,)`` (integers) or memberships ``(n, k)`` (floating point, non-negative).
        eps: Distortion, > 0.
        precision: ``"auto"``, ``"float32"`` or ``"float64"``.

    Returns:
        ``(...)``, >= 0 for labels, in nats; dtype of the features, at least float32. MCR² maximises it.

    Raises:
        ValueError: If the number of labels is not n, memberships are negative, or eps <= 0.
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
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"Expected labels to be a torch.Tensor or a NumPy array, got {type(labels).__name__}. "
            "Use torch.tensor(labels), with numbers for names."
        )
    if labels.ndim not in (1, 2) or labels.shape[0] != n:
        raise ValueError(
            f"Expected labels of shape ({n},) or memberships ({n}, k), got {tuple(labels.shape)}."
        )
    d = Z.shape[-1]
    total = _rate(Gram(Z), d, n, eps, precision)
    if labels.ndim == 1:
        if labels.is_floating_point():
            raise TypeError(
                f"Expected integer labels of shape ({n},), got {labels.dtype}. Use labels.long()."
            )
        for label in labels.unique():
            members = Z[..., labels == label, :]
            total = total - members.shape[-2] / n * _rate(Gram(members), d, members.shape[-2], eps, precision)
        return total
    if bool((labels < 0).any()):
        raise ValueError(f"Expected non-negative memberships, got {labels.min().item():.3g}.")
    for column in labels.to(Z.dtype).unbind(-1):
        count = column.detach().sum()
        if float(count) > 0:
            total = total - _soft_rate(Z, column, d, eps, precision)
    return total


def _soft_rate(Z: Tensor, column: Tensor, d: int, eps: float, precision: str) -> Tensor:
    count = column.double().sum()
    moment = Z.double().mT @ (column.double()[:, None] * Z.double())
    scaled = moment * (d / (count * eps**2))
    return 0.5 * count / Z.shape[-2] * logdet_of(scaled, 1.0, d, precision=precision)
