"""From the coding rates of two unit-diagonal matrices to that of their Hadamard product."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from matinfo._validation import check_choice, check_count, check_positive
from matinfo.bounds._elementwise import elementwise
from matinfo.bounds.overlap import FORMS


@elementwise
def product_coding_rate_lower_bound(
    rate1: Any, rate2: Any, n: int, *, mu: float = 1.0, form: str = "sharp"
) -> Any:
    """Coding rate that a Hadamard product must have, given those of its factors.

    ``log det((mu^2 + 2 mu) I + K1 o K2) >= 2 t + log(e^a + e^b - e^(a + b))`` for ``"sharp"``, with
    ``t = n log(1 + mu)`` and ``a = rate1 - t``, ``b = rate2 - t``; ``>= rate1 + rate2`` for ``"paper"``.

    Args:
        rate1: ``log det(mu I + K1)``; a number, Tensor or NumPy array.
        rate2: ``log det(mu I + K2)``, the same.
        n: Order of the matrices.
        mu: Ridge of both rates, > 0; that of the product is ``mu^2 + 2 mu``.
        form: ``"sharp"`` or ``"paper"``.

    Returns:
        Lower bound in nats; the kind of ``rate1``, elementwise. At least ``max(rate1, rate2) + t`` for ``"sharp"``.

    Raises:
        ValueError: If n < 1, mu <= 0, or ``form`` is unknown.
        TypeError: If n is not an integer.

    Notes:
        Both factors must have unit diagonal, so that no rate exceeds t; what rounding adds is cut off. Attained by
        both forms where either factor is the identity, for the paper's only if both are. Finite where the
        determinants would overflow. O(1) an element, differentiable in tensors.

    References:
        Tan et al. (2024), Proposition 4.11; Oppenheim (1930) and Schur for the sharp form.

    Example:
        >>> from math import log
        >>> from matinfo.bounds import product_coding_rate_lower_bound
        >>> rate = log(2.5) + log(1.5)  # K = [[1, 0.5], [0.5, 1]], mu = 1
        >>> [round(product_coding_rate_lower_bound(rate, rate, 2, form=form), 4) for form in ("sharp", "paper")]
        [2.7687, 2.6435]
    """
    n = check_count(n, "n")
    check_positive(mu, "mu")
    top = n * math.log1p(mu)
    first, second = (torch.as_tensor(rate, dtype=torch.float64) for rate in (rate1, rate2))
    if check_choice(form, "form", FORMS) == "paper":
        return first + second
    return 2 * top + _log_of_either((first - top).clamp_max(0.0), (second - top).clamp_max(0.0))


def _log_of_either(a: Tensor, b: Tensor) -> Tensor:
    """``log(e^a + e^b - e^(a + b))`` for a, b <= 0, without underflow."""
    high, low = torch.maximum(a, b), torch.minimum(a, b)
    return high + torch.log1p(-torch.exp(low - high) * torch.expm1(high))
