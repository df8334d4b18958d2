"""How far large matrices reach: ``python -m benchmarks.reach SECTION ...`` or ``all``; ``--help`` lists the sections.

Each measurement runs in a process of its own, so that its peak memory is its own, and each section of
``benchmarks/results/reach.json`` comes from one run. Times are processor times unless they say ``wall``; that of
``eigvalsh`` for 16,384 points is extrapolated as n^3 from 4,096. ``--quick`` takes small sizes and writes nothing.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.cli import RESULTS as FOLDER
from benchmarks.cli import write
from benchmarks.machine import environment
from benchmarks.timing import timed

RESULTS = FOLDER / "reach.json"
DIMENSION, BANDWIDTH = 8, 1.0
RTOL = 0.01
ATOL = 0.02
ESTIMATE = "value probes degree converged"


def points(n: int) -> torch.Tensor:
    """Gaussian points of unit variance."""
    return torch.randn(n, DIMENSION, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def estimate(n: int, precision: str, alpha: float = 1.0) -> dict[str, Any]:
    """The RBF entropy of n points from products, to one per cent."""
    from matinfo.estimate import KernelOperator, estimate_entropy

    def call(X: torch.Tensor) -> Any:
        K = KernelOperator(X, bandwidth=BANDWIDTH, precision=precision)
        return estimate_entropy(K, alpha, rtol=RTOL, generator=torch.Generator().manual_seed(1))

    X = points(n)
    call(X[:64])  # what only the first call does
    found, times = timed_here(lambda: call(X))
    settings = {"n": n, "d": DIMENSION, "bandwidth": BANDWIDTH, "precision": precision, "alpha": alpha}
    extra = {"relative_error_bar": found.error() / found.value} | attributes(
        found, "standard_error bias_bound"
    )
    return times | settings | attributes(found, ESTIMATE) | extra


def attributes(found: Any, names: str) -> dict[str, Any]:
    """Those that the results keep."""
    return {name: getattr(found, name) for name in names.split()}


def exact(n: int, alpha: float = 1.0) -> dict[str, Any]:
    """``eigvalsh`` of the float64 kernel matrix, and the entropy."""
    from matinfo.estimate import KernelOperator

    K = KernelOperator(points(n), bandwidth=BANDWIDTH).rows(0, n)
    torch.linalg.eigvalsh(K[:64, :64])  # what only the first call does
    lam, times = timed_here(lambda: torch.linalg.eigvalsh(K))
    p = lam.clamp_min(0.0) / n
    value = -torch.xlogy(p, p).sum() if alpha == 1 else p.pow(alpha).sum().log() / (1 - alpha)
    return {**times, "n": n, "value": float(value)}


def vendi(n: int, d: int, contender: str) -> dict[str, Any]:
    """The Vendi score of normalised features."""
    X = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if contender == "matinfo":
        from matinfo import Gram, vendi_score

        def call(Z: torch.Tensor) -> Any:
            return vendi_score(Gram(Z, normalize=True))
    else:
        peer = importlib.import_module("vendi_score.vendi")

        def call(Z: torch.Tensor) -> Any:
            return getattr(peer, contender)(Z.numpy())

    call(X[: 2 * d])  # what only the first call does
    value, times = timed_here(lambda: call(X))
    return {**times, "n": n, "d": d, "contender": contender, "value": float(value)}


def chain(n: int, d: int, count: int) -> list[torch.Tensor]:
    """Gaussian points, and each time the last ones with noise of half their deviation added."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(count, n, d, dtype=torch.float64, generator=generator)
    steps[1:] *= 0.5
    return list(steps.cumsum(0))


def information(quantity: str, n: int, d: int, alpha: float) -> dict[str, Any]:
    """To 0.02 nats, of RBF kernels with median bandwidths; conditional: x and z of x -> y -> z given y."""
    import matinfo
    from matinfo.estimate import KernelOperator, estimate_information

    function = getattr(matinfo, quantity)
    samples = chain(n, d, 2 if function is matinfo.mutual_information else 3)
    ordered = samples if len(samples) == 2 else [samples[0], samples[2], samples[1]]

    def call(m: int) -> Any:
        Ks = [KernelOperator(X[:m], precision="float32") for X in ordered]
        seed = torch.Generator().manual_seed(1)
        return estimate_information(function, *Ks, alpha=alpha, atol=ATOL, generator=seed)

    call(64)  # what only the first call does
    found, times = timed_here(lambda: call(n))
    settings = {"quantity": quantity, "n": n, "d": d, "alpha": alpha, "error_bar": found.error()}
    return times | settings | attributes(found, ESTIMATE)


def permutations(statistic: str, n: int, d: int, alpha: float, count: int) -> dict[str, Any]:
    """A test of independence of two RBF kernels, bandwidths by the median."""
    from matinfo import independence_test, kernels

    A, B = (kernels.rbf(X) for X in chain(n, d, 2))

    def call(m: int, count: int) -> Any:
        Ks = A[:m, :m], B[:m, :m]
        return independence_test(*Ks, statistic=statistic, alpha=alpha, permutations=count)

    call(64, 1)  # what only the first call does
    found, times = timed_here(lambda: call(n, count))
    times["seconds_of_1000"] = times["seconds"] * 1000 / count
    settings = {"statistic": statistic, "n": n, "alpha": alpha, "d": d, "permutations": count}
    values = {"value": found.statistic, "mean_of_chance": float(found.null.mean()), "p_value": found.p_value}
    return times | settings | values


def timed_here(call: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """The result, with processor and wall-clock seconds and the highest memory of this process so far."""
    result, seconds = timed(call)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result, {"seconds": seconds["cpu"], "wall_seconds": seconds["wall"], "peak_mebibytes": memory}


def steps(n: int, tolerance: float = 2.5e-3, most: int = 40) -> dict[str, Any]:
    """Steps until truncation is below the tolerance times the trace function; None if more than ``most``."""
    from matinfo.estimate import KernelOperator
    from matinfo.operands.operator import as_operator
    from matinfo.spectral.functions import Power, Tsallis
    from matinfo.spectral.hutchpp import SketchedTrace
    from matinfo.spectral.operator import rademacher

    def random(d: int) -> torch.Tensor:
        return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    Q = torch.linalg.qr(random(n))[0]
    matrices = {
        "RBF, 3 dimensions, Scott's bandwidth": KernelOperator(random(3), bandwidth="scott").rows(0, n),
        "RBF, 8 dimensions, bandwidth 1": KernelOperator(random(8), bandwidth=1.0).rows(0, n),
        "RBF, 8 dimensions, median bandwidth": KernelOperator(random(8)).rows(0, n),
        "eigenvalues k^-1.5": (Q * torch.arange(1, n + 1) ** -1.5) @ Q.mT,
    }

    def needed(width: int, K: torch.Tensor, alpha: float) -> int | None:
        trace = SketchedTrace(as_operator(K))
        f = Tsallis(alpha) if alpha == 1 else Power(alpha)
        signs = rademacher(trace.operator, 16, torch.Generator().manual_seed(1)).split(width, 1)
        recurrences = [trace.begin(part) for part in signs]
        for degree in range(2, most + 1):
            trace.parts, trace.sizes = [], []
            for lanczos, sizes in recurrences:
                lanczos.advance(degree)
                trace.add(lanczos, sizes)
            found = trace.estimate(f.value)
            if found.truncation <= tolerance * abs(found.value):
                return degree
        return None

    def table() -> list[dict[str, Any]]:
        return [
            {"matrix": name, "alpha": alpha, "single": needed(1, K, alpha), "block": needed(16, K, alpha)}
            for name, K in matrices.items()
            for alpha in (0.5, 1.0, 1.5)
        ]

    rows, times = timed_here(table)
    return {**times, "n": n, "probes": 16, "tolerance": tolerance, "most": most, "rows": rows}


Measured = Callable[..., dict[str, Any]]
MEASUREMENTS: dict[str, Measured] = {
    function.__name__: function for function in (estimate, exact, vendi, steps, information, permutations)
}


def measure(name: str, *arguments: Any, threads: int) -> dict[str, Any]:
    """One measurement in a process of its own."""
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(variables, str(threads))}
    command = [sys.executable, "-m", "benchmarks.reach", "--one", json.dumps([name, *arguments])]
    found = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = {**json.loads(found.stdout), "threads": threads}
    sys.stderr.write(f"{name} {arguments}: {result['seconds']:.1f} s, {result['peak_mebibytes']:.0f} MiB\n")
    return result


def rbf_16k(measured: Measured, *, quick: bool) -> dict[str, Any]:
    """16,384 points beside the extrapolated eigensolver, and the same error bar where the truth is known."""
    n, sizes = (1024, (256, 512)) if quick else (16_384, (2048, 4096))
    solver = [measured("exact", size) for size in sizes]
    estimates, checks = (
        [measured("estimate", size, precision) for precision in ("float64", "float32")]
        for size in (n, sizes[-1])
    )
    for check in checks:
        check["true_relative_error"] = abs(check["value"] / solver[-1]["value"] - 1)
    extrapolated = solver[-1]["seconds"] * (n / sizes[-1]) ** 3
    return {
        "eigvalsh": solver,
        "eigvalsh_growth_measured": solver[1]["seconds"] / solver[0]["seconds"],
        "eigvalsh_seconds_extrapolated": extrapolated,
        "eigvalsh_matrix_mebibytes": 8 * n**2 / 2**20,
        "estimates": estimates,
        "checks": checks,
        "ratios_to_extrapolation": [extrapolated / found["seconds"] for found in estimates],
    }


def rbf_100k(measured: Measured, *, quick: bool) -> dict[str, Any]:
    """100,000 points."""
    return {"estimate": measured("estimate", 4096 if quick else 100_000, "float32")}


def vendi_10k(measured: Measured, *, quick: bool) -> dict[str, Any]:
    """The Vendi score of 10,000 features of width 512: ours, the peer's, and the peer's own dual."""
    n, d = (1000, 51) if quick else (10_000, 512)
    found = {name: measured("vendi", n, d, name) for name in ("matinfo", "score_X", "score_dual")}
    ours = found["matinfo"]["seconds"]
    return {**found, "ratios": {name: found[name]["seconds"] / ours for name in ("score_X", "score_dual")}}


def block_steps(measured: Measured, *, quick: bool) -> dict[str, Any]:
    """Lanczos steps with a basis for each of 16 probes and with one for all, until truncation is small enough."""
    return measured("steps", 200 if quick else 1000)


def conditional_20k(measured: Measured, *, quick: bool) -> dict[str, Any]:
    """Conditional information of three kernels of 20,000 points in 8 dimensions."""
    n = 512 if quick else 20_000
    name = "conditional_mutual_information"
    return {f"order {a:g}": measured("information", name, n, DIMENSION, a) for a in (1.0, 2.0)}


def mutual_100k(measured: Measured, *, quick: bool) -> dict[str, Any]:
    """Mutual information of two kernels in 16 dimensions: 100,000 points at order 2, a tenth of them at order 1."""
    sizes = {2.0: 512, 1.0: 256} if quick else {2.0: 100_000, 1.0: 10_000}
    return {f"order {a:g}": measured("information", "mutual_information", n, 16, a) for a, n in sizes.items()}


def independence(measured: Measured, *, quick: bool) -> dict[str, Any]:
    """Permutations of 2,000 points; those that need eigenvalues of full matrices are counted up from a few."""
    n = 128 if quick else 2000
    few = 5 if quick else 1000
    runs = {
        "order 2": ("mutual_information", n, DIMENSION, 2.0, few),
        "hsic": ("hsic", n, DIMENSION, 2.0, few),
        "order 1": ("mutual_information", n, DIMENSION, 1.0, min(few, 20)),
        "order 1, one dimension": ("mutual_information", n, 1, 1.0, min(few, 100)),
    }
    return {name: measured("permutations", *run) for name, run in runs.items()}


SECTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "rbf-16k": rbf_16k,
    "rbf-100k": rbf_100k,
    "vendi": vendi_10k,
    "block": block_steps,
    "cmi-20k": conditional_20k,
    "mi-100k": mutual_100k,
    "independence": independence,
}


def main() -> None:
    """Run the sections asked for and merge them into the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reach", description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, "all", []], default=[])
    parser.add_argument("--quick", action="store_true", help="small sizes, printed only")
    parser.add_argument("--threads", type=int, default=1, help="of every library (default 1)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, *arguments = json.loads(options.one)
        sys.stdout.write(json.dumps(MEASUREMENTS[name](*arguments)))
        return
    wanted = list(SECTIONS) if not options.sections or "all" in options.sections else options.sections
    for name in wanted:
        measured = functools.partial(measure, threads=options.threads)
        section = SECTIONS[name](measured, quick=options.quick)
        if options.quick:
            sys.stdout.write(json.dumps(section, indent=1) + "\n")
            continue
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        command = f"python -m benchmarks.reach {name} --threads {options.threads}"
        results[name] = {"command": command, "environment": environment("cpu"), **section}
        write(RESULTS, results)


if __name__ == "__main__":
    main()
