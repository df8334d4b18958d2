"""Matrix entropies: Rényi of every order, von Neumann, joint and conditional."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from matinfo._deferred import Deferred
from matinfo._interface import quantity
from matinfo._validation import check_base, check_choice, check_order, check_positive, check_trace
from matinfo.operands import Factor, Operand, Side, as_factors, hadamard, smaller_side
from matinfo.spectral.entropy_function import entropy_function, entropy_of_eigenvalues
from matinfo.spectral.frobenius import collision_entropy
from matinfo.spectral.lanczos import SMALLEST_ORDER
from matinfo.spectral.matrix_power import power_entropy
from matinfo.spectral.precision import at_least_float32
from matinfo.spectral.quadrature import quadrature_entropy
from matinfo.spectral.traces import largest_eigenvalue, numerical_rank, trace
from matinfo.spectrum import Spectrum, as_spectral, check_decomposed

METHODS = ("auto", "eigh", "frobenius", "power", "lanczos", "quadrature")

_SMALLEST_FOR_POWERS = 48
"""Below this order a decomposition is as fast as matrix products."""


def entropy_of(
    K: Operand | Spectrum | Deferred,
    alpha: float,
    *,
    method: str = "auto",
    precision: str = "auto",
    rtol: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Rényi entropy in nats: what every other quantity is made of, in float64.

    Where nothing else is made of it, its own dtype saves rounding it afterwards, and its derivative on the way back.

    Returns:
        ``(...)``, in ``dtype`` by the routes "frobenius" and, at 0 < alpha < inf, "eigh"; by the others in float64.
    """
    if isinstance(K, Deferred):
        return cast(Tensor, K.entropy())  # formulas add it up as they do numbers
    if isinstance(K, Spectrum):
        check_decomposed(method, precision)
        K.check_trace()
        return entropy_of_eigenvalues(K.eigenvalues, alpha, K.noise)
    side = smaller_side(K, precision=precision, sensitive=alpha < 1)
    check_trace(side.total)
    route = _route(method, alpha, side, rtol)
    if route == "frobenius":
        return collision_entropy(side.definite(thorough=False), side.total, dtype=dtype, side=side.name)
    if route == "power":
        return power_entropy(side.definite(thorough=True), side.total, int(alpha), side=side.name)
    if route == "quadrature":
        matrix, strict = side.given, method != "auto"  # the factorisations are its own check of definiteness
        return quadrature_entropy(
            matrix, trace(matrix), alpha, rtol or 1e-3, side.noise, strict=strict, side=side.name
        )
    if alpha == 0:
        return numerical_rank(side.matrix, side.noise, side=side.name).log()
    if alpha == math.inf:
        matrix = side.definite(thorough=False) if route == "lanczos" else side.matrix
        top = largest_eigenvalue(matrix, side.noise, lanczos=route == "lanczos", side=side.name)
        return trace(matrix).log() - top.log()
    return entropy_function(
        side.given, side.total, alpha, side.noise, side.dtype, dtype=dtype, side=side.name
    )


def _route(method: str, alpha: float, side: Side, rtol: float | None) -> str:
    """The algorithm: the one asked for if it applies to the order, else the cheapest exact one."""
    if rtol is not None:
        check_positive(rtol, "rtol")
    if method != "auto":
        check_choice(method, "method", METHODS)
        if not _APPLIES[method](alpha):
            raise ValueError(f"Expected an order that method={method!r} applies to, got alpha = {alpha:g}.")
        return method
    size = side.given.shape[-1]
    if alpha == 2:
        return "frobenius"
    if alpha == math.inf:
        return "lanczos" if size >= SMALLEST_ORDER else "eigh"
    highest = 8 if side.given.is_cuda else 4
    if alpha in range(3, highest + 1) and size >= _SMALLEST_FOR_POWERS:
        return "power"
    if rtol is not None and rtol >= 1e-3 and side.given.is_cuda and size >= 1024 and 0 < alpha <= 2:
        return "quadrature"
    return "eigh"


_APPLIES: dict[str, Callable[[float], bool]] = {
    "eigh": lambda alpha: True,
    "frobenius": lambda alpha: alpha == 2,
    "power": lambda alpha: alpha in range(3, 65),
    "lanczos": lambda alpha: alpha == math.inf,
    "quadrature": lambda alpha: 0 < alpha <= 2,
}


def joint_entropy_of(operands: Sequence[Factor], alpha: float, precision: str) -> Tensor:
    """Entropy of the Hadamard product, float64."""
    product = hadamard(operands, precision=precision, sensitive=alpha < 1)
    return entropy_of(product, alpha, precision=precision)


def _of_matrix(K: Operand | Spectrum, alpha: float, base: float | None, name: str, **how: Any) -> Tensor:
    """Rényi entropy of a user's matrix."""
    order, unit = check_order(alpha), None if base is None else check_base(base)
    operand = as_spectral(K, "K", name)
    if unit is not None:
        return entropy_of(operand, order, **how) / unit
    return entropy_of(operand, order, dtype=at_least_float32(operand.given_dtype), **how)


def in_unit(value: Tensor, unit: float) -> Tensor:
    """Nats in another unit."""
    return value if unit == 1 else value / unit


@quantity
def renyi_entropy(
    K: Operand | Spectrum,
    alpha: float = 1.0,
    *,
    base: float | None = None,
    method: str = "auto",
    precision: str = "auto",
    rtol: float | None = None,
) -> Tensor:
    """Matrix-based Rényi entropy of order alpha.

    ``H_alpha(K) = log(tr((K/tr K)^alpha)) / (1 - alpha)``, with the limits ``log rank K`` (alpha = 0),
    ``-tr(P log P)``, P = K/tr K (alpha = 1), ``2 log tr K - log |K|_F^2`` (alpha = 2) and ``log tr K - log
    lambda_max(K)`` (alpha = inf).

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`Gram` or a
            :class:`Spectrum`. The trace may be any positive number: it is divided out.
        alpha: Order in [0, inf].
        base: Base of the logarithm, > 1; None for nats.
        method: ``"auto"`` takes the cheapest exact route; ``"eigh"`` always goes through the eigenvalues; ``"power"``
            (integer orders), ``"frobenius"`` (alpha = 2), ``"lanczos"`` (alpha = inf) and ``"quadrature"``
            (0 < alpha <= 2, Cholesky only, approximate) ask for one.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work (the quadrature: always float64).
        rtol: Accepted relative error. It lets ``"auto"`` take the quadrature where that is faster (on a GPU, from
            1e-3), and is guaranteed by ``method="quadrature"`` (default there 1e-3), rounding included, or refused.

    Returns:
        ``(...)``, between 0 and log n, in nats (or the base asked for); dtype of the input, at least float32.

    Raises:
        ValueError: If K is not square, not symmetric, has no positive trace or a clearly negative eigenvalue, or if
            alpha is outside [0, inf].
        TypeError: If K is not real floating point.

    Notes:
        Cost, with m = n or, for features, min(n, d): m^2 for alpha = 2; two or four m^3 flops (matrix products) for
        alpha = 3, 4; 40 to 80 m^2 for alpha = inf if the top eigenvalue stands clear; else one symmetric
        eigendecomposition, about 4/3 m^3 for the value and 9 m^3 with a gradient. Continuous through alpha = 1 to
        rounding. First and second derivatives are exact at repeated eigenvalues, and include the trace; at zero
        eigenvalues the gradient with respect to features is exact for alpha > 1/2. For alpha = inf the gradient is
        the projector on the top eigenspace divided by its dimension, first order only. alpha = 0 has none. For
        alpha < 1 eigenvalues that cannot be told from round-off count as zero. Of a :class:`Spectrum` every order costs
        O(m), with the same first derivative.

    References:
        Sanchez Giraldo, Rao and Principe (2014), Measures of entropy from data using infinitely divisible kernels;
        Tan et al. (2024), Information flow in self-supervised learning, Definition 3.1.

    Example:
        >>> import torch
        >>> from matinfo import renyi_entropy
        >>> K = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
        >>> [round(float(renyi_entropy(K, alpha)), 4) for alpha in (0, 1, 2, float("inf"))]
        [0.6931, 0.5623, 0.47, 0.2877]
    """
    return _of_matrix(K, alpha, base, "renyi_entropy", method=method, precision=precision, rtol=rtol)


@quantity
def von_neumann_entropy(
    K: Operand | Spectrum, *, base: float | None = None, precision: str = "auto"
) -> Tensor:
    """Von Neumann entropy, the Rényi entropy of order 1.

    ``H_1(K) = -tr(P log P)`` with ``P = K/tr K`` and ``0 log 0 = 0``.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`Gram` or a
            :class:`Spectrum`.
        base: Base of the logarithm, > 1; None for nats.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``, between 0 and log n, in nats (or the base asked for); dtype of the input, at least float32.

    Raises:
        ValueError: As :func:`renyi_entropy`.
        TypeError: If K is not real floating point.

    Notes:
        Cost and derivatives as :func:`renyi_entropy` at alpha = 1.

    References:
        von Neumann (1932); Bach (2022), Information theory with kernel methods.

    Example:
        >>> import torch
        >>> from matinfo import von_neumann_entropy
        >>> float(von_neumann_entropy(torch.eye(8), base=2))
        3.0
    """
    return _of_matrix(K, 1.0, base, "von_neumann_entropy", precision=precision)


@quantity
def joint_entropy(
    *Ks: Operand, alpha: float = 1.0, base: float | None = None, precision: str = "auto"
) -> Tensor:
    """Joint entropy of several kernel matrices over the same samples.

    ``H_alpha(K_1, ..., K_m) = H_alpha(K_1 o ... o K_m)`` with the Hadamard product o.

    Args:
        *Ks: Positive semi-definite matrices ``(..., n, n)`` or :class:`Gram`, usually with unit diagonal; row i of
            each belongs to the same sample. Batch dimensions broadcast.
        alpha: Order in [0, inf].
        base: Base of the logarithm, > 1; None for nats.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``, between the largest single entropy and log n for unit diagonals; nats (or the base asked for).

    Raises:
        ValueError: As :func:`renyi_entropy`; also if no matrix is given or the orders differ.
        TypeError: If a matrix is not real floating point.

    Notes:
        For Grams with d_1 d_2 ... <= 0.8 n the product is taken on the feature side (row-wise Khatri-Rao), so that
        no n x n matrix is formed; cost and derivatives then as :func:`renyi_entropy` of d_1 d_2 ... features.

    References:
        Tan et al. (2024), Definition 3.3; Giraldo et al. (2014).

    Example:
        >>> import torch
        >>> from matinfo import joint_entropy
        >>> A = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2))  # labels a a b b
        >>> B = torch.ones(2, 2).repeat_interleave(1, 0).kron(torch.eye(2))  # labels c d c d
        >>> round(float(joint_entropy(A, B, base=2)), 4)
        2.0
    """
    order, unit = check_order(alpha), check_base(base)
    operands = as_factors(Ks, "joint_entropy")
    return in_unit(joint_entropy_of(operands, order, precision), unit)


@quantity
def conditional_entropy(
    K1: Operand, K2: Operand, alpha: float = 1.0, *, base: float | None = None, precision: str = "auto"
) -> Tensor:
    """Conditional entropy of the first matrix given the second.

    ``H_alpha(K_1 | K_2) = H_alpha(K_1 o K_2) - H_alpha(K_2)``.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)`` or :class:`Gram`.
        K2: The condition, over the same samples.
        alpha: Order in [0, inf].
        base: Base of the logarithm, > 1; None for nats.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)``, non-negative for unit diagonals at every order; nats (or the base asked for).

    Raises:
        ValueError: As :func:`joint_entropy`.
        TypeError: If a matrix is not real floating point.

    Notes:
        Two entropies; derivatives as theirs.

    References:
        Giraldo et al. (2014).

    Example:
        >>> import torch
        >>> from matinfo import conditional_entropy
        >>> K = torch.eye(4)
        >>> float(conditional_entropy(K, K))  # nothing is left once K is known
        0.0
    """
    order, unit = check_order(alpha), check_base(base)
    first, second = as_factors((K1, K2), "conditional_entropy")
    joint = joint_entropy_of([first, second], order, precision)
    return in_unit(joint - entropy_of(second, order, precision=precision), unit)
