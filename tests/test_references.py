"""The page of references lists every paper that a docstring or a page names by author and year."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import matinfo

DOCS = Path(__file__).resolve().parents[1] / "docs"
NAME = r"(?:van den |von |van |de )?[A-ZÁÉÖÜŠ][\w'’-]+"
CITATION = re.compile(
    rf"({NAME})(?:,? (?:and|et al\.|&)[^()\d;]*|, {NAME}[^()\d;]*)? \(((?:19|20)\d\d)[a-z]?\)"
)


def docstrings():
    """The References section of everything in the package, private modules too."""
    for info in pkgutil.walk_packages(matinfo.__path__, "matinfo."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        members = [
            member for member in vars(module).values() if getattr(member, "__module__", None) == info.name
        ]
        for member in [module, *members]:
            text = inspect.getdoc(member) or ""
            section = re.search(r"^References:\n(.*?)(?=^\w+:$|\Z)", text, re.MULTILINE | re.DOTALL)
            if section:
                yield info.name, re.sub(r"\s+", " ", section[1])


def test_every_cited_paper_is_on_the_page_of_references():
    page = (DOCS / "references.md").read_text(encoding="utf-8")
    entries = re.findall(r"^- (.*?\(\d{4}\))", re.sub(r"\n  +", " ", page), re.MULTILINE)
    missing = set()
    for place, text in docstrings():
        for author, year in CITATION.findall(text):
            if not any(author.split()[-1] in entry and year in entry for entry in entries):
                missing.add(f"{author} ({year}), cited in {place}")
    assert sorted(missing) == []


def test_references_are_in_the_order_of_the_alphabet():
    page = (DOCS / "references.md").read_text(encoding="utf-8")
    first = [re.split(r" and |,| et al| \(", line)[0] for line in re.findall(r"^- (.*)", page, re.MULTILINE)]
    names = [re.sub(r"^(van den |von |van |de )", "", name).casefold() for name in first]
    assert names == sorted(names)
