"""The outermost frame of every program. It imports next to nothing: Ctrl-C during imports ends like any other."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from trainlib.errors import INTERRUPTED_EXIT_CODE


def enter(program: str, main: Callable[[], int]) -> NoReturn:
    """Run a program and leave with its exit code; 130, with one line, where it is interrupted."""
    interrupts = []

    def note(number: int, frame: Any) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    try:
        code = main()
    except (KeyboardInterrupt, Exception) as error:
        # A package may swallow an interrupt of its imports (NumPy does), and break for want of what it did not import.
        if not (interrupts or isinstance(error, KeyboardInterrupt)):
            raise
        print(f"{program}: error: interrupted", file=sys.stderr)
        code = INTERRUPTED_EXIT_CODE
    sys.exit(code)
