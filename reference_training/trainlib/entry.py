"""The outermost frame of every program. It imports nothing, so that Ctrl-C during the imports ends like any other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


def enter(program: str, main: Callable[[], int]) -> NoReturn:
    """Run a program and leave with its exit code; 130, with one line, where it is interrupted."""
    try:
        code = main()
    except KeyboardInterrupt:
        print(f"{program}: error: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
