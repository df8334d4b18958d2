"""A progress bar on standard error, for whoever watches a long file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

from matinfo.cli.arguments import Options
from matinfo.cli.errors import optional
from matinfo.cli.source import Batch, Source

_DELAY = 1.0
"""Seconds before a bar appears: a file that takes less has none."""


def batches(source: Source, options: Options) -> Iterator[Batch]:
    """The batches of a source, with a bar if there is someone to see it."""
    read = source.read(source.batch_rows(options.batch_rows))
    if options.progress:
        tqdm = optional("tqdm", "--progress", "cli").tqdm
    elif options.quiet or not sys.stderr.isatty():
        tqdm = None
    else:
        try:
            tqdm = importlib.import_module("tqdm").tqdm
        except ModuleNotFoundError:
            tqdm = None
    if tqdm is None:
        yield from read
        return
    delay = 0.0 if options.progress else _DELAY
    with tqdm(
        total=source.total,
        desc=source.name,
        unit=source.unit,
        unit_scale=True,
        delay=delay,
        file=sys.stderr,
        leave=False,
    ) as bar:
        for batch in read:
            yield batch
            bar.update(batch.progress)
