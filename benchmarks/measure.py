"""One case, measured: times, memory, values, targets and floor as a plain dictionary for the JSON file."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.case import OURS, Case, Target
from benchmarks.cli import Options
from benchmarks.machine import Rates
from benchmarks.timing import Samples, ratio_quartiles, round_robin

MET, TIED, MISSED, NO_PEER, NOT_JUDGED = "met", "tied", "missed", "no peer", "not judged"


def run_case(case: Case, options: Options, rates: Rates) -> dict[str, Any]:
    """Measure a case.

    Args:
        case: What to measure.
        options: Rounds, seconds and the clock of the ratios.
        rates: For the floor.

    Returns:
        The record that the report reads. ``targets[i].status`` is ``met``, ``tied`` (missed, but the target lies within
        the quartiles of the ratios of single rounds), ``missed``, ``no peer``, or ``not judged`` at quick sizes.
    """
    samples, errors = round_robin(case.build(), rounds=options.rounds, seconds=options.seconds)
    ours = samples.get(OURS)
    record: dict[str, Any] = {
        "name": case.name,
        "group": case.group or case.name,
        "title": case.title,
        "contenders": {name: _contender(s, ours) for name, s in samples.items()},
        "errors": errors,
        "targets": [],
        "floor": None,
    }
    if ours is not None:
        record["targets"] = [_judge(target, samples, options) for target in case.targets]
    if case.floor is not None:
        record["floor"] = {"what": case.floor.what, "seconds": case.floor.seconds(rates)}
    return record


def _contender(samples: Samples, ours: Samples | None) -> dict[str, Any]:
    value, gradient = samples.result
    record = {
        "cpu": samples.median("cpu"),
        "wall": samples.median("wall"),
        "samples": len(samples.cpu),
        "calls": samples.calls,
        "memory_mib": samples.memory,
        "value": float(value),
        "gradient_deviation": None,
    }
    if ours is not None and gradient is not None and ours.result[1] is not None:
        record["gradient_deviation"] = relative(gradient, ours.result[1])
    return record


def relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    """The norm of the difference over that of the reference."""
    reference = reference.double()
    return float((found.double() - reference).norm() / reference.norm())


def _judge(target: Target, samples: dict[str, Samples], options: Options) -> dict[str, Any]:
    clock = options.clock
    present = [name for name in target.over if name in samples]
    record: dict[str, Any] = {"over": " or ".join(target.over), "ratio": target.ratio, "status": NO_PEER}
    if not present:
        return record
    best = min(present, key=lambda name: samples[name].median(clock))
    ratios = {c: samples[best].median(c) / samples[OURS].median(c) for c in ("cpu", "wall")}
    low, high = ratio_quartiles(samples[best], samples[OURS], clock)
    status = (
        NOT_JUDGED
        if options.quick
        else MET
        if ratios[clock] >= target.ratio
        else TIED
        if high >= target.ratio
        else MISSED
    )
    return record | {"over": best, "status": status, "quartiles": [low, high]} | ratios
