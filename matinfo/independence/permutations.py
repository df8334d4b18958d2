"""Random orders of the samples in which nothing is left of what a test looks for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def of_all(n: int, count: int, seed: int) -> Iterator[Tensor]:
    """Of all n samples."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randperm(n, generator=generator)


def within_groups(groups: np.ndarray, count: int, seed: int) -> Iterator[Tensor]:
    """Sorting by label and then by a random number puts random members of every group in the places of the group."""
    generator = np.random.default_rng(seed)
    places = np.argsort(groups, kind="stable")
    for _ in range(count):
        permutation = np.empty(len(groups), dtype=np.int64)
        permutation[places] = np.lexsort((generator.random(len(groups)), groups))
        yield torch.from_numpy(permutation)


def among_neighbours(K: Tensor, neighbours: int, count: int, seed: int) -> Iterator[Tensor]:
    """Runge's local permutations: samples in random order take a neighbour that none has taken, if there is one."""
    generator = np.random.default_rng(seed)
    n = len(K)
    lengths = K.diagonal()
    distances = lengths[:, None] + lengths - 2 * K
    distances.diagonal().fill_(-1.0)
    near = distances.topk(min(neighbours, n), largest=False).indices.cpu().numpy()
    for _ in range(count):
        order = generator.permutation(n)
        choices = generator.permuted(near, axis=1).tolist()
        taken, permutation = [False] * n, np.empty(n, dtype=np.int64)
        for i in order.tolist():
            chosen = next((j for j in choices[i] if not taken[j]), choices[i][0])
            taken[chosen] = True
            permutation[i] = chosen
        yield torch.from_numpy(permutation)
