"""Runs what was asked for, says what it does, writes the results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.accuracy import accuracy
from benchmarks.case import Case
from benchmarks.cli import RESULTS, Options, say, write
from benchmarks.dense import dense_cases
from benchmarks.factors import feature_cases
from benchmarks.failures import failure_table
from benchmarks.figures import draw
from benchmarks.machine import Rates, environment
from benchmarks.measure import run_case
from benchmarks.peers import Peers
from benchmarks.report import case_lines, render
from benchmarks.scaling import scaling
from benchmarks.training_step import training_step

STEM = "cpu"
SECTIONS: dict[str, Callable[[Peers, Options, Rates], dict[str, Any]]] = {
    "training-step": lambda peers, options, rates: training_step(options, rates),
    "accuracy": lambda peers, options, rates: accuracy(peers, quick=options.quick),
    "failures": lambda peers, options, rates: failure_table(peers, quick=options.quick),
    "scaling": lambda peers, options, rates: scaling(quick=options.quick, budget=options.budget),
}


def main(options: Options) -> int:
    """Run the cases; the exit status of the program."""
    if options.render:
        return _render(options)
    torch.set_num_threads(options.threads)
    names = {name for case in _cases(Peers.none(), options) for name in (case.name, case.group)} | set(
        SECTIONS
    )
    if unknown := set(options.cases) - names:
        say(f"No case is called {', '.join(sorted(unknown))}. --list shows them.")
        return 2
    if options.show:
        for case in _cases(Peers.none(), options):
            say(f"{case.name:20s} {case.title}")
        say("\n".join(SECTIONS))
        return 0
    peers = Peers(options.peer_paths)
    rates = Rates(options.clock)
    for line in peers.missing.values():
        say(line)
    results: dict[str, Any] = {
        "environment": environment(options.clock),
        "options": {
            "quick": options.quick,
            "rounds": options.rounds,
            "seconds": options.seconds,
        },
        "peers_missing": list(peers.missing.values()),
        "cases": [],
    }
    _warm_up()
    start, cpu = time.perf_counter(), time.process_time()
    for case in _cases(peers, options):
        if not options.cases or {case.name, case.group} & set(options.cases):
            record = run_case(case, options, rates)
            results["cases"].append(record)
            say("\n".join(case_lines(record, options.clock)))
    for name, section in SECTIONS.items():
        if not options.cases or name in options.cases:
            began = time.perf_counter()
            results[name] = section(peers, options, rates)
            say(f"{name}: done in {time.perf_counter() - began:.0f} s")
    results["seconds"] = round(time.perf_counter() - start)
    results["cpu_seconds"] = round(time.process_time() - cpu)
    return _finish(results, options)


def _cases(peers: Peers, options: Options) -> list[Case]:
    return dense_cases(peers, quick=options.quick) + feature_cases(peers, quick=options.quick)


def _warm_up() -> None:
    """Let the libraries do what they do once, so that no case pays for it."""
    for case in _cases(Peers.none(), Options(quick=True)):
        for call in case.build().values():
            call()


def _finish(results: dict[str, Any], options: Options) -> int:
    if options.out is None:
        say("\n" + render(results))
        return 0
    path = options.out / f"{STEM}.json"
    if options.cases and path.is_file():
        results = _measured_apart(json.loads(path.read_text(encoding="utf-8")), results)
    write(path, results)
    _write_report(results, options)
    say(f"{results['seconds']} s. Written: {path.with_suffix('')}.json, .md, .svg")
    return 0


def _measured_apart(committed: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Results of some cases among those of all, which stay; each says in which environment it was measured."""
    new = {case["name"]: case for case in results["cases"]}
    sections = {name: results[name] for name in SECTIONS if name in results}
    apart = committed.get("measured_apart", {}) | dict.fromkeys([*new, *sections], results["environment"])
    cases = [new.pop(case["name"], case) for case in committed["cases"]] + list(new.values())
    return committed | sections | {"cases": cases, "measured_apart": apart}


def _render(options: Options) -> int:
    path = (options.out or RESULTS) / f"{STEM}.json"
    if not path.is_file():
        say(f"There is no {path}. Run the benchmarks first.")
        return 2
    _write_report(json.loads(path.read_text(encoding="utf-8")), options)
    return 0


def _write_report(results: dict[str, Any], options: Options) -> None:
    folder = options.out or RESULTS
    (folder / f"{STEM}.md").write_text(render(results), encoding="utf-8")
    draw(results, folder / f"{STEM}.svg")
