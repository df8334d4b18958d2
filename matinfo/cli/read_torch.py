"""``.pt`` and ``.safetensors``: tensors mapped from the file, never an object that is not one."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinfo._extras import optional
from matinfo.cli.errors import InputError, first_line
from matinfo.cli.source import COMPLEX, Batch, Contents, Source, check_shape, slices, usable

_DEEPEST = 16
"""Containers within containers beyond which a file is not searched: features are never so deep."""


def read_pt(file: Path) -> Contents:
    """The tensors of a file of ``torch.save``, whatever mappings and lists they are in."""
    with open(file, "rb") as stream:
        start = stream.read(2)
    mapped = {"mmap": True} if start == b"PK" else {}  # files of torch < 1.6 cannot be mapped
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(file, map_location="cpu", weights_only=True, **mapped)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file}: holds Python objects other than tensors, or is damaged. Loading objects can run code and is "
            "never done; save tensors alone: torch.save({'features': features}, file)."
        ) from None
    except Exception as error:  # a damaged file may raise anything
        raise InputError(f"{file}: cannot be read as a file of torch.save: {first_line(error)}") from None
    if isinstance(loaded, Tensor):
        return Contents([_source(file, None, loaded.detach)], [])
    notes: list[str] = []
    again = "Left out: {}:{}: its tensors are in the report already, under another key."
    found = list(_tensors(loaded, "", {}, lambda key: notes.append(again.format(file, key))))
    if not found:
        raise InputError(
            f"{file}: expected a tensor, or tensors in a dict or list, got {type(loaded).__name__} without any."
        )
    sources, left_out = usable([partial(_source, file, key, tensor.detach) for key, tensor in found])
    return Contents(sources, left_out + notes)


def _tensors(
    value: Any, key: str, seen: dict[int, bool], again: Callable[[str], None], depth: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """Tensors with their keys; each container once, as it may hold itself. ``seen``: whether it holds tensors."""
    if isinstance(value, Tensor):
        yield key, value
    if depth > _DEEPEST or not isinstance(value, Mapping | list | tuple):
        return
    if id(value) in seen:
        if seen[id(value)]:
            again(key)
        return
    seen[id(value)] = False
    for name, member in value.items() if isinstance(value, Mapping) else enumerate(value):
        for found in _tensors(member, f"{key}.{name}" if key else str(name), seen, again, depth + 1):
            seen[id(value)] = True
            yield found


def _source(file: Path, key: str | None, opened: Callable[[], Any]) -> Source:
    """``opened()`` gives a tensor, or what stands for one in a file and gives slices."""
    name = str(file) if key is None else f"{file}:{key}"
    tensor = opened()
    rows, columns = check_shape(
        name, tuple(tensor.shape if isinstance(tensor, Tensor) else tensor.get_shape())
    )
    first = _numbers(tensor, slice(0, 1), name)

    def read(step: int) -> Iterator[Batch]:
        tensor = opened()
        for part in slices(rows, step):
            yield Batch(_numbers(tensor, part, name)[1], part.stop - part.start)

    return Source(file, key, rows, columns, first[0], read)


def _numbers(tensor: Any, part: slice, name: str) -> tuple[str, np.ndarray]:
    """Name of the dtype, and rows in float64; an error for tensors that hold anything but real numbers."""
    layout = getattr(tensor, "layout", torch.strided)
    if layout != torch.strided or getattr(tensor, "is_nested", False):
        raise InputError(f"{name}: expected a dense tensor, got {layout}. Save x.to_dense().")
    try:
        rows = tensor[part]
        dtype = str(rows.dtype).removeprefix("torch.")
        if not rows.is_complex():
            return dtype, rows.resolve_neg().double().numpy()
    except Exception as error:
        # Numbers of 4 bits, quantized ones, dtypes that only the header knows: each has an error of its own.
        what = (
            "a meta tensor, which has no numbers" if getattr(tensor, "is_meta", False) else first_line(error)
        )
        raise InputError(f"{name}: expected a tensor of real numbers: {what}. Save x.float().") from None
    raise InputError(f"{name}: expected real numbers, got dtype {dtype}. {COMPLEX}")


def read_safetensors(file: Path) -> Contents:
    """The tensors of a safetensors file."""
    safetensors = optional("safetensors", f"{file}: a .safetensors file", "cli")
    try:
        archive = safetensors.safe_open(str(file), framework="pt")
        keys = archive.offset_keys()
        return usable([partial(_source, file, key, partial(archive.get_slice, key)) for key in keys])
    except safetensors.SafetensorError as error:
        raise InputError(f"{file}: cannot be read as safetensors: {error}. Write or copy it again.") from None
