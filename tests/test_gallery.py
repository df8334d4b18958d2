"""Scripts and guides of the documentation are listed where a reader looks for them. The build runs the scripts."""

from __future__ import annotations

import ast
import contextlib
import doctest
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCRIPTS = sorted((DOCS / "gallery").glob("plot_*.py"))
GUIDES = sorted(path.stem for path in (DOCS / "how-to").glob("*.md") if path.stem != "index")


@pytest.fixture
def order(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DOCS / "_extensions"), *sys.path])
    from gallery_rules import ORDER

    return ORDER


def test_every_script_has_its_place_in_the_gallery(order):
    assert sorted(order) == [script.name for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_has_a_title_and_says_something(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    title, underline, *text = (ast.get_docstring(tree) or "").splitlines()
    assert len(underline) == len(title)
    assert set(underline) == {"="}
    assert " ".join(text).strip()


def test_every_guide_is_in_the_table_and_in_the_tree():
    page = (DOCS / "how-to" / "index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\(([\w-]+)\.md\)", page)) == GUIDES
    tree = page.split("```{toctree}")[1].split("```")[0].split()[1:]
    assert sorted(name for name in tree if name != ":hidden:") == GUIDES


@pytest.fixture
def tutorial(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DOCS / "_extensions"), *sys.path])
    from tutorial_notebook import notebook

    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.sub("^```.*$", "", text, flags=re.MULTILINE)
    return doctest.DocTestParser().get_examples(blocks), notebook(text)["cells"]


def test_notebook_of_the_tutorial_has_the_examples_of_the_page(tutorial):
    examples, cells = tutorial
    code = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
    assert code.splitlines() == "".join(example.source for example in examples).splitlines()


def test_notebook_of_the_tutorial_runs_and_shows_what_the_page_shows(tutorial, capsys):
    examples, cells = tutorial
    wanted = [example.want for example in examples if example.want]
    shown, names = [], {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            fails = "raises-exception" in cell["metadata"].get("tags", [])
            *first, last = ast.parse(cell["source"]).body  # as in Jupyter the value of the last line is shown
            with pytest.raises(ValueError, match="square") if fails else contextlib.nullcontext():
                exec(compile(ast.Module(first, []), "cell", "exec"), names)
                exec(compile(ast.Interactive([last]), "cell", "single"), names)
            output = capsys.readouterr().out
            shown += [wanted[len(shown)] if fails else output] * bool(fails or output)
    same = doctest.OutputChecker().check_output
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert len(shown) == len(wanted)
    assert [pair for pair in zip(wanted, shown, strict=True) if not same(*pair, options)] == []


def test_notebook_text_has_nothing_that_only_the_site_understands(tutorial):
    _, cells = tutorial
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert "# Tutorial" in text
    assert re.findall(r"\{[\w:]+\}`|\.md\b|<a |```python", text) == []
