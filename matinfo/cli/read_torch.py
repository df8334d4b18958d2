"""``.pt`` and ``.safetensors``: tensors mapped from the file, never an object that is not one."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matinfo.cli.errors import InputError, first_line, optional
from matinfo.cli.source import Batch, Contents, Source, check_shape, slices

_DEEPEST = 16


def read_pt(file: Path) -> Contents:
    """The tensors of a file of ``torch.save``, whatever mappings and lists they are in."""
    loaded = _load(file)
    notes: list[str] = []
    found = list(_tensors(loaded, "", {}, lambda key: notes.append(_seen_before(file, key))))
    if not found:
        raise InputError(
            f"{file}: expected a tensor, or tensors in a dict or list, got {type(loaded).__name__} without any."
        )
    single = isinstance(loaded, Tensor)
    contents = _contents(file, [(None if single else key, tensor) for key, tensor in found])
    return Contents(contents.sources, contents.notes + notes)


def _load(file: Path) -> Any:
    with open(file, "rb") as stream:
        start = stream.read(2)
    mapped = {"mmap": True} if start == b"PK" else {}  # files of torch < 1.6 cannot be mapped
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, **mapped)
    except pickle.UnpicklingError:
        raise InputError(
            f"{file}: holds Python objects other than tensors, or is damaged. Loading objects can run code and is "
            "never done; save tensors alone: torch.save({'features': features}, file)."
        ) from None
    except Exception as error:  # a damaged file may raise anything
        raise InputError(f"{file}: cannot be read as a file of torch.save: {first_line(error)}") from None


def _tensors(
    value: Any, key: str, seen: dict[int, bool], again: Callable[[str], None], depth: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """Tensors with their keys; each container once, as it may hold itself. ``seen``: whether it holds tensors."""
    if isinstance(value, Tensor):
        yield key, value.detach()
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


def _seen_before(file: Path, key: str) -> str:
    return f"Left out: {file}:{key}: its tensors are in the report already, under another key."


def _contents(file: Path, found: list[tuple[str | None, Tensor]]) -> Contents:
    sources: list[Source] = []
    notes: list[str] = []
    for key, tensor in found:
        try:
            sources.append(_source(file, key, tensor))
        except InputError as error:
            if key is None:
                raise
            notes.append(f"Left out: {error}")
    return Contents(sources, notes)


def _source(file: Path, key: str | None, tensor: Tensor) -> Source:
    name = str(file) if key is None else f"{file}:{key}"
    if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
        raise InputError(
            f"{name}: expected a dense tensor of real numbers, got {tensor.dtype}, {tensor.layout}."
        )
    rows, columns = check_shape(name, tuple(tensor.shape))

    def read(step: int) -> Iterator[Batch]:
        for part in slices(rows, step):
            yield Batch(tensor[part].double().numpy(), part.stop - part.start)

    return Source(file, key, rows, columns, str(tensor.dtype).removeprefix("torch."), rows, "row", read)


def read_safetensors(file: Path) -> Contents:
    """The tensors of a safetensors file."""
    safetensors = optional("safetensors", f"{file}: a .safetensors file", "cli")
    sources: list[Source] = []
    notes: list[str] = []
    try:
        with safetensors.safe_open(str(file), framework="pt") as archive:
            for key in archive.keys():  # noqa: SIM118
                part = archive.get_slice(key)
                shape = tuple(part.get_shape())
                try:
                    rows, columns = check_shape(f"{file}:{key}", shape)
                except InputError as error:
                    notes.append(f"Left out: {error}")
                    continue
                dtype = str(archive.get_slice(key)[:1].dtype).removeprefix("torch.")
                sources.append(_slice_source(file, key, (rows, columns), dtype))
    except safetensors.SafetensorError as error:
        raise InputError(f"{file}: cannot be read as safetensors: {error}. Write or copy it again.") from None
    return Contents(sources, notes)


def _slice_source(file: Path, key: str, shape: tuple[int, int], dtype: str) -> Source:
    def read(step: int) -> Iterator[Batch]:
        safetensors = optional("safetensors", f"{file}: a .safetensors file", "cli")
        with safetensors.safe_open(str(file), framework="pt") as archive:
            whole = archive.get_slice(key)
            for part in slices(shape[0], step):
                yield Batch(whole[part].double().numpy(), part.stop - part.start)

    return Source(file, key, *shape, dtype, shape[0], "row", read)
