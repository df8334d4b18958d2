"""Positive semi-definite operands: a matrix that is given, or a Gram matrix known by its factors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from matinfo._validation import (
    check_features,
    check_matrix,
    check_positive,
    check_same_samples,
)
from matinfo.spectral.eigensystem import Noise
from matinfo.spectral.khatri_rao import khatri_rao, khatri_rao_moment, moment
from matinfo.spectral.normalize import normalize_rows as normalize_rows
from matinfo.spectral.precision import at_least_float32, without_autocast, working_dtype

_DUAL_SHARE = 0.8
"""The feature side is factored when it is at most this share of the number of samples."""


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor of the array: floating point in float64, over its memory where that is possible without a warning."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("Expected an array without a mask, got a masked array. Use array.filled(value).")
    if array.dtype.kind not in "fiubc" or array.dtype.itemsize > 16 or array.dtype == np.longdouble:
        raise TypeError(f"Expected a numeric array, at most double precision, got dtype {array.dtype}.")
    native = np.float64 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    contiguous = np.ascontiguousarray(array, dtype=native)
    return torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())


class Gram:
    """The positive semi-definite matrix ``K = Z Z^T`` of features, without forming it.

    Every function of matinfo that takes a matrix takes a ``Gram`` too and works on its smaller side: ``K`` is n x n,
    its dual ``Z^T Z`` is d x d, and their non-zero eigenvalues agree. ``Gram * Gram`` is the Hadamard product
    (features: row-wise Khatri-Rao product), ``Gram + Gram`` the sum (features: side by side), ``c * Gram`` scales.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, one row a sample.
        normalize: Whether to divide each row by its l2 norm, so that K has unit diagonal (zero rows stay zero).

    Raises:
        TypeError: If ``features`` is not real floating point.
        ValueError: If it has fewer than two dimensions or no entries.

    Notes:
        Nothing is computed until a quantity asks. Half precision is promoted to float32 before any product.

    References:
        Duality of Gram and covariance spectra; Khatri and Rao (1968) for the Hadamard product of Gram matrices.

    Example:
        >>> import torch
        >>> from matinfo import Gram, renyi_entropy
        >>> Z = torch.eye(3).repeat(2, 1)  # six samples, three directions
        >>> round(float(renyi_entropy(Gram(Z))), 4)  # log 3
        1.0986
        >>> (Gram(Z) * Gram(Z)).dense().shape
        torch.Size([6, 6])
    """

    __array_ufunc__ = None  # so that NumPy scalars leave c * Gram to __rmul__

    def __init__(self, features: Tensor | np.ndarray, normalize: bool = False) -> None:
        self.is_numpy = isinstance(features, np.ndarray)
        Z = check_features(as_tensor(features) if isinstance(features, np.ndarray) else features, "features")
        self.given_dtype = Z.dtype
        self.terms: tuple[tuple[Tensor, ...], ...] = ((normalize_rows(Z) if normalize else Z,),)

    @classmethod
    def _from_terms(cls, terms: tuple[tuple[Tensor, ...], ...], like: tuple[Gram, ...]) -> Gram:
        gram = cls.__new__(cls)
        gram.terms = terms
        gram.is_numpy = any([other.is_numpy for other in like])
        gram.given_dtype = reduce(torch.promote_types, [other.given_dtype for other in like])
        return gram

    @property
    def shape(self) -> torch.Size:
        """Shape ``(..., n, n)`` of the matrix."""
        batch = torch.broadcast_shapes(*[Z.shape[:-2] for term in self.terms for Z in term])
        n = self.terms[0][0].shape[-2]
        return torch.Size((*batch, n, n))

    @property
    def width(self) -> int:
        """Number of columns of the explicit features, the sum over terms of the product of their widths."""
        return sum([math.prod([Z.shape[-1] for Z in term]) for term in self.terms])

    @property
    def device(self) -> torch.device:
        """Device of the features."""
        return self.terms[0][0].device

    def __mul__(self, other: Gram | float) -> Gram:
        """Hadamard product with another Gram, or scaling by a positive number."""
        if isinstance(other, Gram):
            self._check_kind(other)
            terms = tuple([mine + theirs for mine in self.terms for theirs in other.terms])
            return type(self)._from_terms(terms, (self, other))
        root = math.sqrt(check_positive(other, "the factor of a Gram"))
        terms = tuple([(term[0] * root, *term[1:]) for term in self.terms])
        return type(self)._from_terms(terms, (self,))

    __rmul__ = __mul__

    def __truediv__(self, other: float) -> Gram:
        """Division by a positive number."""
        return self * (1 / check_positive(other, "the divisor of a Gram"))

    def __add__(self, other: Gram) -> Gram:
        """Sum of two matrices over the same samples."""
        if not isinstance(other, Gram):
            return NotImplemented
        self._check_kind(other)
        return type(self)._from_terms(self.terms + other.terms, (self, other))

    def _check_kind(self, other: Gram) -> None:
        if type(self) is not type(other):
            raise TypeError(
                "Expected Gram matrices that are both local or both sharded, got one of each: the rows of "
                "a local one are not those of all ranks."
            )
        check_same_samples([tuple(self.shape), tuple(other.shape)])

    def reordered(self, order: Tensor) -> Gram:
        """``P K P^T``: the matrix over the samples in another order, ``order`` holding ``(n,)`` indices."""
        terms = tuple([tuple([Z[..., order, :] for Z in term]) for term in self.terms])
        return type(self)._from_terms(terms, (self,))

    def __repr__(self) -> str:
        """Shape, width and dtype."""
        return f"Gram(n={self.shape[-1]}, width={self.width}, batch={tuple(self.shape[:-2])}, dtype={self.given_dtype})"

    def features(self, dtype: torch.dtype | None = None) -> Tensor:
        """Explicit features ``(..., n, width)`` with ``K = features features^T``."""
        dtype = at_least_float32(self.given_dtype) if dtype is None else dtype
        batch = self.shape[:-2]
        blocks = []
        with without_autocast(self.device):
            for term in self.terms:
                block = khatri_rao([Z.to(dtype) for Z in term])
                blocks.append(block.expand(*batch, *block.shape[-2:]))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, -1)

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        """Refused: it would hold the object, not its entries."""
        raise TypeError("A Gram is not an array. Use gram.dense() for the matrix that it stands for.")

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix itself, ``(..., n, n)``."""
        dtype = at_least_float32(self.given_dtype) if dtype is None else dtype
        total: Tensor | None = None
        with without_autocast(self.device):
            for term in self.terms:
                product = reduce(torch.mul, [moment(Z.mT, dtype) for Z in term])
                total = product if total is None else total + product
        assert total is not None
        return total

    def dual(self, dtype: torch.dtype | None = None) -> Tensor:
        """The width x width matrix with the same non-zero eigenvalues."""
        dtype = at_least_float32(self.given_dtype) if dtype is None else dtype
        with without_autocast(self.device):
            if len(self.terms) == 1:
                return khatri_rao_moment(self.terms[0], dtype)
            return moment(self.features(dtype), dtype)

    @property
    def prefers_dual(self) -> bool:
        """Whether the feature side is the cheaper one to factor."""
        return self.width <= _DUAL_SHARE * self.shape[-1]


Operand: TypeAlias = Tensor | Gram
"""What a function means by a matrix: ``(..., n, n)`` or a Gram. (NumPy has been converted by then.)"""


@dataclass(frozen=True, slots=True)  # of a named tuple, torch 2.6 cannot compile the property
class Side:
    """The matrix to factor, in which precision, which side it is, and what is known of its errors."""

    given: Tensor
    dtype: torch.dtype
    name: str
    noise: Noise
    order: int
    """Order of the operand; the matrix is smaller when it is the dual."""

    @property
    def matrix(self) -> Tensor:
        """The matrix in its working precision."""
        return self.given.to(self.dtype)


def as_operand(K: Operand, name: str, function: str) -> Operand:
    """Check an argument that stands for a matrix."""
    return K if isinstance(K, Gram) else check_matrix(K, name, function)


def smaller_side(K: Operand, *, precision: str = "auto", sensitive: bool = False) -> Side:
    """The cheaper of the two matrices with the spectrum of K, in the precision that the quantity needs."""
    order = K.shape[-1]
    if isinstance(K, Tensor):
        dtype = working_dtype(K.dtype, order, precision=precision, sensitive=sensitive, dual=False)
        return Side(K, dtype, "matrix", Noise.of(order, dtype, K.dtype), order)
    dual = K.prefers_dual
    size = K.width if dual else order
    dtype = working_dtype(K.given_dtype, size, precision=precision, sensitive=sensitive, dual=True)
    matrix = K.dual(dtype) if dual else K.dense(dtype)
    return Side(matrix, dtype, "features" if dual else "samples", Noise.of(size, dtype, dtype), order)


def hadamard(operands: list[Operand], *, precision: str = "auto", sensitive: bool = False) -> Operand:
    """Hadamard product: a Gram if all operands are, else a matrix, multiplied in the working precision."""
    check_same_samples([tuple(K.shape) for K in operands])
    if all([isinstance(K, Gram) for K in operands]):
        return reduce(lambda a, b: a * b, operands)  # type: ignore[operator]
    given = reduce(torch.promote_types, [K.given_dtype if isinstance(K, Gram) else K.dtype for K in operands])
    order = operands[0].shape[-1]
    dtype = working_dtype(given, order, precision=precision, sensitive=sensitive, dual=False)
    return reduce(torch.mul, [K.dense(dtype) if isinstance(K, Gram) else K.to(dtype) for K in operands])
