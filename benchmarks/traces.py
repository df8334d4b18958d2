"""Error against time of trace estimators, and of features that approximate kernels.

`python -m benchmarks.traces` takes about ten minutes on one core and writes traces.json beside the other results and
two pictures for the documentation. The matrices are kernel matrices of points on a square grid: Kronecker products
of two small matrices, hence with cheap products and with a spectrum that is known at every size.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cli import RESULTS as FOLDER
from benchmarks.cli import say, write
from benchmarks.machine import environment
from benchmarks.timing import timed
from matinfo import Gram, kernels, renyi_entropy
from matinfo.estimate import (
    KernelOperator,
    estimate_entropy,
    estimate_tcr,
    estimate_trace_power,
    tail_corrected_entropy,
)
from matinfo.operands.operator import TiledOperator
from matinfo.spectral.block_lanczos import BlockLanczos
from matinfo.spectral.xtrace import exchangeable_trace

RESULTS = FOLDER / "traces.json"
PICTURES = Path(__file__).parents[1] / "docs" / "_static"

SIDES = (32, 64, 128, 256)
POWER, MU, DEGREE = 3, 1.0, 16
VECTORS = (8, 16, 32, 64)

REPEATS = {64: 4, 128: 2, 256: 2}
"""By side, where fewer than usual: the largest sizes take most of the time."""

MOST_VECTORS = {256: 32}

MATRICES = {
    "smooth": "Gaussian kernel, width 1/8 of the square",
    "rough": "Laplacian kernel, width 1/8 of the square",
    "narrow": "Gaussian kernel, width one grid step",
}


class GridKernel(KernelOperator):
    """The kernel matrix of the points of a square grid, by its two equal Kronecker factors."""

    def __init__(self, name: str, side: int) -> None:
        TiledOperator.__init__(self, side**2, None, torch.device("cpu"))
        self.is_trusted = True
        self.products = 0
        x = torch.linspace(0, 8, side, dtype=torch.float64)
        gap = (x[:, None] - x).abs()
        width = 8 / (side - 1) if name == "narrow" else 1.0
        self.factor = torch.exp(-gap / width if name == "rough" else -((gap / width) ** 2) / 2)
        lam = torch.linalg.eigvalsh(self.factor).clamp_min(0.0)
        self.eigenvalues = (lam[:, None] * lam).flatten()

    def matmat(self, V: Tensor) -> Tensor:
        """Products, counted."""
        side, s = len(self.factor), V.shape[1]
        self.products += s
        W = (self.factor @ V.reshape(side, side * s)).reshape(side, side, s)
        return torch.matmul(self.factor, W).reshape(side * side, s)

    def trace(self) -> float:
        """The order: the diagonal is one."""
        return float(self.shape[0])

    def frobenius_squared(self) -> float:
        """The square of the factor's."""
        return float(self.factor.square().sum()) ** 2


def xtrace_of_logarithm(K: GridKernel, vectors: int, generator: torch.Generator) -> float:
    """The coding rate by XTrace, which matinfo does not offer."""
    probes = torch.randn(K.shape[0], vectors, dtype=torch.float64, generator=generator)
    lanczos = BlockLanczos(K.matmat, probes)
    lanczos.advance(DEGREE)
    images = lanczos.applied(lambda x, _: torch.log1p(x.clamp_min(0.0) / MU))
    return exchangeable_trace(probes, images).value + K.shape[0] * math.log(MU)


Method = Callable[[GridKernel, int, torch.Generator], float]


def power_by(method: str) -> Method:
    """The trace of the power by a method of matinfo."""
    return lambda K, s, g: estimate_trace_power(K, POWER, probes=s, method=method, generator=g).value


def rate_by(method: str) -> Method:
    """The coding rate by a method of matinfo."""
    return lambda K, s, g: estimate_tcr(K, MU, probes=s, degree=DEGREE, method=method, generator=g).value


def quadrature(K: GridKernel, vectors: int, generator: torch.Generator) -> float:
    """The trace of the power by the quadrature that serves every order, more steps than a power needs."""
    entropy = estimate_entropy(K, POWER, probes=vectors, degree=DEGREE, generator=generator)
    return math.exp((1 - POWER) * entropy.value)


QUANTITIES: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, Method]]] = {
    "power": (
        lambda lam: ((lam / lam.sum()) ** POWER).sum(),
        {
            "Hutchinson": power_by("hutchinson"),
            "Hutch++": power_by("hutch++"),
            "XTrace": power_by("xtrace"),
            "SLQ": quadrature,
        },
    ),
    "rate": (
        lambda lam: torch.log(MU + lam).sum(),
        {
            "Hutchinson (= SLQ)": rate_by("hutchinson"),
            "Hutch++": rate_by("hutch++"),
            "XTrace": xtrace_of_logarithm,
        },
    ),
}


def measure(sides: tuple[int, ...], vectors: tuple[int, ...], repeats: int) -> Iterator[dict[str, Any]]:
    """One record a curve: processor seconds, products and the root mean square relative error of each point."""
    for side in sides:
        for name in MATRICES:
            K = GridKernel(name, side)
            for quantity, (formula, methods) in QUANTITIES.items():
                truth = float(formula(K.eigenvalues))
                most = MOST_VECTORS.get(side, max(vectors))
                for method, function in methods.items():
                    record = {"n": side**2, "matrix": name, "quantity": quantity, "method": method}
                    yield record | {
                        "effective": K.trace() ** 2 / K.frobenius_squared(),
                        "points": [
                            _point(K, function, truth, s, REPEATS.get(side, repeats))
                            for s in vectors
                            if s <= most
                        ],
                    }


def _point(K: GridKernel, function: Method, truth: float, vectors: int, repeats: int) -> dict[str, float]:
    errors, seconds, products = [], [], K.products
    for seed in range(repeats):
        random = torch.Generator().manual_seed(seed)
        value, spent = timed(lambda random=random: function(K, vectors, random))
        errors.append(value / truth - 1)
        seconds.append(spent["cpu"])
    return {
        "vectors": vectors,
        "seconds": statistics.median(seconds),
        "products": (K.products - products) / repeats,
        "error": float(np.sqrt(np.mean(np.square(errors)))),
    }


def feature_maps(X: Tensor, count: int) -> dict[str, Callable[[torch.Generator], Gram]]:
    """Ways to ``count`` features."""

    def landmarks(sampling: str) -> Callable[[torch.Generator], Gram]:
        return lambda g: kernels.nystrom(X, landmarks=count, sampling=sampling, generator=g)

    def waves(orthogonal: bool) -> Callable[[torch.Generator], Gram]:
        return lambda g: kernels.random_features(X, n_features=count, orthogonal=orthogonal, generator=g)

    maps = {f"nystrom {sampling}": landmarks(sampling) for sampling in ("random", "greedy", "uniform")}
    return maps | {"random features": waves(False), "orthogonal features": waves(True)}


def measure_features(n: int, repeats: int) -> list[dict[str, Any]]:
    """Relative error of H_1 and H_2 from features in place of the Gaussian kernel matrix, bandwidth by the median."""
    records = []
    for d in (2, 16):
        X = torch.from_numpy(np.random.default_rng(0).standard_normal((n, d)))
        K = kernels.rbf(X)
        truths = {alpha: float(renyi_entropy(K, alpha)) for alpha in (1.0, 2.0)}
        for share in (32, 8, 2):
            record: dict[str, Any] = {"d": d, "n": n, "features": n // share}
            for name, make in feature_maps(X, n // share).items():
                grams = [make(torch.Generator().manual_seed(seed)) for seed in range(repeats)]
                corrections = {name: renyi_entropy}
                if name.startswith("nystrom"):
                    corrections[f"{name} + tail"] = tail_corrected_entropy
                for label, entropy in corrections.items():
                    for alpha, truth in truths.items():
                        errors = [float(entropy(gram, alpha)) / truth - 1 for gram in grams]
                        record[f"{label}, H_{alpha:g}"] = float(np.sqrt(np.mean(np.square(errors))))
            records.append(record)
    return records


def draw(records: list[dict[str, Any]], quantity: str, title: str, path: Path) -> None:
    """Matrices by rows, sizes by columns."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    sizes = sorted({record["n"] for record in records})
    figure, axes = plt.subplots(
        len(MATRICES), len(sizes), figsize=(2.6 * len(sizes) + 0.6, 7.2), sharey="row", layout="constrained"
    )
    colours = {"Hutchinson": "tab:blue", "Hutch++": "tab:orange", "XTrace": "tab:green", "SLQ": "0.5"}
    for row, name in zip(np.atleast_2d(axes), MATRICES, strict=True):
        for axis, n in zip(row, sizes, strict=True):
            chosen = [r for r in records if (r["n"], r["matrix"], r["quantity"]) == (n, name, quantity)]
            if not chosen:  # not measured
                axis.axis("off")
                continue
            for record in chosen:
                x, y = zip(*[(p["seconds"], max(p["error"], 1e-16)) for p in record["points"]], strict=True)
                colour = colours[record["method"].split(" ")[0]]
                axis.loglog(x, y, "o-", color=colour, label=record["method"], markersize=3, linewidth=1.2)
            axis.set_title(f"n = {n:,}, r = {chosen[0]['effective']:,.0f}", fontsize=9)
            axis.grid(True, color="0.9", linewidth=0.5)
            axis.tick_params(labelsize=8)
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 3.0)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        row[0].set_ylabel(f"{name}\nrelative error", fontsize=9)
    for axis in np.atleast_2d(axes)[-1]:
        axis.set_xlabel("processor seconds", fontsize=9)
    handles, labels = np.atleast_2d(axes)[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def draw_all(results: dict[str, Any], folder: Path) -> None:
    """Both pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    curves = results["curves"]
    draw(
        curves,
        "power",
        f"tr P^{POWER}: {min(VECTORS)} to {max(VECTORS)} random vectors",
        folder / "traces.png",
    )
    draw(curves, "rate", f"log det({MU:g} I + K), {DEGREE} Lanczos steps", folder / "traces-tcr.png")


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is written")
    parser.add_argument("--redraw", action="store_true", help="only the pictures, from the stored results")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=SIDES, help="only n = side^2 of these; others are kept"
    )
    parser.add_argument(
        "--part", choices=("curves", "features"), help="only this; the other is kept as it is stored"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if not options.redraw:
        run(results, options.part, (8, 16) if options.quick else tuple(options.sides), quick=options.quick)
    if not options.quick:
        draw_all(results, PICTURES)


def run(results: dict[str, Any], part: str | None, sides: tuple[int, ...], *, quick: bool) -> None:
    """Measure into the results and, unless it is only a trial, into their file."""
    results["matrices"] = MATRICES
    if part != "curves":
        results["features_environment"] = environment("cpu")
        results["feature_maps"] = measure_features(*((64, 2) if quick else (1024, 5)))
        _store(results, quick)
    if part == "features":
        return
    results["environment"] = environment("cpu")
    kept = [] if quick else results.get("curves", [])
    results["curves"] = [record for record in kept if math.isqrt(record["n"]) not in sides]
    for record in measure(sides, VECTORS[:2] if quick else VECTORS, 5):
        results["curves"].append(record)
        last = record["points"][-1]
        say(
            f"n={record['n']:6d} {record['matrix']:7s} {record['quantity']:6s} {record['method']:19s} "
            f"{last['seconds']:8.3f} s, error {last['error']:.1e}"
        )
        _store(results, quick)  # whatever there is, should the run be cut short


def _store(results: dict[str, Any], quick: bool) -> None:
    if not quick:
        write(RESULTS, results)


if __name__ == "__main__":
    main()
