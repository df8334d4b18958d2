"""Packages that only a part of this one needs: where one is missing, the error says how to install it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType


class MissingExtra(ModuleNotFoundError):
    """A package of an extra is not installed; the message names the extra."""


@contextlib.contextmanager
def needs(package: str, what: str, extra: str) -> Iterator[None]:
    """Imports of a package of an extra, on behalf of what needs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if package not in (error.name or "").split("."):  # something that the package itself lacks
            raise
        message = f"Expected {package} to be installed: {what} needs it. Run pip install 'matinfo[{extra}]'."
        raise MissingExtra(message, name=package) from None


def optional(module: str, what: str, extra: str) -> ModuleType:
    """A module of an extra."""
    with needs(module.split(".")[0], what, extra):
        return importlib.import_module(module)
