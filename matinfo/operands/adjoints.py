"""From ``dH = <A, dK>`` to the gradient of H with respect to what K was made of, without forming A or K.

``A = sym(left right^T) + square K - shift I`` with few columns. For ``K = Z Z^T`` it is used on one side only: the
gradient is ``2 A Z``, and of ``A ~ mean of z w^T`` the product ``Z^T w`` is finite even where w is large in the null
space of K, on which Z^T vanishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from matinfo.operands.kernel_operator import KernelOperator
from matinfo.operands.operator import DenseOperator, DualOperator, GramOperator, TiledOperator
from matinfo.spectral.operator import SymmetricOperator
from matinfo.spectral.precision import full_product


class Cotangent(NamedTuple):
    """``A = (left right^T + right left^T)/2 + square K - shift I``, with ``(n, s)`` left and right."""

    left: Tensor
    right: Tensor
    square: float
    shift: float

    def block(self, rows: slice, columns: slice, K: Tensor) -> Tensor:
        """One block of A, from that of K."""
        dtype = K.dtype
        left, right = self.left.to(dtype), self.right.to(dtype)
        both, swapped = torch.cat([left[rows], right[rows]], 1), torch.cat([right[columns], left[columns]], 1)
        A = full_product(both, swapped.mT)
        A.mul_(0.5).add_(K, alpha=self.square)
        A.diagonal(rows.start - columns.start).sub_(self.shift)
        return A


def sources(operator: SymmetricOperator) -> list[Tensor]:
    """The matrix, the features of a Gram, or the samples of a kernel: those that require a gradient, each once."""
    given: list[object] = []
    if isinstance(operator, GramOperator | DualOperator):
        given = [Z for term in operator.gram.terms for Z in term]
    elif isinstance(operator, DenseOperator | KernelOperator):
        given = [operator.given]
    distinct = {id(tensor): tensor for tensor in given}.values()
    return [tensor for tensor in distinct if isinstance(tensor, Tensor) and tensor.requires_grad]


def pulled_back(operator: SymmetricOperator, cotangents: list[Cotangent]) -> Iterator[list[Tensor]]:
    """For each cotangent the gradients with respect to :func:`sources`, in float64."""
    if isinstance(operator, GramOperator | DualOperator):
        return _to_features(operator, cotangents)
    if isinstance(operator, KernelOperator):
        return iter(
            [
                [gradient]
                for gradient in (_to_rbf if operator.kernel == "rbf" else _to_samples)(operator, cotangents)
            ]
        )
    assert isinstance(operator, DenseOperator)
    return _to_matrix(operator, cotangents)


def squared_length(tensors: list[Tensor]) -> float:
    """Squared Euclidean norm of a gradient, by rows."""
    return sum([float(torch.linalg.vector_norm(tensor, dim=-1).square().sum()) for tensor in tensors])


def _to_matrix(operator: DenseOperator, cotangents: list[Cotangent]) -> Iterator[list[Tensor]]:
    everything = slice(0, operator.shape[0])
    for cotangent in cotangents:
        yield [cotangent.block(everything, everything, operator.K.double())]


def _to_features(
    operator: GramOperator | DualOperator, cotangents: list[Cotangent]
) -> Iterator[list[Tensor]]:
    wanted = sources(operator)
    leaves = {id(Z): Z.detach().double().requires_grad_() for Z in wanted}
    gram = operator.gram
    terms = [[leaves.get(id(Z), Z.detach().double()) for Z in term] for term in gram.terms]
    inputs = list(leaves.values())
    if isinstance(operator, GramOperator) and not operator.is_factor:
        sums = _by_tiles(operator, inputs, lambda rows, _: _hadamard(terms, rows), cotangents)
        yield from sums
        return
    with torch.enable_grad():
        explicit = (
            type(gram)._from_terms(tuple([tuple(term) for term in terms]), (gram,)).features(torch.float64)
        )
    Z = explicit.detach()
    KZ = Z @ operator.K if isinstance(operator, DualOperator) else TiledOperator.matmat(operator, Z)
    for left, right, square, shift in cotangents:
        if isinstance(operator, DualOperator):
            AZ = (Z @ right) @ left.mT
        else:
            AZ = left @ (right.mT @ Z)
        gradient = 2 * (AZ + square * KZ - shift * Z)
        yield list(torch.autograd.grad(explicit, inputs, gradient, retain_graph=True))


def _hadamard(terms: list[list[Tensor]], rows: slice) -> Tensor:
    products = []
    for first, *others in terms:
        product = first[rows] @ first.mT
        for Z in others:
            product = product * (Z[rows] @ Z.mT)
        products.append(product)
    return torch.stack(products).sum(0) if len(products) > 1 else products[0]


def _to_rbf(operator: KernelOperator, cotangents: list[Cotangent]) -> list[Tensor]:
    """``dk_ab = -k_ab (x_a - x_b).(dx_a - dx_b)/sigma^2``, and A o K is symmetric."""
    X = operator.X
    sums = [torch.zeros(X.shape, dtype=torch.float64, device=X.device) for _ in cotangents]
    for rows, columns, K in operator.tiles():
        for total, cotangent in zip(sums, cotangents, strict=True):
            A = cotangent.block(rows, columns, K).mul_(K)
            total[rows] += full_product(A, X[columns]) - A.sum(1, keepdim=True) * X[rows]
    return [total * (2 / operator.sigma**2) for total in sums]


def _to_samples(operator: KernelOperator, cotangents: list[Cotangent]) -> list[Tensor]:
    X = operator.X.double().requires_grad_()
    sums = _by_tiles(operator, [X], lambda rows, columns: operator.evaluated(X[rows], X[columns]), cotangents)
    return [gradient for (gradient,) in sums]


def _by_tiles(
    operator: TiledOperator,
    inputs: list[Tensor],
    entries: Callable[[slice, slice], Tensor],
    cotangents: list[Cotangent],
) -> list[list[Tensor]]:
    """Sums over tiles of what autograd makes of each tile."""
    sums = [[torch.zeros_like(x) for x in inputs] for _ in cotangents]
    for rows, columns, K in operator.tiles():
        with torch.enable_grad():
            block = entries(rows, columns)
        if not block.requires_grad:
            raise ValueError(
                "Expected a kernel made of differentiable torch operations, got one without a gradient."
            )
        for total, cotangent in zip(sums, cotangents, strict=True):
            A = cotangent.block(rows, columns, K).to(block.dtype)
            for x, part in zip(total, torch.autograd.grad(block, inputs, A, retain_graph=True), strict=True):
                x += part
    return sums
