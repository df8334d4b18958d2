"""The hooks on the layers: a branch on most steps, a few rows on the observed ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from matinfo.monitor.pooling import NestedOutputError, Pool, pooled_rows

Mask: TypeAlias = str | Callable[[tuple, dict], Tensor | None]

MOST_CALLS = 256
"""Calls of a layer within one step after which rows are no longer kept, with a warning: ``step()`` may be missing."""


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
        self.parts: dict[str, list[Tensor]] = {}
        self.counts: dict[str, list[int]] = {}
        self.calls: dict[str, int] = {}
        self.refused: dict[str, NestedOutputError] = {}
        self.eps: dict[str, float] = {}
        self.trained: set[str] = set()
        self.mask: Tensor | None = None
        self.find_mask = _mask_finder(model, mask)
        self.named, self.guessed = mask is not None, False
        # A compiled model breaks its graph here, and only where it is observed.
        self.take = torch.compiler.disable(self._take)
        self.look = torch.compiler.disable(self._look)
        self.handles = [
            module.register_forward_hook(LayerHook(self, name)) for name, module in layers.items()
        ]
        if self.find_mask is not None:
            self.handles.append(model.register_forward_pre_hook(InputHook(self), with_kwargs=True))

    def clear(self, seed: int) -> None:
        """Forget the rows and the mask of a step."""
        self.parts, self.counts, self.calls, self.refused = {}, {}, {}, {}
        self.eps, self.trained, self.mask, self.seed = {}, set(), None, seed

    def check(self, name: str) -> None:
        """Raise what a call of the layer has left for the end of the step."""
        if name in self.refused:
            raise self.refused[name]

    def remove(self) -> None:
        """Take the hooks off the model."""
        self.active = False
        for handle in self.handles:
            handle.remove()
        self.clear(self.seed)

    def _take(self, name: str, module: nn.Module, output: Any) -> None:
        if module is not self.layers[name] or torch._C._current_graph_task_id() != -1:
            return  # a copy of the model, or a layer that checkpointing runs again during backward
        first = self.model.training and name not in self.trained
        if first:
            self.trained.add(name)
        elif name in self.trained and not self.model.training:
            return
        parts, counts = self.parts.setdefault(name, []), self.counts.setdefault(name, [])
        if first:
            self.calls[name] = 0
        if first or not self.keep_all:
            parts.clear()
            counts.clear()
        self.calls[name] = 1 + (self.calls.get(name, 0) if self.keep_all else 0)
        if len(parts) < MOST_CALLS:
            try:
                with torch.no_grad():
                    rows = pooled_rows(
                        output,
                        self.pool,
                        self.mask,
                        layer=name,
                        max_rows=self.max_rows,
                        seed=self.seed + len(parts),
                        strict=not self.guessed,
                    )
            except NestedOutputError as error:  # the model's choice of a kernel is no error of the forward
                self.refused[name] = error
                return
            parts.append(rows.kept)
            counts.append(rows.drawn_from)
            self.eps[name] = max(rows.eps, self.eps.get(name, 0.0))

    def _look(self, args: tuple, kwargs: dict) -> None:
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


class LayerHook:
    """On a layer. A copy of the layer, by ``copy`` or by ``pickle``, gets a hook that does nothing."""

    def __init__(self, capture: Capture, name: str) -> None:
        self.capture, self.name = capture, name

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Keep rows if the step is observed."""
        if self.capture.active:
            self.capture.take(self.name, module, output)

    def __deepcopy__(self, memo: dict) -> Callable[..., None]:
        return nothing

    def __reduce__(self) -> tuple:
        return hook_of_a_copy, ()


class InputHook:
    """On the model, for its mask."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Keep the mask if the step is observed."""
        if self.capture.active:
            self.capture.look(args, kwargs)

    def __deepcopy__(self, memo: dict) -> Callable[..., None]:
        return nothing

    def __reduce__(self) -> tuple:
        return hook_of_a_copy, ()


def nothing(*args: Any) -> None:
    """The hook of a copy."""


def hook_of_a_copy() -> Callable[..., None]:
    """For ``pickle``."""
    return nothing
