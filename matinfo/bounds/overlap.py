"""From a loss, or from the cross-products it is made of, to the overlap of the two branches' own matrices."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_choice, check_count, check_features, check_not_negative, check_positive
from matinfo.bounds._elementwise import elementwise

FORMS = ("sharp", "paper")
_SUM_FORM = "The bounds hold for losses in sum form, as the functions of matinfo.losses return them."


@quantity
def cross_overlap_bound(C: Tensor) -> Tensor:
    """Largest overlap that is possible for given cross-products.

    With unit vectors a_i and b_i, ``C_ij = a_i . b_j``, ``K1_ij = a_i . a_j``, ``K2_ij = b_i . b_j`` and n of each,
    ``1/2 sum_{i != j} (K1_ij^2 + K2_ij^2) <= (r + D/2)^2 + D (1 + r + D/2) - q``, where ``D = 2 sum_j (1 - C_jj)``,
    ``r^2 = sum_{i != j} S_ij^2`` and ``q = sum_ij A_ij^2`` with S and A the symmetric and antisymmetric part of C;
    also ``<= 2 sum_{i != j} C_ij^2 + 2 (n - 1) D`` and ``<= n (n - 1)``. The least of the three is returned.

    Args:
        C: Cross-products of unit vectors, ``(..., n, n)``, Tensor or NumPy array: the cross-correlation of Barlow
            Twins (columns of length 1), or the similarities of a contrastive loss (rows of length 1).

    Returns:
        ``(...)``, between 0 and n (n - 1), a pure number; dtype of the input, at least float32. Zero for C = I.

    Raises:
        ValueError: If C is not square.
        TypeError: If C is not real floating point.

    Notes:
        O(n^2). The sharpest of the bounds here: a loss value forgets how it is spread over the entries of C. The
        gradient is that of the least of the three, zero where it is ``n (n - 1)``.

    References:
        Tan et al. (2024), proof of Theorem 4.3, has the second of the three.

    Example:
        >>> import torch
        >>> from matinfo.bounds import cross_overlap_bound
        >>> round(float(cross_overlap_bound(torch.diag(torch.tensor([0.99, 0.98, 1.0])))), 4)
        0.0627
    """
    check_features(C, "C")
    if C.shape[-1] != C.shape[-2]:
        raise ValueError(f"Expected C to be square in its last two dimensions, got {tuple(C.shape)}.")
    n, C = C.shape[-1], C.double()
    D = 2 * (1 - C.diagonal(dim1=-2, dim2=-1)).clamp_min(0.0).sum(-1)
    off = C * (1 - torch.eye(n, dtype=C.dtype, device=C.device))
    symmetric = ((off + off.mT) / 2).square().sum((-2, -1))
    antisymmetric = ((off - off.mT) / 2).square().sum((-2, -1))
    some = symmetric > 0
    r = torch.where(some, torch.where(some, symmetric, 1.0).sqrt(), 0.0)
    nearby = (r + D / 2) ** 2 + D * (1 + r + D / 2) - antisymmetric
    anywhere = 2 * (symmetric + antisymmetric) + 2 * (n - 1) * D
    return torch.minimum(nearby, anywhere).clamp(0.0, n * (n - 1))


@elementwise
def spectral_contrastive_overlap_bound(
    loss: Any, n: int, *, lambda_: float = 1.0, form: str = "sharp"
) -> Any:
    """Largest overlap of the two Gram matrices that a value of the spectral contrastive loss allows.

    ``"sharp"``: the least of ``max(1, 1/lambda) L + 4/sqrt(27) L^(3/2)/sqrt(lambda) + 3/4 L^2``,
    ``2 max(1/lambda, n - 1) L`` and ``n (n - 1)``. ``"paper"``: ``(2/lambda + 2 (n - 1)) L``, which printed Theorem 4.3
    rounds up to ``(2/lambda + 2 n) L``.

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
        To first order in L the sharp form is ``max(1, 1/lambda) L``, which is attained; it does not grow with n. A
        closed form, O(1) an element. The gradient in a tensor L is that of the least of the three for L > 0.

    References:
        Tan et al. (2024), Equation 2 and Theorem 4.3; the sharp form is proved in the theory section of the
        documentation.

    Example:
        >>> from matinfo.bounds import spectral_contrastive_overlap_bound
        >>> [round(spectral_contrastive_overlap_bound(0.1, 256, form=form), 4) for form in ("sharp", "paper")]
        [0.1318, 51.2]
    """
    n = check_count(n, "n")
    check_positive(lambda_, "lambda_")
    L = check_not_negative(loss, "loss", _SUM_FORM)
    if check_choice(form, "form", FORMS) == "paper":
        return (2 / lambda_ + 2 * (n - 1)) * L
    nearby = max(1, 1 / lambda_) * L + 4 / math.sqrt(27 * lambda_) * L**1.5 + 0.75 * L**2
    anywhere = 2 * max(1 / lambda_, n - 1) * L
    return torch.minimum(nearby, anywhere).clamp_max(n * (n - 1))


@elementwise
def barlow_twins_overlap_bound(loss: Any, n: int, *, lambda_: float = 5.1e-3, form: str = "sharp") -> Any:
    """Largest overlap of the two correlation matrices that a value of the Barlow Twins loss allows.

    ``"sharp"``: the least of ``2 sqrt(n L) + c L``, c the larger eigenvalue of ``[[1/lambda, 2 sqrt(n/lambda)],
    [2 sqrt(n/lambda), 3 n]]``; of ``4 (n-1) sqrt(n L)`` if ``sqrt(L) <= lambda (n-1) sqrt(n)``, else
    ``2 L/lambda + 2 lambda n (n-1)^2``; and of ``n (n-1)``. ``"paper"``: ``2 L/lambda + 4 (n-1) sqrt(n L)``, which
    printed Theorems 4.3 and 4.13 round up to ``2 L/lambda + 4 n sqrt(n L)``.

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
        For small L the sharp form is ``2 sqrt(n L)``: smaller than the paper's by a factor 2 (n - 1). The loss is zero
        only if no feature is constant: a constant one adds 1, because its correlation with itself is not defined. A
        closed form, O(1) an element. The gradient in a tensor L is that of the least of the three, infinite at L = 0.

    References:
        Tan et al. (2024), Equation 3 and Theorems 4.3 and 4.17; the sharp form is proved in the theory section of the
        documentation.

    Example:
        >>> from matinfo.bounds import barlow_twins_overlap_bound
        >>> [round(barlow_twins_overlap_bound(1e-4, 128, form=form), 2) for form in ("sharp", "paper")]
        [0.29, 57.51]
    """
    n = check_count(n, "n")
    check_positive(lambda_, "lambda_")
    L = check_not_negative(loss, "loss", _SUM_FORM)
    root = (n * L).sqrt()
    if check_choice(form, "form", FORMS) == "paper":
        return 2 / lambda_ * L + 4 * (n - 1) * root
    top = (1 / lambda_ + 3 * n) / 2 + math.hypot((3 * n - 1 / lambda_) / 2, 2 * math.sqrt(n / lambda_))
    nearby = 2 * root + top * L
    turn = lambda_ * (n - 1) * math.sqrt(n)
    anywhere = torch.where(L.sqrt() <= turn, 4 * (n - 1) * root, 2 / lambda_ * L + 2 / lambda_ * turn**2)
    return torch.minimum(nearby, anywhere).clamp_max(n * (n - 1))
