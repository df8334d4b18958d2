"""One row a sample out of its tokens or positions."""

from __future__ import annotations

import torch
from torch import Tensor


def tokens_of(x: Tensor) -> Tensor:
    """``(B, T, d)``: the positions of a feature map ``(B, C, ...)`` are tokens."""
    return x.flatten(2).mT if x.ndim > 3 else x


def pooled(tokens: Tensor, keep: Tensor | None, pool: str) -> Tensor:
    """``(B, d)`` of ``(B, T, d)``: the mean, the first or the last of the tokens that ``keep`` ``(B, T)`` names."""
    # Samples without a token are left out. Padding may hold anything, NaN included. Means are summed and kept in
    # float64: at an offset of 1e6 spreads a mean rounded to float32 is off by a tenth of a spread, which no centring
    # could bring back.
    rows = torch.arange(len(tokens), device=tokens.device)
    if pool == "mean":
        exact = torch.float32 if tokens.device.type == "mps" else torch.float64
        if keep is None:
            return tokens.sum(1, dtype=exact) / tokens.shape[1]
        counts = keep.sum(1)
        sums = torch.where(keep[..., None], tokens, 0.0).sum(1, dtype=exact)
        some = counts > 0
        return sums[some] / counts[some, None]
    if keep is None:
        return tokens[:, 0 if pool == "cls" else -1]
    some = keep.any(1)
    if pool == "cls":
        place = keep.int().argmax(1)
    else:
        place = keep.shape[1] - 1 - keep.flip(1).int().argmax(1)
    return tokens[rows, place][some]
