"""Information shared by kernel matrices over the same samples: mutual, conditional, total, and normalised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_base, check_choice, check_order, check_same_samples
from matinfo.entropy import entropy_of, in_unit, joint_entropy_of
from matinfo.operands import Factor, Operand, as_factors, roundoff_entropy
from matinfo.spectral.functions import root


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
        I_2 = -0.04.

    Raises:
        ValueError: As :func:`joint_entropy`.
        TypeError: If a matrix is not real floating point.

    Notes:
        Three entropies; derivatives as theirs. Grams stay factors throughout. Where the sign matters (a dependence
        that must be zero for independent views, a curve that must not dip below zero) take alpha = 1, or
        :func:`sandwiched_mutual_information`, which is non-negative and obeys data processing at every order from
        1/2 and agrees with this one at alpha = 1. The failure is no rounding matter and no rare case: next to any
        two independent labels that are not uniform there is a pair with negative I_alpha, at every order but 0 and 1.

    References:
        Sanchez Giraldo, Rao and Principe (2014); Tan et al. (2024), Definition 3.2. Their Proposition 4.7 (iii)
        claims non-negativity at every order, which holds at orders 0 and 1 only.

    Example:
        >>> import torch
        >>> from matinfo import mutual_information
        >>> K = torch.eye(4)
        >>> round(float(mutual_information(K, K, base=2)), 4)  # four distinct samples: two bits
        2.0
    """
    order, unit = check_order(alpha), check_base(base)
    operands = as_factors((K1, K2), "mutual_information")
    return in_unit(_total_correlation(operands, order, precision), unit)


@quantity
def conditional_mutual_information(
    K1: Operand,
    K2: Operand,
    K3: Operand,
    alpha: float = 1.0,
    *,
    base: float | None = None,
    precision: str = "auto",
) -> Tensor:
    """Mutual information of the first two matrices given the third.

    ``I_alpha(K_1; K_2 | K_3) = H_alpha(K_1 o K_3) + H_alpha(K_2 o K_3) - H_alpha(K_1 o K_2 o K_3) - H_alpha(K_3)``.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, or :class:`Gram`.
        K2: The same, over the same samples.
        K3: The condition, over the same samples.
        alpha: Order in [0, inf].
        base: Base of the logarithm, > 1; None for nats.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``; nats (or the base asked for). Non-negative for unit diagonals at alpha = 1, where this is the
        strong subadditivity of the von Neumann entropy; not so at other orders, 0 included.

    Raises:
        ValueError: As :func:`joint_entropy`.
        TypeError: If a matrix is not real floating point.

    Notes:
        Four entropies; derivatives as theirs. Chain rule, at every order:
        ``I(K_1 o K_3; K_2) = I(K_3; K_2) + I(K_1; K_2 | K_3)``.

    References:
        Lieb and Ruskai (1973); Yu et al. (2019), Multivariate extension of matrix-based Rényi's entropy.

    Example:
        >>> import torch
        >>> from matinfo import Gram, conditional_mutual_information
        >>> bits = torch.eye(2)
        >>> X, Y = Gram(bits[[0, 0, 1, 1]]), Gram(bits[[0, 1, 0, 1]])
        >>> parity = Gram(bits[[0, 1, 1, 0]])  # any two of the three are independent, given the third they are one
        >>> round(float(conditional_mutual_information(X, Y, parity, base=2)), 4)
        1.0
    """
    order, unit = check_order(alpha), check_base(base)
    first, second, given = as_factors((K1, K2, K3), "conditional_mutual_information")
    gained = joint_entropy_of([first, given], order, precision) + joint_entropy_of(
        [second, given], order, precision
    )
    joint = joint_entropy_of([first, second, given], order, precision)
    return in_unit(gained - joint - entropy_of(given, order, precision=precision), unit)


@quantity
def total_correlation(
    *Ks: Operand, alpha: float = 1.0, base: float | None = None, precision: str = "auto"
) -> Tensor:
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
    return in_unit(_total_correlation(as_factors(Ks, "total_correlation"), order, precision), unit)


@quantity
def dual_total_correlation(
    *Ks: Operand, alpha: float = 1.0, base: float | None = None, precision: str = "auto"
) -> Tensor:
    """Dual total correlation of several kernel matrices.

    ``D_alpha(K_1, ..., K_m) = sum_i H_alpha(all but K_i) - (m - 1) H_alpha(K_1 o ... o K_m)``: the joint entropy
    less what each matrix has that the others do not tell.

    Args:
        *Ks: Positive semi-definite matrices ``(..., n, n)`` or :class:`Gram`, over the same samples; at least two.
        alpha: Order in [0, inf].
        base: Base of the logarithm, > 1; None for nats.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``; nats (or the base asked for). For unit diagonals at most the joint entropy at every order, and
        non-negative at alpha = 1.

    Raises:
        ValueError: As :func:`joint_entropy`; also for fewer than two matrices.
        TypeError: If a matrix is not real floating point.

    Notes:
        m + 1 entropies; derivatives as theirs. Equals :func:`mutual_information` for m = 2.

    References:
        Han (1978), Nonnegative entropy measures of multivariate symmetric correlations; Yu et al. (2021), Measuring
        dependence with matrix-based entropy functional.

    Example:
        >>> import torch
        >>> from matinfo import Gram, dual_total_correlation
        >>> bits = torch.eye(2)
        >>> X, Y = Gram(bits[[0, 0, 1, 1]]), Gram(bits[[0, 1, 0, 1]])
        >>> round(float(dual_total_correlation(X, Y, Gram(bits[[0, 1, 1, 0]]), base=2)), 4)
        2.0
    """
    order, unit = check_order(alpha), check_base(base)
    operands = _at_least_two(Ks, "dual_total_correlation")
    joint = joint_entropy_of(operands, order, precision)
    return in_unit(_dual_total_correlation(operands, joint, order, precision), unit)


_UNITS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "min": lambda first, second, _: torch.minimum(first, second),
    "max": lambda first, second, _: torch.maximum(first, second),
    "mean": lambda first, second, _: (first + second) / 2,
    "geometric": lambda first, second, _: root(first * second),
    "joint": lambda first, second, joint: joint,
}


@quantity
def normalized_mutual_information(
    K1: Operand, K2: Operand, alpha: float = 1.0, *, by: str = "min", precision: str = "auto"
) -> Tensor:
    """Mutual information as a share of the entropy there is.

    ``I_alpha(K_1; K_2) / u``, where u is the smaller (``"min"``), larger (``"max"``), arithmetic (``"mean"``) or
    geometric mean of the two entropies, or the joint entropy (``"joint"``). Zero where u is zero: two constants share
    nothing.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, or :class:`Gram`.
        K2: The same, over the same samples.
        alpha: Order in [0, inf].
        by: ``"min"``, ``"max"``, ``"mean"``, ``"geometric"`` or ``"joint"``.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``, at most 1 for unit diagonals, a pure number; non-negative for unit diagonals at alpha = 1 and 0.

    Raises:
        ValueError: As :func:`mutual_information`; also for an unknown ``by``.
        TypeError: If a matrix is not real floating point.

    Notes:
        Three entropies; derivatives as theirs. ``I <= min <= geometric <= mean <= max <= joint`` for unit diagonals,
        hence the bound 1. ``"min"`` is the normalised total correlation of two matrices, ``"joint"`` the dual one.

    References:
        Strehl and Ghosh (2002), Cluster ensembles; Vinh, Epps and Bailey (2010) for the choices of u.

    Example:
        >>> import torch
        >>> from matinfo import Gram, normalized_mutual_information
        >>> fine, coarse = Gram(torch.eye(4)), Gram(torch.eye(2)[[0, 0, 1, 1]])
        >>> [round(float(normalized_mutual_information(fine, coarse, by=by)), 4) for by in ("min", "max")]
        [1.0, 0.5]
    """
    order = check_order(alpha)
    check_choice(by, "by", tuple(_UNITS))
    operands = as_factors((K1, K2), "normalized_mutual_information")

    def entropies(order: float) -> tuple[Tensor, Tensor, Tensor]:
        first, second = (entropy_of(K, order, precision=precision) for K in operands)
        return first, second, joint_entropy_of(operands, order, precision)

    first, second, joint = entropies(order)
    unit = _UNITS[by]
    something = unit(*entropies(2.0)) > roundoff_entropy(operands, precision)
    return _share(first + second - joint, unit(first, second, joint), something)


@quantity
def normalized_total_correlation(*Ks: Operand, alpha: float = 1.0, precision: str = "auto") -> Tensor:
    """Total correlation as a share of the largest it can be.

    ``T_alpha / (sum_i H_alpha(K_i) - max_i H_alpha(K_i))``, zero where the denominator is.

    Args:
        *Ks: Positive semi-definite matrices ``(..., n, n)`` or :class:`Gram`, over the same samples; at least two.
        alpha: Order in [0, inf].
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``, at most 1 for unit diagonals, a pure number; non-negative for unit diagonals at alpha = 1 and 0.

    Raises:
        ValueError: As :func:`joint_entropy`; also for fewer than two matrices.
        TypeError: If a matrix is not real floating point.

    Notes:
        m + 1 entropies; derivatives as theirs. The bound 1 is ``max_i H(K_i) <= H(K_1 o ... o K_m)``.

    References:
        Yu et al. (2021), Measuring dependence with matrix-based entropy functional.

    Example:
        >>> import torch
        >>> from matinfo import normalized_total_correlation
        >>> K = torch.eye(4)
        >>> round(float(normalized_total_correlation(K, K, K)), 4)
        1.0
    """
    order = check_order(alpha)
    operands = _at_least_two(Ks, "normalized_total_correlation")

    def sum_and_largest(order: float) -> tuple[Tensor, Tensor]:
        marginals = torch.stack(
            torch.broadcast_tensors(*[entropy_of(K, order, precision=precision) for K in operands])
        )
        return marginals.sum(0), marginals.amax(0)

    total, largest = sum_and_largest(order)
    part = total - joint_entropy_of(operands, order, precision)
    total_2, largest_2 = sum_and_largest(2.0)
    return _share(part, total - largest, total_2 - largest_2 > roundoff_entropy(operands, precision))


@quantity
def normalized_dual_total_correlation(*Ks: Operand, alpha: float = 1.0, precision: str = "auto") -> Tensor:
    """Dual total correlation as a share of the joint entropy.

    ``D_alpha / H_alpha(K_1 o ... o K_m)``, zero where the joint entropy is.

    Args:
        *Ks: Positive semi-definite matrices ``(..., n, n)`` or :class:`Gram`, over the same samples; at least two.
        alpha: Order in [0, inf].
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``, at most 1 for unit diagonals, a pure number; non-negative for unit diagonals at alpha = 1.

    Raises:
        ValueError: As :func:`joint_entropy`; also for fewer than two matrices.
        TypeError: If a matrix is not real floating point.

    Notes:
        m + 1 entropies; derivatives as theirs.

    References:
        Yu et al. (2021), Measuring dependence with matrix-based entropy functional.

    Example:
        >>> import torch
        >>> from matinfo import normalized_dual_total_correlation
        >>> K = torch.eye(4)
        >>> round(float(normalized_dual_total_correlation(K, K, K)), 4)
        1.0
    """
    order = check_order(alpha)
    operands = _at_least_two(Ks, "normalized_dual_total_correlation")
    joint = joint_entropy_of(operands, order, precision)
    something = joint_entropy_of(operands, 2.0, precision) > roundoff_entropy(operands, precision)
    return _share(_dual_total_correlation(operands, joint, order, precision), joint, something)


def _total_correlation(operands: list[Factor], alpha: float, precision: str) -> Tensor:
    marginals = [entropy_of(K, alpha, precision=precision) for K in operands]
    joint = joint_entropy_of(operands, alpha, precision)
    return sum(marginals[1:], marginals[0]) - joint


def _dual_total_correlation(operands: list[Factor], joint: Tensor, alpha: float, precision: str) -> Tensor:
    m = len(operands)
    rests = [joint_entropy_of(operands[:i] + operands[i + 1 :], alpha, precision) for i in range(m)]
    return sum(rests[1:], rests[0]) - (m - 1) * joint


def _at_least_two(Ks: tuple[Operand, ...], function: str) -> list[Factor]:
    if len(Ks) < 2:
        raise ValueError(f"Expected at least two matrices, got {len(Ks)}: {function}(K1, K2, ...).")
    operands = as_factors(Ks, function)
    check_same_samples([tuple(K.shape) for K in operands])
    return operands


def _share(part: Tensor, whole: Tensor, something: Tensor) -> Tensor:
    """``part / whole``, with value and gradient 0 where the whole is nothing: a share of noise would be any number."""
    # At low orders the whole may be 0 although there is something, in directions that cannot be told from zero.
    something = something & (whole != 0) | whole.isnan()
    return torch.where(something, part / torch.where(something, whole, 1.0), 0.0)
