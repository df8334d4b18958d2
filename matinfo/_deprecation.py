"""Old names that still work for a while, and say so: functions, arguments, and what a module no longer holds."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

CATEGORY: type[Warning] = FutureWarning
"""Shown by default wherever the call stands; a DeprecationWarning from inside a training library is not."""


def renamed_function(
    function: Callable[P, R], old: str, *, since: str, removal: str, instead: str | None = None
) -> Callable[P, R]:
    """``function`` under its old name: every call warns.

    Args:
        function: What the old name stood for.
        old: The old name, as users write it: ``matinfo.erank``.
        since: Version from which it warns.
        removal: Version that no longer has it.
        instead: What to write now; the new name, unless the call has to change too.
    """
    remedy = instead or f"{function.__module__}.{function.__name__}"
    message = _message(old, since, removal, f"Use {remedy}")

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        _warn(message)
        return function(*args, **kwargs)

    wrapper.__name__ = wrapper.__qualname__ = old.rpartition(".")[2]
    wrapper.__doc__ = _noted(function.__doc__, since, message)
    return wrapper


def renamed_argument(
    old: str, new: str, *, since: str, removal: str
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: a keyword argument under its old name warns and is handed on under the new one.

    It goes above every other decorator. A call that gives both names is a TypeError.

    Args:
        old: The old keyword.
        new: The keyword that the function has now.
        since: Version from which it warns.
        removal: Version that no longer has it.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if new not in inspect.signature(function).parameters:
            raise TypeError(f"Expected {function.__name__} to have the argument {new!r}, it has not.")
        message = _message(f"{function.__name__}({old}=...)", since, removal, f"Use {new}=...")

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"Expected {new!r} alone, got it and its old name {old!r} together.")
                _warn(message)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        wrapper.__doc__ = _noted(function.__doc__, since, message)
        return wrapper

    return decorate


def moved_names(module: str, homes: Mapping[str, str], *, since: str, removal: str) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for names that now live elsewhere: ``from old import name`` warns and works.

    Args:
        module: The old home, ``__name__``.
        homes: For each name the module that has it now.
        since: Version from which it warns.
        removal: Version that no longer has them here.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
        _warn(_message(f"{module}.{name}", since, removal, f"Import it from {homes[name]}"))
        return getattr(importlib.import_module(homes[name]), name)

    return __getattr__


def _message(old: str, since: str, removal: str, remedy: str) -> str:
    return f"{old} is deprecated since matinfo {since} and will be removed in {removal}. {remedy}."


def _warn(message: str) -> None:
    warnings.warn(message, CATEGORY, stacklevel=3)  # the line that calls the wrapper


def _noted(docstring: str | None, since: str, message: str) -> str:
    """The docstring with Sphinx's note after its first paragraph."""
    first, _, rest = inspect.cleandoc(docstring or "").partition("\n\n")
    note = f".. deprecated:: {since}\n   {message}"
    return "\n\n".join(part for part in (first, note, rest) if part)
