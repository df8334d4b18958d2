"""A report as one page: text, tables and pictures in one file, which asks nothing of the network."""

from __future__ import annotations

import base64
from html import escape

import matinfo
from matinfo.cli.arguments import Options
from matinfo.cli.as_text import (
    array_names,
    describe,
    describe_pair,
    describe_shape,
    describe_spectrum,
    grouped,
    number,
    table_rows,
    terms,
)
from matinfo.cli.errors import printable
from matinfo.cli.picture import picture_bytes
from matinfo.cli.report import Report
from matinfo.cli.value import Value

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --muted: #57606a; --line: #d5dae0; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181d; --text: #e6eaee; --muted: #9aa4af; --line: #333a42; }
}
body { background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; overflow-wrap: anywhere; }
p.what, td.call, footer { color: var(--muted); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.9rem 0.25rem 0; text-align: left; }
td.number, th.number { font-variant-numeric: tabular-nums; text-align: right; }
code { font-family: ui-monospace, monospace; font-size: 0.875em; }
img { height: auto; max-width: 100%; }
dt { font-weight: 600; } dd { color: var(--muted); margin: 0 0 0.5rem 1.2rem; }
footer { border-top: 1px solid var(--line); font-size: 0.875rem; margin-top: 2rem; }
"""


def html_page(report: Report, options: Options) -> str:
    """The page; whatever comes from a file is escaped."""
    names = array_names(report)
    title = "Matrix information of " + ", ".join(
        dict.fromkeys(printable(a.measured.source.file.name) for a in report.arrays)
    )
    drawn = {}
    for theme in ("light", "dark"):
        code = base64.b64encode(picture_bytes(report, options, theme, "svg")).decode()
        drawn[theme] = f"data:image/svg+xml;base64,{code}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="what">{escape(describe(options))}</p>',
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{drawn["dark"]}">',
        f'<img src="{drawn["light"]}" alt="Spectrum and entropies; the numbers are in the tables below"></picture>',
    ]
    if report.pair is None and len(report.arrays) > 1:
        parts.append(_table(table_rows(report, names)))
    else:
        for array, name in zip(report.arrays, names, strict=True):
            parts += [
                f"<h2>{escape(name)}</h2>",
                f'<p class="what">{escape(describe_shape(array))}</p>',
                _values(array.values, describe_spectrum(array)),
            ]
    if report.pair is not None:
        parts += [
            f"<h2>1: {escape(names[0])}, 2: {escape(names[1])}</h2>",
            f'<p class="what">{escape(describe_pair(report, options))}</p>',
            _values(report.pair.values, []),
        ]
    words = "".join(
        f"<dt>{escape(term)}</dt><dd>{escape(what)}.</dd>" for term, what in terms(report).items()
    )
    parts.append(f"<h2>Terms</h2><dl>{words}</dl>")
    if report.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
        parts.append(f"<h2>Notes</h2><ul>{notes}</ul>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<footer>matinfo {escape(matinfo.__version__)}. The report in JSON (--json) holds the lines of Python after "
        "which the calls give the numbers.</footer>\n</body>\n</html>\n"
    )


def _values(values: list[Value], more: list[tuple[str, str]]) -> str:
    by_chance = any(value.chance for value in values)

    def row(title: str, value: Value) -> str:
        call = "" if title != value.title else f"<code>{escape(value.call)}</code>"
        what = [f"<td>{escape(value.unit)}</td>"]
        if by_chance:
            what.append(f"<td>{escape(str(value.chance or ''))}</td>")
        if value.value is None:
            what = [f'<td colspan="{len(what)}">{escape(value.reason)}</td>']
        return (
            f'<tr><td>{escape(title)}</td><td class="number">{escape(number(value))}</td>'
            f'{"".join(what)}<td class="call">{call}</td></tr>'
        )

    rows = [row(title, value) for title, value in grouped(values)]
    rows += [f'<tr><td>{escape(title)}</td><td colspan="3">{escape(text)}</td></tr>' for title, text in more]
    names = ["unit", *(["by chance"] if by_chance else []), "call"]
    heads = "".join(f"<th>{name}</th>" for name in names)
    head = f'<tr><th>quantity</th><th class="number">value</th>{heads}</tr>'
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _table(rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        first, *rest = cells
        numbers = "".join(f'<{tag} class="number">{escape(cell)}</{tag}>' for cell in rest)
        return f"<tr><{tag}>{escape(first)}</{tag}>{numbers}</tr>"

    body = line(rows[0], "th") + "".join(line(row, "td") for row in rows[1:])
    return f'<div class="wide"><table>{body}</table></div>'
