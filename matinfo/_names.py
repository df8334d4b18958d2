"""Patterns of the dotted names of modules, for hooks and for hidden states."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn


def matches(name: str, pattern: str) -> bool:
    """Whether a name fits; ``*`` stands for (part of) one component, ``**`` for any number of components."""
    return _fits(name.split("."), pattern.split("."))


def _fits(name: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any([_fits(name[i:], pattern[1:]) for i in range(len(name) + 1)])
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _fits(name[1:], pattern[1:])


def is_called(module: nn.Module) -> bool:
    """Whether it has a forward, as containers such as ``ModuleList`` do not."""
    # A compiled module has its forward as an attribute of the instance.
    return getattr(module.forward, "__func__", None) is not nn.Module.forward
