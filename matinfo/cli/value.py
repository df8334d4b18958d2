"""One number of a report: the call of the library that gives it, made."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matinfo
from matinfo.cli.arguments import Options
from matinfo.measures import MEASURES
from matinfo.plot.spectra import unit_name


@dataclass(frozen=True)
class Chance:
    """What pairs of rows in random order give."""

    mean: float
    std: float
    p_value: float
    """Share of the permutations, the given order among them, with at least this value."""
    permutations: int
    call: str
    """Of the test that has these numbers."""

    def __str__(self) -> str:
        """For a reader: a p-value that is the least there can be is said to be."""
        least = ", the least" if self.p_value <= 1 / (self.permutations + 1) else ""
        p = f"p = {self.p_value:.2g}{least} of {self.permutations} permutations"
        return f"{self.mean:.4g} ± {self.std:.2g}, {p}"


@dataclass(frozen=True)
class Value:
    """A number with its unit and the call that gives it, or the reason why there is none."""

    name: str
    value: float | None
    unit: str
    call: str
    alpha: float | None = None
    reason: str = ""
    chance: Chance | None = None
    mu: float | None = None

    @property
    def title(self) -> str:
        """What it is, for a reader."""
        words = TITLES.get(self.name, self.name.replace("_", " "))
        if self.name == "matrix_kl":
            words = words.format(*("12" if "1" in self.call.split(",")[0] else "21"))
        settings = (("order", self.alpha), ("mu =", self.mu))
        return ", ".join([words, *(f"{name} {order_name(x)}" for name, x in settings if x is not None)])


TITLES = {
    "renyi_entropy": "entropy",
    "vendi_score": "Vendi score",
    "rankme": "RankMe",
    "tcr": "total coding rate",
    "matrix_tcr": "total coding rate",
    "matrix_kl": "KL divergence, {} from {}",
    "matrix_js": "JS divergence",
    "spectrum_js": "JS divergence of the spectra",
}


TERMS = {
    "renyi_entropy": "H, how evenly the trace of K is spread over its eigenvalues: 0 for one direction, most for equal "
    "ones. Small orders count all directions, large ones the dominant",
    "effective_rank": "exp of the entropy of order 1: the number of directions that carry the rows",
    "vendi_score": "effective number of distinct rows; of rows of length one the same number as the effective rank",
    "participation_ratio": "exp of the entropy of order 2: an effective rank in which large eigenvalues count more",
    "rankme": "effective rank of the singular values, not their squares: small directions count more",
    "tcr": "log det(mu I + Z^T Z), a log-volume: grows with the number of rows and with their spread",
    "matrix_tcr": "log det(mu I + K), a log-volume: grows with the number of rows and with their spread",
    "mutual_information": "how much the similarities between rows in one file tell about those in the other. Only "
    "what exceeds the chance level says anything",
    "chance": "mean and standard deviation of the same number with the rows of one file in random order; p is the "
    "share of these orders, the given one among them, that reach the number",
    "joint_entropy": "entropy of the elementwise product of K1 and K2: of both files together",
    "matrix_kl": "how far the second moment of one file is from that of the other; infinite where it lacks directions",
    "matrix_js": "a distance between the second moments, from 0 to log 2",
    "spectrum_js": "a distance between the eigenvalues alone, whatever their directions, from 0 to log 2",
}
"""What the numbers mean, in words."""


def terms_of(values: Sequence[Value]) -> dict[str, str]:
    """The words for each kind of number that is there."""
    present = {value.name: value for value in values if value.value is not None}
    result = {}
    for name, value in present.items():
        words = TERMS.get(name) or (inspect.getdoc(_function(name)) or "").splitlines()[0].removesuffix(".")
        title = value.title.partition(",")[0]
        result[title] = words + (f" ({MEASURES[name].bounds})" if name in MEASURES else "")
    return result | ({"chance": TERMS["chance"]} if any(value.chance for value in values) else {})


def _function(name: str) -> Any:
    return MEASURES[name].function if name in MEASURES else getattr(matinfo, name)


def value_of(
    name: str,
    operands: Mapping[str, Any] | str,
    names: str,
    options: Options,
    why: str = "",
    **keywords: float,
) -> Value:
    """The value of ``matinfo.<name>`` of operands by name, or the reason why they cannot be had."""
    function = _function(name)
    unit = MEASURES[name].unit if name in MEASURES else "nats"
    logarithm = unit == "nats"
    unit = unit_name(options.base) if logarithm else unit
    divisor = 1.0
    written: dict[str, Any] = {key: order_name(value) for key, value in keywords.items()}
    suffix = ""
    if options.base is not None and logarithm:
        if "base" in inspect.signature(function).parameters:
            keywords["base"] = options.base
            written["base"] = f"{options.base!r}"
        else:
            divisor, suffix = options.unit, f" / log({options.base!r})"
    call = f"{name}({', '.join([names, *(f'{key}={value}' for key, value in written.items())])}){suffix}"
    value = Value(name, None, unit, call, alpha=keywords.get("alpha"), mu=keywords.get("mu"))
    if isinstance(operands, str):
        return replace(value, reason=operands)
    number = float(function(*(operands[key] for key in names.split(", ")), **keywords)) / divisor + 0.0
    if math.isfinite(number):
        return replace(value, value=number)
    reason = (
        f"infinite: {why or 'the numbers overflow, or what is divided by is zero'}"
        if number == math.inf
        else "not a number: it has no value for so few rows or columns, or the numbers overflow"
    )
    return replace(value, reason=reason)


def order_name(alpha: float) -> str:
    """A number as Python and as a reader writes it."""
    return "inf" if alpha == math.inf else f"{alpha:g}" if float(f"{alpha:g}") == alpha else repr(alpha)
