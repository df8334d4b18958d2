"""Every public name is documented: in its docstring, and on the reference page."""

import inspect
import re
from pathlib import Path

import pytest

import matinfo
from matinfo import cli, metrics, plot

API_PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
PUBLIC = {f"matinfo.{name}": getattr(matinfo, name) for name in matinfo.__all__}
for module in [member for member in PUBLIC.values() if inspect.ismodule(member)]:
    for member_name in module.__all__:
        if (
            getattr(module, member_name) not in PUBLIC.values()
        ):  # matinfo.correlation is also in matinfo.kernels
            PUBLIC[f"{module.__name__}.{member_name}"] = getattr(module, member_name)
PUBLIC = {name: member for name, member in PUBLIC.items() if not inspect.ismodule(member)}
TABLES = {"matinfo.measures.MEASURES"}
for module in (metrics, plot, cli):  # not imported with the package
    PUBLIC |= {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}
MADE_BY_US = {
    "matinfo.Explanation",
    "matinfo.Step",
    "matinfo.IndependenceTest",
    "matinfo.estimate.Estimate",
    "matinfo.estimate.DifferentiableEstimate",
    "matinfo.layers.LayerReport",
    "matinfo.measures.Interval",
    "matinfo.measures.Measure",
    "matinfo.measures.PowerLaw",
    "matinfo.monitor.Spectra",
}  # results: no user calls these
CALLABLE = [name for name in PUBLIC if name not in MADE_BY_US | TABLES]
WITH_ARGUMENTS = [name for name in CALLABLE if inspect.signature(PUBLIC[name]).parameters]


def names_on_the_api_page():
    module, names = "", []
    for line in API_PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            names.append(f"{module}.{line.strip()}")
    return names


def test_public_names_are_those_of_every_topic():
    expected = {
        "matinfo.renyi_entropy",
        "matinfo.Gram",
        "matinfo.kernels.rbf",
        "matinfo.losses.mmae_tcr_loss",
    }
    assert expected <= set(PUBLIC)


def test_api_page_lists_every_public_name_once():
    assert sorted(names_on_the_api_page()) == sorted(PUBLIC)


def test_formulas_page_has_every_quantity_and_estimate():
    page = (API_PAGE.parent / "formulas.md").read_text(encoding="utf-8")
    tools = {"explain", "no_checks"}
    names = {name.rpartition(".")[2] for name in CALLABLE if re.fullmatch(r"matinfo(\.estimate)?\.\w+", name)}
    assert {name for name in names - tools if not re.search(rf"`\.?(estimate\.)?{name}\b", page)} == {
        "Spectrum"
    }


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in TABLES])
def test_docstring_starts_with_a_sentence(name):
    first = (inspect.getdoc(PUBLIC[name]) or "").split("\n\n")[0]
    assert re.fullmatch(r"[A-Z].*\.", first, re.DOTALL)


@pytest.mark.parametrize("name", CALLABLE)
def test_docstring_has_the_sections(name):
    member = PUBLIC[name]
    docstring = inspect.getdoc(member) or ""
    sections = set(re.findall(r"^(\w+):$", docstring, re.MULTILINE))
    assert "Example" in sections
    assert ">>> " in docstring
    assert "Args" in sections or not inspect.signature(member).parameters
    assert sections & {"Returns", "Yields"} or inspect.isclass(member)


@pytest.mark.parametrize("name", WITH_ARGUMENTS)
def test_docstring_names_every_argument(name):
    docstring = inspect.getdoc(PUBLIC[name])
    described = re.split(r"^Args:$", docstring, maxsplit=1, flags=re.MULTILINE)[1]
    missing = [
        parameter
        for parameter in inspect.signature(PUBLIC[name]).parameters
        if not re.search(rf"^ +(.*, )?\*{{0,2}}{parameter}\b.*:", described, re.MULTILINE)
    ]
    assert missing == []
