"""Contenders timed in turns, on two clocks.

Every round times each contender once, starting with another one each time, so that a change in the load of the machine
meets all of them. A sample is as many calls as take a few milliseconds. Wall time is what a user waits; processor
time hardly sees other processes. Medians are reported, and the quartiles of the ratios within a round.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.memory import peak_mebibytes

Call = Callable[[], Any]

_SAMPLE_SECONDS = 0.02
"""Shortest sample: far above the resolution of the clocks and the cost of reading them."""


@dataclass
class Samples:
    """Seconds per call, round by round.

    Attributes:
        cpu: Processor time of the process.
        wall: Elapsed time.
        calls: Calls in a sample.
        memory: Highest resident memory of one call in MiB above the level before it; None where unknown.
        result: What the first call returned.
    """

    calls: int = 1
    memory: float | None = None
    result: Any = None
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def median(self, clock: str) -> float:
        """Median seconds per call."""
        return statistics.median(getattr(self, clock))


def timed(call: Call, calls: int = 1) -> tuple[Any, dict[str, float]]:
    """What the last of some calls returns, and the seconds of one on both clocks."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        result = call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return result, {"cpu": cpu / calls, "wall": wall / calls}


def quartiles(values: list[float]) -> tuple[float, float]:
    """Lower and upper quartile; of one value, that twice."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def round_robin(
    contenders: dict[str, Call], *, rounds: int, seconds: float
) -> tuple[dict[str, Samples], dict[str, str]]:
    """Time the contenders in turns.

    Args:
        contenders: Name to call.
        rounds: Samples of each.
        seconds: A contender takes fewer samples if they would exceed this time. One whose first call
            already does is not called again: that call, without warm-up, is its only sample.

    Returns:
        The samples, and for contenders that raised, the error.
    """
    samples: dict[str, Samples] = {}
    errors: dict[str, str] = {}
    wanted: dict[str, int] = {}
    gc.collect()
    gc.disable()
    try:
        for name, call in contenders.items():
            try:
                samples[name], wanted[name] = _prepare(call, rounds, seconds)
            except Exception as error:  # a peer may fail in any way; the others still run
                errors[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        names = list(samples)
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if turn < wanted[name]:
                    _sample(contenders[name], samples[name])
    finally:
        gc.enable()
    return samples, errors


def ratio_quartiles(slow: Samples, fast: Samples, clock: str) -> tuple[float, float]:
    """Lower and upper quartile of the ratios within a round."""
    pairs = zip(getattr(slow, clock), getattr(fast, clock), strict=False)
    return quartiles([a / b for a, b in pairs])


def _prepare(call: Call, rounds: int, seconds: float) -> tuple[Samples, int]:
    """Warm-up, memory, and the number of calls and samples that fit."""
    first = Samples()
    first.memory, _ = peak_mebibytes(lambda: _sample(call, first))
    elapsed = first.wall[0]
    if elapsed > seconds:
        return first, 0
    samples = Samples()
    # The first call may have allocated what a library keeps, which is no part of later calls.
    samples.memory, samples.result = peak_mebibytes(call)
    shortest = min(timed(call)[1]["wall"] for _ in range(5 if elapsed < 0.1 else 1))
    samples.calls = max(1, round(_SAMPLE_SECONDS / max(shortest, 1e-7)))
    return samples, min(rounds, max(1, int(seconds / (shortest * samples.calls))))


def _sample(call: Call, samples: Samples) -> None:
    result, seconds = timed(call, samples.calls)
    samples.cpu.append(seconds["cpu"])
    samples.wall.append(seconds["wall"])
    if samples.result is None:
        samples.result = result
