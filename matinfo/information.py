"""Mutual information and total correlation of kernel matrices over the same samples."""

from __future__ import annotations

from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_base, check_order
from matinfo.entropy import as_operands, entropy_of, joint_entropy_of
from matinfo.operands import Operand


@quantity
def mutual_information(
    K1: Operand, K2: Operand, alpha: float = 1.0, *, base: float | None = None, precision: str = "auto"
) -> Tensor:
    """Matrix-based mutual information.

    ``I_alpha(K_1; K_2) = H_alpha(K_1) + H_alpha(K_2) - H_alpha(K_1 o K_2)`` with the Hadamard product o.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, or :class:`Gram`.
        K2: The same, over the same samples.
        alpha: Order in [0, inf].
        base: Base of the logarithm, > 1; None for nats.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``, at most log n for unit diagonals; nats (or the base asked for). Non-negative for unit diagonals at
        alpha = 1 and alpha = 0. **It can be negative at every other order**: two 4 x 4 partition matrices reach
        I_2 = -0.04. Where a sign is needed use alpha = 1.

    Raises:
        ValueError: As :func:`joint_entropy`.
        TypeError: If a matrix is not real floating point.

    Notes:
        Three entropies; derivatives as theirs. Grams stay factors throughout.

    References:
        Tan et al. (2024), Definition 3.2. Their Proposition 4.7 (iii) claims non-negativity at every order, which
        holds at orders 0 and 1 only.

    Example:
        >>> import torch
        >>> from matinfo import mutual_information
        >>> K = torch.eye(4)
        >>> round(float(mutual_information(K, K, base=2)), 4)  # four distinct samples: two bits
        2.0
    """
    order, unit = check_order(alpha), check_base(base)
    operands = as_operands((K1, K2), "mutual_information")
    return _shared(operands, order, precision) / unit


@quantity
def total_correlation(*Ks: Operand, alpha: float = 1.0, base: float | None = None, precision: str = "auto") -> Tensor:
    """Total correlation of several kernel matrices.

    ``T_alpha(K_1, ..., K_m) = sum_i H_alpha(K_i) - H_alpha(K_1 o ... o K_m)``.

    Args:
        *Ks: Positive semi-definite matrices ``(..., n, n)`` or :class:`Gram`, over the same samples.
        alpha: Order in [0, inf].
        base: Base of the logarithm, > 1; None for nats.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``; nats (or the base asked for). Non-negative for unit diagonals at alpha = 1 and 0.

    Raises:
        ValueError: As :func:`joint_entropy`.
        TypeError: If a matrix is not real floating point.

    Notes:
        m + 1 entropies; derivatives as theirs. Equals :func:`mutual_information` for m = 2.

    References:
        Watanabe (1960); Yu et al. (2019), Multivariate extension of matrix-based Rényi's entropy.

    Example:
        >>> import torch
        >>> from matinfo import total_correlation
        >>> K = torch.eye(4)
        >>> round(float(total_correlation(K, K, K, base=2)), 4)
        4.0
    """
    order, unit = check_order(alpha), check_base(base)
    return _shared(as_operands(Ks, "total_correlation"), order, precision) / unit


def _shared(operands: list[Operand], alpha: float, precision: str) -> Tensor:
    marginals = [entropy_of(K, alpha, precision=precision) for K in operands]
    joint = joint_entropy_of(operands, alpha, precision)
    return sum(marginals[1:], marginals[0]) - joint
