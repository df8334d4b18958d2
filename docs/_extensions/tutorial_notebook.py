"""The tutorial as a notebook beside its page: its text, and its examples without prompts and outputs."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGES = ("tutorial",)
FENCE = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
PLAIN = (  # what only Sphinx understands, or leads nowhere from a file on its own
    (re.compile(r"\{[\w:]+\}`~?([^`<]+?)(?: <[^>]+>)?`"), r"`\1`"),
    (re.compile(r"\[([^\]]+)\]\([^)]+\.md[^)]*\)"), r"\1"),
    (re.compile(r"^<a .*\n", re.MULTILINE), ""),
)


def cell(kind: str, source: str, *tags: str) -> dict[str, Any]:
    run = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {"tags": [*tags]} if tags else {}, "source": source.strip(), **run}


def code_cells(block: str) -> list[dict[str, Any]]:
    """A cell ends where something is shown, because Jupyter shows the last value of a cell only."""
    cells, source = [], ""
    examples = doctest.DocTestParser().get_examples(block)
    for example in examples:
        source += example.source
        if example.want or example is examples[-1]:
            cells.append(cell("code", source, *["raises-exception"] * (example.exc_msg is not None)))
            source = ""
    return cells


def notebook(page: str) -> dict[str, Any]:
    """The notebook (nbformat 4) of a page in Markdown."""
    cells = []
    for i, part in enumerate(FENCE.split(page)):  # text and blocks by turns
        if i % 2:
            cells += code_cells(part)
            continue
        for pattern, replacement in PLAIN:
            part = pattern.sub(replacement, part)
        cells += [cell("markdown", part)] * bool(part.strip())
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}


def write(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for name in PAGES:
            page = Path(app.srcdir, f"{name}.md").read_text(encoding="utf-8")
            text = json.dumps(notebook(page), indent=1, ensure_ascii=False)
            Path(app.outdir, f"{name}.ipynb").write_text(text + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
