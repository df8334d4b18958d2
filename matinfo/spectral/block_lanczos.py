"""Block Lanczos: one basis for several vectors, and for each of them a Gauss and a Gauss-Radau rule.

With ``Z = Q R`` and the block tridiagonal matrix T of the basis that starts with Q, ``z_i^T f(K) z_i`` is about
``r_i^T f(T)_11 r_i``. In the order of symmetric matrices, t > 0, the first block of ``(T + t)^{-1}`` is below that of
the whole, and above it once the corner of the following block is the Schur complement that makes T singular.
Powers and ``x log x`` are integrals of such resolvents, so the two rules bracket the truth as those of one vector do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matinfo.spectral.eigensolver import eigh_psd
from matinfo.spectral.operators import SymmetricOperator
from matinfo.spectral.stochastic import Rules


class BlockLanczos:
    """A recurrence for the columns of ``(n, s)`` together, fully reorthogonalised; blocks shrink where rank is lost."""

    def __init__(self, operator: SymmetricOperator, start: Tensor) -> None:
        self.operator = operator
        self._lengths = torch.linalg.vector_norm(start, dim=0)
        block, self._first = _orthonormal(start, float(self._lengths.max()))
        self._blocks = [block]
        self._diagonal: list[Tensor] = []
        self._below: list[Tensor] = []  # entry j joins blocks j and j+1
        self.degree = 0

    def step(self) -> None:
        """One product with the operator."""
        block = self._blocks[-1]
        images = self.operator.matmat(block)
        D = block.mT @ images
        self._diagonal.append((D + D.mT) / 2)
        basis = torch.cat(self._blocks, 1)
        for _ in range(2):  # twice is enough
            images = images - basis @ (basis.mT @ images)
        scale = max([float(D.abs().amax()) for D in self._diagonal if D.numel()])
        following, below = _orthonormal(images, scale)
        if following.shape[1]:
            # Directions of barely more than round-off have lost their orthogonality to the basis in the division.
            following, R = torch.linalg.qr(following - basis @ (basis.mT @ following))
            below = R @ below
        self._blocks.append(following)
        self._below.append(below)
        self.degree += 1

    @property
    def is_exhausted(self) -> bool:
        """Whether every rule is exact already."""
        return self.degree > 0 and self._blocks[-1].shape[1] == 0

    def rules(self, total: float) -> Rules:
        """The Gauss and Gauss-Radau rules for the matrix divided by its trace, ``total``."""
        T = self._tridiagonal()
        nodes, vectors = eigh_psd(T)
        extended = self._extended(T, nodes, vectors, total)
        radau_nodes, radau_vectors = eigh_psd(extended)
        shape = (len(self._lengths), -1)
        return Rules(
            (nodes / total).expand(shape),
            self._weights(vectors),
            (radau_nodes / total).expand(shape),
            self._weights(radau_vectors),
        )

    def _tridiagonal(self) -> Tensor:
        T = torch.block_diag(*self._diagonal)
        at = 0
        for B in self._below[:-1]:
            columns = slice(at, at + B.shape[1])
            at += B.shape[1]
            rows = slice(at, at + B.shape[0])
            T[rows, columns] = B
            T[columns, rows] = B.mT
        return T

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
        nodes, vectors = eigh_psd(self._tridiagonal())
        values = f(nodes.expand(len(self._lengths), -1), self._weights(vectors))
        return torch.cat(self._blocks[: self.degree], 1) @ (vectors @ (values.mT * self._heads(vectors)))

    def first_images(self) -> Tensor:
        """``K z`` for every start vector, known after one step."""
        images = self._blocks[0] @ self._diagonal[0] + self._blocks[1] @ self._below[0]
        return images @ self._first


def _orthonormal(M: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """``M = Q B`` with orthonormal columns Q, as many as M has rank by the given scale of its columns."""
    Q, R = torch.linalg.qr(M)
    U, sizes, Vt = torch.linalg.svd(R, full_matrices=False)
    kept = sizes > 32 * torch.finfo(M.dtype).eps * scale
    return Q @ U[:, kept], sizes[kept, None] * Vt[kept]
