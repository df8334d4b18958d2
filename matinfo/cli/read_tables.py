"""``.csv``, ``.tsv`` and ``.parquet``: columns of numbers, rows in batches."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from matinfo.cli.errors import InputError, first_line, optional
from matinfo.cli.source import Batch, Contents, Source, as_rows

_MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"}
"""How programs write a missing value, in lower case."""


def read_text(file: Path, drop: Sequence[str]) -> Contents:
    """The numbers of a text table; a first line with a name in it, or that counts from 0, names the columns."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with open(file, "rb") as stream:
        first = stream.readline()
    if not first.strip():
        raise InputError(f"{file}: expected lines of numbers, got an empty file.")
    names = _fields(_decode(first, file, 1), delimiter)
    counts = _counts_columns(names)
    header = counts or not all(_is_gap(name) or _is_number(name) for name in names)
    kept = _kept_columns(file, names if header else [], len(names), drop)
    if header and names[0] == "" and 0 in kept:
        raise InputError(
            f"{file}: the first column has no name, as an index written by pandas has. Leave it out with --drop '', or "
            "write the file with index=False."
        )
    size = file.stat().st_size - len(first) * header

    def read(step: int) -> Iterator[Batch]:
        with open(file, "rb") as stream:
            number = 1 + header
            if header:
                stream.readline()
            while lines := list(islice(stream, step)):
                rows = _parse(lines, file, delimiter, number, kept, names if header else [], len(names))
                number += len(lines)
                yield Batch(rows, sum(map(len, lines)))

    if len(kept) == 1 and b";" in first:
        raise InputError(
            f"{file}: expected columns with commas between, got semicolons. Write it with commas."
        )
    notes = []
    if counts:
        notes.append(
            f"{file}: the first line counts the columns from 0, as a header written by pandas does, and is not read as "
            "a row. If it is one, write 0.0 for its 0."
        )
    return Contents([Source(file, None, None, len(kept), "text", size, "B", read)], notes)


def _decode(line: bytes, file: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file}: line {number} is not text in UTF-8. Is it a table?") from None


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:  # a carriage return within the line: not a table
        return [line.strip()]


def _counts_columns(names: list[str]) -> bool:
    """Whether these are 0, 1, 2, ..., after the empty name of an index if there is one: pandas' names of columns."""
    counted = names[1:] if names[0] == "" else names
    return bool(counted) and counted == [str(i) for i in range(len(counted))]


def _is_gap(text: str) -> bool:
    return text.lower() in _MISSING


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _kept_columns(file: Path, names: Sequence[str], count: int, drop: Sequence[str]) -> list[int]:
    unknown = [name for name in drop if name not in names]
    if unknown:
        present = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "columns without names"
        raise InputError(f"{file}: no column {unknown[0]!r} to drop; it has {present}.")
    kept = [i for i in range(count) if not names or names[i] not in drop]
    if not kept:
        raise InputError(f"{file}: no column is left after --drop.")
    return kept


def _parse(
    lines: list[bytes], file: Path, delimiter: str, number: int, kept: list[int], names: list[str], width: int
) -> np.ndarray:
    text = [_decode(line, file, number + i) for i, line in enumerate(lines)]
    if not any(line.strip() for line in text):
        return np.empty((0, len(kept)))
    try:
        table = np.loadtxt(text, delimiter=delimiter, ndmin=2, comments=None, quotechar='"', usecols=kept)
        if all(line.count(delimiter) == width - 1 for line in text if line.strip()):
            return table
    except ValueError:
        pass
    return np.array(list(_rows(text, file, delimiter, number, kept, names, width)), dtype=np.float64)


def _rows(
    text: list[str], file: Path, delimiter: str, number: int, kept: list[int], names: list[str], width: int
) -> Iterator[list[float]]:
    """Field by field: gaps are NaN, and an error says where it is."""
    for i, line in enumerate(text):
        if not line.strip():
            continue
        fields = _fields(line, delimiter)
        if len(fields) != width:
            raise InputError(f"{file}: line {number + i} has {len(fields)} columns, the first line {width}.")
        row = []
        for j in kept:
            gap = _is_gap(fields[j])
            if not gap and not _is_number(fields[j]):
                name = names[j] if names else str(j)
                remedy = f" Leave the column out with --drop {name}." if names else ""
                raise InputError(
                    f"{file}: line {number + i}, column {name}: expected a number, got {fields[j][:40]!r}.{remedy}"
                )
            row.append(np.nan if gap else float(fields[j]))
        yield row


def read_parquet(file: Path, drop: Sequence[str]) -> Contents:
    """The columns of numbers as one array, or each column of lists as an array of its own."""
    parquet = optional("pyarrow.parquet", f"{file}: a .parquet file", "cli")
    arrow = optional("pyarrow", f"{file}: a .parquet file", "cli")
    try:
        with parquet.ParquetFile(file) as table:
            schema, count = table.schema_arrow, table.metadata.num_rows
            kept = [schema.field(i) for i in _kept_columns(file, schema.names, len(schema.names), drop)]
            if count == 0:
                raise InputError(f"{file}: expected rows, got none.")
            lists = [f for f in kept if _is_list(arrow.types, f.type)]
            widths = {f.name: _list_width(table, f.name) for f in lists}
    except arrow.ArrowException as error:
        raise InputError(f"{file}: cannot be read as Parquet: {first_line(error)}") from None
    if lists:
        others = [f.name for f in kept if f not in lists]
        notes = [f"Left out: columns of {file} that are not lists: {', '.join(others)}."] if others else []
        sources = [
            _parquet(file, f.name, [f.name], count, widths[f.name], _dtype(f.type.value_type)) for f in lists
        ]
        return Contents(sources, notes)
    for field in kept:
        types = arrow.types
        if not (
            types.is_integer(field.type) or types.is_floating(field.type) or types.is_boolean(field.type)
        ):
            raise InputError(
                f"{file}: column {field.name}: expected numbers, got {field.type}. Use --drop {field.name}."
            )
    kinds = {_dtype(f.type) for f in kept}
    names = [f.name for f in kept]
    return Contents(
        [_parquet(file, None, names, count, len(names), kinds.pop() if len(kinds) == 1 else "mixed")], []
    )


def _dtype(kind: Any) -> str:
    return np.dtype(kind.to_pandas_dtype()).name


def _is_list(types: Any, kind: Any) -> bool:
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _list_width(table: Any, name: str) -> int:
    for batch in table.iter_batches(batch_size=1, columns=[name]):
        value = batch.column(0)[0].as_py()
        return len(value) if value else 0
    return 0


def _parquet(file: Path, key: str | None, names: list[str], rows: int, columns: int, dtype: str) -> Source:
    path = str(file) if key is None else f"{file}:{key}"
    if columns == 0:
        raise InputError(f"{path}: expected lists of numbers, got an empty first row.")

    def read(step: int) -> Iterator[Batch]:
        arrow, parquet = (
            optional(m, f"{file}: a .parquet file", "cli") for m in ("pyarrow", "pyarrow.parquet")
        )
        try:
            with parquet.ParquetFile(file, pre_buffer=False) as table:
                groups = range(table.metadata.num_row_groups)
            for group in groups:  # one pass over the whole file keeps far more of it in memory
                with parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**16) as table:
                    for batch in table.iter_batches(step, [group], names, use_threads=False):
                        if key is None:
                            array = np.column_stack([_numbers(column) for column in batch.columns])
                        else:
                            array = _lists(batch.column(0), columns, path)
                        yield Batch(array, batch.num_rows)
        except arrow.ArrowException as error:
            raise InputError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None

    return Source(file, key, rows, columns, dtype, rows, "row", read)


def _numbers(column: Any) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _lists(column: Any, width: int, path: str) -> np.ndarray:
    values = _numbers(column.flatten())
    if column.null_count or len(values) != width * len(column) or not _all_of_length(column, width):
        raise InputError(f"{path}: expected lists of one length in every row, {width} as in the first.")
    return as_rows(values.reshape(len(column), width))


def _all_of_length(column: Any, width: int) -> bool:
    if not hasattr(column, "value_lengths"):
        return True  # fixed by the type
    return bool((np.asarray(column.value_lengths()) == width).all())
