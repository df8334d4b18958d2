"""Symmetric positive semi-definite matrices known by their products: given, of features, of a kernel, of SciPy.

Each has exact products with blocks of vectors, its exact trace and, where that costs no more than a few products, its
exact squared Frobenius norm. All work is in float64: a Lanczos recurrence in float32 cannot tell the small eigenvalues,
of which there are most, from round-off of the largest. Matrices that may be asymmetric by mistake are probed at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from matinfo._validation import check_choice, check_count, check_features, check_matrix, check_positive
from matinfo.kernels import median_bandwidth, scott_bandwidth, silverman_bandwidth
from matinfo.operands import Gram, as_tensor
from matinfo.spectral.frobenius import frobenius_squared
from matinfo.spectral.traces import trace

_UNIT_ROUNDOFF = torch.finfo(torch.float64).eps / 2

_SYMMETRY_PROBES = 4
_SYMMETRY_TOLERANCE = 1e-3
"""Largest accepted ``|u^T K v - v^T K u|`` over the mean of ``|K u|``, both about Frobenius norms."""

_MEDIAN_SAMPLE = 2048
"""The median heuristic looks at evenly strided samples, at most so many: their distances are a matrix."""

_BANDWIDTHS = {"median": median_bandwidth, "scott": scott_bandwidth, "silverman": silverman_bandwidth}


class SymmetricOperator(Protocol):
    """What a stochastic estimate needs to know of a matrix."""

    name: str
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def noise(self) -> float:
        """Relative rounding of the entries as they were given."""

    def matmat(self, V: Tensor) -> Tensor:
        """``K V`` for V of shape ``(n, s)``, float64."""

    def trace(self) -> float:
        """``tr K``, exact to rounding."""

    def frobenius_squared(self) -> float | None:
        """``|K|_F^2``, exact to rounding; None where it is not cheap."""


class _TiledOperator:
    """A matrix of which a few rows at a time are computed, used and forgotten."""

    name = "tiles"
    dtype = torch.float64
    noise = _UNIT_ROUNDOFF
    tile: int

    def __init__(self, n: int, tile: int | None, device: torch.device) -> None:
        self.shape = (n, n)
        self.tile = max(1, min(n, 2**23 // n)) if tile is None else min(n, check_count(tile, "tile"))
        self.device = device
        self._moments: tuple[float, float] | None = None

    def rows(self, start: int, stop: int) -> Tensor:
        raise NotImplementedError

    def _tiles(self) -> Iterator[tuple[int, int, Tensor]]:
        n = self.shape[0]
        for start in range(0, n, self.tile):
            stop = min(start + self.tile, n)
            yield start, stop, self.rows(start, stop)

    def matmat(self, V: Tensor) -> Tensor:
        product = torch.empty_like(V)
        for start, stop, block in self._tiles():
            torch.mm(block, V, out=product[start:stop])
        return product

    def trace(self) -> float:
        return self._exact_moments()[0]

    def frobenius_squared(self) -> float:
        return self._exact_moments()[1]

    def _exact_moments(self) -> tuple[float, float]:
        """Trace and squared norm in one pass over the tiles."""
        if self._moments is None:
            total, squared = 0.0, 0.0
            for start, _, block in self._tiles():
                total += float(block.diagonal(start).double().sum())
                squared += float(frobenius_squared(block))
            self._moments = total, squared
        return self._moments


class DenseOperator(_TiledOperator):
    """A matrix that is given, converted a few rows at a time."""

    name = "matrix"

    def __init__(self, K: Tensor) -> None:
        self.K = check_matrix(K, "K", "estimate_entropy").detach()
        _refuse_batch(K.shape)
        super().__init__(K.shape[0], None, K.device)
        self.noise = torch.finfo(K.dtype).eps / 2

    def rows(self, start: int, stop: int) -> Tensor:
        return self.K[start:stop].double()


class GramOperator(_TiledOperator):
    """A :class:`Gram`: products through its features, or by tiles for Hadamard products too wide to expand."""

    name = "features"

    def __init__(self, gram: Gram, *, tile: int | None = None) -> None:
        _refuse_batch(gram.shape)
        super().__init__(gram.shape[-1], tile, gram.device)
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
        dual = self.features.mT @ self.features
        return float(trace(dual)), float(frobenius_squared(dual))


Kernel: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class KernelOperator(_TiledOperator):
    """Kernel matrix of samples that is never formed: tiles of it are computed for every product.

    ``K_ij = k(x_i, x_j)``, with ``k = exp(-|x_i - x_j|^2 / (2 sigma^2))`` for ``"rbf"`` and
    ``exp(-|x_i - x_j|_1 / sigma)`` for ``"laplacian"``.

    Args:
        X: Samples ``(n, d)``, Tensor or NumPy array, one row a sample.
        kernel: ``"rbf"``, ``"laplacian"``, or a symmetric positive definite function that maps tensors ``(m, d)``
            and ``(n, d)`` to the ``(m, n)`` kernel values.
        bandwidth: sigma > 0, or the rule that finds it from X: ``"median"`` (of at most 2,048 evenly strided
            samples), ``"scott"`` or ``"silverman"``. A function gets no bandwidth.
        tile: Rows computed at a time; None for about eight million entries.

    Raises:
        ValueError: If X is not a matrix, the kernel or the bandwidth unknown, or a number not positive.
        TypeError: If X is not real floating point.

    Notes:
        O(n^2 d) time for each product with a block of vectors, O(n tile + n d) memory, in float64 whatever
        the dtype of X.

    References:
        Schölkopf and Smola (2002).

    Example:
        >>> import torch
        >>> from matinfo.estimate import KernelOperator
        >>> K = KernelOperator(torch.tensor([[0.0], [1.0]]), bandwidth=1.0, tile=1)
        >>> K.matmat(torch.eye(2, dtype=torch.float64))
        tensor([[1.0000, 0.6065],
                [0.6065, 1.0000]], dtype=torch.float64)
        >>> K.trace()
        2.0
    """

    name = "kernel"

    def __init__(
        self,
        X: Tensor | np.ndarray,
        *,
        kernel: str | Kernel = "rbf",
        bandwidth: float | str = "median",
        tile: int | None = None,
    ) -> None:
        X = check_features(as_tensor(X) if isinstance(X, np.ndarray) else X, "X").detach()
        if X.ndim != 2:
            raise ValueError(
                f"Expected X of shape (n, d), got {tuple(X.shape)}. Make one operator a batch element."
            )
        super().__init__(len(X), tile, X.device)
        self.sigma = 1.0 if callable(kernel) else _bandwidth(X, bandwidth)
        X = X.double()
        self.X = X if callable(kernel) else X - X.mean(0)  # distances do not change, their round-off shrinks
        self.is_trusted = not callable(kernel)
        self._squares = self.X.square().sum(-1)
        if callable(kernel):
            self._kernel = kernel
        else:
            named = {"rbf": self._rbf, "laplacian": self._laplacian}
            self._kernel = named[check_choice(kernel, "kernel", tuple(named))]

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of the matrix, ``(stop - start, n)``."""
        block = self._kernel(self.X[start:stop], self.X)
        if tuple(block.shape) != (stop - start, self.shape[0]):
            raise ValueError(
                f"Expected the kernel to give {(stop - start, self.shape[0])}, got {tuple(block.shape)}: "
                "it maps (m, d) and (n, d) to (m, n)."
            )
        if self.is_trusted:
            block.diagonal(start).fill_(1.0)
        return block.detach().double()

    def _rbf(self, A: Tensor, B: Tensor) -> Tensor:
        distances = torch.addmm(self._squares[None, :], A, B.mT, alpha=-2.0)
        distances += A.square().sum(-1, keepdim=True)
        return distances.clamp_min_(0.0).mul_(-0.5 / self.sigma**2).exp_()

    def _laplacian(self, A: Tensor, B: Tensor) -> Tensor:
        return torch.cdist(A, B, p=1).mul_(-1 / self.sigma).exp_()


class SciPyOperator:
    """A SciPy sparse matrix or ``LinearOperator``, on the CPU in float64."""

    name = "operator"
    dtype = torch.float64
    noise = _UNIT_ROUNDOFF
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
        self.K = K.tocsr().astype(np.float64) if self.is_sparse else K
        self.total = float(K.diagonal().sum()) if total is None else check_positive(total, "trace")
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
        return GramOperator(K)
    if isinstance(K, scipy.sparse.linalg.LinearOperator) or scipy.sparse.issparse(K):
        return _symmetric(SciPyOperator(K, total))
    return DenseOperator(as_tensor(K) if isinstance(K, np.ndarray) else K)


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


def _bandwidth(X: Tensor, rule: float | str) -> float:
    if not isinstance(rule, str):
        return check_positive(rule, "bandwidth")
    check_choice(rule, "bandwidth", tuple(_BANDWIDTHS))
    sample = X[:: -(-len(X) // _MEDIAN_SAMPLE)] if rule == "median" else X
    return float(_BANDWIDTHS[rule](sample))


def _refuse_batch(shape: tuple[int, ...] | torch.Size) -> None:
    if len(shape) != 2:
        raise ValueError(
            f"Expected one matrix (n, n), got shape {tuple(shape)}. Call it for each batch element."
        )
