"""Block Lanczos: one basis for several vectors, and for each of them a Gauss and a Gauss-Radau rule.

With ``Z = Q R`` and the block tridiagonal matrix T of the basis that starts with Q, ``z_i^T f(K) z_i`` is about
``r_i^T f(T)_11 r_i`` (Golub and Meurant 1994). In the order of symmetric matrices, t > 0, the first block of
``(T + t)^{-1}`` is below that of the whole, and above it once the corner of the following block is the Schur
complement that makes T singular. Powers and ``x log x`` are integrals of such resolvents, so for ``2 degree > alpha``
the two rules lie on either side of the truth; for integer powers up to ``2 degree`` the second, with its node at 0, is
exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from matinfo.spectral.eigensolver import eigh_psd

_LOST = 32
"""A direction shorter than so many roundings of the matrix is round-off: the block shrinks by it."""


class Rules(NamedTuple):
    """Nodes and weights, ``(s, m)`` each for Gauss and ``(s, m + 1)`` for Gauss-Radau; the weights sum to one."""

    nodes: Tensor
    weights: Tensor
    radau_nodes: Tensor
    radau_weights: Tensor

    @classmethod
    def joined(cls, parts: list[Rules]) -> Rules:
        """The rules of several batches of probes; shorter ones get nodes at 0 of no weight."""
        return cls(*[_stack(list(columns)) for columns in zip(*parts, strict=True)])

    def over(self, scale: float) -> Rules:
        """The rules of the matrix divided by ``scale``."""
        return Rules(self.nodes / scale, self.weights, self.radau_nodes / scale, self.radau_weights)


class BlockLanczos:
    """A recurrence for the columns of ``(n, s)`` together, fully reorthogonalised; blocks shrink where rank is lost."""

    def __init__(self, product: Callable[[Tensor], Tensor], start: Tensor) -> None:
        self._product = product
        self._lengths = torch.linalg.vector_norm(start, dim=0)
        block, self._first = _orthonormal(start, float(self._lengths.max()))
        self._rows = block.mT.contiguous()  # the basis, one vector a row, with room for more
        self._size = len(self._rows)
        self._last = block
        self._diagonal: list[Tensor] = []
        self._below: list[Tensor] = []  # entry j joins blocks j and j+1

    @property
    def degree(self) -> int:
        """Number of steps taken, each one product with the matrix."""
        return len(self._diagonal)

    @property
    def basis(self) -> Tensor:
        """All vectors so far, the last block included, in columns."""
        return self._rows[: self._size].mT

    @property
    def is_exhausted(self) -> bool:
        """Whether every rule is exact already."""
        return self.degree > 0 and self._last.shape[1] == 0

    def advance(self, degree: int) -> None:
        """Steps until so many are taken or the space is exhausted."""
        while self.degree < degree and not self.is_exhausted:
            self.step()

    def step(self) -> None:
        """One product with the matrix."""
        images, basis = self._product(self._last), self.basis
        D = self._last.mT @ images
        self._diagonal.append((D + D.mT) / 2)
        # A second pass makes Gram-Schmidt orthogonal to rounding (Giraud, Langou and Rozloznik 2005).
        for _ in range(2):
            images = images - basis @ (basis.mT @ images)
        scale = max([float(D.abs().amax()) for D in self._diagonal if D.numel()])
        following, below = _orthonormal(images, scale)
        if following.shape[1]:
            # Directions of barely more than round-off have lost their orthogonality to the basis in the division.
            following, R = torch.linalg.qr(following - basis @ (basis.mT @ following))
            below = R @ below
        self._below.append(below)
        self._append(following)

    def _append(self, block: Tensor) -> None:
        size = self._size + block.shape[1]
        if size > len(self._rows):
            grown = self._rows.new_empty(max(size, 2 * len(self._rows)), self._rows.shape[1])
            grown[: self._size] = self._rows[: self._size]
            self._rows = grown
        self._rows[self._size : size] = block.mT
        self._size, self._last = size, block

    def rules(self, total: float) -> Rules:
        """The Gauss and Gauss-Radau rules for the matrix divided by its trace, ``total``."""
        T = self.tridiagonal()
        nodes, vectors = eigh_psd(T)
        radau_nodes, radau_vectors = eigh_psd(self._extended(T, nodes, vectors, total))
        shape = (len(self._lengths), -1)
        return Rules(
            (nodes / total).expand(shape),
            self._weights(vectors),
            (radau_nodes / total).expand(shape),
            self._weights(radau_vectors),
        )

    def tridiagonal(self) -> Tensor:
        """``T = Q^T K Q``, block tridiagonal."""
        T = torch.block_diag(*self._diagonal)
        at = 0
        for B in self._below[:-1]:
            columns = slice(at, at + B.shape[1])
            at += B.shape[1]
            rows = slice(at, at + B.shape[0])
            T[rows, columns] = B
            T[columns, rows] = B.mT
        return T

    def residuals(self, vectors: Tensor) -> Tensor:
        """``|K Q y - theta Q y|`` for eigenvectors y of T, in columns: what of ``K Q y`` leaves the basis."""
        below = self._below[-1]
        return torch.linalg.vector_norm(below @ vectors[len(vectors) - below.shape[1] :], dim=0)

    def _extended(self, T: Tensor, nodes: Tensor, vectors: Tensor, ceiling: float) -> Tensor:
        """T with one more block, whose corner ``B (T^{-1})_mm B^T`` makes it singular, at most the trace."""
        B = self._below[-1]
        if not len(B):
            return T
        last = slice(len(T) - B.shape[1], len(T))
        tail = B @ vectors[last]
        least = torch.finfo(T.dtype).eps * nodes[-1]
        corner = (tail / nodes.clamp_min(float(least))) @ tail.mT
        values, U = eigh_psd((corner + corner.mT) / 2)
        extended = torch.block_diag(T, (U * values.clamp(0.0, ceiling)) @ U.mT)
        extended[len(T) :, last] = B
        extended[last, len(T) :] = B.mT
        return extended

    def _heads(self, vectors: Tensor) -> Tensor:
        """Inner products of the eigenvectors with the starting vectors in the basis, ``(m, s)``."""
        return vectors[: len(self._first)].mT @ self._first

    def _weights(self, vectors: Tensor) -> Tensor:
        return (self._heads(vectors) / self._lengths).square().mT

    def applied(self, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``f(K) z`` for every start vector z, ``(n, s)``; f gets the nodes of each with their weights, ``(s, m)``."""
        nodes, vectors = eigh_psd(self.tridiagonal())
        values = f(nodes.expand(len(self._lengths), -1), self._weights(vectors))
        return self.basis[:, : len(nodes)] @ (vectors @ (values.mT * self._heads(vectors)))

    def first_images(self) -> Tensor:
        """``K z`` for every start vector, known after one step."""
        head = torch.cat([self._diagonal[0], self._below[0]])
        return self.basis[:, : len(head)] @ (head @ self._first)


def _orthonormal(M: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """``M = Q B`` with orthonormal columns Q, as many as M has rank by the given scale of its columns."""
    Q, R = torch.linalg.qr(M)
    U, sizes, Vt = torch.linalg.svd(R, full_matrices=False)
    kept = sizes > _LOST * torch.finfo(M.dtype).eps * scale
    return Q @ U[:, kept], sizes[kept, None] * Vt[kept]


def _stack(columns: list[Tensor]) -> Tensor:
    width = max([column.shape[1] for column in columns])
    pad = torch.nn.functional.pad
    return torch.cat([pad(column, (0, width - column.shape[1])) for column in columns])
