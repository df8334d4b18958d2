"""From what a layer returned to a few rows: one a sample or one a token, on their own memory, off the graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from matinfo.layers.modules import first_tensor, samples_first
from matinfo.layers.rows import pooled, tokens_of

POOLS = ("mean", "cls", "last", "tokens", "flatten")

Pool: TypeAlias = str | Callable[[Any], Tensor]


class Rows(NamedTuple):
    """Rows of one call of a layer.

    Attributes:
        kept: ``(n, d)``.
        drawn_from: Of how many rows they were drawn.
        eps: The round-off of the layer, which may have worked in a lower precision than that of its pooled rows.
    """

    kept: Tensor
    drawn_from: int
    eps: float


class NestedOutputError(TypeError):
    """A nested tensor that no pool takes apart."""


def pooled_rows(
    output: Any,
    pool: Pool,
    mask: Tensor | None,
    *,
    layer: str,
    module: nn.Module,
    max_rows: int,
    draw: torch.Generator,
    strict: bool = True,
) -> Rows:
    """At most ``max_rows`` rows of a layer's output; the mask leaves rows out, if ``strict`` or if it fits."""
    if callable(pool):
        Z = _checked(pool(output), layer).detach()
        if Z.ndim != 2:
            raise ValueError(
                f"Expected pool to return rows (n, d) for layer {layer!r}, got shape {tuple(Z.shape)}."
            )
        return Rows(_chosen_rows(Z, max_rows, draw), Z.shape[0], torch.finfo(Z.dtype).eps)
    x = first_tensor(output, layer)
    if x.is_nested and pool != "flatten" and x.ndim == 3:
        # Encoders with a padding mask may return it: filled up here, with the mask that it brings.
        lengths = torch.tensor([len(tokens) for tokens in x.unbind()], device=x.device)
        x = torch.nested.to_padded_tensor(x.detach(), 0.0)
        mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    x = samples_first(_checked(x, layer).detach(), module)
    if mask is not None and not strict and (pool == "flatten" or mask.shape != x.shape[:2]):
        mask = None
    if x.ndim < 2 or x.shape[1:] == (0,):
        raise ValueError(
            f"Expected layer {layer!r} to return (n, d), (n, tokens, d) or (n, channels, ...), got shape "
            f"{tuple(x.shape)}. Give a callable as pool, which turns the output into rows (n, d)."
        )
    Z, eps = x, torch.finfo(x.dtype).eps
    if x.ndim > 2 and pool == "flatten":
        if mask is not None and x.ndim == 3:
            raise ValueError('Expected no mask with pool="flatten", got one. Use "mean", "tokens" or "cls".')
        Z = x.flatten(1)
    elif x.ndim > 2:
        if pool not in ("mean", "tokens") and x.ndim != 3:
            raise ValueError(
                f'Expected layer {layer!r} to return (n, tokens, d) for pool="{pool}", got shape {tuple(x.shape)}.'
            )
        keep = None if mask is None or x.ndim > 3 else mask.to(x.device) != 0
        if keep is not None and keep.shape != x.shape[:2]:
            raise ValueError(
                f"Expected a mask of shape {tuple(x.shape[:2])}, (n, tokens), for layer {layer!r}, got "
                f"{tuple(keep.shape)}. A layer that adds or drops tokens needs a mask of its own: give a callable as "
                "pool."
            )
        if pool == "tokens":
            return Rows(*_chosen_tokens(tokens_of(x), keep, max_rows, draw), eps)
        Z = pooled(tokens_of(x), keep, pool)
    return Rows(_chosen_rows(Z, max_rows, draw), Z.shape[0], eps)


def _checked(x: object, layer: str) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"Expected pool to return a tensor for layer {layer!r}, got {type(x).__name__}.")
    if x.is_nested:
        raise NestedOutputError(
            f"Expected layer {layer!r} to return a dense tensor, got a nested one with {x.ndim} dimensions. Use "
            'pool="mean", "tokens" or "cls" for (n, tokens, d), or torch.backends.mha.set_fastpath_enabled(False).'
        )
    if not x.is_floating_point() or x.layout != torch.strided:
        raise TypeError(
            f"Expected layer {layer!r} to return a dense floating-point tensor, got {x.dtype}, {x.layout}. "
            "Give a callable as pool, which turns the output into rows (n, d)."
        )
    return x


def _chosen_tokens(
    tokens: Tensor, keep: Tensor | None, max_rows: int, draw: torch.Generator
) -> tuple[Tensor, int]:
    """Rows, and of how many they were drawn."""
    length = tokens.shape[1]
    if keep is None:
        index = torch.arange(tokens.shape[0] * length, device=tokens.device)
    else:
        index = keep.flatten().nonzero()[:, 0]
    count = index.shape[0]
    if count > max_rows:
        index = index[_choice(count, max_rows, draw).to(index.device)]
    return tokens[index // length, index % length], count


def _chosen_rows(Z: Tensor, max_rows: int, draw: torch.Generator) -> Tensor:
    """A copy: later operations may overwrite the layer's own memory."""
    if Z.shape[0] <= max_rows:
        return Z.clone()
    return Z[_choice(Z.shape[0], max_rows, draw).to(Z.device)]


def joined_rows(parts: list[Tensor], counts: list[int], max_rows: int, draw: torch.Generator) -> Tensor:
    """The rows of several calls; a call gives as many as a draw out of all its ``counts`` rows would have."""
    if len(parts) == 1:
        return parts[0]
    dtype = functools.reduce(torch.promote_types, [Z.dtype for Z in parts])
    if sum(counts) > max_rows:
        call = torch.bucketize(
            _choice(sum(counts), max_rows, draw), torch.tensor(counts).cumsum(0), right=True
        )
        shares = call.bincount(minlength=len(parts)).tolist()
        parts = [_chosen_rows(Z, share, draw) for Z, share in zip(parts, shares, strict=True)]
    return torch.cat([Z.to(parts[0].device, dtype) for Z in parts])


def _choice(count: int, size: int, draw: torch.Generator) -> Tensor:
    """Indices drawn without replacement."""
    return torch.randperm(count, generator=draw)[:size].sort().values
