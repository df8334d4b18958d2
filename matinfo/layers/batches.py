"""One batch, or many: loaders, generators, sentences with a tokenizer."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from matinfo._extras import needs
from matinfo.layers.modules import plain_module


def read_batches(
    model: Any, batch: Any, tokenizer: Callable[..., Any] | None, size: int, progress: bool
) -> tuple[Iterable[Any], bool]:
    """What the model is called with, or hidden states, one item a batch; and whether there may be many of them."""
    is_model = isinstance(model, nn.Module)
    source = batch if is_model else model
    if tokenizer is None and not _is_stream(source):
        return [source], False
    if not is_model and batch is not None:
        return [source], False  # is refused where hidden states are read
    items: Iterable[Any] = [source] if isinstance(source, str) else source
    iterator = iter(items)
    first = next(iterator, None)
    if first is None:
        raise ValueError("Expected at least one batch, got an empty stream.")
    items = itertools.chain([first], iterator)
    if isinstance(first, str):
        items = _of(items, size)
    count = getattr(source, "__len__", lambda: None)()
    if isinstance(first, str) and count is not None:
        count = -(-count // size)
    if is_model:
        prepare = _Preparation(plain_module(model), tokenizer)
        items = map(prepare, items)
    if progress:
        with needs("tqdm", "progress=True", "layers"):
            from tqdm.auto import tqdm
        items = tqdm(items, total=count, unit="batch")
    return items, count != 1


def _is_stream(source: Any) -> bool:
    if isinstance(source, str):
        return True
    if isinstance(source, list | tuple):
        return bool(source) and isinstance(source[0], str | Mapping)
    return hasattr(source, "__iter__") and not isinstance(source, Mapping | Tensor | np.ndarray | nn.Module)


def _of(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


class _Preparation:
    """From what a loader yields to what the model is called with."""

    def __init__(self, model: nn.Module, tokenizer: Callable[..., Any] | None) -> None:
        self.tokenizer = tokenizer
        self.device = next(itertools.chain(model.parameters(), model.buffers()), torch.empty(0)).device
        self.parameters = inspect.signature(model.forward).parameters
        kinds = [p.kind for p in self.parameters.values()]
        self.takes_any_name = inspect.Parameter.VAR_KEYWORD in kinds
        # Of a tuple (images, labels) as much as forward needs: its optional arguments are not what labels are for.
        needed = [
            p
            for p in self.parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        takes_all = inspect.Parameter.VAR_POSITIONAL in kinds
        self.positions = None if takes_all else max(1, len(needed))

    def __call__(self, item: Any) -> Any:
        """Tokens for sentences; without what the model's forward does not take, such as labels; on its device."""
        if isinstance(item, list | tuple) and item and isinstance(item[0], str):
            if self.tokenizer is None:
                raise TypeError(
                    "Expected a tokenizer for sentences, got none: layerwise(model, sentences, tokenizer=tokenizer)."
                )
            item = self.tokenizer(list(item), padding=True, truncation=True, return_tensors="pt")
        if isinstance(item, Mapping):
            return {
                name: self._moved(value)
                for name, value in item.items()
                if self.takes_any_name or name in self.parameters
            }
        if isinstance(item, list | tuple):
            return [self._moved(value) for value in item[: self.positions]]
        return self._moved(item)

    def _moved(self, value: Any) -> Any:
        return value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
