"""A Gram matrix known by its factors.

It is a sum of Hadamard products, ``K = sum over terms of (Z1 Z1^T) o (Z2 Z2^T) o ...``: ``terms`` holds a tuple for
each summand, and that holds the features of its factors. ``Gram(Z)`` is one term of one factor, ``*`` joins the
factors of every pair of terms (the distributive law), ``+`` puts the terms of both behind one another.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from matinfo._keywords import answers_keywords
from matinfo._memory import check_matrix_fits
from matinfo._validation import (
    check_choice,
    check_features,
    check_positive,
    check_same_samples,
)
from matinfo.operands.any_gram import AnyGram
from matinfo.operands.matrix import Matrix, as_tensor, dtype_given
from matinfo.operands.side import Side, constant_trace, is_readable
from matinfo.spectral.eigensystem import Noise
from matinfo.spectral.khatri_rao import khatri_rao, khatri_rao_moment, moment
from matinfo.spectral.normalize import half_exponent, normalize_rows, times_power_of_four, widened
from matinfo.spectral.precision import at_least_float32, trace_is_safe, without_autocast, working_dtype

DUAL_SHARE = 0.8
"""The feature side is factored when it is at most this share of the number of samples. Not 1: the dual is mostly worked
on in float64, which takes twice the time of float32, and 0.8 to the third power is a half."""


class Gram(AnyGram):
    """The positive semi-definite matrix ``K = Z Z^T`` of features, without forming it.

    Every function of matinfo that takes a matrix takes a ``Gram`` too and works on its smaller side: ``K`` is n x n,
    its dual ``Z^T Z`` is d x d, and their non-zero eigenvalues agree. ``Gram * Gram`` is the Hadamard product
    (features: row-wise Khatri-Rao product), ``Gram + Gram`` the sum (features: side by side), ``c * Gram`` scales.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, one row a sample.
        normalize: Whether to divide each row by its l2 norm, so that K has unit diagonal (zero rows stay zero).
        center: Whether to subtract the mean row, in float64; after the division if both are asked for, before it with
            ``"first"``. A column that is then zero up to the rounding of its mean is zero.

    Raises:
        TypeError: If ``features`` is not real floating point.
        ValueError: If it has fewer than two dimensions or no entries.

    Notes:
        Nothing is computed until a quantity asks, but for the rows of ``normalize`` and ``center``: without these the
        tensor is kept as it is, and later changes of it in place are changes of the matrix. Half precision is promoted
        to float32 before any product.

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

    @answers_keywords
    def __init__(
        self, features: Tensor | np.ndarray, normalize: bool = False, *, center: bool | str = False
    ) -> None:
        self.is_numpy = isinstance(features, np.ndarray)  # as the results will be
        Z = check_features(as_tensor(features), "features")
        self.given_dtype = Z.dtype
        self.rounding = torch.finfo(dtype_given(Z)).eps
        self._hold(((prepared_rows(Z, center, normalize),),))

    @classmethod
    def _from_terms(cls, terms: tuple[tuple[Tensor, ...], ...], like: tuple[AnyGram, ...]) -> Gram:
        gram = cls.__new__(cls)
        gram._hold(terms)
        gram.is_numpy = any([other.is_numpy for other in like])
        gram.given_dtype = reduce(torch.promote_types, [other.given_dtype for other in like])
        gram.rounding = max([other.rounding for other in like])
        return gram

    def _hold(self, terms: tuple[tuple[Tensor, ...], ...]) -> None:
        """The terms and, because every quantity asks for them several times, what their shapes come to."""
        self.terms = terms
        factors = [Z for term in terms for Z in term]
        *batch, n, _ = factors[0].shape
        if len(factors) > 1:
            batch = torch.broadcast_shapes(*[Z.shape[:-2] for Z in factors])
        self._shape = torch.Size((*batch, n, n))
        self._width = sum([math.prod([Z.shape[-1] for Z in term]) for term in terms])

    @property
    def shape(self) -> torch.Size:
        """Shape ``(..., n, n)`` of the matrix."""
        return self._shape

    @property
    def width(self) -> int:
        """Number of columns of the explicit features, the sum over terms of the product of their widths."""
        return self._width

    @property
    def device(self) -> torch.device:
        """Device of the features."""
        return self.terms[0][0].device

    def __mul__(self, other: AnyGram | float) -> Gram:
        """Hadamard product with another Gram, or scaling by a positive number."""
        if hasattr(other, "matmat"):  # an operator, which knows how to multiply with factors
            return NotImplemented
        if not isinstance(other, AnyGram):
            return self.times(check_positive(other, "the factor of a Gram"))
        theirs = self._of_same_kind(other).terms
        terms = tuple([first + second for first in self.terms for second in theirs])
        return type(self)._from_terms(terms, (self, other))

    __rmul__ = __mul__

    def __add__(self, other: AnyGram) -> Gram:
        """Sum of two matrices over the same samples."""
        if not isinstance(other, AnyGram):
            return NotImplemented
        return type(self)._from_terms(self.terms + self._of_same_kind(other).terms, (self, other))

    def _of_same_kind(self, other: AnyGram) -> Gram:
        if not isinstance(other, Gram):
            raise TypeError(f"Expected a Gram of features, got a {type(other).__name__}. {other.remedy}")
        if type(self) is not type(other):
            raise TypeError(
                "Expected Gram matrices that are both local or both sharded, got one of each: the rows of "
                "a local one are not those of all ranks."
            )
        check_same_samples([tuple(self.shape), tuple(other.shape)])
        return other

    def times(self, factor: Tensor | float) -> Gram:
        """K times a positive number; numbers ``(...)`` for a batch may have a gradient."""
        root = factor.sqrt()[..., None, None] if isinstance(factor, Tensor) else math.sqrt(factor)
        terms = tuple([(term[0] * root, *term[1:]) for term in self.terms])
        return type(self)._from_terms(terms, (self,))

    def is_finite(self) -> bool:
        """Whether all features are numbers."""
        return all([bool(Z.isfinite().all()) for term in self.terms for Z in term])

    def trace(self) -> Tensor:
        """``tr K``, ``(...)``, float64, from the squared lengths of the rows."""
        squares = [[Z.double().square().sum(-1) for Z in term] for term in self.terms]
        return reduce(torch.add, [reduce(torch.mul, factors).sum(-1) for factors in squares])

    def reordered(self, order: Tensor) -> Gram:
        """``P K P^T``: the matrix over the samples in another order, ``order`` holding ``(n,)`` indices."""
        terms = tuple([tuple([Z[..., order, :] for Z in term]) for term in self.terms])
        return type(self)._from_terms(terms, (self,))

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

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix itself, ``(..., n, n)``."""
        dtype = at_least_float32(self.given_dtype) if dtype is None else dtype
        check_matrix_fits(self.shape, dtype, self.device)
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
        width, device = self.width, self.device
        check_matrix_fits((*self.shape[:-2], width, width), dtype, device)
        with without_autocast(device):
            if len(self.terms) == 1:
                return khatri_rao_moment(self.terms[0], dtype)
            return moment(self.features(dtype), dtype)

    @property
    def is_plain(self) -> bool:
        """Whether it is ``Z Z^T`` of features that are at hand: no product, no sum."""
        return len(self.terms) == len(self.terms[0]) == 1

    @property
    def prefers_dual(self) -> bool:
        """Whether the feature side is the cheaper one to factor."""
        return self.width <= DUAL_SHARE * self.shape[-1]

    def smaller(self) -> Tensor:
        """The cheaper one to factor of K and its dual; dtype of the features, at least float32."""
        return self.dual() if self.prefers_dual else self.dense()

    def gathered(self) -> Gram:
        """The matrix of features that are all in one place: itself."""
        return self

    def side(self, *, precision: str = "auto", sensitive: bool = False) -> Side:
        """The cheaper of the two matrices with this spectrum, in the precision that a quantity needs."""
        order, dual = self.shape[-1], self.prefers_dual
        size = self.width if dual else order
        dtype = working_dtype(
            self.given_dtype, size, precision=precision, sensitive=sensitive, dual=True, device=self.device
        )
        matrix, total, exponent = self._formed("dual" if dual else "dense", dtype)
        name = "features" if dual else "samples"
        return Side(matrix, dtype, name, Noise.of(size, dtype, dtype), order, total, exponent)

    def matrix(self, dtype: torch.dtype) -> Matrix:
        """The n x n matrix, formed in a dtype."""
        entries, total, exponent = self._formed("dense", dtype)
        return Matrix(entries, self.given_dtype, torch.finfo(dtype).eps, total, exponent)

    def _formed(self, form: str, dtype: torch.dtype) -> tuple[Tensor, Tensor | float, Tensor | None]:
        """A matrix made of the features, its trace, and the exponent that was taken out so that both exist."""
        readable = is_readable(self.terms[0][0])
        certain = dtype == torch.float64 != self.given_dtype and all([len(term) == 1 for term in self.terms])
        if readable or certain:  # fourth powers of float32 numbers and their inverses exist in float64
            matrix = getattr(self, form)(dtype)
            total = constant_trace(matrix.detach())
            if not readable or trace_is_safe(total, dtype):
                return matrix, total, None
        gram, exponent = self.without_scale()
        matrix = getattr(gram, form)(dtype)
        return matrix, constant_trace(matrix.detach()), exponent

    def without_scale(self) -> tuple[Gram, Tensor]:
        """``2^-e`` times the matrix, with features of size 1 or so, and e: ``(...)``, a constant of differentiation."""
        # Z / 4^h is of size 1 or so, its Gram matrix loses 16^h, and a term 16 to the sum of its h: 2^e = 16^largest.
        halves = [[self._half_exponent(Z) for Z in term] for term in self.terms]
        sums = [reduce(torch.add, half) for half in halves]
        largest = reduce(torch.maximum, sums)
        terms = []
        for term, (first, *others), total in zip(self.terms, halves, sums, strict=True):
            # Each factor loses its own scale, and a term keeps how much smaller it is than the largest.
            shifts = [first + largest - total, *others]
            dtypes = [torch.float64 if is_readable(Z) else at_least_float32(Z.dtype) for Z in term]
            factors = zip(term, shifts, dtypes, strict=True)
            terms.append(tuple([times_power_of_four(Z, -h, dtype) for Z, h, dtype in factors]))
        return type(self)._from_terms(tuple(terms), (self,)), 4 * largest

    def _half_exponent(self, Z: Tensor) -> Tensor:
        return half_exponent(Z)


def prepared_rows(Z: Tensor, center: bool | str, normalize: bool) -> Tensor:
    """Rows of length one, and less their mean, as far as asked for and in the order asked for."""
    if isinstance(center, str):
        check_choice(center, "center", ("first",))
    given = torch.finfo(at_least_float32(dtype_given(Z))).eps
    if normalize and center != "first":
        Z = normalize_rows(Z)
    if not center:
        return Z
    Z = widened(Z)
    size = Z.detach().abs().amax(-2, keepdim=True)
    size = torch.where((size > 0) & size.isfinite(), size, 1.0)  # of each column, so that squares exist
    mean = (Z / size).mean(-2, keepdim=True) * size
    Z = Z - mean
    # Left as it is, the round-off of a constant column would look like one more direction, or like many.
    squares = (Z.detach() / size).square().sum(-2, keepdim=True)
    Z = torch.where(squares <= constant_column(Z.shape[-2], mean.detach() / size, given), 0.0 * Z, Z)
    return normalize_rows(Z) if normalize and center == "first" else Z


def constant_column(rows: int | Tensor, mean: Tensor, eps: float) -> Tensor:
    """Largest sum of squares ``(d,)`` of a centred column that rounding alone can leave, given its mean."""
    return rows * (4 * eps * mean).square()
