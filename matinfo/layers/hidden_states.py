"""Hidden states layer by layer, from whatever holds them: a model and a batch, a model's output, tensors."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from matinfo._validation import check_floating
from matinfo.layers.modules import (
    MASKS,
    chosen_modules,
    first_tensor,
    mask_argument,
    matches,
    plain_module,
    samples_first,
)
from matinfo.operands import as_tensor, dtype_given, rounded_in

Layers: TypeAlias = str | int | slice | Sequence[str | int]
"""Which layers: indices, names, or a pattern of names such as ``"blocks.*"``."""

_STATES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")
"""Where the outputs of transformers keep hidden states, in the order in which they are looked for."""


class HiddenStates(NamedTuple):
    """Names and tensors ``(n, d)`` or ``(B, T, d)`` of the layers, and the batch's own mask."""

    names: tuple[str, ...]
    tensors: list[Tensor]
    mask: Any
    is_numpy: bool


def read_hidden_states(
    source: Any, batch: Any, layers: Layers | None, *, grad: bool, masked: bool
) -> HiddenStates:
    """Run a model, or take apart what one has returned; ``masked`` if the caller has a mask of their own."""
    mask = None
    if isinstance(source, nn.Module):
        if batch is None:
            raise ValueError(
                "Expected a batch for the model, got none: layerwise(model, batch). "
                "Hidden states that are already there go in the model's place."
            )
        model = plain_module(source)
        arguments = _arguments(model, batch)
        if not masked:
            _refuse_padding(model, arguments)
        by_index = (
            layers is None
            or isinstance(layers, slice)
            or not any(isinstance(a, str) for a in _as_list(layers))
        )
        if by_index and hasattr(getattr(model, "config", None), "output_hidden_states"):  # as in transformers
            named = _from_output(
                _run(model, batch, grad, output_hidden_states=True),
                "model(**batch, output_hidden_states=True)",
            )
        else:
            named, layers = _captured(model, batch, layers, grad), None
        if not masked:
            mask = _mask_of([name for name, _ in named], arguments)
    else:
        if batch is not None:
            raise ValueError(
                f"Expected a torch.nn.Module beside a batch, got {type(source).__name__}. "
                "Hidden states need no batch; a mask goes into mask=."
            )
        mask = source.get("attention_mask") if isinstance(source, Mapping) else None
        named = _named(source)
    if layers is not None:
        named = _selected(named, layers)
    if not named:
        raise ValueError("Expected at least one layer, got none.")
    is_numpy = any(isinstance(value, np.ndarray) for _, value in named)
    tensors = [_rows_last(value, name) for name, value in named]
    return HiddenStates(tuple(name for name, _ in named), tensors, mask, is_numpy)


def _named(source: Any) -> list[tuple[str, Any]]:
    looks_like_output = any(hasattr(source, name) for name in _STATES) or (
        isinstance(source, Mapping) and any(name in source for name in (*_STATES, "last_hidden_state"))
    )
    if looks_like_output or _towers(source):
        return _from_output(source, "output")
    if isinstance(source, Mapping):
        return [(str(name), value) for name, value in source.items() if name != "attention_mask"]
    if isinstance(source, list | tuple | Tensor | np.ndarray):
        return _numbered(source)
    raise TypeError(
        "Expected a torch.nn.Module, a model output with hidden_states, or a list or dict of hidden states, "
        f"got {type(source).__name__}."
    )


def _numbered(states: Any) -> list[tuple[str, Any]]:
    """A tuple of layers; of ``generate``, a tuple of steps of layers: the steps of a layer are its tokens."""
    if isinstance(states, Tensor | np.ndarray):
        raise TypeError(
            "Expected a list of hidden states, one a layer, got one array. For one layer pass [hidden]; a stack over "
            "layers in the first dimension becomes list(hidden)."
        )
    if states and all(isinstance(step, list | tuple) for step in states):
        joined = np.concatenate if isinstance(states[0][0], np.ndarray) else torch.cat
        states = [joined([step[i] for step in states], 1) for i in range(len(states[0]))]
    return [(str(i), value) for i, value in enumerate(states)]


def _entry(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def _towers(output: Any) -> list[str]:
    """Parts of an output that have hidden states of their own, as those of CLIP."""
    parts = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    return [str(name) for name, part in parts.items() if _entry(part, "hidden_states") is not None]


def _from_output(output: Any, call: str) -> list[tuple[str, Any]]:
    """The hidden states of a model's output; ``call`` is how the user gets at that output."""
    if _entry(output, "beam_indices") is not None:
        raise ValueError(
            "Expected hidden states of greedy search or sampling, got those of a beam search, which belong to "
            "hypotheses that were given up on the way. Run the model on output.sequences."
        )
    found = [name for name in _STATES if _entry(output, name) is not None]
    if "hidden_states" in found:
        found = ["hidden_states"]
    if len(found) == 1:
        return _numbered(_entry(output, found[0]))
    access = "output[{!r}]" if type(output) is dict else "output.{}"
    if parts := found or _towers(output):
        got = "those of an encoder and a decoder" if found else f"those of {len(parts)} parts"
        choice = " or ".join(access.format(part) for part in parts)
        before = "" if call == "output" else f"output = {call}, then "
        remedy = f"{before}pass {choice} instead, with the mask of its tokens in mask=."
    else:
        got = "none"
        remedy = (
            "call the model with output_hidden_states=True, or name modules with layers='encoder.layer.*'."
        )
    raise ValueError(f"Expected a model output with hidden_states of one network, got {got}: {remedy}")


def _rows_last(value: Any, name: str) -> Tensor:
    """``(n, d)`` or ``(B, T, d)``; positions of a feature map become tokens."""
    if isinstance(value, Tensor) and value.is_nested:
        raise TypeError(
            f"Expected layer {name} to be a dense tensor, got a nested one. Fill it up with "
            "torch.nested.to_padded_tensor(hidden, 0.0) and pass the mask."
        )
    x = check_floating(as_tensor(value), f"layer {name}")
    if x.ndim == 4:
        x = rounded_in(dtype_given(x), x.flatten(2).mT)
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


def _arguments(model: nn.Module, batch: Any) -> dict[str, Any]:
    """What the model is called with, by name; None for masks that it takes and does not get."""
    parameters = inspect.signature(model.forward).parameters
    if not isinstance(batch, Mapping):
        arguments = batch if isinstance(batch, list | tuple) else (batch,)
        try:
            batch = inspect.signature(model.forward).bind_partial(*arguments).arguments
        except TypeError:  # too many: the model itself will say so
            batch = {}
    return {**{name: None for name in MASKS if name in parameters}, **batch}


def _refuse_padding(model: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Token ids that hold padding need a mask."""
    ids, config = arguments.get("input_ids"), getattr(model, "config", None)
    pad = getattr(getattr(config, "text_config", config), "pad_token_id", None)
    if arguments.get(MASKS[0]) is None and isinstance(pad, int) and isinstance(ids, Tensor):
        padded = int((ids == pad).sum())
        if padded:
            raise ValueError(
                f"Expected a mask beside token ids that hold padding, got none and {padded} of {ids.numel()} ids equal "
                f"to pad_token_id = {pad}, which would count as tokens. Pass all that the tokenizer returned, or "
                "attention_mask in the batch; mask=torch.ones_like(input_ids) where these ids are tokens after all."
            )


def _mask_of(layers: Sequence[str], arguments: Mapping[str, Any]) -> Any:
    """The mask of the layers' tokens; an encoder, a decoder and a tower for images have different ones."""
    names = {mask_argument(layer, arguments) for layer in layers}
    masks = [arguments.get(name) for name in sorted(names)]
    if len(masks) > 1 and any(mask is not None for mask in masks):
        raise ValueError(
            "Expected layers of one part of the model, whose tokens one mask describes, got encoder and decoder, or "
            "text and images. Measure them in two calls."
        )
    return masks[0] if masks else None


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, and afterwards each module in its own: a measurement must not move running statistics."""
    modes = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    # With a padding mask it hands nested tensors from layer to layer.
    torch.backends.mha.set_fastpath_enabled(False)
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
    if layers is None and isinstance(model, nn.Sequential):
        modules = dict(model.named_children())
    elif layers is None or isinstance(layers, int | slice) or not all(isinstance(a, str) for a in layers):
        names = [name for name, _ in model.named_modules() if name]
        raise ValueError(
            f"Expected names of modules in layers= for a {type(model).__name__}, got {layers!r}. A pattern such as "
            f"layers='blocks.*' will do; its modules are {_listed(names)}."
        )
    else:
        modules = chosen_modules(model, layers)  # type: ignore[arg-type]
    captured: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            call = 1 + sum(1 for known in captured if known.split("#")[0] == name)
            # A copy: the next module may work in place.
            x = samples_first(first_tensor(output, name), module).clone()
            captured[name if call == 1 else f"{name}#{call}"] = x

        return hook

    handles: list[Any] = []
    try:
        handles.extend(module.register_forward_hook(keep(name)) for name, module in modules.items())
        _run(model, batch, grad)
    finally:
        for handle in handles:
            handle.remove()
    idle = [name for name in modules if name not in captured]
    if idle:
        raise ValueError(
            f"Expected every layer to run in the forward pass, got no output of {_listed(idle)}."
        )
    return list(captured.items())
