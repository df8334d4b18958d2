"""What a statement is to these tests: examples, a slack that must not be negative, and mutants that must be caught."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import hypothesis
from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Statement:
    """One claim about every example of a strategy.

    ``slack(*example)`` is by how much the claim holds: bigger side minus smaller side for an inequality, minus the
    distance for an identity. A mutant is the slack of a wrong variant of the claim.
    """

    number: str
    claim: str
    examples: SearchStrategy
    slack: Callable[..., float]
    mutants: dict[str, Callable[..., float]] = field(default_factory=dict)
    tolerance: float = 1e-9

    def __str__(self) -> str:
        return f"{self.number}: {self.claim}"


def violates(slack: Callable[..., float], example: tuple, tolerance: float) -> bool:
    """Whether the claim fails on the example by more than the tolerance; NaN counts as a failure."""
    return not slack(*example) >= -tolerance


def find_violation(statement: Statement, slack: Callable[..., float], tries: int = 1000) -> tuple | None:
    """An example of the statement's strategy on which the slack is negative, or None. Deterministic."""
    settings = hypothesis.settings(
        max_examples=tries,
        phases=[hypothesis.Phase.generate],
        database=None,
        derandomize=False,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    try:
        return hypothesis.find(
            statement.examples,
            lambda example: violates(slack, example, statement.tolerance),
            settings=settings,
            random=random.Random(0),
        )
    except hypothesis.errors.NoSuchExample:
        return None


def distance(one: float, other: float) -> float:
    """Minus the distance of two numbers in units of their size: the slack of an identity."""
    one, other = float(one), float(other)
    if math.isinf(one) or math.isinf(other):
        return 0.0 if one == other else -math.inf
    return -abs(one - other) / (1 + abs(one) + abs(other))
