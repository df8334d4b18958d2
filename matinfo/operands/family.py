"""Any operand: accepted, multiplied with others, and reduced to the side to work on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import TypeAlias, cast

import torch
from torch import Tensor

from matinfo._deferred import Deferred
from matinfo._validation import check_same_samples
from matinfo.operands.any_gram import AnyGram
from matinfo.operands.gram import Gram
from matinfo.operands.matrix import Matrix, as_matrix
from matinfo.operands.side import Side, is_readable
from matinfo.operands.streamed import StreamGram
from matinfo.spectral.normalize import without_scale
from matinfo.spectral.precision import trace_is_safe, working_dtype

Operand: TypeAlias = Tensor | AnyGram | Matrix
"""What a function means by a matrix: ``(..., n, n)`` or a Gram. (NumPy has been converted by then.)"""

Factor: TypeAlias = AnyGram | Matrix
"""What is multiplied entry by entry: of a stream the product with its partner is all that is known."""


def as_operand(K: object, name: str, function: str) -> Gram | Matrix:
    """Check an argument that stands for a matrix."""
    if isinstance(K, Tensor):  # first, because it is what most calls have
        return as_matrix(K, name, function)
    if isinstance(K, Deferred):
        return cast(Gram, K)  # formulas multiply it as they do a Gram
    return K if isinstance(K, Gram | Matrix) else as_matrix(K, name, function)


def as_operands(Ks: tuple[object, ...], function: str) -> list[Gram | Matrix]:
    """Check several matrices over the same samples."""
    if not Ks:
        raise ValueError(f"Expected at least one matrix, got none: {function}(K1, K2, ...).")
    return [as_operand(K, f"K{i}", function) for i, K in enumerate(Ks, 1)]


def as_factors(Ks: tuple[object, ...], function: str) -> list[Factor]:
    """Check several matrices over the same samples of which nothing but products and spectra is wanted."""
    if Ks and all([isinstance(K, StreamGram) for K in Ks]):
        return list(cast(tuple[StreamGram, ...], Ks))
    return cast(list[Factor], as_operands(Ks, function))


def smaller_side(K: Operand, *, precision: str = "auto", sensitive: bool = False) -> Side:
    """The cheaper of the two matrices with the spectrum of K, in the precision that the quantity needs."""
    if isinstance(K, Tensor):  # made by a formula of ours
        K = Matrix.trusted(K, K.dtype, torch.finfo(K.dtype).eps)
    return K.side(precision=precision, sensitive=sensitive)


def hadamard(operands: Sequence[Factor], *, precision: str = "auto", sensitive: bool = False) -> Factor:
    """Hadamard product, multiplied in the working precision.

    Its entries are as coarse as those of the coarsest factor, and of more than two factors as half their sum: where the
    same matrix is given several times its errors are the same, and add up. What
    :class:`~matinfo.spectral.eigensystem.Noise` allows for is twice of what one factor has: errors of up to u/2 in the
    entries of a symmetric matrix have a spectral norm of about ``u sqrt(n/3)`` times them.

    Returns:
        A Gram if all operands are, else a matrix.
    """
    check_same_samples([tuple(K.shape) for K in operands])
    if all([isinstance(K, AnyGram | Deferred) for K in operands]):
        return reduce(lambda a, b: a * b, cast(Sequence[Gram], operands))
    given = reduce(torch.promote_types, [K.given_dtype for K in operands])
    dtype = working_dtype(
        given,
        operands[0].shape[-1],
        precision=precision,
        sensitive=sensitive,
        dual=False,
        device=operands[0].device,
    )
    factors = [cast(Gram | Matrix, K).matrix(dtype) for K in operands]
    coarseness = [K.rounding for K in factors]
    entries = [_moderate(K, dtype, len(factors)) for K in factors]
    rounding = max(*coarseness, sum(coarseness) / 2)
    return Matrix.trusted(reduce(torch.mul, entries), given, rounding)


def roundoff_entropy(operands: Sequence[Factor], precision: str) -> float:
    """Largest entropy of order 2, in nats, that rounding alone gives operands of rank one and their product.

    ``K_ij = z_i z_j (1 + e_ij)`` with ``|e_ij| <= u/2`` has a trace of at most ``(1 + u/2) |z|^2`` and a Frobenius norm
    of at least ``(1 - u/2) |z|^2``, whatever the diagonal. Orders below 1 have no such bound: they may count a rounding
    as a direction.

    Returns:
        ``2 u``, added up over the factors, and what the order costs in the working precision.
    """
    n = operands[0].shape[-1]
    factored = all([isinstance(K, AnyGram) for K in operands])
    size = min(n, math.prod([K.width for K in operands if isinstance(K, AnyGram)])) if factored else n
    given = reduce(torch.promote_types, [K.given_dtype for K in operands])
    device = operands[0].device
    working = working_dtype(given, size, precision=precision, sensitive=False, dual=factored, device=device)
    entries = sum([K.rounding for K in operands if isinstance(K, Matrix)])
    return 2 * entries + max(16 * torch.finfo(working).eps, 1e-12)


def _moderate(K: Matrix, dtype: torch.dtype, factors: int) -> Tensor:
    """The entries of one of so many factors, of a scale at which their product exists."""
    entries = K.entries.to(dtype)
    if is_readable(entries) and trace_is_safe(K.total, dtype, factors):
        return entries
    return without_scale(entries, dtype)[0]
