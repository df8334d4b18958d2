"""Every statement, tried on examples that reach its hard places; and every mutant of a statement, caught.

One test a row of the theory section, with the number of the paper. ``test_statement_has_teeth`` shows that the same
check on the same examples fails for wrong variants: a constant halved, a sign flipped, a term left out.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from statement import not_violated, violates
from statements_coding_rate import STATEMENTS as CODING_RATE
from statements_divergence import STATEMENTS as DIVERGENCE
from statements_entropy import STATEMENTS as ENTROPY
from statements_information import STATEMENTS as INFORMATION
from statements_laws import STATEMENTS as LAWS
from statements_reconstruction import STATEMENTS as RECONSTRUCTION

STATEMENTS = [*INFORMATION, *ENTROPY, *CODING_RATE, *DIVERGENCE, *LAWS, *RECONSTRUCTION]


@pytest.mark.parametrize("statement", STATEMENTS, ids=str)
def test_statement_holds(statement):
    @settings(max_examples=15)
    @given(statement.examples)
    def holds(example):
        assert not violates(statement.slack, example, statement.tolerance), statement.slack(*example)

    holds()


@pytest.mark.parametrize("statement", STATEMENTS, ids=str)
def test_statement_has_teeth(statement):
    survivors = not_violated(statement, statement.mutants, tries=5000)
    assert not survivors, "no example of the strategy tells the statement from these mutants"


@pytest.mark.slow
@pytest.mark.parametrize("statement", STATEMENTS, ids=str)
def test_statement_holds_on_many_more_examples(statement):
    assert not_violated(statement, {"holds": statement.slack}, tries=500) == ["holds"]


def test_every_statement_has_a_mutant_and_a_name_of_its_own():
    assert [str(statement) for statement in STATEMENTS if not statement.mutants] == []
    assert len({str(statement) for statement in STATEMENTS}) == len(STATEMENTS)
