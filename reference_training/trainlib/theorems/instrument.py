"""Which statements speak of which method, and their numbers for a line of the training log."""

from __future__ import annotations

from typing import Any

from trainlib.theorems import masked, two_views
from trainlib.theorems.catalogue import SCALES, common_statements, masked_statements, two_view_statements
from trainlib.theorems.statement import PREFIX, Statement, as_log

OPERANDS = {"barlow_twins": ("columns", "centred"), "spectral": ("rows",)}
MASKED = ("mae", "umae", "mmae")
METHODS = (*OPERANDS, *MASKED)


def statements_of(method: str) -> list[Statement]:
    """The statements that a run of a method is held against."""
    if method in MASKED:
        scales = [statement for scale in SCALES for statement in masked_statements(scale)]
        return [*scales, *common_statements()]
    return [statement for operand in OPERANDS[method] for statement in two_view_statements(operand)]


def instrument(config: Any, output: Any) -> dict[str, float]:
    """Value and bounds of every statement at one step: an ``Instrument`` for the training loop."""
    method = config.method.method
    if method in MASKED:
        found = masked.evaluate_common(output.features)
        for scale in SCALES:
            found |= masked.evaluate(output.features, scale, config.method.mu)
        return as_log(found)
    line: dict[str, float] = {}
    for operand in OPERANDS[method]:
        pair = two_views.branches(output.views, operand, config.method.lambda_)
        line |= {f"{PREFIX}/{name}": value for name, value in two_views.facts(pair).items()}
        line |= as_log(two_views.evaluate(pair))
    return line
