"""Tables: which columns are features, and their rows in batches. Arrow reads CSV, Parquet, Feather and IPC files."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from matinfo._extras import needs
from matinfo.cli.errors import InputError, first_line
from matinfo.cli.source import Batch, Contents, Source, as_rows, usable

with needs("pyarrow", "matinfo.cli.read_tables", "cli"):
    import pyarrow as pa
    from pyarrow import compute, ipc, parquet, types

SAMPLE_ROWS = 256
"""Rows that tell what a column holds, where its type does not."""

NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:inf|infinity|nan)"
_GAP = r"[\s,;]+"
VECTOR = re.compile(
    rf"\s*(?:[a-z.]*\(\s*)?[\[({{]\s*(?:{NUMBER})(?:{_GAP}(?:{NUMBER}|\.\.\.))*[\s,;]*[\])}}]"
    rf"\s*(?:,\s*[a-z_]+=[^)]*)?\)?\s*|\s*(?:{NUMBER})"
    rf"(?:(?:\s+(?:{NUMBER})){{2,}}|(?:\s*,\s*(?:{NUMBER})){{2,}}|(?:\s*;\s*(?:{NUMBER})){{2,}})\s*",
    re.IGNORECASE | re.ASCII,
)
"""A vector as text: ``[0.1, 0.2]``, ``[0.1 0.2]``, ``array([...], dtype=...)``, or at least three bare numbers."""

_NEARLY_A_NUMBER = re.compile(r"(?=\D*\d)[\s\d.,'_%$€+-]+(?:[de][+-]?\d+)?", re.IGNORECASE)
_ID_NAME = re.compile(r"X|(?i:(?:.*_)?(?:id|idx|index|uid|uuid|row|rowid|rownum|rownames?)|level_\d+)")
_INDEX_NAME = re.compile(r"|Unnamed: \d+(?:_level_\d+)?|__index_level_\d+__")
"""How pandas and R call the column of an index that has no name of its own."""


class Table(NamedTuple):
    """Columns of a file; ``read(which, m)`` yields these of the columns, m rows at a time, and the progress made."""

    file: Path
    names: list[str]
    sample: list[Any]
    """The first rows of each column, an Arrow array."""
    indices: set[str]
    """Names of columns that the file itself says are an index."""
    rows: int | None
    size: int | None
    """Bytes, where progress is in bytes and not in rows."""
    read: Callable[[list[int], int], Iterator[tuple[list[Any], int]]]


@contextlib.contextmanager
def arrow_errors(file: Path, kind: str) -> Iterator[None]:
    """What Arrow finds wrong, in one line."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise InputError(f"{file}: cannot be read as {kind}: {first_line(error)}") from None


def contents(table: Table, drop: Sequence[str]) -> Contents:
    """The columns of numbers as one array, or each column of vectors as an array of its own."""
    file, notes = table.file, []
    numbers: list[int] = []
    vectors: list[int] = []
    for i in _kept(table, drop):
        name = table.names[i]
        if reason := _index(table, i):
            notes.append(f"Left out: {file}: column {name!r} is an index: {reason}.")
        elif _is_vector(table.sample[i]):
            vectors.append(i)
        elif _is_number(table.sample[i].type):
            numbers.append(i)
        else:
            notes.append(f"Left out: {file}: column {name!r}: expected numbers, got {_what(table, i)}.")
    if vectors:
        if numbers:
            others = ", ".join(repr(table.names[i]) for i in numbers)
            notes.append(f"Left out: {file}: columns that are not vectors, as others are: {others}.")
        sources, left_out = usable([partial(_vectors, table, i) for i in vectors])
        return Contents(sources, notes + left_out)
    if not numbers:
        return Contents([], notes)
    kinds = {_dtype(table.sample[i].type) for i in numbers}
    names = [table.names[i] for i in numbers]

    def read(step: int) -> Iterator[Batch]:
        for columns, progress in table.read(numbers, step):
            yield Batch(np.column_stack([_as_float(column) for column in columns]), progress)

    dtype = " ".join(sorted(kinds))
    source = Source(file, None, table.rows, len(numbers), dtype, read, tuple(names), table.size)
    return Contents([source], notes)


def _kept(table: Table, drop: Sequence[str]) -> list[int]:
    dropped: set[str] = set()
    for given in drop:
        for name in [given] if given in table.names else given.split(","):
            if name not in table.names:
                present = ", ".join(table.names[:8]) + (", ..." if len(table.names) > 8 else "")
                raise InputError(f"{table.file}: no column {name!r} to drop; it has {present}.")
            dropped.add(name)
    kept = [i for i, name in enumerate(table.names) if name not in dropped]
    if not kept:
        raise InputError(f"{table.file}: no column is left after --drop.")
    return kept


def _index(table: Table, i: int) -> str:
    """Why this column is an index for certain, or nothing."""
    name, values = table.names[i], table.sample[i]
    if name in table.indices:
        return "the file says so"
    if len(table.names) == 1 or not any(table.names):
        return ""
    if _INDEX_NAME.fullmatch(name) and (name or not any(table.names[:i])):
        return (
            "its name is the one that programs give to an index" if name else "it has no name, as others have"
        )
    if not _ID_NAME.fullmatch(name) or not pa.types.is_integer(values.type) or values.null_count:
        return ""
    whole = np.concatenate([_as_float(columns[0]) for columns, _ in table.read([i], 2**16)])
    distinct = len(whole) > 2 and len(np.unique(whole)) == len(whole) and not (whole % 1).any()
    return "its name, and whole numbers that are all different" if distinct else ""


def _is_number(kind: Any) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
    )


def _is_text(kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_list(kind: Any) -> bool:
    return bool(
        types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or
        types.is_list_view(kind) or types.is_large_list_view(kind)
    )  # fmt: skip


def _storage(column: Any) -> Any:
    """The array inside an extension type, such as a column of tensors."""
    return column.storage if hasattr(column, "storage") else column


def _is_vector(sample: Any) -> bool:
    """Whether a column holds lists of numbers, or of lists of them, or text that is a list of numbers."""
    column = _storage(sample)
    if _is_text(column.type):
        texts = [text for text in column.to_pylist() if text]
        return bool(texts) and all(VECTOR.fullmatch(text) for text in texts)
    innermost = column.type
    while _is_list(innermost):
        innermost = innermost.value_type
    return _is_list(column.type) and _is_number(innermost)


def _what(table: Table, i: int) -> str:
    """What a column holds that is not numbers; an error where it may be numbers in another way of writing."""
    column = table.sample[i]
    if _is_text(column.type):
        texts = [text for text in column.to_pylist() if text]
        numbers = [
            text for text in texts if text.isascii() and re.fullmatch(NUMBER, text.strip(), re.IGNORECASE)
        ]
        odd = [text for text in texts if text not in numbers]
        if odd and (numbers or _NEARLY_A_NUMBER.fullmatch(odd[0])):
            first = column.to_pylist().index(odd[0])
            raise InputError(
                f"{table.file}: column {table.names[i]}, row {first}, counted from 0: expected a number, got "
                f"{odd[0][:40]!r}. Leave the column out with --drop {table.names[i]}."
            )
        return f"text such as {texts[0][:20]!r}" if texts else "text"
    return "nothing" if str(column.type) == "null" else str(column.type)


def _dtype(kind: Any) -> str:
    return (
        "float64"
        if str(kind).startswith(("decimal", "dictionary"))
        else np.dtype(kind.to_pandas_dtype()).name
    )


def _as_float(column: Any) -> np.ndarray:
    """Numbers, with NaN where there is none."""
    if hasattr(column, "dictionary_decode"):
        column = column.dictionary_decode()
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _vectors(table: Table, i: int) -> Source:
    path = f"{table.file}:{table.names[i]}"
    column = table.sample[i]
    kind, text = _storage(column).type, _is_text(_storage(column).type)
    if not text and _is_list(kind.value_type):
        raise InputError(
            f"{path}: expected one vector a row, got {column.type}; pool or flatten it, e.g. x.reshape(len(x), -1)."
        )
    shape = getattr(column.type, "shape", None)
    if shape is not None and len(shape) != 1:
        raise InputError(
            f"{path}: expected one vector a row, got tensors of shape {tuple(shape)}; pool or flatten them, "
            "e.g. x.reshape(len(x), -1)."
        )
    lists = _split(column, path) if text else _storage(column)
    first = next((value for value in lists if value.is_valid), None)
    width = len(first) if first is not None else 0
    if width == 0:
        raise InputError(f"{path}: expected lists of numbers, got an empty first row.")

    def read(step: int) -> Iterator[Batch]:
        for (part,), progress in table.read([i], step):
            yield Batch(_stack(_split(part, path) if text else _storage(part), width, path), progress)

    dtype = "text" if text else _dtype(kind.value_type)
    return Source(table.file, table.names[i], table.rows, width, dtype, read, size=table.size)


def _split(column: Any, path: str) -> Any:
    """Lists of numbers from text."""
    if compute.any(compute.match_substring(column, "...")).as_py():
        raise InputError(
            f"{path}: NumPy has left numbers out of this text and written '...' for them. Save the array itself, "
            "e.g. np.save(file, np.stack(vectors))."
        )
    inside = compute.replace_substring_regex(column, r"(?s)^[^\[({]*[\[({]+|[\])}].*$", "")
    inside = compute.utf8_trim(inside, " \t\r\n,;")
    texts = compute.split_pattern_regex(inside, _GAP)
    try:
        values = compute.cast(texts.flatten(), pa.float64())
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: expected vectors of numbers: {first_line(error)}") from None
    lengths = np.asarray(texts.value_lengths().fill_null(0))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=texts.is_null())


def _stack(lists: Any, width: int, path: str) -> np.ndarray:
    """Rows of lists of one length; NaN where there is no list."""
    there = ~np.asarray(lists.is_null())
    lists = lists.drop_null()
    values = _as_float(lists.flatten())
    same = not hasattr(lists, "value_lengths") or bool((np.asarray(lists.value_lengths()) == width).all())
    if not same or len(values) != width * len(lists):
        raise InputError(f"{path}: expected lists of one length in every row, {width} as in the first.")
    if there.all():
        return as_rows(values.reshape(len(lists), width))
    rows = np.full((len(there), width), np.nan)
    rows[there] = values.reshape(len(lists), width)
    return rows


def read_parquet(file: Path, drop: Sequence[str]) -> Contents:
    """A Parquet file, row group by row group."""

    def read(which: list[int], step: int) -> Iterator[tuple[list[Any], int]]:
        with arrow_errors(file, "Parquet"):
            with parquet.ParquetFile(file, pre_buffer=False) as table:
                names = table.schema_arrow.names
                groups = range(table.metadata.num_row_groups)
            for group in groups:  # one pass over the whole file keeps far more of it in memory
                with parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**16) as table:
                    columns = [names[i] for i in which]
                    for batch in table.iter_batches(step, [group], columns, use_threads=False):
                        yield [batch.column(name) for name in columns], batch.num_rows

    with arrow_errors(file, "Parquet"), parquet.ParquetFile(file) as table:
        schema, rows = table.schema_arrow, table.metadata.num_rows
        if repeated := sorted({name for name in schema.names if schema.names.count(name) > 1}):
            raise InputError(f"{file}: two columns are called {repeated[0]!r}. Give each a name of its own.")
        first = next(table.iter_batches(SAMPLE_ROWS), None)
    return _arrow_contents(file, schema, first, rows, read, drop)


def read_arrow(file: Path, drop: Sequence[str]) -> Contents:
    """An Arrow IPC file or stream, which Feather files are too."""

    def batches(source: Any) -> tuple[Any, Iterator[Any]]:
        try:
            reader = ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            reader = ipc.open_stream(source)
            return reader.schema, iter(reader)
        return reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))

    def read(which: list[int], step: int) -> Iterator[tuple[list[Any], int]]:
        with arrow_errors(file, "Arrow"), pa.memory_map(str(file)) as source:
            for batch in batches(source)[1]:
                for start in range(0, batch.num_rows, step):
                    part = batch.slice(start, step)
                    yield [part.column(i) for i in which], part.num_rows

    with arrow_errors(file, "Arrow"), pa.memory_map(str(file)) as source:
        schema, found = batches(source)
        first = next((batch.slice(0, SAMPLE_ROWS) for batch in found if batch.num_rows), None)
        return _arrow_contents(file, schema, first, None, read, drop)


def _arrow_contents(
    file: Path, schema: Any, first: Any, rows: int | None, read: Any, drop: Sequence[str]
) -> Contents:
    if first is None or rows == 0:
        raise InputError(f"{file}: expected rows, got none.")
    pandas = {}
    with contextlib.suppress(ValueError):
        pandas = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    index = {name for name in pandas.get("index_columns", []) if isinstance(name, str)}
    table = Table(file, schema.names, first.columns, index, rows, None, read)
    with arrow_errors(file, "a table"):
        return contents(table, drop)
