"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from trainlib.errors import UsageError


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
        return json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(
            str(path), "is damaged (not JSON)", "put back a copy, or start again with a fresh --out"
        ) from error
