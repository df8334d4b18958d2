"""How far an entropy can move when its matrix is perturbed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from matinfo._validation import check_count, check_not_negative, check_order
from matinfo.bounds._elementwise import elementwise


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
    T = check_not_negative(distance, "distance").clamp_max(1.0)
    if order > 1:
        exponent = 1.0 if order == math.inf else 1 - 1 / order
        return (torch.log1p(n**exponent * T) / exponent).clamp_max(math.log(n))
    T = T.clamp_max(1 - 1 / n)
    if n == 1:
        return 0.0 * T
    if order == 1:
        return T * math.log(n - 1) + torch.special.entr(T) + torch.special.entr(1 - T)
    return _renyi_continuity(T, n, order)


def _renyi_continuity(T: Tensor, n: int, alpha: float) -> Tensor:
    moved = torch.where(T > 0, torch.where(T > 0, T, 1.0) ** alpha, 0.0)
    return torch.log((1 - T) ** alpha + (n - 1) ** (1 - alpha) * moved) / (1 - alpha)
