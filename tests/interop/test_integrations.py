"""The integration pages run as they stand, where the tools that they are about are installed."""

import doctest
import re
import warnings
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "integrations").glob("*.md"))
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "index"], ids=lambda page: page.stem)
def test_integration_page_prints_what_it_says(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    for module in dict.fromkeys(re.findall(r"^>>> (?:import|from) (\w+)", "\n".join(blocks), re.MULTILINE)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip(module)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.stem, str(page), 0)
    assert len(test.examples) > 5
    report = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tools, about themselves
        result = doctest.DocTestRunner(optionflags=flags).run(test, out=report.append)
    assert result.failed == 0, "".join(report)


def test_index_lists_every_page():
    index = next(page for page in PAGES if page.stem == "index").read_text(encoding="utf-8")
    assert {f"{page.stem}.md" for page in PAGES if page.stem != "index"} == set(
        re.findall(r"\((\S+\.md)\)", index)
    )
