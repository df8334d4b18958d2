"""The plot: time against size, and speed over plain PyTorch against size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.case import OURS
from benchmarks.peers import PLAIN

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the figure; nothing if there are neither curves nor a sweep."""
    sweep = [case for case in results["cases"] if case["group"] == "sweep"]
    if "scaling" not in results and not sweep:
        return
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "matinfo", "font.size": 9, "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    clock = results["environment"]["clock"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
    _curves(left, results.get("scaling", {}).get("curves", {}), clock)
    _ratios(right, sweep, clock)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _curves(axes: Any, curves: dict[str, Any], clock: str) -> None:
    """Peers dashed, ours in full lines; the same colour for the same quantity."""
    colours = {}
    for name, points in curves.items():
        quantity = name.split(", torch")[0]
        colour = colours.setdefault(quantity, _COLOURS[len(colours)])
        peer = quantity != name
        axes.loglog(
            points["n"], points[clock], "--" if peer else "-", color=colour, marker="o", ms=3, label=name
        )
    axes.set_xscale("log", base=2)
    axes.set_xlabel("n")
    axes.set_ylabel(f"seconds, {'processor' if clock == 'cpu' else 'wall'} time")
    axes.set_title("forward + backward, float32 (dashed: plain PyTorch)", fontsize=9)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(fontsize=7.5)


def _ratios(axes: Any, sweep: list[dict[str, Any]], clock: str) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for case in sweep:
        _, order, n = case["name"].split("-")
        contenders = case["contenders"]
        if PLAIN in contenders and OURS in contenders:
            lines.setdefault(order, []).append((int(n), contenders[PLAIN][clock] / contenders[OURS][clock]))
    for colour, (order, points) in zip(_COLOURS, lines.items(), strict=False):
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", ms=3, label=f"α = {order}")
    axes.axhline(1.0, color="grey", lw=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("n")
    axes.set_title("times faster than plain PyTorch (eigvalsh), forward + backward", fontsize=9)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=7.5)
