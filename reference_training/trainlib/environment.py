"""On what a run was made: recorded in its folder, and gathered for results that join several runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from trainlib.files import read_json

ENVIRONMENT = "environment.json"
_OF_ONE_RUN = ("command", "started")


def environment() -> dict[str, Any]:
    """Command, commit, versions and hardware, for the record."""
    packages = ("torch", "torchvision", "timm", "lightning", "numpy", "scikit-learn")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "command": " ".join(sys.argv),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environments(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The different commits, versions and machines that runs were made with."""
    found: list[dict[str, Any]] = []
    for folder in folders:
        if (folder / ENVIRONMENT).is_file():
            recorded = {k: v for k, v in read_json(folder / ENVIRONMENT).items() if k not in _OF_ONE_RUN}
            if recorded not in found:
                found.append(recorded)
    return found
