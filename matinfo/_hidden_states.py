"""Hidden states layer by layer, from whatever holds them: a model and a batch, a model's output, tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from matinfo._names import is_called, matches
from matinfo._validation import check_floating
from matinfo.operands import as_tensor

Layers: TypeAlias = str | int | slice | Sequence[str | int]
"""Which layers: indices, names, or a pattern of names such as ``"blocks.*"``."""


class HiddenStates(NamedTuple):
    """Names and tensors ``(n, d)`` or ``(B, T, d)`` of the layers, and the batch's own mask."""

    names: tuple[str, ...]
    tensors: list[Tensor]
    mask: Any
    is_numpy: bool


def read_hidden_states(source: Any, batch: Any, layers: Layers | None, *, grad: bool) -> HiddenStates:
    """Run a model, or take apart what one has returned."""
    mask = None
    if isinstance(source, nn.Module):
        if batch is None:
            raise ValueError(
                "Expected a batch for the model, got none: layerwise(model, batch). "
                "Hidden states that are already there go in the model's place."
            )
        mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        by_index = layers is None or isinstance(layers, slice | int) or not _names_modules(layers)
        if by_index and _returns_hidden_states(source):
            named = _numbered(_from_output(_run(source, batch, grad, output_hidden_states=True)))
        else:
            named, layers = _captured(source, batch, layers, grad), None
    else:
        if batch is not None:
            raise ValueError(
                f"Expected a torch.nn.Module beside a batch, got {type(source).__name__}. "
                "Hidden states need no batch; a mask goes into mask=."
            )
        named = _named(source)
    if layers is not None:
        named = _selected(named, layers)
    if not named:
        raise ValueError("Expected at least one layer, got none.")
    is_numpy = any(isinstance(value, np.ndarray) for _, value in named)
    tensors = [_rows_last(value, name) for name, value in named]
    return HiddenStates(tuple(name for name, _ in named), tensors, mask, is_numpy)


# --- tensors -----------------------------------------------------------------------------------------------------


def _named(source: Any) -> list[tuple[str, Any]]:
    if hasattr(source, "hidden_states") or (
        isinstance(source, Mapping) and any(str(key).endswith("hidden_states") for key in source)
    ):
        return _numbered(_from_output(source))
    if isinstance(source, Mapping):
        return [(str(name), value) for name, value in source.items()]
    if isinstance(source, list | tuple):
        return _numbered(source)
    if isinstance(source, Tensor | np.ndarray):
        raise TypeError(
            "Expected a list of hidden states, one a layer, got one array. For one layer pass [hidden]; a stack over "
            "layers in the first dimension becomes list(hidden)."
        )
    raise TypeError(
        "Expected a torch.nn.Module, a model output with hidden_states, or a list or dict of hidden states, "
        f"got {type(source).__name__}."
    )


def _numbered(values: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(str(i), value) for i, value in enumerate(values)]


def _from_output(output: Any) -> Sequence[Any]:
    """``hidden_states`` of a model output."""
    states = getattr(output, "hidden_states", None)
    if states is not None:
        return states
    others = [name for name in ("encoder_hidden_states", "decoder_hidden_states") if hasattr(output, name)]
    remedy = (
        f"pass output.{others[0]} instead."
        if others
        else "call the model with output_hidden_states=True, or name modules with layers='encoder.layer.*'."
    )
    raise ValueError(f"Expected a model output with hidden_states, got none: {remedy}")


def _rows_last(value: Any, name: str) -> Tensor:
    """``(n, d)`` or ``(B, T, d)``; positions of a feature map become tokens."""
    if isinstance(value, Tensor) and value.is_nested:
        raise TypeError(
            f"Expected layer {name} to be a dense tensor, got a nested one. Fill it up with "
            "torch.nested.to_padded_tensor(hidden, 0.0) and pass the mask."
        )
    x = check_floating(as_tensor(value) if isinstance(value, np.ndarray) else value, f"layer {name}")
    if x.ndim == 4:
        x = x.flatten(2).mT
    if x.ndim not in (2, 3) or x.numel() == 0:
        raise ValueError(
            f"Expected layer {name} of shape (n, d), (B, T, d) or (B, C, H, W), not empty, got {tuple(x.shape)}."
        )
    return x


def _selected(named: list[tuple[str, Any]], layers: Layers) -> list[tuple[str, Any]]:
    if isinstance(layers, slice):
        return named[layers]
    known = dict(named)
    chosen: list[tuple[str, Any]] = []
    for layer in _as_list(layers):
        if isinstance(layer, str):
            found = [name for name in known if matches(name, layer)]
            if not found:
                raise ValueError(f"Expected layers among {_listed(list(known))}, got {layer!r}.")
            chosen += [(name, known[name]) for name in found]
        elif not -len(named) <= layer < len(named):
            raise ValueError(f"Expected layers from 0 to {len(named) - 1}, got {layer}.")
        else:
            chosen.append(named[layer])
    return chosen


def _as_list(layers: Layers) -> list[str | int]:
    return [layers] if isinstance(layers, str | int) else list(layers)  # type: ignore[arg-type]


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:12]))
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 12 else shown


# --- models ------------------------------------------------------------------------------------------------------


def _names_modules(layers: Any) -> bool:
    return any(isinstance(layer, str) for layer in _as_list(layers))


def _returns_hidden_states(model: nn.Module) -> bool:
    """Whether the model takes ``output_hidden_states``, as those of transformers do."""
    return hasattr(getattr(model, "config", None), "output_hidden_states")


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, and afterwards each module in its own: a measurement must not move running statistics."""
    modes = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(
        False
    )  # with a padding mask it hands nested tensors from layer to layer
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in modes:
            module.training = mode


def _run(model: nn.Module, batch: Any, grad: bool, **options: Any) -> Any:
    with _as_it_was(model), contextlib.nullcontext() if grad else torch.no_grad():
        if isinstance(batch, Mapping):
            return model(**batch, **options)
        return model(*batch, **options) if isinstance(batch, list | tuple) else model(batch, **options)


def _captured(model: nn.Module, batch: Any, layers: Layers | None, grad: bool) -> list[tuple[str, Any]]:
    """What the named modules return, in the order in which they run; a second call of one is named ``name#2``."""
    names = _module_names(model, layers)
    captured: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            call = 1 + sum(1 for known in captured if known.split("#")[0] == name)
            # A copy: the next module may work in place.
            captured[name if call == 1 else f"{name}#{call}"] = _first_tensor(output, name).clone()

        return hook

    handles: list[Any] = []
    try:
        handles.extend(model.get_submodule(name).register_forward_hook(keep(name)) for name in names)
        _run(model, batch, grad)
    finally:
        for handle in handles:
            handle.remove()
    idle = [name for name in names if name not in captured]
    if idle:
        raise ValueError(
            f"Expected every layer to run in the forward pass, got no output of {_listed(idle)}."
        )
    return list(captured.items())


def _module_names(model: nn.Module, layers: Layers | None) -> list[str]:
    names = [name for name, _ in model.named_modules() if name]
    if layers is None and isinstance(model, nn.Sequential):
        return [name for name, _ in model.named_children()]
    if layers is None or isinstance(layers, int | slice) or not all(isinstance(a, str) for a in layers):
        raise ValueError(
            f"Expected names of modules in layers= for a {type(model).__name__}, got {layers!r}. A pattern such as "
            f"layers='blocks.*' will do; its modules are {_listed(names)}."
        )
    chosen: list[str] = []
    called = {name for name, module in model.named_modules() if is_called(module)}
    for pattern in _as_list(layers):
        found = [
            name for name in names if name == pattern or (name in called and matches(name, str(pattern)))
        ]
        if not found:
            raise ValueError(f"Expected layers among the modules {_listed(names)}, got {pattern!r}.")
        chosen += [name for name in found if name not in chosen]
    return chosen


def _first_tensor(output: Any, name: str) -> Tensor:
    """The output, or the first element of a tuple or model output."""
    if isinstance(output, Mapping) and output:
        output = next(iter(output.values()))
    elif isinstance(output, list | tuple) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise TypeError(f"Expected layer {name} to return a tensor (first), got {type(output).__name__}.")
    return output
