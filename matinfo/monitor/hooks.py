"""The hooks on the layers: a branch on most steps, a few rows on the observed ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from matinfo.monitor.pooling import NestedOutputError, Pool, pooled_rows

Mask: TypeAlias = str | Callable[[tuple, dict], Tensor | None]

MOST_CALLS = 256
"""Calls of a layer within one step after which rows are no longer kept, with a warning: ``step()`` may be missing."""


@dataclass
class Seen:
    """What the calls of a layer within one step have left: rows, of how many they were drawn, the layer's round-off."""

    trained: bool
    parts: list[Tensor] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    calls: int = 0
    eps: float = 0.0
    refused: NestedOutputError | None = None
    """To be raised at the end of the step."""


class Capture:
    """Rows of the layers of one step, as long as ``active``.

    Calls while the model trains and calls while it does not are never mixed: a validation pass between two observed
    steps would put its rows into the record of a training batch. Of a step with both, those in training mode are kept.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: dict[str, nn.Module],
        *,
        pool: Pool,
        mask: Mask | None,
        max_rows: int,
        keep_all: bool,
        seed: int,
    ) -> None:
        self.active = False
        self.model, self.layers = model, layers
        self.pool, self.max_rows, self.keep_all, self.seed = pool, max_rows, keep_all, seed
        self.seen: dict[str, Seen] = {}
        self.mask: Tensor | None = None
        self.find_mask = _mask_finder(model, mask)
        self.named, self.guessed = mask is not None, False
        # A compiled model breaks its graph where these are called, and only on steps that are observed.
        self.take = torch.compiler.disable(self._take)
        self.look = torch.compiler.disable(self._look)
        self.handles = [module.register_forward_hook(Hook(self, name)) for name, module in layers.items()]
        if self.find_mask is not None:
            self.handles.append(model.register_forward_pre_hook(Hook(self, None), with_kwargs=True))

    def clear(self, seed: int) -> None:
        """Forget the rows and the mask of a step."""
        self.seen, self.mask, self.seed = {}, None, seed

    def remove(self) -> None:
        """Take the hooks off the model."""
        self.active = False
        for handle in self.handles:
            handle.remove()
        self.clear(self.seed)

    def _take(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if module is not self.layers[name] or torch._C._current_graph_task_id() != -1:
            return  # a copy of the model, or a layer that checkpointing runs again during backward
        training, seen = self.model.training, self.seen.get(name)
        if seen is not None and seen.trained and not training:
            return
        if seen is None or training > seen.trained or not self.keep_all:
            seen = self.seen[name] = Seen(training)
        seen.calls += 1
        if len(seen.parts) == MOST_CALLS:
            return
        try:
            with torch.no_grad():
                rows = pooled_rows(
                    output,
                    self.pool,
                    self.mask,
                    layer=name,
                    max_rows=self.max_rows,
                    seed=self.seed + len(seen.parts),
                    strict=not self.guessed,
                )
        except NestedOutputError as error:  # the model's choice of a kernel is no error of the forward
            seen.refused = error
            return
        seen.parts.append(rows.kept)
        seen.counts.append(rows.drawn_from)
        seen.eps = max(rows.eps, seen.eps)

    def _look(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        assert self.find_mask is not None
        if not self.named and self.mask is not None and not self.guessed:
            return  # the one that was given by hand
        self.mask, self.guessed = self.find_mask(args, kwargs), not self.named


def _mask_finder(model: nn.Module, mask: Mask | None) -> Callable[[tuple, dict], Tensor | None] | None:
    """From the inputs of the model to its mask; a name may be passed to the model by position too."""
    signature = inspect.signature(model.forward)
    if mask is None and "attention_mask" in signature.parameters:
        mask = "attention_mask"
    if mask is None or not isinstance(mask, str):
        return mask
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if mask not in signature.parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise ValueError(
            f"Expected mask to name an argument of the model's forward, got {mask!r}; it takes "
            f"{', '.join(signature.parameters) or 'none'}. Or give a callable of (args, kwargs)."
        )

    def find(args: tuple, kwargs: dict) -> Tensor | None:
        if mask in kwargs:
            return kwargs[mask]
        return signature.bind_partial(*args, **kwargs).arguments.get(mask)

    return find


class Hook:
    """On a layer; or, without a name, on the model for its mask. A copy by ``copy`` or ``pickle`` does nothing."""

    def __init__(self, capture: Capture, name: str | None) -> None:
        self.capture, self.name = capture, name

    def __call__(self, *call: Any) -> None:
        """Keep what is wanted of a call of the module if the step is observed."""
        if self.capture.active and self.name is None:
            self.capture.look(*call)
        elif self.capture.active:
            self.capture.take(self.name, *call)

    def __reduce__(self) -> tuple:
        return functools.partial, (_nothing,)


def _nothing(*args: Any) -> None:
    """What a copied hook does."""
