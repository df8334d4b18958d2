"""Symmetric positive semi-definite matrices known by their products: given, of features, of SciPy, products and sums.

Each has exact products with blocks of vectors, its exact trace and, where that costs no more than a few products, its
exact squared Frobenius norm. All work is in float64: a Lanczos recurrence in float32 cannot tell the small eigenvalues,
of which there are most, from round-off of the largest. Matrices that may be asymmetric by mistake are probed at random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinfo._validation import (
    check_count,
    check_positive,
    check_same_samples,
)
from matinfo.operands import Gram, as_tensor
from matinfo.operands.matrix import check_matrix, dtype_given
from matinfo.spectral.frobenius import frobenius_squared
from matinfo.spectral.khatri_rao import khatri_rao
from matinfo.spectral.operator import SymmetricOperator, checked_symmetric
from matinfo.spectral.precision import full_product
from matinfo.spectral.traces import trace

UNIT_ROUNDOFF = torch.finfo(torch.float64).eps / 2

_BLOCK, _DEVICE_BLOCK = (512, 1024), (2048, 4096)
"""Rows and columns of the blocks that go through the cache of a processor, and of a GPU, together. Flat
tiles are slower (one thread, n = 20,000: heights of 27, 83 and 512 take 2.1, 1.3 and 1.0 s)."""

_CHUNK = 2**23
"""Entries of features that are multiplied at a time: 64 MiB."""

_LARGEST_DUAL = 4096
"""Wider features are multiplied and their covariance is not formed: it would take longer than all steps together."""


class TiledOperator:
    """A matrix known by its blocks: :meth:`entries` is all that a kind of matrix has to say."""

    __array_ufunc__ = None  # so that NumPy arrays and scalars leave products to __rmul__
    dtype = given_dtype = torch.float64
    is_numpy = False
    """Whether numbers that are made of it are to be NumPy's, as its samples are."""
    noise = UNIT_ROUNDOFF
    """Relative rounding of the entries as they were given."""
    is_trusted = True
    """Whether the matrix is symmetric and positive semi-definite by construction."""
    tile: int

    def __init__(self, n: int, tile: int | None, device: torch.device) -> None:
        self.shape = (n, n)
        self._block = _BLOCK if device.type == "cpu" else _DEVICE_BLOCK
        self.tile = min(n, self._block[0] if tile is None else check_count(tile, "tile"))
        self.device = device
        self._moments: tuple[float, float] | None = None

    def entries(self, rows: slice, columns: slice) -> Tensor:
        """One block of the matrix, float64 or, where its entries are known to no more, float32."""
        raise NotImplementedError

    def tiles(self, *, half: bool = False) -> Iterator[tuple[slice, slice, Tensor]]:
        """Row range, column range and entries of blocks that make up the matrix; ranges of rows ascend.

        Half of them are the square blocks on the diagonal and those above: all that a symmetric matrix has to tell.
        """
        n, width = self.shape[0], self._block[1]
        for start in range(0, n, self.tile):
            rows = slice(start, min(start + self.tile, n))
            ranges = [
                slice(first, min(first + width, n)) for first in range(rows.stop if half else 0, n, width)
            ]
            for columns in [rows, *ranges] if half else ranges:
                yield rows, columns, self.entries(rows, columns)

    def matmat(self, V: Tensor) -> Tensor:
        """``K V``."""
        product = torch.zeros_like(V)
        converted = {V.dtype: V}
        for rows, columns, block in self.tiles(half=self.is_trusted):
            W = converted.setdefault(block.dtype, V if block.dtype == V.dtype else V.to(block.dtype))
            product[rows] += full_product(block, W[columns])
            if self.is_trusted and rows != columns:
                product[columns] += full_product(block.mT, W[rows])
        return product

    def is_finite(self) -> bool:
        """Whether all entries are numbers, whose squares have a sum."""
        return all(map(math.isfinite, self._exact_moments()))

    def trace(self) -> float:
        """``tr K``."""
        return self._exact_moments()[0]

    def frobenius_squared(self) -> float | None:
        """``|K|_F^2``."""
        return self._exact_moments()[1]

    def _exact_moments(self) -> tuple[float, float]:
        """Trace and squared norm in one pass over the tiles."""
        if self._moments is None:
            total, squared = torch.zeros(2, dtype=torch.float64, device=self.device)
            for rows, columns, block in self.tiles(half=self.is_trusted):
                total += block.diagonal(rows.start - columns.start).double().sum()
                twice = 2 if self.is_trusted and rows != columns else 1
                squared += twice * frobenius_squared(block)
            self._moments = total.item(), squared.item()
        return self._moments

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of the matrix, ``(stop - start, n)``, float64."""
        return self.entries(slice(start, stop), slice(0, self.shape[0])).double()

    def diagonal(self) -> Tensor:
        """The diagonal ``(n,)``, float64."""
        ranges = [slice(i, min(i + _BLOCK[0], self.shape[0])) for i in range(0, self.shape[0], _BLOCK[0])]
        return torch.cat([self.entries(rows, rows).diagonal().double() for rows in ranges])

    def reordered(self, order: Tensor) -> TiledOperator:
        """``P K P^T``: the matrix over the samples in another order, ``order`` holding ``(n,)`` indices."""
        raise NotImplementedError

    def absorbed(self, factor: TiledOperator) -> TiledOperator | None:
        """The Hadamard product with the factor where that is of the same kind, else None."""

    def __mul__(self, other: Any) -> TiledOperator:
        """Hadamard product with any matrix over the same samples, or scaling by a positive number."""
        if isinstance(other, int | float):
            return SumOperator([(check_positive(other, "the factor of an operator"), self)])
        return hadamard_of([self, _tiled(other)])

    __rmul__ = __mul__

    def __add__(self, other: Any) -> TiledOperator:
        """Sum with any matrix over the same samples."""
        return SumOperator([(1.0, self), (1.0, _tiled(other))])

    __radd__ = __add__

    def __truediv__(self, other: float) -> TiledOperator:
        """Division by a positive number."""
        return self * (1 / check_positive(other, "the divisor of an operator"))


class HadamardOperator(TiledOperator):
    """Hadamard product ``K_1 o ... o K_m``: blocks of it are products of blocks."""

    def __init__(self, factors: list[TiledOperator]) -> None:
        check_same_samples([factor.shape for factor in factors])
        super().__init__(factors[0].shape[0], min([factor.tile for factor in factors]), factors[0].device)
        self.factors = factors
        self.is_numpy = any([factor.is_numpy for factor in factors])
        self.noise = sum([factor.noise for factor in factors])
        self.is_trusted = all([factor.is_trusted for factor in factors])

    def entries(self, rows: slice, columns: slice) -> Tensor:
        return reduce(torch.mul, [factor.entries(rows, columns) for factor in self.factors])

    def reordered(self, order: Tensor) -> TiledOperator:
        return HadamardOperator([factor.reordered(order) for factor in self.factors])


class SumOperator(TiledOperator):
    """Weighted sum ``c_1 K_1 + ... + c_m K_m`` with positive weights."""

    def __init__(self, terms: list[tuple[float, TiledOperator]]) -> None:
        operators = [operator for _, operator in terms]
        check_same_samples([operator.shape for operator in operators])
        super().__init__(operators[0].shape[0], min([K.tile for K in operators]), operators[0].device)
        self.terms = terms
        self.is_numpy = any([operator.is_numpy for operator in operators])
        self.noise = max([operator.noise for operator in operators])
        self.is_trusted = all([operator.is_trusted for operator in operators])

    def entries(self, rows: slice, columns: slice) -> Tensor:
        return reduce(torch.add, [weight * K.entries(rows, columns) for weight, K in self.terms])

    def matmat(self, V: Tensor) -> Tensor:
        return reduce(torch.add, [weight * K.matmat(V) for weight, K in self.terms])

    def trace(self) -> float:
        return sum([weight * K.trace() for weight, K in self.terms])

    def reordered(self, order: Tensor) -> TiledOperator:
        return SumOperator([(weight, K.reordered(order)) for weight, K in self.terms])


class DenseOperator(TiledOperator):
    """A matrix that is given."""

    is_trusted = False

    def __init__(self, K: Tensor, function: str) -> None:
        self.given = K
        self.K = check_matrix(K, "K", function).detach()
        _refuse_batch(K.shape)
        super().__init__(K.shape[0], None, K.device)
        self.noise = torch.finfo(dtype_given(K)).eps / 2

    def entries(self, rows: slice, columns: slice) -> Tensor:
        return self.K[rows, columns].double()

    def matmat(self, V: Tensor) -> Tensor:
        return self.K @ V if self.K.dtype == self.dtype else super().matmat(V)

    def reordered(self, order: Tensor) -> TiledOperator:
        return DenseOperator(self.K[order][:, order], "reordered")


class GramOperator(TiledOperator):
    """A :class:`Gram`: products through its features, a block of rows at a time where they are products of many.

    Of Khatri-Rao features of width w a product with s vectors takes ``4 n w s`` flops, by tiles of the n x n matrix
    ``2 n^2 s`` and the entries themselves: they are multiplied as features up to ``w = n/2``.
    """

    def __init__(self, gram: Gram) -> None:
        _refuse_batch(gram.shape)
        n = gram.shape[-1]
        super().__init__(n, None, gram.device)
        self.gram = gram
        self.terms = [[Z.detach().double() for Z in term] for term in gram.terms]
        self.is_factor = all([len(term) == 1 for term in gram.terms]) or gram.width <= n / 2
        is_small = self.is_factor and n * gram.width <= 4 * _CHUNK
        self.features = gram.features(torch.float64).detach() if is_small else None

    def entries(self, rows: slice, columns: slice) -> Tensor:
        products = [reduce(torch.mul, [Z[rows] @ Z[columns].mT for Z in term]) for term in self.terms]
        return reduce(torch.add, products)

    def matmat(self, V: Tensor) -> Tensor:
        if not self.is_factor:
            return super().matmat(V)
        if self.features is not None:
            return self.features @ (self.features.mT @ V)
        image = torch.zeros(self.gram.width, V.shape[1], dtype=V.dtype, device=V.device)
        for rows, Z in self._blocks():
            image += Z.mT @ V[rows]
        return torch.cat([Z @ image for _, Z in self._blocks()])

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The features, a few rows at a time."""
        n, step = self.shape[0], max(1, _CHUNK // self.gram.width)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            yield rows, torch.cat([khatri_rao([Z[rows] for Z in term]) for term in self.terms], 1)

    def _exact_moments(self) -> tuple[float, float]:
        if self._moments is None and self.gram.width <= min(self.shape[0], _LARGEST_DUAL):
            dual = self.gram.dual(torch.float64).detach()
            self._moments = float(trace(dual)), float(frobenius_squared(dual))
        return super()._exact_moments()

    def reordered(self, order: Tensor) -> TiledOperator:
        return GramOperator(self.gram.reordered(order))

    def absorbed(self, factor: TiledOperator) -> TiledOperator | None:
        return GramOperator(self.gram * factor.gram) if isinstance(factor, GramOperator) else None


class DualOperator(DenseOperator):
    """``Z^T Z`` of features: the eigenvalues of ``Z Z^T`` but for zeros, of which it has fewer."""

    is_trusted = True

    def __init__(self, operator: GramOperator) -> None:
        super().__init__(operator.gram.dual(torch.float64).detach(), "dual")
        self.gram = operator.gram


class SparseOperator(TiledOperator):
    """A SciPy sparse matrix, on the CPU in float64."""

    is_trusted = False
    is_numpy = True

    def __init__(self, K: Any) -> None:
        _check_scipy(K)
        super().__init__(K.shape[0], None, torch.device("cpu"))
        self.K = K.astype(np.float64).tocsr()  # a copy
        self.K.sum_duplicates()  # entries that are split in parts would not give |K|_F

    def entries(self, rows: slice, columns: slice) -> Tensor:
        return torch.from_numpy(self.K[rows, columns].toarray())

    def matmat(self, V: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.K @ V.numpy()))

    def _exact_moments(self) -> tuple[float, float]:
        return float(self.K.diagonal().sum()), float(np.square(self.K.data).sum())

    def reordered(self, order: Tensor) -> TiledOperator:
        indices = order.cpu().numpy()
        return SparseOperator(self.K[indices][:, indices])


class LinearOperator:
    """A SciPy ``LinearOperator`` of given trace, on the CPU in float64: products are all that is known of it."""

    dtype = torch.float64
    noise = UNIT_ROUNDOFF
    is_trusted = False
    device = torch.device("cpu")

    def __init__(self, K: Any, total: float | None, function: str) -> None:
        _check_scipy(K)
        if total is None:
            raise ValueError(
                "Expected trace to be given for a LinearOperator, whose products do not show it, got None. "
                f"Pass {function}(K, trace=...); it must be exact."
            )
        self.K, self.total = K, check_positive(total, "trace")
        self.shape = (K.shape[0], K.shape[1])

    def matmat(self, V: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.K.matmat(V.numpy()), dtype=np.float64))

    def trace(self) -> float:
        return self.total

    def frobenius_squared(self) -> None:
        """Not known."""


def as_operator(
    K: Any, *, function: str = "estimate_entropy", total: float | None = None
) -> SymmetricOperator:
    """The operator of anything that stands for one symmetric matrix; the function is named in refusals."""
    if hasattr(K, "rmatmat"):  # SciPy's LinearOperator
        return checked_symmetric(LinearOperator(K, total, function))
    if total is not None:
        raise ValueError(f"Expected trace only with a LinearOperator, got it with {type(K).__name__}.")
    return tiled_operator(K, function)


def tiled_operator(K: Any, function: str) -> TiledOperator:
    """The operator of a matrix whose entries are known, and were found symmetric."""
    operator = _tiled(K, function)
    return operator if operator.is_trusted or type(operator) is DenseOperator else checked_symmetric(operator)


def _tiled(K: Any, function: str = "the product") -> TiledOperator:
    if isinstance(K, TiledOperator):
        return K
    if isinstance(K, Gram):
        return GramOperator(K.gathered())
    if hasattr(K, "tocsr"):  # SciPy's sparse matrix; its import would take as long as a small estimate
        return SparseOperator(K)
    if hasattr(K, "rmatmat"):
        raise TypeError(
            "Expected a matrix whose entries are known, got a LinearOperator, which has only its products with "
            "vectors. Use a KernelOperator or a sparse matrix in Hadamard products."
        )
    return DenseOperator(as_tensor(K), function)


def smaller_operator(operator: SymmetricOperator) -> SymmetricOperator:
    """For spectral functions that vanish at 0: the dual of a Gram operator with fewer features than samples."""
    if not isinstance(operator, GramOperator):
        return operator
    is_smaller = operator.gram.width < operator.shape[0]
    return DualOperator(operator) if is_smaller and operator.gram.width <= _LARGEST_DUAL else operator


def hadamard_of(factors: list[TiledOperator]) -> TiledOperator:
    """The Hadamard product, with kernels of one kind joined: their product is that of the joined columns."""
    flat: list[TiledOperator] = []
    for factor in factors:
        flat.extend(factor.factors if isinstance(factor, HadamardOperator) else [factor])
    joined: list[TiledOperator] = []
    for factor in flat:
        for i, other in enumerate(joined):
            product = other.absorbed(factor)
            if product is not None:
                joined[i] = product
                break
        else:
            joined.append(factor)
    return joined[0] if len(joined) == 1 else HadamardOperator(joined)


def _check_scipy(K: Any) -> None:
    if len(K.shape) != 2 or K.shape[0] != K.shape[1] or K.shape[0] == 0:
        raise ValueError(f"Expected K to be square with at least one row, got shape {tuple(K.shape)}.")
    if np.dtype(K.dtype).kind not in "fiub":
        raise TypeError(f"Expected K to be real, got {K.dtype}.")


def _refuse_batch(shape: tuple[int, ...] | torch.Size) -> None:
    if len(shape) != 2:
        raise ValueError(
            f"Expected one matrix (n, n), got shape {tuple(shape)}. Call it for each batch element."
        )
