"""What is wrong with the input, in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class InputError(ValueError):
    """A file or an argument cannot be used; the message names it and says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(str(message).split())))


def printable(text: str) -> str:
    """Text that leaves a terminal as it is and can be encoded: control characters and lone bytes as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """What an error says, or its name if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def about(name: str) -> Iterator[None]:
    """Errors inside are about this file: one line that starts with its name."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file.") from None
    except IsADirectoryError:
        raise InputError(f"{name}: is a folder, not a file.") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}.") from None
    except MemoryError:
        raise InputError(f"{name}: not enough memory. Use smaller --batch-rows, or fewer columns.") from None
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
