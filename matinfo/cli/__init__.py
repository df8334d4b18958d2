"""The command line: ``matinfo report FILE``, also ``python -m matinfo``.

It runs no code of a file: pickled objects are refused, and ``.pt`` goes through torch's restricted unpickler only.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from matinfo._extras import MissingExtra
from matinfo.cli.arguments import Options, parse
from matinfo.cli.as_html import html_page
from matinfo.cli.as_json import json_text
from matinfo.cli.as_text import text
from matinfo.cli.errors import InputError, printable
from matinfo.cli.picture import picture_bytes
from matinfo.cli.report import Report, load, make_report

__all__ = ["load", "main"]

BAD_INPUT = 2  # as argparse has it
INTERRUPTED = 130  # as shells have it: 128 and the number of the signal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the name of the program; None for those of the process.

    Returns:
        Exit status: 0, or 2 for arguments or files that cannot be used, with one line about it on standard error, or
        130 if interrupted.

    Notes:
        What a report costs is one pass over each file and one decomposition of a matrix of order min(n, d).

    Example:
        >>> import tempfile, pathlib, numpy as np
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> np.save(folder / "features.npy", np.eye(4))
        >>> main(["report", str(folder / "features.npy"), "--alpha", "1"])
        features.npy: 4 rows, 4 columns, float64
        ...
        effective rank ... 4 dimensions
        ...
        0
    """
    try:
        options = parse(argv)
        if isinstance(options, int):
            return options
        _write_report(make_report(options), options)
        sys.stdout.flush()
        return 0
    except (InputError, MissingExtra) as error:
        sys.stderr.write(f"matinfo: error: {printable(str(error))}\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        sys.stderr.write("matinfo: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _write_report(report: Report, options: Options) -> None:
    """Write everything that was asked for."""
    if options.json is not None and options.json != "-":
        _write(Path(options.json), json_text(report, options).encode())
    if options.plot is not None:
        kind = options.plot.suffix.lower().removeprefix(".")
        _write(options.plot, picture_bytes(report, options, options.theme, kind))
    if options.html is not None:
        _write(options.html, html_page(report, options).encode())
    if options.json == "-":
        sys.stdout.write(json_text(report, options))
    else:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text(report, options).encode(encoding, "backslashreplace").decode(encoding))
    if not options.quiet:
        for note in report.notes:
            sys.stderr.write(f"matinfo: note: {note}\n")


def _write(path: Path, content: bytes) -> None:
    """Write beside the file and rename: what is there stays whole until all is written, and a link stays a link."""
    target = path.resolve()
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.exists() and not target.is_file():  # a pipe or a device has no name to take
            path.write_bytes(content)
            return
        beside.write_bytes(content)
        if target.exists():
            shutil.copymode(target, beside)
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror or error}.") from None
