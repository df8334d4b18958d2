"""The pages that a newcomer reads: every Python example on them runs, every link leads somewhere."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from matinfo.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = [
    page for page in sorted((ROOT / "docs").rglob("*.md")) if not {"_build", "integrations"} & {*page.parts}
]
"""Integrations run in tests/interop/test_integrations.py, where the tools that they are about are installed."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
NEEDS_PEERS = {ROOT / "docs" / "theory" / "conformance.md"}
"""Its examples run in tests/theory/test_conformance.py, where the other packages are installed."""
DECIMAL = re.compile(r"\d+\.\d+")
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def relative(path):
    return str(path.relative_to(ROOT))


def blocks(page):
    """Yield the line number and the text of each Python block of a page."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield text.count("\n", 0, match.start(1)), match[1]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(blocks(page)) and page not in NEEDS_PEERS], ids=relative
)
def test_page_examples_print_what_the_page_says(page):
    examples = []
    for line, block in blocks(page):
        found = doctest.DocTestParser().get_examples(block, name=relative(page))
        assert found, f"{relative(page)}, line {line + 1}: a Python block without '>>>' is never run"
        for example in found:
            example.lineno += line
        examples += found
    assert examples
    report: list[str] = []
    test = doctest.DocTest(examples, {"__name__": "__main__"}, relative(page), str(page), 0, docstring=None)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    outcome = runner.run(test, out=report.append)
    assert outcome.attempted == len(examples)
    assert outcome.failed == 0, "".join(report)


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_readme_shows_what_the_report_says_of_its_features(tmp_path, monkeypatch, capsys):
    page, names = ROOT / "README.md", {}
    for _, block in blocks(page):
        for example in doctest.DocTestParser().get_examples(block):
            exec(compile(example.source, "README.md", "single"), names)
    monkeypatch.chdir(tmp_path)
    np.save("first.npy", names["features"].detach().numpy())
    np.save("second.npy", names["model"](names["features"]).detach().numpy())
    text = page.read_text(encoding="utf-8")
    (command,) = re.findall(r"^matinfo (report .*) --html", text, re.MULTILINE)
    capsys.readouterr()
    assert main([*command.split(), "--alpha", "1"]) == 0  # the other orders take time, and are not shown
    said = {DECIMAL.sub("#", line): DECIMAL.findall(line) for line in lines(capsys.readouterr().out)}
    (shown,) = re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for line in lines(shown):
        found = said[DECIMAL.sub("#", line)]
        assert [*map(float, found)] == pytest.approx([*map(float, DECIMAL.findall(line))], rel=2e-3), line


def test_readme_and_conventions_have_examples():
    assert any(blocks(ROOT / "README.md"))
    assert any(blocks(ROOT / "docs" / "conventions.md"))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_links_lead_to_files_and_headings_that_exist(page):
    content = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", content)
    targets += re.findall(r"\{download\}`[^<`]*<([^>]+)>`", content)
    targets += re.findall(r"^```\{figure\} (\S+)$", content, re.MULTILINE)
    for target in targets:
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


def anchors(file):
    content = file.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", content, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    slugs |= {re.sub(r"\W+", "-", heading.lower()).strip("-") for heading in headings}  # of docutils
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", content, re.MULTILINE))


def test_readme_commands_name_scripts_that_exist():
    scripts = re.findall(r"^python (\S+\.py)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
