"""What a dense matrix may take: refused before it is formed, with the route that fits."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

_LOOKED_AT = 2**28
"""Bytes below which nobody asks how much memory is free."""

_SHARE = 4
"""A matrix may take this part of the free memory: a decomposition holds two or three more of its size."""

_VARIABLE = "MATINFO_MAX_MATRIX_GIB"
"""Environment variable with another limit, in GiB."""


def check_matrix_fits(shape: torch.Size | tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a dense matrix that would take more than a quarter of the free memory, or than the user allows."""
    if torch.compiler.is_compiling() or device.type != "cpu":
        return
    size = math.prod(shape) * dtype.itemsize
    if size < _LOOKED_AT:
        return
    given = os.environ.get(_VARIABLE)
    limit = float(given) * 2**30 if given else free_memory() / _SHARE
    if size > limit:
        raise ValueError(
            f"Expected matrices of at most {limit / 2**30:.1f} GiB (a quarter of the free memory, or {_VARIABLE}), got "
            f"{' x '.join(map(str, shape))} entries, {size / 2**30:.1f} GiB. Use matinfo.estimate.estimate_entropy or "
            "estimate_information, which form no matrix; fewer columns (kernels.nystrom, random projections) or fewer "
            "rows; alpha = 2 of a KernelOperator is exact at any size."
        )


def free_memory() -> float:
    """Bytes that this machine, and the control group of this process, have left; infinite where nobody says."""
    free = math.inf
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        group = Path("/sys/fs/cgroup")
        most, used = (
            (group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current")
        )
        return free if most == "max" else min(free, float(most) - float(used))
    except (OSError, StopIteration, ValueError):
        return free
