"""Which modules of a model are meant, and the tensor in what one of them returns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

MASKS = ("attention_mask", "decoder_attention_mask")
"""The arguments of transformers that say where tokens are, those of a decoder beside an encoder in the second."""
_NO_TEXT = ("vision", "visual", "audio")
"""How the names of towers begin whose tokens are not those of the text beside them."""


def mask_argument(layer: str, arguments: Iterable[str]) -> str:
    """Which of the arguments that there are says where the tokens of a layer are; empty if none does."""
    parts = layer.split(".")
    if any([part.startswith(_NO_TEXT) for part in parts]):
        return ""
    return MASKS["decoder" in parts and MASKS[1] in arguments]


def plain_module(model: nn.Module) -> nn.Module:
    """The module that the user wrote, out of ``torch.compile``, data parallelism and averages of weights."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected model to be a torch.nn.Module, got {type(model).__name__}.")
    while True:
        if isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel | AveragedModel):
            model = model.module
        elif isinstance(model, torch.jit.ScriptModule):
            raise TypeError(
                "Expected model to be a torch.nn.Module, got TorchScript, which runs without calling its modules. Pass "
                "the model that it was made of."
            )
        else:
            return model


def chosen_modules(model: nn.Module, layers: str | Iterable[str]) -> dict[str, nn.Module]:
    """Modules by name, in the order of the model; ``*`` stands for part of one component of a name, ``**`` for any."""
    patterns = [layers] if isinstance(layers, str) else list(layers)
    named = dict(model.named_modules(remove_duplicate=False))
    once = {name for name, module in model.named_modules() if is_called(module)}
    chosen = set()
    for pattern in patterns:
        if pattern in named:
            if not is_called(named[pattern]):
                raise ValueError(
                    f"Expected a layer with a forward, got {pattern!r}, a {type(named[pattern]).__name__}. "
                    f"For what it holds use {pattern + '.*'!r}."
                )
            chosen.add(pattern)
            continue
        found = [name for name in once if name and matches(name, pattern)]
        if not found:
            raise ValueError(
                f"Expected the name of a layer or a pattern of names, got {pattern!r}, which is none of the "
                f"{len(named)} modules.{_near(pattern, [name for name in named if name])}"
            )
        chosen.update(found)
    if not chosen:
        raise ValueError("Expected at least one layer, got none.")
    return {name: module for name, module in named.items() if name in chosen}


def _near(pattern: str, names: list[str]) -> str:
    """Names alike: those that end alike first, then by spelling."""
    last = pattern.split(".")[-1]
    alike = [name for name in names if name.split(".")[-1] == last]
    alike += difflib.get_close_matches(pattern, names, n=5, cutoff=0.5)
    alike = list(dict.fromkeys(alike))[:5] or names[:5]
    return f" Near it: {', '.join(map(repr, alike))}." if alike else ""


def matches(name: str, pattern: str) -> bool:
    """Whether a name fits; ``*`` stands for (part of) one component, ``**`` for any number of components."""
    return _fits(name.split("."), pattern.split("."))


def _fits(name: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any([_fits(name[i:], pattern[1:]) for i in range(len(name) + 1)])
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _fits(name[1:], pattern[1:])


def is_called(module: nn.Module) -> bool:
    """Whether it has a forward, as containers such as ``ModuleList`` do not."""
    # A compiled module has its forward as an attribute of the instance.
    return getattr(module.forward, "__func__", None) is not nn.Module.forward


def first_tensor(output: Any, layer: str) -> Tensor:
    """The tensor itself, ``last_hidden_state``, or the first element of a tuple or list."""
    if isinstance(output, Tensor):
        return output
    hidden = getattr(output, "last_hidden_state", None)
    if isinstance(hidden, Tensor):
        return hidden
    if isinstance(output, tuple | list) and output:
        return first_tensor(output[0], layer)
    what = f"a mapping with keys {sorted(map(str, output))}" if isinstance(output, Mapping) else ""
    raise TypeError(
        f"Expected layer {layer!r} to return a tensor, a tuple whose first element is one, or an object with "
        f"last_hidden_state, got {what or type(output).__name__}. Name a layer inside it, or, for Monitor, give a "
        "callable as pool, which turns the output into rows (n, d)."
    )


_OF_TORCH = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
"""Modules that say by ``batch_first`` whether samples or tokens are the first dimension."""


def samples_first(x: Tensor, module: nn.Module) -> Tensor:
    """``(n, tokens, d)`` of what a module of PyTorch returned, whose default is ``(tokens, n, d)``."""
    if x.ndim != 3 or not isinstance(module, _OF_TORCH):
        return x
    says = [part.batch_first for part in module.modules() if hasattr(part, "batch_first")]
    return x if all(says) else x.transpose(0, 1)
