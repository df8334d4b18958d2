"""Kernel matrices of samples that are never formed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from matinfo._keywords import answers_keywords
from matinfo._validation import check_choice, check_features, check_same_samples
from matinfo.kernels.bandwidth import sampled_bandwidth
from matinfo.kernels.functions import Kernel, evaluated
from matinfo.operands import as_tensor
from matinfo.operands.operator import TiledOperator
from matinfo.spectral.precision import full_product

_LEAST_EXPONENT = {torch.float32: -60.0, torch.float64: -300.0}
"""Smaller entries count as ``exp`` of this, far below round-off: subnormal numbers take ten times as long."""


class KernelOperator(TiledOperator):
    """Kernel matrix of samples that is never formed: tiles of it are computed for every product.

    ``K_ij = k(x_i, x_j)``, with ``k = exp(-|x_i - x_j|^2 / (2 sigma^2))`` for ``"rbf"`` and
    ``exp(-|x_i - x_j|_1 / sigma)`` for ``"laplacian"``.

    Args:
        X: Samples ``(n, d)``, Tensor or NumPy array, one row a sample.
        kernel: ``"rbf"``, ``"laplacian"``, or a symmetric positive definite function that maps tensors ``(m, d)``
            and ``(n, d)`` to the ``(m, n)`` kernel values.
        bandwidth: sigma > 0, or the rule that finds it from X: ``"median"`` (of at most 2,048 evenly strided
            samples), ``"scott"`` or ``"silverman"``. A function gets no bandwidth.
        tile: Rows computed at a time, with 1,024 columns (on a GPU 4,096); None for 512 rows (2,048).
        precision: ``"float64"``, or ``"float32"`` to compute such blocks and their products in single precision, never
            TF32, which is faster. The sum over blocks and the recurrences are in float64. Not for a function.

    Raises:
        ValueError: If X is not a matrix, the kernel, bandwidth or precision unknown, or a number not positive.
        TypeError: If X is not real floating point.

    Notes:
        O(n^2 d) time for each product with a block of vectors, O(n d + tile) memory. Entries in float32 are known
        to about ``1e-7 |x|^2/sigma^2``, which the bias bound of an estimate includes. Gradients
        (:func:`~matinfo.estimate.stochastic_entropy`) take the bandwidth as a constant.

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

    @answers_keywords
    def __init__(
        self,
        X: Tensor | np.ndarray,
        *,
        kernel: str | Kernel = "rbf",
        bandwidth: float | str = "median",
        tile: int | None = None,
        precision: str = "float64",
    ) -> None:
        self.given, self.is_numpy = X, isinstance(X, np.ndarray)
        X = check_features(as_tensor(X), "X").detach()
        if X.ndim != 2:
            raise ValueError(
                f"Expected X of shape (n, d), got {tuple(X.shape)}. Make one operator a batch element."
            )
        super().__init__(len(X), tile, X.device)
        self.kernel = kernel if callable(kernel) else check_choice(kernel, "kernel", ("rbf", "laplacian"))
        self.is_trusted = not callable(kernel)
        self.precision = precision
        check_choice(precision, "precision", ("float64", "float32") if self.is_trusted else ("float64",))
        self.sigma = float(sampled_bandwidth(X, bandwidth)) if self.is_trusted else 1.0
        X = X.double()
        if not self.is_trusted:
            self.X = X
            return
        X = X - X.mean(0)  # distances do not change, their round-off shrinks
        if precision == "float32":
            spread = float(X.square().sum(-1).square().mean().sqrt())
            self.noise = torch.finfo(torch.float32).eps / 2 * (1 + 2 * spread / self.sigma**2)
        self.X = X.to(getattr(torch, precision))
        self._least = _LEAST_EXPONENT[self.X.dtype]
        scaled = self.X / self.sigma
        squares = -0.5 * scaled.square().sum(-1, keepdim=True)
        one = torch.ones_like(squares)
        self._left = torch.cat([scaled, squares, one], 1)  # so that one product gives the exponents
        self._right = torch.cat([scaled, one, squares], 1)

    def entries(self, rows: slice, columns: slice) -> Tensor:
        """One block of the matrix."""
        if callable(self.kernel):
            return self.evaluated(self.X[rows], self.X[columns]).detach().double()
        if self.kernel == "rbf":
            exponents = full_product(self._left[rows], self._right[columns].mT)
            block = exponents.clamp_(self._least, 0.0).exp_()
        else:
            block = torch.cdist(self.X[rows], self.X[columns], p=1).mul_(-1 / self.sigma).exp_()
        block.diagonal(rows.start - columns.start).fill_(1.0)
        return block

    def evaluated(self, A: Tensor, B: Tensor) -> Tensor:
        """A given function or the Laplacian kernel on two sets of samples, in a form that autograd can follow."""
        if not callable(self.kernel):
            return torch.exp(torch.cdist(A, B, p=1) * (-1 / self.sigma))
        return evaluated(self.kernel, A, B)

    def reordered(self, order: Tensor) -> KernelOperator:
        return self._of(self.given[order if isinstance(self.given, Tensor) else order.numpy()], self.sigma)

    def absorbed(self, factor: TiledOperator) -> TiledOperator | None:
        """A kernel of both sets of columns, each over its bandwidth: exponents add."""
        if not (self.is_trusted and isinstance(factor, KernelOperator) and factor.kernel == self.kernel):
            return None
        check_same_samples([self.shape, factor.shape])
        first, second = (as_tensor(K.given).double() / K.sigma for K in (self, factor))
        joined = (self if self.precision == "float64" else factor)._of(torch.cat([first, second], 1), 1.0)
        joined.is_numpy = self.is_numpy or factor.is_numpy
        return joined

    def _of(self, X: Tensor | np.ndarray, sigma: float) -> KernelOperator:
        options = {"bandwidth": sigma, "precision": self.precision} if self.is_trusted else {}
        return KernelOperator(X, kernel=self.kernel, tile=self.tile, **options)  # type: ignore[arg-type]
