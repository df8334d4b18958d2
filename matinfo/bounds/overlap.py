"""From a loss, or from the cross-products it is made of, to the overlap of the two branches' own matrices.

Two bounds stand behind all three functions. One is good where the branches are close (``_nearby``); the other, which a
sum of n differences of projectors gives, is good up to collapse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_choice, check_count, check_features, check_positive
from matinfo.bounds._elementwise import elementwise, not_negative
from matinfo.spectral.functions import root

FORMS = ("sharp", "paper")
_SUM_FORM = "The bounds hold for losses in sum form, as the functions of matinfo.losses return them."


@quantity
def cross_overlap_bound(C: Tensor) -> Tensor:
    """Largest overlap that is possible for given cross-products.

    With unit vectors a_i and b_i, ``C_ij = a_i . b_j``, ``K1_ij = a_i . a_j``, ``K2_ij = b_i . b_j`` and n of each,
    ``1/2 sum_{i != j} (K1_ij^2 + K2_ij^2) <= (r + D/2)^2 + D (1 + r + D/4) - q``, where ``D = 2 sum_j (1 - C_jj)``,
    ``r^2 = sum_{i != j} S_ij^2`` and ``q = sum_ij A_ij^2`` with S and A the symmetric and antisymmetric part of C;
    also ``<= sum_{i != j} C_ij^2 + (n - 1) sum_j (1 - C_jj^2)`` and ``<= n (n - 1)``. The least of the three counts.

    Args:
        C: Cross-products of unit vectors, ``(..., n, n)``, Tensor or NumPy array: the cross-correlation of Barlow
            Twins (columns of length 1), or the similarities of a contrastive loss (rows of length 1).

    Returns:
        ``(...)``, between 0 and n (n - 1), a pure number; dtype of the input, at least float32. Zero for C = I.

    Raises:
        ValueError: If C is not square.
        TypeError: If C is not real floating point.

    Notes:
        O(n^2). The sharpest of the bounds here: a loss value forgets how it is spread over the entries of C. The first
        of the three is attained for every r and D in the limit of large n, the second for collapsed branches at any
        angle. The gradient is that of the least of the three, zero where it is ``n (n - 1)``.

    References:
        Tan et al. (2024), proof of Theorem 4.3, has twice the second of the three or more; all are proved in the theory
        section of the documentation.

    Example:
        >>> import torch
        >>> from matinfo.bounds import cross_overlap_bound
        >>> round(float(cross_overlap_bound(torch.diag(torch.tensor([0.99, 0.98, 1.0])))), 4)
        0.0618
    """
    check_features(C, "C")
    if C.shape[-1] != C.shape[-2]:
        raise ValueError(f"Expected C to be square in its last two dimensions, got {tuple(C.shape)}.")
    n, C = C.shape[-1], C.double()
    aligned = C.diagonal(dim1=-2, dim2=-1).clamp(-1.0, 1.0)  # rounding aside, cosines
    D = 2 * (1 - aligned).sum(-1)
    off = C * (1 - torch.eye(n, dtype=C.dtype, device=C.device))
    symmetric = ((off + off.mT) / 2).square().sum((-2, -1))
    antisymmetric = ((off - off.mT) / 2).square().sum((-2, -1))
    anywhere = symmetric + antisymmetric + (n - 1) * (1 - aligned.square()).sum(-1)
    return torch.minimum(_nearby(root(symmetric), D) - antisymmetric, anywhere).clamp(0.0, n * (n - 1))


@elementwise
def spectral_contrastive_overlap_bound(
    loss: Any, n: int, *, lambda_: float = 1.0, form: str = "sharp"
) -> Any:
    """Largest overlap of the two Gram matrices that a value of the spectral contrastive loss allows.

    ``"sharp"``: the least of ``(r + D/2)^2 + D (1 + r + D/4)``, of ``r^2 + (n - 1) (D - D^2/(4 n))``, each at the
    split ``D + lambda r^2 = L`` of the loss that makes it largest, and of ``n (n - 1)``. ``"paper"``:
    ``(2/lambda + 2 (n - 1)) L``, which printed Theorem 4.3 rounds up to ``(2/lambda + 2 n) L``.

    Args:
        loss: Value L >= 0 of :func:`matinfo.losses.spectral_contrastive_loss`; a number, Tensor or NumPy array.
        n: Batch size.
        lambda_: The weight used in the loss, > 0.
        form: ``"sharp"`` or ``"paper"``.

    Returns:
        Upper bound of ``1/2 sum_{i != j} (K1_ij^2 + K2_ij^2)`` for the Gram matrices of the l2-normalised rows; the
        kind and shape of ``loss``.

    Raises:
        ValueError: If the loss is negative, n < 1, ``lambda_ <= 0``, or ``form`` is unknown.
        TypeError: If n is not an integer.

    Notes:
        To first order in L the sharp form is ``max(1, 1/lambda) L``; it does not grow with n. For every L it is
        attained in the limit of large n, and the loss at which it reaches ``n (n - 1)``, ``n (2 - c)`` with
        ``c = 1/(lambda (n - 1))`` where that is at most 1, else ``lambda n (n - 1)``, is the least that collapsed
        branches can have. O(1) an element. The gradient in a tensor L is that of the least of the three for L > 0.

    References:
        Tan et al. (2024), Equation 2 and Theorem 4.3; the sharp form is proved in the theory section of the
        documentation.

    Example:
        >>> from matinfo.bounds import spectral_contrastive_overlap_bound
        >>> [round(spectral_contrastive_overlap_bound(0.1, 256, form=form), 4) for form in ("sharp", "paper")]
        [0.1267, 51.2]
    """
    n = check_count(n, "n")
    check_positive(lambda_, "lambda_")
    L = not_negative(loss, "loss", _SUM_FORM)
    if check_choice(form, "form", FORMS) == "paper":
        return (2 / lambda_ + 2 * (n - 1)) * L
    # A loss of n (2 - c) allows collapse: beyond it nothing is left to bound. In r the first form rises to one maximum
    # and falls until r = 1/lambda; what may rise again after that is largest at the end, where all of L is cross-talk.
    L = L.clamp_max(4.0 * n)
    all_aligned = L / lambda_
    nearby = _largest(
        lambda share: _nearby(((1 - share) * all_aligned).sqrt(), share * L),
        (1 - 1 / (lambda_ * L)).nan_to_num(0.0, neginf=0.0).clamp_min(0.0),
    )
    D = torch.minimum(L, torch.full_like(L, 2 * n * max(0.0, 1 - 1 / (lambda_ * max(n - 1, 1)))))
    anywhere = (L - D) / lambda_ + (n - 1) * (D - D**2 / (4 * n))
    return torch.minimum(torch.maximum(nearby, all_aligned), anywhere).clamp_max(n * (n - 1))


@elementwise
def barlow_twins_overlap_bound(loss: Any, n: int, *, lambda_: float = 5.1e-3, form: str = "sharp") -> Any:
    """Largest overlap of the two correlation matrices that a value of the Barlow Twins loss allows.

    ``"sharp"``: the least of ``(r + D/2)^2 + D (1 + r + D/4)``, of ``r^2 + (n - 1) (D - D^2/(4 n))``, each at the
    split ``D^2/(4 n) + lambda r^2 = L`` of the loss that makes it largest, and of ``n (n - 1)``. ``"paper"``:
    ``2 L/lambda + 4 (n-1) sqrt(n L)``, which printed Theorems 4.3 and 4.13 round up to ``2 L/lambda + 4 n sqrt(n L)``.

    Args:
        loss: Value L >= 0 of :func:`matinfo.losses.barlow_twins_loss`; a number, Tensor or NumPy array.
        n: Number of features: the order d of the correlation matrices.
        lambda_: The weight used in the loss, > 0.
        form: ``"sharp"`` or ``"paper"``.

    Returns:
        Upper bound of ``1/2 sum_{i != j} (K1_ij^2 + K2_ij^2)`` for the correlation matrices (centred if the loss
        was); the kind and shape of ``loss``.

    Raises:
        ValueError: If the loss is negative, n < 1, ``lambda_ <= 0``, or ``form`` is unknown.
        TypeError: If n is not an integer.

    Notes:
        For small L the sharp form is ``2 sqrt(n L)``: smaller than the paper's by a factor 2 (n - 1). It is attained in
        the limit of large n at every n L, and the loss at which it reaches ``n (n - 1)``, ``n x/(1 + x)`` with
        ``x = lambda (n - 1)``, is the least that collapsed features can have. The loss is zero only if no feature is
        constant: a constant one adds 1, because its correlation with itself is not defined. O(1) an element. The
        gradient in a tensor L is that of the least of the three, infinite at L = 0.

    References:
        Tan et al. (2024), Equation 3 and Theorems 4.3 and 4.17; the sharp form is proved in the theory section of the
        documentation.

    Example:
        >>> from matinfo.bounds import barlow_twins_overlap_bound
        >>> [round(barlow_twins_overlap_bound(1e-4, 128, form=form), 2) for form in ("sharp", "paper")]
        [0.26, 57.51]
    """
    n = check_count(n, "n")
    check_positive(lambda_, "lambda_")
    L = not_negative(loss, "loss", _SUM_FORM)
    root = (n * L).sqrt()
    if check_choice(form, "form", FORMS) == "paper":
        return 2 / lambda_ * L + 4 * (n - 1) * root
    L = L.clamp_max(4.0 * n)
    nearby = _largest(
        lambda share: _nearby(((1 - share) * L / lambda_).sqrt(), 2 * (n * share * L).sqrt()),
        torch.zeros_like(L),
    )
    slack = L.sqrt().clamp_max(math.sqrt(n) * (n - 1) * lambda_ / (1 + lambda_ * (n - 1)))
    anywhere = (L - slack**2) / lambda_ + (n - 1) * (2 * math.sqrt(n) * slack - slack**2)
    return torch.minimum(nearby, anywhere).clamp_max(n * (n - 1))


def _nearby(r: Tensor, D: Tensor) -> Tensor:
    """Overlap that cross-talk r and misalignment D allow, whatever n: attained in the limit of large n."""
    return (r + D / 2) ** 2 + D * (1 + r + D / 4)


def _largest(value: Callable[[Tensor], Tensor], low: Tensor) -> Tensor:
    """The maximum on [low, 1] of a function with one peak, by golden sections; differentiable at its argument."""
    golden = (math.sqrt(5) - 1) / 2
    start, end = low.detach(), torch.ones_like(low)
    with torch.no_grad():
        for _ in range(80):  # 0.618^80 = 2e-17
            left, right = end - golden * (end - start), start + golden * (end - start)
            at_left, at_right = value(torch.stack([left, right]))
            rising = at_left < at_right
            start, end = torch.where(rising, left, start), torch.where(rising, end, right)
    return value((start + end) / 2)
