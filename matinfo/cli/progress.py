"""Progress on standard error, for whoever watches."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from matinfo._extras import optional
from matinfo.cli.arguments import Options
from matinfo.cli.source import Batch, Source

Item = TypeVar("Item")

_DELAY = 1.0
"""Seconds before a bar appears: what takes less has none."""


def batches(source: Source, options: Options) -> Iterator[Batch]:
    """The batches of a source."""
    found = source.read(source.batch_rows(options.batch_rows))
    unit = {"unit": "B" if source.size else "row", "unit_scale": True}
    bar = _bar(options, total=source.total, desc=source.name, **unit)
    return _updating(found, bar, lambda batch: batch.progress)


def watched(items: Sequence[Item], what: str, options: Options) -> Iterator[Item]:
    """The items, one after the other."""
    return _updating(items, _bar(options, total=len(items), desc=what), lambda _: 1)


def _updating(items: Iterable[Item], bar: Any, size: Callable[[Item], int]) -> Iterator[Item]:
    try:
        for item in items:
            yield item
            if bar is not None:
                bar.update(size(item))
    finally:
        if bar is not None:
            bar.close()


def say(what: str, options: Options) -> None:
    """A line about a step that takes long and cannot be counted."""
    if _watched(options):
        sys.stderr.write(f"matinfo: {what} ...\n")


def _watched(options: Options) -> bool:
    return options.progress or (not options.quiet and sys.stderr.isatty())


def _bar(options: Options, **arguments: Any) -> Any:
    """A bar of tqdm, or None where nobody watches or tqdm is not there."""
    if not _watched(options):
        return None
    if options.progress:
        tqdm = optional("tqdm", "--progress", "cli").tqdm
    else:
        try:
            tqdm = importlib.import_module("tqdm").tqdm
        except ModuleNotFoundError:
            return None
    delay = 0.0 if options.progress else _DELAY
    return tqdm(delay=delay, file=sys.stderr, leave=False, **arguments)
