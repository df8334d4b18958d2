"""One million 256-dimensional features through the accumulators, against the rate of matrix products in the same run.

``python -m benchmarks.reach_streams`` writes ``benchmarks/results/reach_streams.json``; ``--rows 20000 --out FILE``
is a quick try.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.cli import RESULTS, read, write
from benchmarks.machine import environment
from benchmarks.timing import timed
from matinfo import matrix_kl, mutual_information, renyi_entropy
from matinfo.streaming import CovarianceAccumulator, JointAccumulator, PairAccumulator

WIDTH, BATCH, POOL = 256, 4096, 16
HALF, NARROW = WIDTH // 2, 16
ORDERS = (0.0, 0.5, 1.0, 2.0, float("inf"))
EVERY = 8
"""Batches between two timings of a matrix product."""

Settings = dict[str, Callable[[], "Pass"]]


class Pass:
    """What is done with each batch, its flops for a row, and the results at the end."""

    def __init__(self, dtype: torch.dtype, *, everything: bool = False, **options: Any) -> None:
        self.dtype = dtype
        precision = str(dtype).removeprefix("torch.")
        self.single = CovarianceAccumulator(WIDTH, precision=precision, **{"normalize": False} | options)
        self.pair = PairAccumulator(HALF, HALF, normalize=False) if everything else None
        self.joint = JointAccumulator(NARROW, NARROW, normalize=True) if everything else None
        self.flops = 2 * WIDTH**2
        if everything:
            self.flops += 2 * WIDTH**2 + 2 * NARROW**4 + 2 * (2 * NARROW) ** 2

    def update(self, Z: Tensor) -> None:
        """Add a batch."""
        self.single.update(Z)
        if self.pair is not None and self.joint is not None:
            self.pair.update(Z[:, :HALF], Z[:, HALF:])
            self.joint.update(Z[:, :NARROW], Z[:, HALF : HALF + NARROW])

    def results(self) -> dict[str, float]:
        """Every quantity of all rows."""
        K = self.single.gram()
        values = {f"entropy of order {alpha:g}": renyi_entropy(K, alpha) for alpha in ORDERS}
        values["rankme"] = self.single.rankme()
        values["tcr"] = self.single.tcr()
        values["coding rate"] = self.single.coding_rate()
        if self.pair is not None and self.joint is not None:
            values["matrix js of the halves"] = self.pair.matrix_js()
            values["spectrum js of the halves"] = self.pair.spectrum_js()
            covariances = [stream.covariance() for stream in self.pair.marginals()]
            values["matrix kl of the covariances of the halves"] = matrix_kl(*covariances)
            values["mutual information, 16 and 16 columns"] = mutual_information(*self.joint.grams())
        return {name: float(value) for name, value in values.items()}


SETTINGS: Settings = {
    "float64": lambda: Pass(torch.float64),
    "float64, centred": lambda: Pass(torch.float64, center=True),
    "float64, normalised": lambda: Pass(torch.float64, normalize=True),
    "float64, every quantity of one stream and of two": lambda: Pass(torch.float64, everything=True),
    "float32": lambda: Pass(torch.float32),
    "float32, centred": lambda: Pass(torch.float32, center=True),
    "float32, normalised": lambda: Pass(torch.float32, normalize=True),
}


def pool() -> list[Tensor]:
    """Batches of correlated float32 features, used over and over: their rounding is that of distinct ones."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(WIDTH, WIDTH, generator=generator) * torch.logspace(0, -2, WIDTH) / WIDTH**0.5
    return [torch.randn(BATCH, WIDTH, generator=generator) @ mix + 0.1 for _ in range(POOL)]


def product_seconds(dtype: torch.dtype, order: int = 768) -> float:
    """Processor seconds for each operation of a square matrix product."""
    A = torch.ones(order, order, dtype=dtype)
    A @ A
    return timed(lambda: A @ A)[1]["cpu"] / (2 * order**3)


def measure(make: Callable[[], Pass], batches: list[Tensor], rows: int) -> tuple[dict[str, Any], Pass]:
    """One pass over all rows, with matrix products in both precisions timed in between."""
    run = make()
    make().update(batches[0])
    products: dict[torch.dtype, list[float]] = {torch.float32: [], torch.float64: []}
    seconds = wall = 0.0
    done = index = 0
    while done < rows:
        if index % EVERY == 0:
            for dtype, times in products.items():
                times.append(product_seconds(dtype))
        Z = batches[index % POOL][: rows - done]
        _, spent = timed(lambda Z=Z: run.update(Z))
        seconds, wall = seconds + spent["cpu"], wall + spent["wall"]
        done, index = done + len(Z), index + 1
    values, of_results = timed(run.results)
    rates = {dtype: len(times) / sum(times) for dtype, times in products.items()}
    rate = run.flops * rows / seconds
    return {
        "rows": done,
        "cpu_seconds": round(seconds, 3),
        "wall_seconds": round(wall, 3),
        "seconds_of_results": round(of_results["cpu"], 3),
        "gflops": round(rate / 1e9, 2),
        "product_gflops": {
            str(dtype).removeprefix("torch."): round(r / 1e9, 2) for dtype, r in rates.items()
        },
        "share_of_own_product_rate": round(rate / rates[run.dtype], 3),
        "share_of_float32_product_rate": round(rate / rates[torch.float32], 3),
        "values": values,
    }, run


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure every setting and write the results."""
    options = read(
        arguments,
        "benchmarks.reach_streams",
        (__doc__ or "").split("\n")[0],
        rows=(1_000_000, "how many"),
        out=(RESULTS / "reach_streams.json", "the JSON file"),
    )
    torch.set_num_threads(1)
    batches = pool()
    settings, moments = {}, {}
    for name, make in SETTINGS.items():
        settings[name], run = measure(make, batches, options.rows)
        moments[name] = run.single.second_moment()
    error = (moments["float32"] - moments["float64"]).abs().max() / moments["float64"].diagonal().max()
    report = {
        "environment": environment("processor time of one thread"),
        "command": "python -m benchmarks.reach_streams",
        "width": WIDTH,
        "batch": BATCH,
        "distinct_batches": POOL,
        "flops": "2 n d^2 for each second moment of order d; conversion, checks, centring and norms count as none",
        "largest_error_of_float32_over_largest_diagonal": float(error),
        "settings": settings,
    }
    write(options.out, report)
    return report


if __name__ == "__main__":
    main()
