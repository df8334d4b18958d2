"""The theory section of the documentation: its tables are those of the tests, and nothing is left out."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import search
from test_counterexamples import SMALLEST
from test_statements import STATEMENTS

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "theory"
PAGES = sorted(FOLDER.glob("*.md"))


def text(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def test_every_statement_is_on_a_page():
    pages = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    numbers = {re.sub(r", (sharper|remainder|radius|where it holds)$", "", s.number) for s in STATEMENTS}
    assert sorted(number for number in numbers if number not in pages) == []


def test_every_statement_file_is_linked_from_a_page():
    files = {path.name for path in Path(__file__).parent.glob("statements_*.py")}
    linked = {
        name
        for page in PAGES
        for name in re.findall(r"tests/theory/(\w+\.py)", page.read_text(encoding="utf-8"))
    }
    assert files <= linked


def test_table_of_smallest_counterexamples_is_what_the_search_finds():
    rows = re.findall(
        r"^\| (\S+) \| (\d+) \| `(\[\[.*\]\])` \| (\S+) \|$", text("what-does-not-hold.md"), re.MULTILINE
    )
    printed = {float(alpha): (int(n), json.loads(table), float(value)) for alpha, n, table, value in rows}
    assert printed == SMALLEST


@pytest.mark.parametrize(("alpha", "example"), SMALLEST.items())
def test_printed_counterexamples_have_the_printed_value(alpha, example):
    _, table, value = example
    assert search.information(tuple(map(tuple, table)), alpha) == pytest.approx(value, abs=5e-6)


def test_table_of_concave_orders_is_right_on_either_side():
    header, values = re.search(
        r"\| \$n\$ \|(.*)\|\n\|[ -|]*\|\n\| largest order \|(.*)\|", text("laws.md")
    ).groups()
    for n, order in zip(header.split("|"), values.split("|"), strict=True):
        assert largest_curvature(int(n), float(order) - 0.02) <= 1e-9
        assert largest_curvature(int(n), float(order) + 0.02) > 1e-6


def largest_curvature(n, alpha):
    """Largest second derivative of H_alpha within the simplex, at spectra of one large value and equal others."""
    worst = -math.inf
    for top in np.linspace(1 / n, 1 - 1e-3, 500):
        p = np.r_[top, np.full(n - 1, (1 - top) / (n - 1))]
        S, slope = (p**alpha).sum(), alpha * p ** (alpha - 1)
        hessian = -(np.diag(alpha * (alpha - 1) * p ** (alpha - 2)) / S - np.outer(slope, slope) / S**2) / (
            alpha - 1
        )
        along = np.r_[1.0, np.full(n - 1, -1 / (n - 1))]
        worst = max(worst, along @ hessian @ along / (along @ along))
    return worst


def test_plot_of_the_two_scales_shows_the_numbers_of_the_page():
    names: dict = {}
    exec((FOLDER / "plot_scales_of_mu.py").read_text(encoding="utf-8"), names)
    for m, row in ((768.0, "0.85 … 1.33"), (1.0, "6.93 … 650.72")):
        collapsed, isotropic = names["rate_range"](np.array(m))
        assert f"{collapsed:.2f} … {isotropic:.2f}" == row
        assert row in text("scales-of-mu.md")
    assert (FOLDER / "scales-of-mu.svg").read_text(encoding="utf-8").startswith("<?xml")
