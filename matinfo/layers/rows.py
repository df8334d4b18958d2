"""The rows that are measured: pooled sentences or single tokens of each layer, checked, scaled and centred."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo.layers.groups import Groups
from matinfo.layers.hidden_states import HiddenStates
from matinfo.layers.pooling import pooled
from matinfo.operands import as_tensor
from matinfo.spectral.precision import at_least_float32


def rows_of(states: HiddenStates, mask: Any, pool: str) -> tuple[list[Tensor], Tensor]:
    """Rows ``(N, d_l)`` of each layer, as they are, and the lengths ``(G,)`` of the groups that belong together."""
    keep = _as_mask(mask)
    found = [_rows(x, name, keep, pool) for name, x in zip(states.names, states.tensors, strict=True)]
    _check_same_groups(states.names, [lengths for _, lengths in found], pool)
    device = found[0][0].device
    return [rows.to(device) for rows, _ in found], found[0][1]


def prepared_rows(
    names: tuple[str, ...],
    found: list[Tensor],
    dtypes: list[torch.dtype],
    given: list[torch.dtype],
    groups: Groups,
    *,
    pool: str,
    center: bool | str,
    normalize: bool,
) -> list[Tensor]:
    """Rows of each layer ready to be measured, in a dtype each; ``given`` is that in which they were rounded."""
    _check_lengths(groups, pool, center=bool(center))
    prepared = []
    for name, X, dtype, coarse in zip(names, found, dtypes, given, strict=True):
        eps = torch.finfo(at_least_float32(coarse)).eps
        Z, finite, constant = groups.prepare(X, center=center, normalize=normalize, eps=eps)
        _check_values(name, finite, constant, pool, center=bool(center))
        prepared.append(Z.to(dtype))
    return prepared


def _as_mask(mask: Any) -> Tensor | None:
    """``(B, T)`` of booleans."""
    if mask is None:
        return None
    mask = as_tensor(mask)
    if not isinstance(mask, Tensor):
        raise TypeError(f"Expected mask to be a torch.Tensor or a NumPy array, got {type(mask).__name__}.")
    if mask.ndim != 2 or (mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all())):
        raise ValueError(
            "Expected mask of shape (B, T) with 1 or True for tokens that count and 0 for padding, got shape "
            f"{tuple(mask.shape)} with values from {mask.min().item():.3g} to {mask.max().item():.3g}."
        )
    return mask.bool()


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


def _check_same_groups(names: tuple[str, ...], lengths: list[Tensor], pool: str) -> None:
    for name, other in zip(names, lengths, strict=True):
        if not torch.equal(other.cpu(), lengths[0].cpu()):
            what = "tokens" if pool == "tokens" else "samples"
            remedy = " Use pool='mean', or measure them in two calls." if pool == "tokens" else ""
            raise ValueError(
                f"Expected the same {what} in every layer, got {int(lengths[0].sum())} in layer {names[0]} "
                f"and {int(other.sum())} in layer {name}.{remedy}"
            )


def _check_lengths(groups: Groups, pool: str, *, center: bool) -> None:
    if center and min(groups.sizes) < 2:
        one = groups.sizes.index(min(groups.sizes))
        where = (
            f"tokens in every sentence, got one in sentence {one}" if pool == "tokens" else "samples, got one"
        )
        raise ValueError(
            f"Expected at least two {where}: less its mean nothing is left of it. Leave it out, or pass center=False."
        )


def _check_values(name: str, finite: Tensor, constant: Tensor, pool: str, *, center: bool) -> None:
    """Refuse what has no spectrum, and say where it is."""
    if not bool((~finite | constant).any()):
        return
    bad = ~finite if bool((~finite).any()) else constant
    where = f"layer {name}, sentence {int(bad.int().argmax())}" if pool == "tokens" else f"layer {name}"
    if not bool(finite.all()):
        raise ValueError(f"Expected finite hidden states, got NaN or infinity in {where}.")
    if not center:
        raise ValueError(f"Expected hidden states that are not all zero, got zeros in {where}.")
    raise ValueError(
        f"Expected rows that vary, got equal ones in {where}: less their mean nothing is left. Pass center=False, or "
        f"leave out the {'sentence or the layer' if pool == 'tokens' else 'layer'} with layers= (an embedded first "
        "token is the same in every sentence)."
    )
