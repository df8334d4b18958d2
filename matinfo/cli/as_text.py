"""A report for the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np

from matinfo._conventions import describe_rows, set_table
from matinfo.cli.arguments import Options
from matinfo.cli.errors import printable
from matinfo.cli.report import ArrayReport, Report
from matinfo.cli.value import Value, terms_of

_FIRST = 5


def text(report: Report, options: Options) -> str:
    """Lines for one or two arrays, a table for more."""
    names = array_names(report)
    if report.pair is None and len(report.arrays) > 1:
        parts = [f"{describe(options)}\n\n{set_table(table_rows(report, names))}"]
    else:
        parts = [_lines(a, name, options) for a, name in zip(report.arrays, names, strict=True)]
    if report.pair is not None:
        lines = "\n".join(_value_lines(report.pair.values))
        parts.append(f"1: {names[0]}  2: {names[1]}\n{describe_pair(report, options)}\n{lines}")
    words = [
        textwrap.fill(f"{term}: {words}.", 110, subsequent_indent="  ")
        for term, words in terms(report).items()
    ]
    parts.append("\n".join(words))
    return "\n\n".join(parts) + "\n"


def terms(report: Report) -> dict[str, str]:
    """What the numbers of a report mean."""
    return terms_of([*report.arrays[0].values, *(report.pair.values if report.pair else [])])


def array_names(report: Report) -> list[str]:
    """Names of the arrays: of the file and the key, the whole path where two files have one name."""
    sources = [array.measured.source for array in report.arrays]
    keys = [printable(source.key) for source in sources if source.key is not None]
    if len({source.file for source in sources}) == 1 and len(keys) == len(sources) > 1:
        return keys
    names = [source.name for source in sources]
    return names if len(set(names)) == len(names) else [source.path for source in sources]


def describe(options: Options) -> str:
    """What K is."""
    if options.kind == "matrix":
        return "K is the matrix in the file"
    return f"K = Z Z^T, {describe_rows(center=options.center, normalize=options.normalize)}"


def describe_pair(report: Report, options: Options) -> str:
    """What the operands of the pair are."""
    rows = report.pair.rows if report.pair else None
    sample = "" if rows is None else f" of {rows} rows, the same of both"
    if options.kind == "matrix":
        return f"K1, K2 are the matrices in the files{sample and f', information {sample}'}"
    return f"K1, K2 are over samples (Z Z^T){sample}; M1, M2 over columns (Z^T Z), of trace 1"


def describe_shape(array: ArrayReport) -> str:
    """Rows and columns that were read."""
    m = array.measured
    left_out = f" ({m.skipped} more left out)" if m.skipped else ""
    if m.rows + m.skipped < m.total:
        left_out += f" drawn from {m.total}"
    rows, columns = f"row{'s' * (m.rows != 1)}", f"column{'s' * (m.source.columns != 1)}"
    return f"{m.rows} {rows}{left_out}, {m.source.columns} {columns}, {m.source.dtype}"


def describe_spectrum(array: ArrayReport) -> list[tuple[str, str]]:
    """The largest eigenvalues, and how many hold most of the trace."""
    shares = np.asarray(array.measured.S.probabilities)
    largest = " ".join(f"{share:.4g}" for share in shares[:_FIRST])
    total = np.cumsum(shares)
    counts = [int(np.searchsorted(total, part * (1 - 1e-12))) + 1 for part in (0.9, 0.99)]
    return [
        ("largest eigenvalues / trace", largest + (" ..." if len(shares) > _FIRST else "")),
        ("eigenvalues for 90 %, 99 % of the trace", f"{counts[0]}, {counts[1]}"),
    ]


def number(value: Value) -> str:
    """Digits that a reader wants, or a dash."""
    if value.value is None:
        return "inf" if value.reason.startswith("infinite") else "-"
    if not math.isfinite(value.value):
        return "-"
    return f"{value.value:.6g}" if abs(value.value) > 1e-13 else "0"


def _lines(array: ArrayReport, name: str, options: Options) -> str:
    head = [f"{name}: {describe_shape(array)}", describe(options)]
    return "\n".join([*head, *_value_lines(array.values, describe_spectrum(array))])


def shown(value: Value) -> str:
    """A number with its unit and chance level, or the reason why there is none."""
    if value.value is None:
        return f"{number(value)}  {value.reason}"
    text = f"{number(value)} {value.unit}".rstrip()
    return text if value.chance is None else f"{text}; by chance {value.chance}"


def grouped(values: Sequence[Value]) -> list[tuple[str, Value]]:
    """Titles and values; those that there are not for one and the same reason as one."""
    result: dict[tuple[str, str], tuple[list[str], Value]] = {}
    for value in values:
        refused = value.value is None and not value.reason.startswith("infinite")
        title = value.title.partition(",")[0] if refused else value.title
        titles, _ = result.setdefault(("", value.reason) if refused else (title, ""), ([], value))
        if title not in titles:
            titles.append(title)
    return [(", ".join(titles), value) for titles, value in result.values()]


def _value_lines(values: list[Value], more: list[tuple[str, str]] | None = None) -> list[str]:
    rows = [(title, shown(value)) for title, value in grouped(values)] + (more or [])
    width = max(len(title) for title, _ in rows)
    return [f"  {title.ljust(width)}  {text}" for title, text in rows]


def table_rows(report: Report, names: list[str]) -> list[list[str]]:
    """Heading and one row for each array, columns without a number left out."""
    used = [
        i
        for i, v in enumerate(report.arrays[0].values)
        if any(a.values[i].value is not None for a in report.arrays)
    ]
    heading = ["array", "rows", "columns", *(_short(report.arrays[0].values[i]) for i in used)]
    rows = [
        [name, str(a.measured.rows), str(a.measured.source.columns), *(number(a.values[i]) for i in used)]
        for a, name in zip(report.arrays, names, strict=True)
    ]
    return [heading, *rows]


def _short(value: Value) -> str:
    short = {"renyi_entropy": "H", "effective_rank": "effective rank", "participation_ratio": "participation"}
    name = short.get(value.name, value.title)
    name = name if value.alpha is None else f"{name}_{value.title.rpartition(' ')[2]}"
    return f"{name} ({value.unit})" if value.unit != "dimensions" else name
