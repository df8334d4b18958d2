"""The hooks on the layers: a branch on most steps, a few rows on the observed ones."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from matinfo.layers.modules import MASKS, mask_argument
from matinfo.monitor.pooling import NestedOutputError, Pool, Rows, joined_rows, pooled_rows

Mask: TypeAlias = str | Callable[[tuple, dict], Tensor | None]

MOST_CALLS = 256
"""Calls of a layer within one step after which rows are no longer kept, with a warning: ``step()`` may be missing."""


@dataclass
class Seen:
    """What the calls of a layer within one step have left: rows, of how many they were drawn, the layer's round-off."""

    draw: torch.Generator
    """Its own, for the choice of rows: those of the training are never touched, and all layers choose alike."""
    parts: list[Tensor] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    calls: int = 0
    eps: float = 0.0
    refused: Exception | None = None
    """To be raised at the end of the step."""

    def add(self, rows: Rows, max_rows: int, layer: str) -> None:
        """Keep the rows of a call; of all calls together at most ``max_rows``, however many there are."""
        if self.parts and self.parts[0].shape[1] != rows.kept.shape[1]:
            self.refused = ValueError(
                f"Expected every call of layer {layer!r} within a step to return the same width, got "
                f'{self.parts[0].shape[1]}, then {rows.kept.shape[1]}. Use calls="last".'
            )
            return
        self.parts.append(rows.kept)
        self.counts.append(rows.drawn_from)
        self.eps = max(rows.eps, self.eps)
        if sum(map(len, self.parts)) > max_rows:
            self.parts = [joined_rows(self.parts, self.counts, max_rows, self.draw)]
            self.counts = [sum(self.counts)]


class Capture:
    """Rows of the layers of one step, as long as ``active``.

    Calls while the model trains and calls while it does not are never mixed: a validation pass between two observed
    steps would put its rows into the record of a training batch. Of a step with both, those in training mode are kept,
    also of layers that the training batch did without.
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
        self.pool, self.max_rows, self.keep_all = pool, max_rows, keep_all
        self.find_masks, self.named = _mask_finder(model, mask), mask is not None
        self.clear(seed)
        # A compiled model breaks its graph where these are called, and only on steps that are observed.
        self.take = torch.compiler.disable(self._take)
        self.look = torch.compiler.disable(self._look)
        self.handles = [module.register_forward_hook(Hook(self, name)) for name, module in layers.items()]
        if self.find_masks is not None:
            self.handles.append(model.register_forward_pre_hook(Hook(self, None), with_kwargs=True))

    def clear(self, seed: int) -> None:
        """Forget the rows and the masks of a step."""
        self.seen: dict[str, Seen] = {}
        self.trained, self.seed = False, seed
        self.given: Tensor | None = None
        self.found: dict[str, Tensor | None] = {}

    def remove(self) -> None:
        """Take the hooks off the model."""
        self.active = False
        take_off(self.handles)
        self.clear(self.seed)

    def _take(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if module is not self.layers[name] or torch._C._current_graph_task_id() != -1:
            return  # a copy of the model, or a layer that checkpointing runs again during backward
        training = self.model.training
        if self.trained and not training:
            return
        if training and not self.trained:
            self.seen, self.trained = {}, True
        if name not in self.seen or not self.keep_all:
            self.seen[name] = Seen(torch.Generator().manual_seed(self.seed))
        seen = self.seen[name]
        seen.calls += 1
        if seen.calls > MOST_CALLS:
            return
        given = self.given is not None
        argument = MASKS[0] if self.named else mask_argument(name, self.found)
        try:
            with torch.no_grad():
                rows = pooled_rows(
                    output,
                    self.pool,
                    self.given if given else self.found.get(argument),
                    layer=name,
                    module=module,
                    max_rows=self.max_rows,
                    draw=seen.draw,
                    strict=given or self.named,
                )
        except NestedOutputError as error:  # the model's choice of a kernel is no error of the forward
            seen.refused = error
            return
        seen.add(rows, self.max_rows, name)

    def _look(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        assert self.find_masks is not None
        if self.given is None:
            self.found = self.find_masks(args, kwargs)


def take_off(handles: list[Any]) -> None:
    """Remove hooks; what is kept for it does not keep the model."""
    for handle in handles:
        handle.remove()


def check_mask(mask: Any) -> Tensor | None:
    """A mask that was given, or None."""
    if mask is not None and not isinstance(mask, Tensor):
        raise TypeError(
            f"Expected a mask (n, tokens) as a torch.Tensor, or None, got {type(mask).__name__}. "
            "Use torch.as_tensor(mask)."
        )
    return mask


def _mask_finder(
    model: nn.Module, mask: Mask | None
) -> Callable[[tuple, dict], dict[str, Tensor | None]] | None:
    """From the inputs of the model to its masks by argument; one that is asked for stands for all."""
    if callable(mask):
        return lambda args, kwargs: {MASKS[0]: check_mask(mask(args, kwargs))}
    signature = inspect.signature(model.forward)
    names = (
        {name: name for name in MASKS if name in signature.parameters} if mask is None else {MASKS[0]: mask}
    )
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if mask is not None and mask not in signature.parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise ValueError(
            f"Expected mask to name an argument of the model's forward, got {mask!r}; it takes "
            f"{', '.join(signature.parameters) or 'none'}. Or give a callable of (args, kwargs)."
        )

    def find(args: tuple, kwargs: dict) -> dict[str, Tensor | None]:
        # Lightning on several processes calls the model with the arguments of training_step, which may be any.
        with contextlib.suppress(TypeError):
            kwargs = {**signature.bind_partial(*args, **kwargs).arguments, **kwargs}
        found = {key: kwargs.get(name) for key, name in names.items()}
        return {key: value if isinstance(value, Tensor) else None for key, value in found.items()}

    return find if names else None


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
