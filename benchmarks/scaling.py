"""Time against size: the curves of the plot."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from benchmarks.case import gradient_of
from benchmarks.inputs import features, kernel_matrix
from benchmarks.peers import plain_entropy, slogdet_tcr
from benchmarks.timing import timed
from matinfo import Gram, matrix_tcr, renyi_entropy

WIDTH = 128
CURVES: dict[str, tuple[Callable[..., Tensor], str]] = {
    "H_1, torch eigvalsh": (lambda K: plain_entropy(K, 1.0), "matrix"),
    "H_1": (renyi_entropy, "matrix"),
    "TCR, torch slogdet": (slogdet_tcr, "matrix"),
    "H_3": (lambda K: renyi_entropy(K, 3), "matrix"),
    "TCR": (matrix_tcr, "matrix"),
    "H_2": (lambda K: renyi_entropy(K, 2), "matrix"),
    f"H_1 of features, d = {WIDTH}": (lambda Z: renyi_entropy(Gram(Z)), "features"),
}
_GROWTH = 8.0
"""Factor by which the time of a cubic method grows from one size to the next."""
_CHEAP = 1.0
"""Seconds that a point may always take."""


def scaling(*, quick: bool, budget: float) -> dict[str, Any]:
    """Forward + backward of every curve at n = 32, 64, ..., 8192.

    Args:
        quick: Sizes up to 256.
        budget: Seconds for everything. A point that is expected to exceed what is left, and a second,
            ends its curve.

    Returns:
        ``curves``: name to lists ``n``, ``cpu`` and ``wall`` (seconds per call, the least of a few).
    """
    sizes = [2**k for k in range(5, 9 if quick else 14)]
    curves: dict[str, dict[str, list[float]]] = {name: {"n": [], "cpu": [], "wall": []} for name in CURVES}
    ended: set[str] = set()
    start = time.perf_counter()
    for n in sizes:
        for name, (function, kind) in CURVES.items():
            points = curves[name]
            left = budget - (time.perf_counter() - start)
            expected = points["wall"][-1] * _GROWTH if points["wall"] else 0.0
            if name in ended or expected > max(left, _CHEAP):
                ended.add(name)
                continue
            x = kernel_matrix(n) if kind == "matrix" else features(n, WIDTH)
            cpu, wall = _least(gradient_of(function, x))
            points["n"].append(n)
            points["cpu"].append(cpu)
            points["wall"].append(wall)
    return {"budget": budget, "curves": curves}


def _least(call: Callable[[], Any]) -> tuple[float, float]:
    """Least processor and elapsed time of a call: up to seven samples of 10 ms, or one call if it takes seconds."""
    calls, cpus, walls = 1, [], []
    start = time.perf_counter()
    while len(walls) < 8 and time.perf_counter() - start < 1.0:
        _, seconds = timed(call, calls)
        cpus.append(seconds["cpu"])
        walls.append(seconds["wall"])
        calls = max(calls, min(1000, round(0.01 / walls[-1])))
    return min(cpus), min(walls)
