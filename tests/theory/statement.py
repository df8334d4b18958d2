"""What a statement is to these tests: examples, a slack that must not be negative, and mutants that must be caught."""

from __future__ import annotations

import contextlib
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


def not_violated(statement: Statement, slacks: dict[str, Callable[..., float]], tries: int) -> list[str]:
    """Names of the slacks that are negative on no example of the statement's strategy. Deterministic."""
    settings = hypothesis.settings(
        max_examples=tries,
        phases=[hypothesis.Phase.generate],
        database=None,
        derandomize=False,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    left = dict(slacks)

    def violates_the_last(example):
        for name, slack in list(left.items()):
            if violates(slack, example, statement.tolerance):
                del left[name]
        return not left

    with contextlib.suppress(hypothesis.errors.NoSuchExample):
        hypothesis.find(statement.examples, violates_the_last, settings=settings, random=random.Random(0))
    return list(left)


def distance(one: float, other: float) -> float:
    """Minus the distance of two numbers in units of their size: the slack of an identity."""
    one, other = float(one), float(other)
    if math.isinf(one) or math.isinf(other):
        return 0.0 if one == other else -math.inf
    return -abs(one - other) / (1 + abs(one) + abs(other))
