"""Text tables, read by Arrow; here is only what Arrow wants to be told: separator, decimal comma, header, encoding."""

from __future__ import annotations

import codecs
import contextlib
import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from matinfo._extras import needs
from matinfo.cli.errors import InputError, first_line
from matinfo.cli.read_tables import NUMBER, VECTOR, Table, arrow_errors, contents
from matinfo.cli.source import Contents

with needs("pyarrow", "matinfo.cli.read_text", "cli"):
    import pyarrow as pa
    import pyarrow.csv

_HEAD = 2**18
"""Bytes of text that are looked at for its layout."""

_BLOCK = 2**20
"""Bytes that Arrow parses at a time, more where lines are long."""

_LINES = 64
"""Rows that tell how the numbers are written."""

_NUMBER = re.compile(rf"{NUMBER}|true|false", re.IGNORECASE | re.ASCII)
_COMMA = re.compile(r"[+-]?\d*,\d+(?:e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+")
_MISSING = [
    "",
    " ",
    *["?", ".", "NA", "N/A", "n/a", "na", "#N/A", "#NA", "<NA>", "<na>", "NaN", "nan", "NAN", "-nan", "-NaN"],
    *["NULL", "Null", "null", "None", "none", "NONE", "1.#IND", "-1.#IND", "1.#QNAN"],
]
"""How programs write a missing value."""


class _Layout(NamedTuple):
    delimiter: str
    decimal: str
    encoding: str
    skip: int
    names: list[str]
    newlines: bool
    block: int
    notes: list[str]


def read_text(file: Path, drop: Sequence[str]) -> Contents:
    """The numbers of a text table, compressed or not."""
    with arrow_errors(file, "text"):
        layout = _layout(file)
    with _located_errors(file, layout):
        first = _reader(file, layout, {}, False)[0].read_next_batch()
    # A column whose first rows are whole numbers, or gaps, may have fractions later.
    types = {
        str(i): column.type if str(column.type) in {"bool", "string"} else pa.float64()
        for i, column in enumerate(first.columns)
    }

    def read(which: list[int], step: int) -> Iterator[tuple[list[Any], int]]:
        chosen = {str(i): types[str(i)] for i in which}
        try:
            yield from batches(chosen, step, True)
        except pa.ArrowInvalid:
            with _located_errors(file, layout):  # again, as only one thread knows the number of the line
                for _ in batches(chosen, step, False):
                    pass
            raise

    def batches(chosen: dict[str, Any], step: int, threads: bool) -> Iterator[tuple[list[Any], int]]:
        done = 0
        reader, raw = _reader(file, layout, chosen, threads)
        for batch in reader:
            for start in range(0, batch.num_rows, step):
                part, here = batch.slice(start, step), raw.tell()
                yield [part.column(name) for name in chosen], here - done
                done = here

    sample = [column.slice(0, 2048) for column in first.columns]
    table = Table(file, layout.names, sample, set(), None, file.stat().st_size, read)
    sources, notes = contents(table, drop)
    return Contents(sources, layout.notes + notes)


@contextlib.contextmanager
def _located_errors(file: Path, layout: _Layout) -> Iterator[None]:
    """Arrow's errors with the name of the column and the line of the file."""
    try:
        yield
    except pa.ArrowException as error:
        message = first_line(error)
    else:
        return
    row = re.search(r"Row #(\d+): ", message)
    where = f"line {row[1]}" if row else "a line"
    if found := re.match(r"In CSV column #(\d+):.*error to \w+: (.*)", message):
        name = layout.names[int(found[1])]
        what = f"{where}, column {name}: expected a number, got {found[2].removeprefix('invalid value ')}"
        raise InputError(f"{file}: {what}. Leave the column out with --drop {name}.")
    if found := re.search(r"Expected (\d+) columns, got (\d+)", message):
        raise InputError(f"{file}: {where} has {found[2]} columns, the first line {found[1]}.")
    raise InputError(f"{file}: cannot be read as text: {message}")


def _open(file: Path) -> tuple[Any, Any]:
    """The text as bytes, and the file below, whose position is the progress."""
    raw = pa.OSFile(str(file))
    codec = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}.get(file.suffix.lower())
    return (raw if codec is None else pa.CompressedInputStream(raw, codec)), raw


class _OneBlank:
    """A stream of text in which runs of blanks are one: Arrow's separator is a single character."""

    closed = False

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.rest = stream, b""

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        data, self.rest = self.rest + data, b""
        if size >= 0 and (cut := data.rfind(b"\n") + 1):
            data, self.rest = data[:cut], data[cut:]
        elif size >= 0 and data and len(more := self.stream.read(size)):
            self.rest = data + more
            return self.read(size)
        return re.sub(rb"(?m)^ | $", b"", re.sub(rb"[ \t\r]+", b" ", data))

    def close(self) -> None:
        """Nothing: the stream below closes with its owner."""


def _reader(file: Path, layout: _Layout, types: dict[str, Any], threads: bool) -> tuple[Any, Any]:
    stream, raw = _open(file)
    reader = pyarrow.csv.open_csv(
        _OneBlank(stream) if layout.delimiter == " " else stream,
        read_options=pyarrow.csv.ReadOptions(
            use_threads=threads,
            block_size=layout.block,
            skip_rows=layout.skip,
            column_names=[str(i) for i in range(len(layout.names))],
            encoding=layout.encoding,
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=layout.delimiter,
            newlines_in_values=layout.newlines,
            invalid_row_handler=lambda row: "error" if row.text.strip() else "skip",  # a line of blanks
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            null_values=_MISSING,
            strings_can_be_null=True,
            decimal_point=layout.decimal,
        ),
    )
    return reader, raw


def _layout(file: Path) -> _Layout:
    """How a table is written, by its first lines."""
    text, encoding = _head(file)
    lines = text.splitlines(keepends=True)
    delimiters = "\t,;| " if {".tsv", ".tab"} & {suffix.lower() for suffix in file.suffixes} else ",;\t| "
    skip, comment, notes = 0, "", []
    for line in lines:
        start = line.strip()
        if found := re.fullmatch(r"sep=(.)", start, re.IGNORECASE):  # Excel names the separator so
            delimiters = found[1]
        elif start.startswith("#") and not start.upper().startswith(("#N/A", "#NA")):
            comment = start.lstrip("# ")
        elif start:
            break
        skip += 1
    lines = lines[skip:]
    if not lines:
        raise InputError(f"{file}: expected lines of numbers, got an empty file.")
    delimiter = max(delimiters, key=lambda d: (_score(_rows(lines, d)), -delimiters.index(d)))
    rows = _rows(lines, delimiter)
    first, others = rows[0], rows[1:] or rows
    width = _width(others)
    header, doubt = _is_header(first, others)
    if header and len(rows) == 1:
        raise InputError(f"{file}: expected rows of numbers, but there is none.")
    if doubt:
        notes.append(f"{file}: {doubt}")
    names = first if header else [str(i) for i in range(len(first))]
    if header and 1 < len(first) == width - 1:  # R gives the names of rows no name
        names = ["", *first]
    elif not header and comment and len(titles := _rows([comment], delimiter)[0]) == len(first):
        names = titles
    decimal = "," if _has_decimal_commas(others) else "."
    if decimal == ",":
        notes.append(f"{file}: numbers are read with a comma as decimal point.")
    newlines = any("\n" in field for row in rows for field in row)
    if header:  # whose names may hold ends of lines
        reader = csv.reader(lines, delimiter=delimiter)
        next(reader)
        skip += reader.line_num
    block = max(_BLOCK, 16 * max(map(len, lines)))
    return _Layout(delimiter, decimal, encoding, skip, names, newlines, block, notes)


def _head(file: Path) -> tuple[str, str]:
    """The first lines, two at least, and how their characters are written."""
    stream, _ = _open(file)
    data, size = b"", _HEAD
    while more := stream.read(size):
        data, size = data + more, 2 * size
        if data.count(b"\n") > 1 or data.count(b"\r") > 1:
            break
    encodings = (
        ["utf-16"] if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ["utf-8", "latin-1"]
    )
    for encoding in encodings:
        decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
        try:
            text = decoder.decode(data, final=not more)
        except UnicodeDecodeError:
            continue
        if not re.search(r"[\x00-\x08\x0e-\x1f]", text):
            end = max(text.rfind("\n"), text.rfind("\r")) + 1 if more else len(text)
            return text[:end], encoding
    raise InputError(f"{file}: is not text. Is it a table?")


def _rows(lines: list[str], delimiter: str) -> list[list[str]]:
    """Fields of the first rows."""
    if delimiter == " ":
        lines = [re.sub(r"[ \t]+", " ", line.strip(" \t\r\n")) for line in lines[:_LINES]]
    try:
        rows = islice(
            (row for row in csv.reader(lines, delimiter=delimiter) if any(map(str.strip, row))), _LINES
        )
        return [[field.strip() for field in row] for row in rows] or [[""]]
    except csv.Error:  # a carriage return within a line, or a field of megabytes: not a table of this kind
        return [[line.strip()] for line in lines[:_LINES]]


def _width(rows: list[list[str]]) -> int:
    return Counter(map(len, rows)).most_common(1)[0][0]


def _score(rows: list[list[str]]) -> float:
    """How well a separator fits: the share of rows of one width times the share of their fields that are numbers."""
    first, others = rows[0], rows[1:] or rows
    width = _width(others)
    if width == 1 or len(first) not in {width, max(2, width - 1)}:
        return 0.0
    fields = [field for row in others if len(row) == width for field in row]
    numbers = sum(map(_fits, fields)) / len(fields)
    return (numbers + 1e-3) * sum(len(row) == width for row in others) / len(others)


def _fits(field: str) -> bool:
    return bool(_is_number(field) or _COMMA.fullmatch(field) or field in _MISSING or VECTOR.fullmatch(field))


def _is_number(field: str) -> bool:
    return _NUMBER.fullmatch(field) is not None


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    """Whether there is a number with a comma, none with a point, and not each of them a comma of thousands."""
    fields = [field for row in rows for field in row]
    commas = [field for field in fields if _COMMA.fullmatch(field)]
    points = any("." in field and _is_number(field) for field in fields)
    return bool(commas) and not points and not all(map(_THOUSANDS.fullmatch, commas))


def _is_header(first: list[str], others: list[list[str]]) -> tuple[bool, str]:
    """Whether the first row names the columns, and what to say where that is a matter of opinion."""
    counted = first[1:] if first[0] == "" else first
    if counted and counted == [str(i) for i in range(len(counted))]:
        return True, (
            "the first line counts the columns from 0, as a header written by pandas does, and is not read as a row. "
            "If it is one, write 0.0 for its 0."
        )
    if all(map(_fits, first)):
        fractions = all(not any(field.strip().isdigit() for field in row) for row in others)
        if fractions and others[0] is not first and all(field.strip().isdigit() for field in first):
            return False, (
                "the first line has whole numbers above fractions, and is read as a row. If it names the columns, put "
                "a letter in it."
            )
        return False, ""
    if others[0] is first:
        return True, ""
    # A name above a column of numbers is a name; a first row of a table with labels has numbers there, too.
    columns = [i for i in range(min(map(len, [first, *others]))) if all(_fits(row[i]) for row in others)]
    if not columns or not all(_fits(first[i]) for i in columns):
        mixed = any(_is_number(first[i]) for i in columns)
        return (
            True,
            "the first line has numbers beside names, and is read as names of columns." if mixed else "",
        )
    if all(first[i].isdigit() for i in columns) and not all(
        row[i].isdigit() for row in others for i in columns
    ):
        return True, "the first line is read as names of columns. If it is a row, write fractions in it."
    return False, "the first line has numbers above numbers, and is read as a row."
