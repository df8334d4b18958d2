"""Where the report goes: the terminal, a JSON file, a picture, a page."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from matinfo.cli.arguments import Options
from matinfo.cli.as_html import html_page
from matinfo.cli.as_json import json_text
from matinfo.cli.as_text import text
from matinfo.cli.errors import InputError
from matinfo.cli.picture import picture_bytes
from matinfo.cli.report import Report


def write_report(report: Report, options: Options) -> None:
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
