"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from trainlib.errors import UsageError

CONFIG, SUMMARY, MANIFEST = "config.json", "summary.json", "study.json"  # of a run, of both, of a comparison


def write_atomic(path: Path, content: bytes) -> None:
    """Write to a temporary file, flush it to the disk, then rename it over ``path``."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, atomically; numbers that JSON does not know are refused."""
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file; a damaged one is a ``UsageError``."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(
            str(path), "is damaged (not JSON)", "put back a copy, or start again with a fresh --out"
        ) from error


def read_table(path: Path, **needed: type) -> dict[str, Any]:
    """A JSON object that has these entries of these types."""
    value = read_json(path)
    for name, kind in needed.items():
        if not isinstance(value, dict) or not isinstance(value.get(name), kind):
            raise UsageError(
                str(path), f"is damaged (no entry {name!r} of the right kind)",
                "put back a copy, or start again with a fresh --out",
            )  # fmt: skip
    return value


def read_names(path: Path) -> list[str]:
    """The runs that a manifest lists."""
    names = read_table(path, runs=list)["runs"]
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError(
            str(path), "is damaged (its runs are not names)", "put back a copy, or name the runs' folders"
        )
    return names


def expand(folders: list[Path]) -> list[Path]:
    """The folders of the runs; a comparison's folder stands for all runs in it."""
    run_dirs = []
    for folder in folders:
        if (folder / MANIFEST).is_file():
            run_dirs += [folder / name for name in read_names(folder / MANIFEST)]
        else:
            run_dirs.append(folder)
    return run_dirs


def refuse_used(path: Path, remedy: str) -> None:
    """Refuse a folder that holds something: none is ever reused silently."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError("--out", f"{path} already exists", remedy)


def new_folder(path: Path) -> None:
    """Make the folder of a run or of a comparison."""
    refuse_used(path, f"choose another --out, or continue it with --resume {path}")
    path.mkdir(parents=True, exist_ok=True)


OF_A_SUMMARY = {"label": str, "seed": int, "epochs": int, "features": dict}


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary of a finished run."""
    return read_table(run_dir / SUMMARY, **OF_A_SUMMARY)


def is_summary(value: Any) -> bool:
    """Whether a value read from JSON says of a run what its summary must."""
    return isinstance(value, dict) and all(isinstance(value.get(k), t) for k, t in OF_A_SUMMARY.items())
