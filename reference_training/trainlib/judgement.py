"""What runs of several arms and seeds allow one to say: paired differences, their intervals, and a verdict in words.

A verdict is one of three, given the ``margin``, the smallest difference that would matter to a reader:

- ``yes``: the difference has the claimed sign, and its p-value, corrected for the number of tests, is below 0.05;
- ``no``: the interval lies below the margin (there may be a difference, but none of the size that matters);
- ``underpowered``: neither. More seeds are needed; ``detectable`` says how large a difference these could have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05
POWER = 0.8


class Paired(NamedTuple):
    """A difference of two arms over their common seeds."""

    seeds: int
    difference: float  # mean of first minus second
    low: float  # ends of the 95 % interval
    high: float
    p: float  # two-sided, paired t
    detectable: float  # smallest difference that such pairs show with 80 % power


def paired(first: dict[int, float], second: dict[int, float]) -> Paired:
    """Compare two arms ``{seed: value}`` by the differences of equal seeds."""
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        raise ValueError(
            f"Expected at least two common seeds, got {len(seeds)}. Train more seeds of both arms."
        )
    differences = np.array([first[s] - second[s] for s in seeds], dtype=float)
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    error = sd / math.sqrt(len(seeds))
    half = float(stats.t.ppf(1 - LEVEL / 2, len(seeds) - 1)) * error
    p = float(stats.ttest_1samp(differences, 0.0).pvalue) if sd > 0 else float(mean == 0)
    return Paired(len(seeds), mean, mean - half, mean + half, p, sd * detectable_effect(len(seeds)))


def detectable_effect(pairs: int) -> float:
    """The difference, in standard deviations of the differences, that a paired t-test shows with 80 % power.

    The power at effect d is that of a noncentral t with noncentrality ``d sqrt(n)``; its far tail adds nothing.
    """
    limit = stats.t.ppf(1 - LEVEL / 2, pairs - 1)
    return float(
        optimize.brentq(lambda d: stats.nct.sf(limit, pairs - 1, d * math.sqrt(pairs)) - POWER, 0.05, 15.0)
    )


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): each is at most LEVEL while the chance of one error is."""
    order = np.argsort(values)
    corrected = [0.0] * len(order)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * values[index]))
        corrected[index] = largest
    return corrected


def verdict(found: Paired, corrected: float, margin: float) -> str:
    """``yes``, ``no`` or ``underpowered`` for the claim that the first arm is above the second."""
    if found.difference > 0 and corrected < LEVEL:
        return "yes"
    return "no" if found.high < margin else "underpowered"


class Agreement(NamedTuple):
    """How well one number orders runs by another, with 95 % intervals over resampled groups of runs."""

    tau: float
    tau_low: float
    tau_high: float
    regret: float  # what choosing by the number loses against the best run
    regret_low: float
    regret_high: float


def agreement(
    number: Sequence[float], target: Sequence[float], groups: Sequence[Any], *, draws: int = 2000, seed: int = 0
) -> Agreement:  # fmt: skip
    """Kendall's tau-b and top-1 regret of choosing the run with the highest ``number``.

    Runs of one group (a seed, or the checkpoints of one run) are not independent: whole groups are resampled.
    """
    x, y, of = np.asarray(number, dtype=float), np.asarray(target, dtype=float), np.asarray(groups)
    names = np.unique(of)
    places = {name: np.flatnonzero(of == name) for name in names}
    source = np.random.default_rng(seed)
    drawn = np.array(
        [
            _agreement(x[index], y[index])
            for index in (
                np.concatenate([places[name] for name in source.choice(names, len(names))])
                for _ in range(draws)
            )
        ]
    )
    tau, regret = _agreement(x, y)
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return Agreement(tau, float(low[0]), float(high[0]), regret, float(low[1]), float(high[1]))


def _agreement(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    return float(stats.kendalltau(x, y).statistic), float(y.max() - y[np.argmax(x)])
