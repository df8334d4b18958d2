"""Scripts and guides of the documentation are listed where a reader looks for them. The build runs the scripts."""

from __future__ import annotations

import ast
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
