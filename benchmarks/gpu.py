"""Checks and times everything on a CUDA device, in under ten minutes: ``python -m benchmarks.gpu``.

Needs PyTorch and matinfo only. Prints each line as it is known and writes gpu.json and gpu.md. On a machine without
a GPU ``--device cpu --quick`` runs the same code on small sizes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.cli import RESULTS, read, say, write
from benchmarks.gpu_checks import checks
from benchmarks.gpu_speed import Stopwatch, speed_cases
from benchmarks.machine import environment


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 if every check passed, 1 if one failed, 2 without a device."""
    options = _parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        say(
            "No CUDA device: torch.cuda.is_available() is False. --device cpu --quick runs the same code here."
        )
        return 2
    if options.device == "cpu":
        torch.set_num_threads(1)  # small matrices: more threads only wait for each other
    deadline = time.perf_counter() + options.budget_seconds
    results: dict[str, Any] = {"environment": _environment(options), "checks": [], "speed": []}
    say(f"{results['environment']['device']}, torch {torch.__version__}")
    for name, check in _wanted(options, checks).items():
        record = _guarded(name, check, deadline)
        results["checks"].append(record)
        say(f"{record['status']:8s} {name}: {record['detail']}")
    for title, case in _wanted(options, speed_cases).items():
        stopwatch = Stopwatch(options.device, deadline)
        record = _guarded(title, lambda case=case, stopwatch=stopwatch: case(stopwatch), deadline)
        record["rows"] = stopwatch.rows
        results["speed"].append(record)
        say("\n".join(_speed_lines(record)))
    results["seconds"] = round(time.perf_counter() - deadline + options.budget_seconds)
    write(options.out / "gpu.json", results)
    (options.out / "gpu.md").write_text(render(results), encoding="utf-8")
    failed = [record["name"] for record in results["checks"] if record["status"] == "failed"]
    say(f"{results['seconds']} s. Written: {options.out / 'gpu.json'}. " + _verdict(failed))
    return 1 if failed else 0


def render(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    e = results["environment"]
    machine = f"{e['device']}, torch {e['versions']['torch']}, CUDA {e['cuda']}, {e['processor']}"
    lines = [
        f"Measured {e['date']} at commit {e['commit']}: {machine}; {results['seconds']} s.{results.get('note', '')}\n",
        "## Checks\n",
        "| Check | | Detail |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {r['name']} | {r['status']} | {r['detail'].replace('|', '/')} |" for r in results["checks"]]
    for record in results["speed"]:
        lines += [
            f"\n### {record['name']}\n",
            "| Contender | Time | Over | Ratio | Peak memory | Relative error: value, gradient | Route |",
            "| --- | --: | --- | --: | --: | --- | --- |",
        ]
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in record["rows"]]
        if record["status"] != "ok":
            lines.append(f"\n{record['status']}: {record['detail']}")
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    """A row of the tables as text."""
    seconds = "" if row["seconds"] is None else f"{row['seconds'] * 1e3:.3g} ms"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}x"
    memory = "" if row["memory_mib"] is None else f"{row['memory_mib']:.0f} MiB"
    errors = [row[kind] for kind in ("value_error", "gradient_error") if row[kind] is not None]
    last = row["note"].replace("|", "/") or ", ".join(f"{error:.0e}" for error in errors)
    if row["target"] is not None:
        last += f" (target {row['target']:g}x at {row['tolerance']:.0e}: {row['status']})"
    return [row["name"], seconds, row["over"], ratio, memory, last, row["route"]]


def _wanted(options: argparse.Namespace, parts: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The parts whose names ``--only`` allows."""
    found = parts(options.device, quick=options.quick)
    return {name: part for name, part in found.items() if any(text in name for text in options.only)}


def _guarded(name: str, call: Callable[[], str], deadline: float) -> dict[str, Any]:
    """Run one part; whatever it raises is its result, and the others still run."""
    began = time.perf_counter()
    if began > deadline:
        return {"name": name, "status": "skipped", "detail": "the time is spent", "seconds": 0.0}
    try:
        detail, status = call() or "", "ok"
    except Exception as error:  # every kind of failure is a finding here
        detail, status = f"{type(error).__name__}: {error}".splitlines()[0][:300], "failed"
    return {"name": name, "status": status, "detail": detail, "seconds": time.perf_counter() - began}


def _speed_lines(record: dict[str, Any]) -> list[str]:
    lines = [f"{record['name']}  [{record['status']}, {record['seconds']:.1f} s] {record['detail']}"]
    for row in record["rows"]:
        name, seconds, _, ratio, memory, last, route = _cells(row)
        lines.append(f"  {name:34s} {seconds:>10s} {ratio:>9s} {memory:>9s}  {last}  {route}")
    return lines


def _verdict(failed: list[str]) -> str:
    return f"Failed: {', '.join(failed)}" if failed else "Every check passed."


def _environment(options: argparse.Namespace) -> dict[str, Any]:
    e = environment("wall")
    cuda = options.device == "cuda"
    e["device"] = torch.cuda.get_device_name() if cuda else "CPU"
    e["cuda"] = torch.version.cuda if cuda else "none"
    e["quick"] = options.quick
    if cuda:
        e["capability"] = list(torch.cuda.get_device_capability())
        e["float32_matmul_precision"] = torch.get_float32_matmul_precision()
        e["linalg"] = str(torch.backends.cuda.preferred_linalg_library())
    return e


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    return read(
        arguments,
        "benchmarks.gpu",
        (__doc__ or "").split("\n\n", 1)[0],
        device=("cuda", "to check", {"choices": ("cuda", "cpu")}),
        quick=(False, "small sizes: does everything run?"),
        budget_seconds=(540.0, "cases are left out after this"),
        only=([""], "only parts whose name contains one of these", {"type": str, "nargs": "*"}),
        out=(RESULTS, "folder of the results"),
    )


if __name__ == "__main__":
    sys.exit(main())
