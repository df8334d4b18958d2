"""Symmetric positive semi-definite matrices known by their products: given, of features, of a kernel, of SciPy.

Each has exact products with blocks of vectors, its exact trace and, where that costs no more than a few products, its
exact squared Frobenius norm. All work is in float64: a Lanczos recurrence in float32 cannot tell the small eigenvalues,
of which there are most, from round-off of the largest. Matrices that may be asymmetric by mistake are probed at random.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from matinfo._validation import check_frobenius_norm, check_matrix, check_positive, check_trace
from matinfo.operands import Gram, as_tensor
from matinfo.spectral.frobenius import frobenius_squared
from matinfo.spectral.kernel_operator import KernelOperator
from matinfo.spectral.tiles import UNIT_ROUNDOFF, SymmetricOperator, TiledOperator, refuse_batch
from matinfo.spectral.traces import trace

__all__ = [
    "DenseOperator",
    "DualOperator",
    "GramOperator",
    "KernelOperator",
    "SciPyOperator",
    "SymmetricOperator",
    "as_operator",
    "checked_moments",
    "smaller_side",
]

_SYMMETRY_PROBES = 4
_SYMMETRY_TOLERANCE = 1e-3
"""Largest accepted ``|u^T K v - v^T K u|`` over the mean of ``|K u|``, both about Frobenius norms."""


class DenseOperator(TiledOperator):
    """A matrix that is given, converted a few rows at a time."""

    name = "matrix"

    def __init__(self, K: Tensor) -> None:
        self.given = K
        self.K = check_matrix(K, "K", "estimate_entropy").detach()
        refuse_batch(K.shape)
        super().__init__(K.shape[0], None, K.device)
        self.noise = torch.finfo(K.dtype).eps / 2

    def rows(self, start: int, stop: int) -> Tensor:
        return self.K[start:stop].double()


class GramOperator(TiledOperator):
    """A :class:`Gram`: products through its features, or by tiles for Hadamard products too wide to expand."""

    name = "features"

    def __init__(self, gram: Gram, *, tile: int | None = None) -> None:
        refuse_batch(gram.shape)
        super().__init__(gram.shape[-1], tile, gram.device)
        self.gram = gram
        self.terms = [[Z.detach().double() for Z in term] for term in gram.terms]
        expands = gram.prefers_dual or all([len(term) == 1 for term in gram.terms])
        self.features = gram.features(torch.float64).detach() if expands else None

    def rows(self, start: int, stop: int) -> Tensor:
        block = torch.zeros(stop - start, self.shape[0], dtype=self.dtype, device=self.device)
        for term in self.terms:
            product = term[0][start:stop] @ term[0].mT
            for Z in term[1:]:
                product *= Z[start:stop] @ Z.mT
            block += product
        return block

    def matmat(self, V: Tensor) -> Tensor:
        return super().matmat(V) if self.features is None else self.features @ (self.features.mT @ V)

    def _exact_moments(self) -> tuple[float, float]:
        if self.features is None or self.features.shape[1] > self.shape[0]:
            return super()._exact_moments()
        if self._moments is None:
            dual = self.features.mT @ self.features
            self._moments = float(trace(dual)), float(frobenius_squared(dual))
        return self._moments


class DualOperator(DenseOperator):
    """``Z^T Z`` of explicit features: the eigenvalues of ``Z Z^T`` but for zeros, of which it has fewer."""

    name = "dual"

    def __init__(self, operator: GramOperator) -> None:
        assert operator.features is not None
        super().__init__(operator.features.mT @ operator.features)
        self.gram, self.features = operator.gram, operator.features


class SciPyOperator:
    """A SciPy sparse matrix or ``LinearOperator``, on the CPU in float64."""

    name = "operator"
    dtype = torch.float64
    noise = UNIT_ROUNDOFF
    device = torch.device("cpu")

    def __init__(self, K: Any, total: float | None) -> None:
        if len(K.shape) != 2 or K.shape[0] != K.shape[1] or K.shape[0] == 0:
            raise ValueError(f"Expected K to be square with at least one row, got shape {tuple(K.shape)}.")
        if np.dtype(K.dtype).kind not in "fiub":
            raise TypeError(f"Expected K to be real, got {K.dtype}.")
        self.is_sparse = scipy.sparse.issparse(K)
        if total is None and not self.is_sparse:
            raise ValueError(
                "Expected trace to be given for a LinearOperator, whose products do not show it, got None. "
                "Pass estimate_entropy(K, trace=...); it must be exact."
            )
        self.K = K
        if self.is_sparse:
            self.K = K.astype(np.float64).tocsr()  # a copy
            self.K.sum_duplicates()  # entries that are split in parts would not give |K|_F
        self.total = float(self.K.diagonal().sum()) if total is None else check_positive(total, "trace")
        self.shape = (K.shape[0], K.shape[1])

    def matmat(self, V: Tensor) -> Tensor:
        product = self.K @ V.numpy() if self.is_sparse else self.K.matmat(V.numpy())
        return torch.from_numpy(np.ascontiguousarray(product, dtype=np.float64))

    def trace(self) -> float:
        return self.total

    def frobenius_squared(self) -> float | None:
        return float(np.square(self.K.data).sum()) if self.is_sparse else None


def as_operator(K: Any, *, total: float | None = None) -> SymmetricOperator:
    """The operator of anything that stands for one symmetric matrix."""
    if total is not None and not isinstance(K, scipy.sparse.linalg.LinearOperator):
        raise ValueError(f"Expected trace only with a LinearOperator, got it with {type(K).__name__}.")
    if isinstance(K, KernelOperator):
        return K if K.is_trusted else _symmetric(K)
    if isinstance(K, Gram):
        if type(K) is not Gram:
            raise TypeError(
                f"Expected the rows of all samples in one place, got a {type(K).__name__}. Gather them."
            )
        return GramOperator(K)
    if isinstance(K, scipy.sparse.linalg.LinearOperator) or scipy.sparse.issparse(K):
        return _symmetric(SciPyOperator(K, total))
    return DenseOperator(as_tensor(K) if isinstance(K, np.ndarray) else K)


def checked_moments(operator: SymmetricOperator) -> tuple[float, float | None]:
    """Trace and, where it is known, squared Frobenius norm; what cannot be positive semi-definite is refused."""
    total, squared = operator.trace(), operator.frobenius_squared()
    if not (math.isfinite(total) and (squared is None or math.isfinite(squared))):
        raise ValueError("Expected K to be finite, got an infinite or NaN entry.")
    check_trace(torch.tensor(total, dtype=torch.float64))
    if squared is not None:
        check_frobenius_norm(*torch.tensor([squared, total], dtype=torch.float64))
    return total, squared


def smaller_side(operator: SymmetricOperator) -> SymmetricOperator:
    """For spectral functions that vanish at 0: the dual of a Gram operator with fewer features than samples."""
    if not isinstance(operator, GramOperator) or operator.features is None:
        return operator
    return DualOperator(operator) if operator.features.shape[1] < operator.shape[0] else operator


def _symmetric(operator: SymmetricOperator) -> SymmetricOperator:
    """The operator, if random vectors find it symmetric and its trace credible.

    For Gaussian u and v the root mean square of ``u^T K v - v^T K u`` is ``|K - K^T|_F``, that of ``|K u|`` is
    ``|K|_F``, and ``u^T K u`` has mean ``tr K`` and variance ``2 |K|_F^2``.
    """
    generator = torch.Generator(device=operator.device).manual_seed(0)
    shape = (operator.shape[0], 2 * _SYMMETRY_PROBES)
    V = torch.randn(shape, dtype=operator.dtype, device=operator.device, generator=generator)
    image = operator.matmat(V)
    products = V.mT @ image
    gap = float((products - products.mT).square().sum() / (math.prod(products.shape) - len(products))) ** 0.5
    size = float(image.square().sum() / image.shape[1]) ** 0.5
    if gap > _SYMMETRY_TOLERANCE * size:
        raise ValueError(
            f"Expected K to be symmetric, got |K - K^T| of about {gap / size:.2g} of |K| (random probe). "
            "Symmetrise it with (K + K.T) / 2, or use Gram(features) if these are features."
        )
    found, claimed = float(products.diagonal().mean()), operator.trace()
    if abs(found - claimed) > 8 * size * math.sqrt(2 / image.shape[1]):
        raise ValueError(
            f"Expected the exact trace of K, got {claimed:.4g}; random probes find about {found:.2g}."
        )
    return operator
