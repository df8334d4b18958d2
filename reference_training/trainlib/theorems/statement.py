"""What a statement says of one step of training, and what it is called in the training log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

PREFIX = "theory"
TOLERANCE = 1e-9
"""A slack below minus this, relative to 1 + |value| + |bound|, is a violation. Everything is computed in float64 from
the float32 features, whose rounding is no error: the statements hold for any features. What remains is that of the
eigenvalues, n eps of the trace, which moves an entropy at n = 512 by less than 1e-10 (``entropy_continuity_bound``)."""


@dataclass(frozen=True)
class Statement:
    """One inequality (or identity) between a value and its bounds, the printed or textbook one first."""

    key: str  # operand and quantity, such as columns/I_2
    number: str
    claim: str
    side: str  # the value is "at least", "at most" or "equal" to every bound
    forms: dict[str, str] = field(default_factory=lambda: {"plain": ""})  # name -> what the bound is made of
    group: str = "others"
    guaranteed: bool = True  # False: printed or hoped for, and known to fail for some features

    @property
    def columns(self) -> list[str]:
        """The names of its numbers in the training log: the value, then one bound a form."""
        return [column(self.key), *(column(self.key, form) for form in self.forms)]

    def slack(self, value: float, bound: float) -> float:
        """By how much it holds; negative where it does not."""
        if self.side == "equal":
            return -abs(value - bound)
        return value - bound if self.side == "at least" else bound - value

    def is_violated(self, value: float, bound: float) -> bool:
        """Whether the slack is negative beyond rounding; NaN counts as a violation."""
        return not self.slack(value, bound) >= -TOLERANCE * (1 + abs(value) + abs(bound))


class Evaluation(NamedTuple):
    """Both sides of a statement at one step, and what is known without any features, if anything."""

    value: float
    bounds: dict[str, float]
    trivial: float | None = None


def column(key: str, form: str = "") -> str:
    """The name of a number in the training log."""
    return f"{PREFIX}/{key}/{form}" if form else f"{PREFIX}/{key}"


def as_log(evaluations: dict[str, Evaluation]) -> dict[str, float]:
    """Evaluations by key as numbers for a line of the training log."""
    line: dict[str, float] = {}
    for key, (value, bounds, trivial) in evaluations.items():
        line[column(key)] = value
        line |= {column(key, form): bound for form, bound in bounds.items()}
        if trivial is not None:
            line[column(key, "trivial")] = trivial
    return line
