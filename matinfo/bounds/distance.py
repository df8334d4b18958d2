"""How far apart two density matrices are, and what that says about their divergence and their entropies."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_count, check_order, check_same_samples, check_trace
from matinfo.bounds._elementwise import elementwise, not_negative
from matinfo.operands.matrix import check_matrix
from matinfo.spectral.eigensystem import Noise
from matinfo.spectral.traces import spectrum, trace


@quantity
def trace_distance(K1: Tensor, K2: Tensor) -> Tensor:
    """Trace distance of two matrices divided by their traces.

    ``T = 1/2 sum_i |x_i|`` with x the eigenvalues of ``K1/tr K1 - K2/tr K2``.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)``, Tensor or NumPy array.
        K2: The same, of the same order.

    Returns:
        ``(...)``, between 0 and 1, a pure number; dtype of the input, at least float32.

    Raises:
        ValueError: If a matrix is not square, not symmetric or without positive trace, or the orders differ.
        TypeError: If a matrix is not real floating point.

    Notes:
        One list of eigenvalues, in float64. First derivative only. The argument of
        :func:`entropy_continuity_bound`, :func:`js_upper_bound` and :func:`js_lower_bound`.

    References:
        Helstrom (1976), Quantum detection and estimation theory.

    Example:
        >>> import torch
        >>> from matinfo.bounds import trace_distance
        >>> round(float(trace_distance(torch.eye(2), torch.diag(torch.tensor([3.0, 1.0])))), 4)
        0.25
    """
    states = []
    for K, name in ((K1, "K1"), (K2, "K2")):
        checked = check_matrix(K, name, "trace_distance")
        total = trace(checked)
        check_trace(total)
        states.append(checked.double() / total[..., None, None])
    check_same_samples([tuple(state.shape) for state in states])
    difference = states[0] - states[1]
    # The solver takes positive semi-definite matrices: all eigenvalues of the difference are within its norm of 0.
    shift = difference.detach().square().sum((-2, -1)).sqrt()
    n = difference.shape[-1]
    identity = torch.eye(n, dtype=torch.float64, device=difference.device)
    shifted = difference + shift[..., None, None] * identity
    eigenvalues = spectrum(shifted, Noise.of(n, torch.float64, torch.float64))
    return ((eigenvalues - shift[..., None]).abs().sum(-1) / 2).clamp_max(1.0)


@elementwise
def js_upper_bound(distance: Any) -> Any:
    """Largest matrix Jensen-Shannon divergence at a given trace distance.

    ``JS <= T log 2``.

    Args:
        distance: T, or an upper bound of it, in [0, 1]: see :func:`trace_distance`; a number, Tensor or NumPy array.

    Returns:
        Upper bound of :func:`matinfo.matrix_js` in nats, at most log 2; the kind and shape of ``distance``.

    Raises:
        ValueError: If the distance is negative.

    Notes:
        Attained for every T, by ``diag(1 - T, T, 0)`` against ``diag(1 - T, 0, T)``. O(1) an element; its gradient in a
        tensor T is log 2.

    References:
        Audenaert (2014), Quantum skew divergence; proved in the theory section of the documentation.

    Example:
        >>> from matinfo.bounds import js_upper_bound
        >>> round(js_upper_bound(0.1), 4)
        0.0693
    """
    return not_negative(distance, "distance").clamp_max(1.0) * math.log(2)


@elementwise
def js_lower_bound(distance: Any) -> Any:
    """Least matrix Jensen-Shannon divergence at a given trace distance.

    ``JS >= log 2 - h((1 - T)/2)`` with ``h(p) = -p log p - (1-p) log(1-p)``.

    Args:
        distance: T, or a lower bound of it, in [0, 1]: see :func:`trace_distance`; a number, Tensor or NumPy array.

    Returns:
        Lower bound of :func:`matinfo.matrix_js` in nats, between 0 and log 2; the kind and shape of ``distance``.

    Raises:
        ValueError: If the distance is negative.

    Notes:
        At least ``T^2/2``, which is what Pinsker's inequality gives. Attained for every T, by
        ``diag(1 + T, 1 - T)/2`` against ``diag(1 - T, 1 + T)/2``. O(1) an element; its gradient in a tensor T is
        ``log((1 + T)/(1 - T))/2``.

    References:
        Lin (1991) for probability vectors; proved in the theory section of the documentation.

    Example:
        >>> from matinfo.bounds import js_lower_bound
        >>> round(js_lower_bound(0.1), 4)
        0.005
    """
    T = not_negative(distance, "distance").clamp_max(1.0)
    return (torch.xlogy(1 + T, 1 + T) + torch.xlogy(1 - T, 1 - T)) / 2


@elementwise
def entropy_continuity_bound(distance: Any, n: int, *, alpha: float = 1.0) -> Any:
    """Largest difference of the entropies of two matrices at a given trace distance.

    ``T log(n-1) - T log T - (1-T) log(1-T)`` at alpha = 1, ``log((1-T)^alpha + (n-1)^(1-alpha) T^alpha)/(1-alpha)``
    below, and ``alpha/(alpha-1) log(1 + n^(1-1/alpha) T)`` above 1; log n where that is less, or where
    alpha <= 1 and ``T >= 1 - 1/n``.

    Args:
        distance: T, or an upper bound of it: half the sum of the absolute eigenvalues of ``K1/tr K1 - K2/tr K2``; a
            number, Tensor or NumPy array in [0, 1].
        n: Order of the matrices.
        alpha: Order in [0, inf].

    Returns:
        Upper bound of ``|H_alpha(K1) - H_alpha(K2)|`` in nats; the kind and shape of ``distance``.

    Raises:
        ValueError: If the distance is negative, n < 1, or alpha is outside [0, inf].
        TypeError: If n is not an integer.

    Notes:
        Attained for every T and n up to alpha = 1 and at alpha = inf; in between attained in the limit of large
        ``n^(1-1/alpha) T``, and of the right order where that is small. In terms of the Frobenius norm
        ``T <= sqrt(n)/2 |K1/tr K1 - K2/tr K2|_F``. At alpha = 0 no perturbation is harmless. A closed form, O(1) an
        element. The gradient in a tensor T is exact for T > 0, to second order; infinite at T = 0 up to alpha = 1.

    References:
        Audenaert (2007), A sharp continuity estimate for the von Neumann entropy (alpha <= 1).

    Example:
        >>> from matinfo.bounds import entropy_continuity_bound
        >>> [f"{entropy_continuity_bound(1e-6, 1000, alpha=alpha):.1e}" for alpha in (0.5, 1, 2)]
        ['6.2e-02', '2.2e-05', '6.3e-05']
    """
    n, order = check_count(n, "n"), check_order(alpha)
    T = not_negative(distance, "distance").clamp_max(1.0)
    if order > 1:
        exponent = 1.0 if order == math.inf else 1 - 1 / order
        return (torch.log1p(n**exponent * T) / exponent).clamp_max(math.log(n))
    T = T.clamp_max(1 - 1 / n)
    if n == 1:
        return 0.0 * T
    if order == 1:
        return T * math.log(n - 1) + torch.special.entr(T) + torch.special.entr(1 - T)
    moved = torch.where(T > 0, torch.where(T > 0, T, 1.0) ** order, 0.0)
    return torch.log((1 - T) ** order + (n - 1) ** (1 - order) * moved) / (1 - order)
