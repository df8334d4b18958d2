"""Collectives whose gradients are those of one process on the concatenated batch, and a Gram matrix over all ranks.

A loss that couples the samples of a batch must see all of them, and its gradient must come back to the rank that holds
a sample. With ``DistributedDataParallel``, which averages gradients over W ranks, that takes a backward that *sums*
over the ranks: every rank computes the same loss, the sum of the W equal gradients is W times the true one, and the
average undoes the factor.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from matinfo._keywords import answers_keywords
from matinfo._streams import Stream
from matinfo._validation import check_choice, check_features
from matinfo.operands import AnyGram, Gram

__all__ = ["ShardedGram", "gather_rows", "merge_ranks", "reduce_sum", "world_size"]

S = TypeVar("S", bound=Stream)

Group = Any  # torch.distributed.ProcessGroup, which some builds of torch lack


def world_size(group: Group | None = None) -> int:
    """Number of ranks; 1 where no process group has been started.

    Args:
        group: Process group; None for the default one.

    Returns:
        The number of ranks of the group.

    Notes:
        No communication.

    References:
        torch.distributed.

    Example:
        >>> from matinfo.distributed import world_size
        >>> world_size()
        1
    """
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def gather_rows(features: Tensor, *, group: Group | None = None, gradient: str = "exact") -> Tensor:
    """Rows of all ranks, in the order of the ranks, differentiable.

    ``[Z_0; Z_1; ...; Z_{W-1}]`` with Z_r the features of rank r.

    Args:
        features: ``(n_r, ...)`` on each rank; the numbers of rows may differ, the other dimensions may not.
        group: Process group; None for the default one.
        gradient: ``"exact"``: the gradients of all ranks are summed, so that training with an average over ranks
            equals training on one process. ``"local"``: each rank keeps the part of its own loss; after the average
            the gradient is 1/W of the true one, as in the released code of U-MAE and M-MAE.

    Returns:
        ``(sum_r n_r, ...)``, the same on every rank. Without a process group the features themselves.

    Raises:
        ValueError: If ``gradient`` is unknown, a rank has no rows, or trailing dimensions or dtypes differ between
            ranks. What is wrong on one rank is refused on all.
        TypeError: If ``features`` is not a real floating-point tensor.

    Notes:
        Forward one all-gather (and one of the numbers of rows), backward one all-reduce of the same size for
        ``"exact"``. Differentiable to every order.

    References:
        Chen et al. (2020), Section 2.2 (global batch); the factor 1/W was measured on 1, 2 and 4 processes.

    Example:
        >>> import torch
        >>> from matinfo.distributed import gather_rows
        >>> gather_rows(torch.eye(2)).shape  # no process group: nothing to gather
        torch.Size([2, 2])
    """
    check_choice(gradient, "gradient", ("exact", "local"))

    def check() -> Tensor:
        is_vector = isinstance(features, Tensor) and features.ndim == 1
        check_features(features[:, None] if is_vector else features, "features")
        return features

    counts = _row_counts(check, group)
    if world_size(group) == 1:
        return features
    result: Tensor = _GatherRows.apply(features, counts, group, gradient == "exact")
    return result


def reduce_sum(x: Tensor, *, group: Group | None = None) -> Tensor:
    """Sum over all ranks, differentiable.

    ``sum_r x_r``; the gradient of each ``x_r`` is the sum over ranks of the gradients of their results.

    Args:
        x: The same shape on every rank.
        group: Process group; None for the default one.

    Returns:
        The sum, the same on every rank. Without a process group ``x`` itself.

    Notes:
        One all-reduce forward and one backward; differentiable to every order.

    References:
        torch.distributed.

    Example:
        >>> import torch
        >>> from matinfo.distributed import reduce_sum
        >>> reduce_sum(torch.ones(2))
        tensor([1., 1.])
    """
    if world_size(group) == 1:
        return x
    result: Tensor = _ReduceSum.apply(x, group)
    return result


def merge_ranks(accumulator: S, *, group: Group | None = None) -> S:
    """The accumulator of the rows of all ranks, by sums of matrices as large as one accumulator.

    ``M = sum_r M_r + n_r (m_r - m)(m_r - m)^T`` (the second term if it centres), n_r, m_r and M_r the number, mean and
    second moment of the rows of rank r.

    Args:
        accumulator: One of ``matinfo.streaming`` on each rank, made with the same arguments; it stays as it is. A
            rank may have no rows.
        group: Process group; None for the default one.

    Returns:
        A new accumulator, the same on every rank. Without a process group a copy.

    Raises:
        ValueError: If the arguments differ between ranks.
        TypeError: If it is not an accumulator.

    Notes:
        All-reduces of d^2 + d float64 numbers, whatever the number of rows and ranks; no gradient.

    References:
        Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.

    Example:
        >>> import torch
        >>> from matinfo.distributed import merge_ranks
        >>> from matinfo.streaming import CovarianceAccumulator
        >>> stream = CovarianceAccumulator(4)
        >>> stream.update(torch.eye(4))
        >>> merge_ranks(stream).count  # no process group: the rows of this one
        4
    """
    known = isinstance(accumulator, Stream)
    settings = f"{type(accumulator).__name__} {accumulator._settings() if known else ''}"
    if world_size(group) > 1:  # before anything is raised on one rank alone, for which the others would wait
        mark = zlib.crc32(settings.encode())
        extremes = _on_backend(torch.tensor([mark, -mark]), group)
        dist.all_reduce(extremes, dist.ReduceOp.MAX, group)
        if known and extremes.sum() != 0:
            raise ValueError(
                f"Expected accumulators with the same settings on every rank, got {settings} on this one."
            )
    if not known:
        raise TypeError(f"Expected an accumulator of matinfo.streaming, got {type(accumulator).__name__}.")
    if world_size(group) == 1:
        return copy.deepcopy(accumulator)

    def total(x: Tensor) -> Tensor:
        x = _on_backend(x, group)
        dist.all_reduce(x, group=group)
        return x

    return accumulator.summed(total)


def _on_backend(x: Tensor, group: Group | None) -> Tensor:
    """A copy where the backend can reduce it."""
    wants_cuda = "nccl" in str(dist.get_backend(group)) and not x.is_cuda
    return x.cuda() if wants_cuda else x.contiguous().clone()


class ShardedGram(Gram):
    """The Gram matrix of the rows of all ranks, each of which holds some.

    ``K = [Z_0; ...; Z_{W-1}] [Z_0; ...; Z_{W-1}]^T``. Every function that takes a :class:`~matinfo.Gram` takes it and
    returns the value of the global batch on every rank. On the feature side only the d x d matrix
    ``sum_r Z_r^T Z_r`` is communicated; features are gathered only where the sample side is the smaller one.

    Args:
        features: ``(n_r, d)`` on each rank; the numbers of rows may differ.
        normalize: Whether to divide each row by its l2 norm.
        group: Process group; None for the default one.

    Raises:
        TypeError: If ``features`` is not a real floating-point tensor.
        ValueError: If it does not have two dimensions or no entries, on this rank or on another one.

    Notes:
        Communication of d^2 numbers (in the working precision) forward and backward, against n d for a gather.
        Gradients sum over ranks, as in :func:`gather_rows`. Products and sums with another ShardedGram of the same
        rows are sharded too.

    References:
        Duality of Gram and covariance spectra.

    Example:
        >>> import torch
        >>> from matinfo import effective_rank
        >>> from matinfo.distributed import ShardedGram
        >>> round(float(effective_rank(ShardedGram(torch.eye(4)))), 6)
        4.0
    """

    @answers_keywords
    def __init__(self, features: Tensor, normalize: bool = False, *, group: Group | None = None) -> None:

        def check() -> Tensor:
            Gram.__init__(self, features, normalize)
            if features.ndim != 2:
                raise ValueError(f"Expected features of shape (n, d), got {tuple(features.shape)}.")
            return features

        self._samples = sum(_row_counts(check, group))
        self.group = group

    @classmethod
    def _from_terms(cls, terms: tuple[tuple[Tensor, ...], ...], like: tuple[AnyGram, ...]) -> ShardedGram:
        gram = super()._from_terms(terms, like)
        assert isinstance(gram, ShardedGram)
        assert isinstance(like[0], ShardedGram)
        gram.group, gram._samples = like[0].group, like[0]._samples
        return gram

    @property
    def shape(self) -> torch.Size:
        """Shape of the matrix over all ranks."""
        return torch.Size((self._samples, self._samples))

    def gathered(self) -> Gram:
        """The matrix of the features of all ranks, in one place."""
        terms = [tuple([gather_rows(Z, group=self.group) for Z in term]) for term in self.terms]
        return Gram._from_terms(tuple(terms), (self,))

    def features(self, dtype: torch.dtype | None = None) -> Tensor:
        """Explicit features of all ranks."""
        return self.gathered().features(dtype)

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix itself, from gathered features."""
        return self.gathered().dense(dtype)

    def trace(self) -> Tensor:
        """``tr K``, float64, summed over ranks."""
        return reduce_sum(self._local().trace(), group=self.group)

    def dual(self, dtype: torch.dtype | None = None) -> Tensor:
        """The width x width matrix with the same non-zero eigenvalues, summed over ranks."""
        return reduce_sum(self._local().dual(dtype), group=self.group)

    def reordered(self, order: Tensor) -> Gram:
        """The gathered matrix over the samples of all ranks in another order."""
        return self.gathered().reordered(order)

    def _half_exponent(self, Z: Tensor) -> Tensor:
        half = super()._half_exponent(Z)
        if world_size(self.group) > 1:
            half = _on_backend(half, self.group)
            dist.all_reduce(half, dist.ReduceOp.MAX, self.group)
        return half

    def _local(self) -> Gram:
        """The Gram matrix of this rank's rows."""
        return Gram._from_terms(self.terms, (self,))


def _row_counts(check: Callable[[], Tensor], group: Group | None) -> list[int]:
    """Numbers of rows of all ranks; refuses what cannot be put together, on every rank alike."""
    # A rank that raised before it had told the others would leave them waiting for it until the time-out.
    if world_size(group) == 1:
        return [check().shape[0]]
    try:
        Z = check()
        mine: Any = (Z.shape[0], tuple(Z.shape[1:]), str(Z.dtype))
    except (TypeError, ValueError) as error:
        mine = error
    described: list[Any] = [None] * world_size(group)
    dist.all_gather_object(described, mine, group)
    for rank, theirs in enumerate(described):
        if isinstance(theirs, Exception):
            raise type(theirs)(f"{theirs} (On rank {rank} of {len(described)}.)")
    kinds = {(shape, dtype) for _, shape, dtype in described}
    if len(kinds) > 1:
        raise ValueError(
            "Expected features of equal width and dtype on every rank, got "
            f"{', '.join(f'{shape} {dtype}' for shape, dtype in sorted(kinds, key=str))}."
        )
    return [rows for rows, _, _ in described]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, Z: Tensor, counts: list[int], group: Group | None, exact: bool) -> Tensor:
        ctx.counts, ctx.group, ctx.exact = counts, group, exact
        padded = Z.new_zeros(max(counts), *Z.shape[1:])
        padded[: Z.shape[0]] = Z
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group)
        return torch.cat([part[:rows] for part, rows in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if ctx.exact:
            grad = reduce_sum(grad, group=ctx.group)
        rank = dist.get_rank(ctx.group)
        start = sum(ctx.counts[:rank])
        return grad[start : start + ctx.counts[rank]], None, None, None


class _ReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group | None) -> Tensor:
        ctx.group = group
        total = x.detach().contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return reduce_sum(grad, group=ctx.group), None
