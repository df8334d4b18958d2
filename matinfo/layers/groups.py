"""Rows in groups of unequal length, kept without padding: the tokens of each sentence, or all samples of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from matinfo.operands import normalize_rows
from matinfo.operands.gram import constant_column


class Chunk(NamedTuple):
    """Some groups side by side: their numbers ``(b,)``, their rows ``(b, t)``, and which of these are no padding."""

    groups: Tensor
    rows: Tensor
    valid: Tensor | None
    """None where every group is full."""

    def padded(self, X: Tensor) -> Tensor:
        """Rows ``(N, d)`` as ``(b, t, d)``; padding is zero."""
        Z = X[self.rows]
        return Z if self.valid is None else Z.masked_fill(~self.valid[..., None], 0.0)


class Groups:
    """Consecutive groups of rows ``(N, d)``.

    Args:
        lengths: ``(G,)`` integers >= 1, the number of rows of each group.
    """

    def __init__(self, lengths: Tensor) -> None:
        self.lengths = lengths
        self.sizes: list[int] = lengths.tolist()
        self._owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        self.first = lengths.cumsum(0) - lengths

    def sum(self, X: Tensor) -> Tensor:
        """``(G, d)``."""
        return X.new_zeros(len(self.sizes), X.shape[-1]).index_add(0, self._owner, X)

    def largest(self, X: Tensor) -> Tensor:
        """``(G,)``: the largest magnitude of the entries of each group, a constant; NaN where one is."""
        rows = X.detach().abs().amax(-1)
        return rows.new_zeros(len(self.sizes)).scatter_reduce(0, self._owner, rows, "amax")

    def prepare(
        self, X: Tensor, *, center: bool | str, normalize: bool, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of length one and less the mean of their group; ``center="first"`` subtracts before it divides.

        All of it in float64: features at an offset of 1e6 spreads lose six digits to the mean, which is more than the
        seven of float32 can spare. Columns that ``eps``, the round-off of the hidden states, explains do not vary.

        Returns:
            The rows, float64; for each group whether X is finite; and whether no column is left that varies.
        """
        X = X.double()
        finite = self.largest(X).isfinite()
        if normalize and center != "first":
            X = normalize_rows(X)
        if center:
            lengths = self.lengths[:, None]
            size = self.sum(X.detach().abs() / lengths[self._owner])
            size = torch.where((size > 0) & size.isfinite(), size, 1.0)  # so that squares exist
            mean = self.sum(X / lengths[self._owner])
            X = X - mean[self._owner]
            squares = self.sum((X.detach() / size[self._owner]).square())
            constant = squares <= constant_column(lengths, mean.detach() / size, eps)
        else:
            constant = self.largest(X)[:, None] == 0
        if normalize and center == "first":
            X = normalize_rows(X)
        return X, finite, constant.all(-1)

    def chunks(self, entries: int, width: int, layers: int, *, spread: float = 1.25) -> Iterator[Chunk]:
        """All groups, short ones first; the longest of a chunk has at most ``spread`` times the rows of its shortest.

        A chunk has at most so many entries, both in the rows of one layer, ``width`` columns at most, and in the
        matrices of all layers.

        Yields:
            The chunks.
        """
        order, device = sorted(range(len(self.sizes)), key=self.sizes.__getitem__), self.lengths.device
        start = 0
        while start < len(order):
            stop, shortest = start + 1, self.sizes[order[start]]
            while stop < len(order):
                longest = self.sizes[order[stop]]
                too_many = (stop + 1 - start) * longest * max(width, layers * longest) > entries
                if too_many or longest > spread * shortest:
                    break
                stop += 1
            longest = self.sizes[order[stop - 1]]
            numbers = torch.tensor(order[start:stop], device=device)
            position = torch.arange(longest, device=device)
            valid = position < self.lengths[numbers, None]
            rows = torch.where(valid, self.first[numbers, None] + position, 0)
            yield Chunk(numbers, rows, None if shortest == longest else valid)
            start = stop
