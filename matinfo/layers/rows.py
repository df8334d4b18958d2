"""The rows that are measured: one a sample out of its tokens or positions, or the tokens themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._validation import check_tensor
from matinfo.layers.hidden_states import HiddenStates
from matinfo.operands import as_tensor


def rows_of(states: HiddenStates, mask: Any, pool: str) -> tuple[list[Tensor], Tensor]:
    """Rows ``(N, d_l)`` of each layer, as they are, and the lengths ``(G,)`` of the groups that belong together."""
    keep = as_tensor(mask)
    if keep is not None:
        check_tensor(keep, "mask")
        if keep.ndim != 2 or (keep.dtype != torch.bool and not bool(((keep == 0) | (keep == 1)).all())):
            raise ValueError(
                "Expected mask of shape (B, T) with 1 or True for tokens that count and 0 for padding, got shape "
                f"{tuple(keep.shape)} with values from {keep.min().item():.3g} to {keep.max().item():.3g}."
            )
        keep = keep.bool()
    found = [_rows(x, name, keep, pool) for name, x in zip(states.names, states.tensors, strict=True)]
    (first, lengths), names = found[0], states.names
    for name, (_, other) in zip(names, found, strict=True):
        if not torch.equal(other.cpu(), lengths.cpu()):
            what = "tokens" if pool == "tokens" else "samples"
            remedy = " Use pool='mean', or measure them in two calls." if pool == "tokens" else ""
            raise ValueError(
                f"Expected the same {what} in every layer, got {int(lengths.sum())} in layer {names[0]} "
                f"and {int(other.sum())} in layer {name}.{remedy}"
            )
    return [rows.to(first.device) for rows, _ in found], lengths


def _rows(x: Tensor, name: str, mask: Tensor | None, pool: str) -> tuple[Tensor, Tensor]:
    """Rows ``(N, d)`` of a layer and the lengths of their groups."""
    if x.ndim == 2:
        return x, torch.tensor([x.shape[0]], device=x.device)
    batch, length, width = x.shape
    keep = None
    if mask is not None:
        if mask.shape != (batch, length):
            raise ValueError(
                f"Expected mask of the shape (B, T) = {(batch, length)} of layer {name}, got {tuple(mask.shape)}."
            )
        keep = mask.to(x.device)
        if bool((~keep.any(1)).any()):
            raise ValueError(
                f"Expected a token in every sentence, got none in sentence {int(keep.any(1).int().argmin())}."
            )
    if pool != "tokens":
        return pooled(x, keep, pool), torch.tensor([batch], device=x.device)
    if keep is None:
        return x.reshape(-1, width), torch.full((batch,), length, device=x.device)
    return x[keep], keep.sum(1)


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
