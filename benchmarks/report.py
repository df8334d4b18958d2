"""The results as Markdown tables, and as lines for the terminal. Only formats: every number is in the JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.case import OURS
from benchmarks.failures import KINDS
from benchmarks.peers import BARE

_SWEEP = "sweep"
_SPACE = "\N{NO-BREAK SPACE}"


def render(results: dict[str, Any]) -> str:
    """The whole report."""
    clock = results["environment"]["clock"]
    singles = [case for case in results["cases"] if case["group"] != _SWEEP]
    if "training-step" in results:
        singles.append(results["training-step"])
    sweep = [case for case in results["cases"] if case["group"] == _SWEEP]
    parts = [_environment(results)]
    if singles or "accuracy" in results:
        parts.append(_targets(singles, results.get("accuracy"), clock))
    if sweep:
        parts.append(_sweep(sweep, clock))
    if "accuracy" in results:
        parts.append(_accuracy(results["accuracy"]))
    if "failures" in results:
        parts.append(_failures(results["failures"]))
    if singles:
        parts.append("## Every contender\n\n" + "\n".join(_contenders(case, clock) for case in singles))
    return "\n".join(parts)


def case_lines(record: dict[str, Any], clock: str) -> list[str]:
    """A case for the terminal."""
    lines = [record["title"]]
    ours = record["contenders"].get(OURS, {}).get(clock)
    for name, c in record["contenders"].items():
        ratio = f"{c[clock] / ours:10.2f}x" if ours else ""
        lines.append(f"  {name:24s} {_time(c[clock]):>9s} {ratio}  {c['samples']} x {c['calls']} calls")
    lines += [f"  {name:24s} {error}" for name, error in record["errors"].items()]
    for t in record["targets"]:
        reached = f"{t[clock]:.3g}x" if clock in t else "-"
        lines.append(f"  target over {t['over']}: {t['ratio']:g}x, reached {reached}: {t['status']}")
    return lines


def _environment(results: dict[str, Any]) -> str:
    e = results["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in e["versions"].items())
    clock = "processor time" if e["clock"] == "cpu" else "wall time"
    text = (
        f"Measured {e['date']} at commit {e['commit']}: {e['processor']}, {e['cores']} cores, {e['threads']} "
        f"thread(s), load {e['load']} at the start, {e['system']}, Python {e['python']}, {versions}; LAPACK of torch: "
        f"{e['lapack']}. Ratios are of {clock}. The run took {results['seconds']} s, "
        f"{results['cpu_seconds']} s of processor time."
    )
    apart = [
        f"Measured apart: {name}, {e['date']} at commit {e['commit']}, load {e['load']}."
        for name, e in results.get("measured_apart", {}).items()
    ]
    return "\n\n".join([text, *apart, *results["peers_missing"]]) + "\n"


def _targets(cases: list[dict[str, Any]], accuracy: dict[str, Any] | None, clock: str) -> str:
    rows = [_target_row(case, t, clock) for case in cases for t in case["targets"]]
    if accuracy:
        rows += [
            (
                f"error of H_{row['order']:g}, ill-conditioned RBF, n = {accuracy['n']}",
                "float32 peers",
                f"≤ {row['target']:.0e}",
                f"{row['error']:.0e}",
                row["status"],
            )
            for row in accuracy["rows"]
            if "target" in row
        ]
    floors = "; ".join(f"{case['name']}: {case['floor']['what']}" for case in cases if case["floor"])
    note = (
        f"*Floor*: the least time for the work at the rates of this machine ({floors}). *tied*: below the target, but "
        "the target lies within the quartiles of the ratios of single rounds."
    )
    header = ("Case", "Over", "Target", "Reached", "", "Ours", "Floor", "Peak memory: ours, peer")
    return _section("Targets", "", header, "llrrlrrr", rows) + f"\n{note}\n"


def _target_row(case: dict[str, Any], t: dict[str, Any], clock: str) -> tuple[str, ...]:
    start = (case["title"], t["over"], f"≥ {t['ratio']:g}x")
    if clock not in t:
        return (*start, "", t["status"])
    ours, theirs = case["contenders"][OURS], case["contenders"][t["over"]]
    floor = _time(case["floor"]["seconds"]) if case["floor"] else ""
    memory = f"{_memory(ours['memory_mib'])}, {_memory(theirs['memory_mib'])}"
    return (*start, _ratio(t[clock]), t["status"], _time(ours[clock]), floor, memory)


def _sweep(cases: list[dict[str, Any]], clock: str) -> str:
    table: dict[str, dict[str, str]] = {}
    orders: list[str] = []
    for case in cases:
        _, order, n = case["name"].split("-")
        if order not in orders:
            orders.append(order)
        cells = []
        for t in case["targets"]:
            mark = "**" if t["status"] == "missed" else ""
            cells.append(f"{mark}{_ratio(t[clock])}{mark}" if clock in t else "-")
        ours, bare = (case["contenders"].get(name, {}).get(clock) for name in (OURS, BARE))
        cells.append(_ratio(bare / ours) if bare else "-")
        table.setdefault(n, {})[order] = f"{' / '.join(cells)} ({_time(ours)})"
    text = (
        "Speed of ours over plain PyTorch / over repitl / over a bare function (time of ours); below order one, over "
        "plain PyTorch in float32 and in float64. Target: never below 0.91 for PyTorch, 1 for repitl; misses are bold, "
        "ties are not. The bare function is the floor of an eigenvalue route: an autograd function that decomposes, "
        "evaluates and multiplies once, and checks nothing."
    )
    rows = [(n, *[row.get(order, "") for order in orders]) for n, row in table.items()]
    header = ("n", *[f"α = {order}" for order in orders])
    return _section(
        "Dense matrices of every size, forward + backward", text, header, "r" + "l" * len(orders), rows
    )


def _accuracy(a: dict[str, Any]) -> str:
    text = (
        f"Relative error against 50-digit arithmetic; condition number {a['condition']:.0e}; {a['negative']} "
        "eigenvalues of the float32 matrix come out negative."
    )
    orders = sorted({row["order"] for row in a["rows"]})
    table: dict[tuple[str, str], dict[float, str]] = {}
    for row in a["rows"]:
        error = "failed" if row["error"] is None else f"{row['error']:.0e}"
        table.setdefault((row["contender"], row["given"]), {})[row["order"]] = error
    rows = [(*key, *[errors.get(order, "") for order in orders]) for key, errors in table.items()]
    header = ("Contender", "Given", *[f"α = {order:g}" for order in orders])
    title = f"Accuracy: ill-conditioned RBF Gram matrix, n = {a['n']}"
    return _section(title, text, header, "ll" + "r" * len(orders), rows)


def _failures(f: dict[str, Any]) -> str:
    text = (
        f"{f['families']} families x {f['seeds']} seeds, order {f['order']}: exceptions / NaN or infinity / wrong "
        "values / wrong gradients. A dash: the peer gives no gradient."
    )
    table: dict[tuple[str, str], dict[str, str]] = {}
    for row in f["rows"]:
        cell = " / ".join("-" if row[kind] is None else str(row[kind]) for kind in KINDS)
        table.setdefault((row["quantity"], row["contender"]), {})[row["dtype"]] = (
            f"{cell} of {row['problems']}"
        )
    rows = [(*key, cells["float32"], cells["float64"]) for key, cells in table.items()]
    return _section(
        "Failures on hard matrices", text, ("Quantity", "Contender", "float32", "float64"), "llll", rows
    )


def _contenders(case: dict[str, Any], clock: str) -> str:
    ours = case["contenders"].get(OURS, {}).get(clock)
    rows = []
    for name, c in case["contenders"].items():
        ratio = _ratio(c[clock] / ours) if ours else ""
        deviation = "" if c["gradient_deviation"] is None else f"{c['gradient_deviation']:.0e}"
        memory = _memory(c["memory_mib"])
        rows.append((name, _time(c["cpu"]), _time(c["wall"]), ratio, memory, f"{c['value']:.6g}", deviation))
    rows += [(name, error.replace("|", "/")) for name, error in case["errors"].items()]
    header = ("Contender", "Processor", "Wall", "Over ours", "Peak memory", "Value", "Gradient off ours by")
    return _section(case["title"], "", header, "lrrrrrr", rows, level=3)


def _section(
    title: str,
    text: str,
    header: tuple[str, ...],
    align: str,
    rows: Iterable[tuple[str, ...]],
    level: int = 2,
) -> str:
    """A heading, a sentence and a table; rows may be short."""
    lines = ["#" * level + f" {title}", ""]
    if text:
        lines += [text, ""]
    lines += [
        "| " + " | ".join(header) + " |",
        "| " + " | ".join("--:" if a == "r" else "---" for a in align) + " |",
    ]
    lines += ["| " + " | ".join([*row, *[""] * (len(header) - len(row))]) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g}{_SPACE}{unit}"
    return f"{seconds * 1e6:.3g}{_SPACE}µs"


def _memory(mebibytes: float | None) -> str:
    return "?" if mebibytes is None else f"{mebibytes:.1f}{_SPACE}MiB"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x" if ratio < 100 else f"{ratio:.0f}x"
