"""The plot: time against size, and speed over plain PyTorch against size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.case import OURS
from benchmarks.peers import PLAIN

_COLOURS = {
    "H_0.5": "#56b4e9",
    "H_1": "#0072b2",
    "H_2": "#d55e00",
    "H_3": "#009e73",
    "TCR": "#cc79a7",
    "H_1 of features": "#e69f00",
}


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
    """Peers dashed, ours in full lines; a colour for each quantity."""
    for name, points in curves.items():
        quantity = name.split(",")[0]
        style = "--" if ", torch" in name else "-"
        axes.plot(points["n"], points[clock], style, color=_COLOURS[quantity], marker="o", ms=3, label=name)
    _logarithmic(axes, [n for points in curves.values() for n in points["n"]])
    axes.set_ylabel(f"seconds, {'processor' if clock == 'cpu' else 'wall'} time")
    axes.set_title("forward + backward, float32 (dashed: plain PyTorch)", fontsize=9)


def _ratios(axes: Any, sweep: list[dict[str, Any]], clock: str) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for case in sweep:
        _, order, n = case["name"].split("-")
        contenders = case["contenders"]
        if PLAIN in contenders and OURS in contenders:
            ratio = contenders[PLAIN][clock] / contenders[OURS][clock]
            lines.setdefault(f"H_{order}", []).append((int(n), ratio))
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), color=_COLOURS[name], marker="o", ms=3, label=name)
    axes.axhline(1.0, color="grey", lw=0.8)
    _logarithmic(axes, [n for points in lines.values() for n, _ in points])
    axes.set_title("times faster than plain PyTorch (eigvalsh), forward + backward", fontsize=9)


def _logarithmic(axes: Any, sizes: list[int]) -> None:
    """Both axes logarithmic; the sizes themselves as labels."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted(set(sizes)), [str(n) for n in sorted(set(sizes))])
    axes.set_xlabel("n")
    axes.grid(alpha=0.3)
    if sizes:
        axes.legend(fontsize=7.5)
