"""From the overlap of two unit-diagonal matrices, or their own rates, to information, joint entropy and coding rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from matinfo._validation import check_choice, check_count, check_order, check_positive
from matinfo.bounds._elementwise import elementwise, float64_of, not_negative
from matinfo.bounds.overlap import FORMS


@elementwise
def information_lower_bound(overlap: Any, n: int, *, alpha: float = 2.0) -> Any:
    """Mutual information that two matrices of small overlap must have.

    ``I_alpha(K1; K2) >= log n - 2 delta_alpha(S)`` with ``delta_alpha(S) = log(1 + S/n)`` for alpha <= 2 and
    ``[(alpha - 2) log(1 + sqrt((n-1) S/n)) + log(1 + S/n)] / (alpha - 1)`` beyond, up to the first logarithm at
    alpha = inf.

    Args:
        overlap: Upper bound S >= 0 of ``1/2 sum_{i != j} (K1_ij^2 + K2_ij^2)``; a number, Tensor or NumPy array.
        n: Order of the matrices.
        alpha: Order in [0, inf].

    Returns:
        Lower bound in nats, between -log n and log n; the kind and shape of ``overlap``.

    Raises:
        ValueError: If the overlap is negative, n < 1, or alpha is outside [0, inf].
        TypeError: If n is not an integer.

    Notes:
        With the overlap of a loss at alpha = 2 this is Theorem 4.3. It holds as it stands at every order up to 2,
        and with the larger delta at every order: the authors could not give one for alpha other than 2. A closed form,
        O(1) an element, differentiable in a tensor S; beyond alpha = 2 the gradient is infinite at S = 0.

    References:
        Tan et al. (2024), Theorem 4.3 and Corollary 4.6.

    Example:
        >>> from matinfo.bounds import information_lower_bound, spectral_contrastive_overlap_bound
        >>> round(information_lower_bound(spectral_contrastive_overlap_bound(0.1, 256), 256), 4)  # log 256 = 5.5452
        5.5441
    """
    n = check_count(n, "n")
    S = not_negative(overlap, "overlap").clamp_max(n * (n - 1))
    return math.log(n) - 2 * _deficit(S, n, check_order(alpha))


@elementwise
def joint_entropy_lower_bound(overlap: Any, n: int, *, alpha: float = 2.0, form: str = "sharp") -> Any:
    """Joint entropy that two matrices of small overlap must have.

    ``"sharp"``: the least ``H_alpha`` among all spectra with sum n and sum of squares ``n + P``,
    ``P = S min(1, S/2)``, which at alpha = 2 is ``log n - log(1 + P/n)``. ``"paper"``: ``log n - delta_alpha(S)`` with
    delta as in :func:`information_lower_bound`, at alpha = 2 ``log n - log(1 + S/n)``.

    Args:
        overlap: Upper bound S >= 0 of ``1/2 sum_{i != j} (K1_ij^2 + K2_ij^2)``; a number, Tensor or NumPy array.
        n: Order of the matrices.
        alpha: Order in [0, inf].
        form: ``"sharp"`` or ``"paper"``.

    Returns:
        Lower bound in nats, between 0 and log n; the kind and shape of ``overlap``.

    Raises:
        ValueError: If the overlap is negative, n < 1, alpha is outside [0, inf], or ``form`` is unknown.
        TypeError: If n is not an integer.

    Notes:
        The sharp form is of second order in a small overlap, the paper's of first. The least spectrum has zeros, one
        value and equal values above it for alpha < 2, one value above equal ones for alpha > 2. Closed forms, O(1) an
        element, differentiable in a tensor S; below alpha = 2 the gradient jumps where a value of that spectrum
        reaches zero.

    References:
        Tan et al. (2024), Theorem 4.13; Harremoës and Topsøe (2001), Inequalities between entropy and index of
        coincidence, for the least spectrum at alpha = 1.

    Example:
        >>> from math import log
        >>> from matinfo.bounds import joint_entropy_lower_bound
        >>> [f"{log(64) - joint_entropy_lower_bound(0.1, 64, form=form):.1e}" for form in ("sharp", "paper")]
        ['7.8e-05', '1.6e-03']
    """
    n, order = check_count(n, "n"), check_order(alpha)
    S = not_negative(overlap, "overlap").clamp_max(n * (n - 1))
    if check_choice(form, "form", FORMS) == "paper":
        return math.log(n) - _deficit(S, n, order)
    P = S * (S / 2).clamp_max(1.0)
    if order == 2:
        return math.log(n) - torch.log1p(P / n)
    if order > 2:
        root = torch.where(S < 2, S / math.sqrt(2), S.clamp_min(2.0).sqrt())  # of P, with a gradient at 0
        spread = math.sqrt((n - 1) / n) * root
        top = (1 + spread) / n
        return -_power_mean_log(top, (1 - top) / max(n - 1, 1), n - 1, order)
    large, small, count = _least_spectrum(P, n)
    if order == 0:
        return (count + (small > 0)).log()
    return -_power_mean_log(small / n, large / n, count, order)


@elementwise
def coding_rate_lower_bound(overlap: Any, n: int, *, mu: float = 1.0, form: str = "sharp") -> Any:
    """Coding rate that the Hadamard product of two matrices of small overlap must have.

    ``"sharp"``: the least ``sum log(mu + x_i)`` among all spectra x >= 0 with sum n and sum of squares ``n + P``,
    ``P = S min(1, S/2)``. ``"paper"``: ``n log(1 + mu) - S/(2 mu^2)``.

    Args:
        overlap: Upper bound S >= 0 of ``1/2 sum_{i != j} (K1_ij^2 + K2_ij^2)``; a number, Tensor or NumPy array.
        n: Order of the matrices.
        mu: Ridge, > 0.
        form: ``"sharp"`` or ``"paper"``.

    Returns:
        Lower bound of ``log det(mu I + K1 o K2)`` in nats; the kind and shape of ``overlap``.

    Raises:
        ValueError: If the overlap is negative, n < 1, mu <= 0, or ``form`` is unknown.
        TypeError: If n is not an integer.

    Notes:
        At least ``n log(1 + mu) - P (log(1 + 1/mu) - 1/(1 + mu))``, where the paper's lemma has ``1/(2 mu^2)`` for the
        last bracket: for mu to 0 the one grows like ``log(1/mu)``, the other like ``1/mu^2``. A closed form, O(1) an
        element, differentiable in a tensor S.

    References:
        Tan et al. (2024), Theorem 4.17 and Lemma A.12.

    Example:
        >>> from matinfo.bounds import coding_rate_lower_bound
        >>> [round(coding_rate_lower_bound(0.5, 16, mu=0.1, form=form), 3) for form in ("sharp", "paper")]
        [1.46, -23.475]
    """
    n = check_count(n, "n")
    check_positive(mu, "mu")
    S = not_negative(overlap, "overlap").clamp_max(n * (n - 1))
    if check_choice(form, "form", FORMS) == "paper":
        return n * math.log1p(mu) - S / (2 * mu**2)
    large, small, count = _least_spectrum(S * (S / 2).clamp_max(1.0), n)
    return count * (mu + large).log() + (mu + small).log() + (n - 1 - count) * math.log(mu)


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
    first, second = float64_of(rate1, "rate1"), float64_of(rate2, "rate2")
    if check_choice(form, "form", FORMS) == "paper":
        return first + second
    a, b = (first - top).clamp_max(0.0), (second - top).clamp_max(0.0)
    high, low = torch.maximum(a, b), torch.minimum(a, b)  # of two that are not positive: nothing underflows
    return 2 * top + high + torch.log1p(-torch.exp(low - high) * torch.expm1(high))


def _deficit(S: Tensor, n: int, alpha: float) -> Tensor:
    """``delta_alpha(S)``: how far an entropy can be below log n; concave and increasing in S."""
    collision = torch.log1p(S / n)
    if alpha <= 2:
        return collision
    top = torch.log1p(((n - 1) * S / n).sqrt())
    if alpha == math.inf:
        return top
    return ((alpha - 2) * top + collision) / (alpha - 1)


def _least_spectrum(P: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The spectrum with sum n and sum of squares n + P on which sum log(mu + x), and H_alpha for alpha < 2, are least.

    Returns:
        ``large``, ``small``, ``count``: count equal values large, one value small in [0, large], and zeros.
    """
    m = (n**2 / (n + P) * (1 - 1e-14)).ceil().clamp(1, n)
    variance = (n + P - n**2 / m).clamp_min(0.0)
    step = (variance / (m * (m - 1).clamp_min(1.0))).sqrt()
    small = (n / m - (m - 1) * step).clamp_min(0.0)
    return n / m + step, small, m - 1


def _power_mean_log(single: Tensor, other: Tensor, count: Tensor | int, alpha: float) -> Tensor:
    """Minus H_alpha of one probability ``single`` and ``count`` times ``other``."""
    if alpha == math.inf:
        return single.log()  # the larger one for alpha > 2
    if alpha == 1:
        return torch.xlogy(single, single) + count * torch.xlogy(other, other)
    top = torch.maximum(single, other)
    total = (single / top) ** alpha + count * (other / top) ** alpha
    return (total.log() + alpha * top.log()) / (alpha - 1)
