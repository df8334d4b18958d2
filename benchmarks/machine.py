"""The machine: what it is, and how fast it does the basic operations."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import statistics
import subprocess
import warnings
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import timed

_PACKAGES = ("torch", "numpy", "scipy", "vendi-score", "pennylane", "qutip", "timm")


def environment(clock: str) -> dict[str, Any]:
    """Versions, processor, threads, load, commit: what a reader needs to judge the numbers."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "lapack": "MKL" if torch.backends.mkl.is_available() else "other",
        "clock": clock,
    }


def _commit() -> str:
    """The commit of the checkout, with a plus if the package differs from it."""
    root = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "diff", "--quiet", "HEAD", "--", "../matinfo"], cwd=root, capture_output=True, check=False
        ).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def waiting_is_an_error(device: str = "cuda") -> Iterator[None]:
    """Where the host may not wait for a CUDA device; elsewhere nothing."""
    if device != "cuda":
        yield
        return
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch: not every operation that waits is seen
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Rates:
    """Measured times of basic operations on matrices like those of the cases, each measured once when asked for."""

    def __init__(self, clock: str) -> None:
        self._clock = clock

    @functools.cache  # noqa: B019  one instance lives as long as the program
    def gemm(self, dtype: torch.dtype) -> float:
        """Seconds per floating-point operation of a matrix product of order 768."""
        A = torch.rand(768, 768, dtype=dtype)
        return self._median(lambda: A @ A) / (2 * 768**3)

    @functools.cache  # noqa: B019
    def copy(self, mebibytes: float) -> float:
        """Seconds per byte read or written, copying a float32 matrix of about this size."""
        source = torch.rand(max(1, int(mebibytes * 2**18)))
        target = torch.empty_like(source)
        return self._median(lambda: target.copy_(source)) / (8 * source.numel())

    @functools.cache  # noqa: B019
    def factorization(self, kind: str, n: int, dtype: torch.dtype) -> float:
        """Seconds of ``eigh``, ``eigvalsh``, ``cholesky`` or ``cholesky_inverse`` of order n."""
        generator = torch.Generator().manual_seed(0)
        Z = torch.randn(n, n, dtype=dtype, generator=generator)
        K = Z @ Z.mT / n + torch.eye(n, dtype=dtype)
        if kind == "cholesky_inverse":
            L = torch.linalg.cholesky(K)
            return self._median(lambda: torch.cholesky_inverse(L))
        return self._median(lambda: getattr(torch.linalg, kind)(K))

    def _median(self, call: Any, rounds: int = 5) -> float:
        call()
        calls = max(1, int(5e-3 / max(timed(call)[1][self._clock], 1e-7)))
        return statistics.median(timed(call, calls)[1][self._clock] for _ in range(rounds))
