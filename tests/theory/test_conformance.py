"""The examples of the conformance page, each where its package is installed."""

from __future__ import annotations

import doctest
import importlib
import re
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "theory" / "conformance.md"
MODULES = {
    "vendi-score": "vendi_score",
    "QuTiP": "qutip",
    "PennyLane": "pennylane",
    "toqito": "toqito",
    "dit": "dit",
    "scikit-learn": "sklearn",
    "scikit-dimension": "skdim",
    "Released code": "matinfo",
    "Released training losses": "matinfo",
}


def sections():
    """The Python examples of the introduction (under "") and of each package."""
    parts = re.split(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = dict(zip(["", *parts[1::2]], [parts[0], *parts[2::2]], strict=True))
    return {
        name: "".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        for name, text in texts.items()
    }


def run(text, names, title):
    report: list[str] = []
    examples = doctest.DocTestParser().get_examples(text)
    test = doctest.DocTest(examples, names, f"{PAGE.name} {title}", str(PAGE), 0, docstring=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages' own
        outcome = doctest.DocTestRunner().run(test, out=report.append, clear_globs=False)
    assert outcome.attempted > 0
    assert outcome.failed == 0, "".join(report)
    return test.globs


def test_every_package_of_the_page_is_tried():
    assert sorted(sections()) == sorted(["", *MODULES])


@pytest.mark.parametrize("package", MODULES)
def test_package_gives_the_number_of_the_page(package):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(MODULES[package])
        except ImportError as missing:
            pytest.skip(f"{package} is not installed ({missing})")
    names = run(sections()[""], {"__name__": "__main__"}, "introduction")
    run(sections()[package], names, package)


def test_a_number_that_differs_is_noticed():
    names = run(sections()[""], {"__name__": "__main__"}, "introduction")
    with pytest.raises(AssertionError):
        run(">>> check(matinfo.renyi_entropy(K, 1), matinfo.renyi_entropy(K, 2))\n", names, "wrong")
