"""From a path to the arrays in it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from matinfo._extras import optional
from matinfo.cli.arguments import Options
from matinfo.cli.errors import InputError, about, printable
from matinfo.cli.read_numpy import read_npy, read_npz
from matinfo.cli.read_torch import read_pt, read_safetensors
from matinfo.cli.source import Contents, Source

_ARRAYS = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".pt": read_pt,
    ".pth": read_pt,
    ".bin": read_pt,
    ".ckpt": read_pt,
    ".safetensors": read_safetensors,
}
_TEXT = (".csv", ".tsv", ".txt", ".tab", ".dat")
_TABLES = {
    **{text + packed: "read_text" for text in _TEXT for packed in ("", ".gz", ".bz2", ".zst")},
    ".parquet": "read_parquet",
    ".feather": "read_arrow",
    ".arrow": "read_arrow",
}


def open_files(options: Options) -> tuple[list[list[Source]], list[str]]:
    """The arrays of each file, and notes on what was left out."""
    files: list[list[Source]] = []
    notes: list[str] = []
    for i, file in enumerate(options.files):
        key = options.keys[i if len(options.keys) > 1 else 0] if options.keys else None
        with about(str(file)):
            contents = _open(file, options)
        sources = _select(file, contents, key)
        files.append(sources)
        if key is None:
            notes += map(printable, contents.notes)
    return files, notes


def _open(file: Path, options: Options) -> Contents:
    # The longest end of the name that is known: .csv.gz of a.b.csv.gz.
    ends = [suffix for suffix in (*_ARRAYS, *_TABLES) if file.name.lower().endswith(suffix)]
    suffix = max(ends, key=len, default="")
    if suffix in _TABLES:
        optional("pyarrow", f"{file}: a {suffix} file", "cli")
        module = "read_text" if _TABLES[suffix] == "read_text" else "read_tables"
        read = getattr(importlib.import_module(f"matinfo.cli.{module}"), _TABLES[suffix])
        return cast(Contents, read(file, options.drop))
    if not suffix:
        raise InputError(
            f"{file}: unknown kind of file {file.suffix!r}; known are {' '.join(_ARRAYS)} {' '.join(_TEXT)} (also .gz "
            ".bz2 .zst) .parquet .feather .arrow. Save the array as .npy: np.save(file, x)."
        )
    if options.drop:
        raise InputError(f"{file}: --drop is for columns of text, Parquet and Arrow tables.")
    return _ARRAYS[suffix](file)


def _select(file: Path, contents: Contents, key: str | None) -> list[Source]:
    if key is None:
        if not contents.sources:
            raise InputError(f"{file}: holds no array that can be used. {' '.join(contents.notes[:3])}")
        return contents.sources
    for source in contents.sources:
        if source.key == key:
            return [source]
    for note in contents.notes:
        if printable(note).startswith(printable(f"Left out: {file}:{key}: ")):
            raise InputError(note.removeprefix("Left out: "))
    present = ", ".join(str(source.key) for source in contents.sources if source.key is not None)
    raise InputError(f"{file}: no array {key!r}; {f'it has {present}.' if present else 'leave out --key.'}")
