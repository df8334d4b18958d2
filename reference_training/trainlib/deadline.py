"""A time after which training stops at a checkpoint, for machines that are lent in pieces."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)


class PausedError(Exception):
    """The time is over; what was trained so far is in a checkpoint."""


@contextmanager
def stop_after(minutes: float | None) -> Iterator[None]:
    """Training inside this block ends with ``PausedError`` after its first epoch past ``minutes`` from now."""
    token = _DEADLINE.set(None if minutes is None else time.monotonic() + 60 * minutes)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def passed() -> bool:
    """Whether the time of the block around is over; never outside one."""
    deadline = _DEADLINE.get()
    return deadline is not None and time.monotonic() >= deadline
