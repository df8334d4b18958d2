"""Peak memory of one call, whoever allocates it: PyTorch, NumPy, SciPy or a LAPACK workspace.

Linux keeps the highest resident memory of a process and lets the process reset that mark. Before a call the C
library hands its free memory back, so that a call cannot hide in what an earlier one has left. The number is the mark
after the call minus the level before it. Elsewhere than on Linux with glibc there is no number.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_KIBIBYTE = 1 / 1024


def peak_mebibytes(call: Callable[[], Any]) -> tuple[float | None, Any]:
    """Highest resident memory during the call above the level before it, in MiB, and what the call returned."""
    try:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        _RESET.write_text("5")
        before = _resident("VmRSS")
    except (OSError, AttributeError):
        return None, call()
    result = call()
    return max(0.0, (_resident("VmHWM") - before) * _KIBIBYTE), result


def _resident(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise OSError(f"no {key} in {_STATUS}")
