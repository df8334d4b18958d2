"""Whether input is looked at: the switch behind :class:`no_checks`."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any

import torch

_enabled: ContextVar[bool] = ContextVar("matinfo_checks", default=True)


class no_checks(contextlib.ContextDecorator):
    """Context manager and decorator inside which symmetry and definiteness of matrices are taken on trust.

    For training loops whose matrices are symmetric and positive semi-definite by construction. A matrix that is not
    then gives a number without meaning, at every order. Everything else stays: shapes, dtypes, the range of arguments,
    NaN for non-finite input.

    Args:
        function: What ``@no_checks`` without parentheses decorates.

    Raises:
        TypeError: If a generator or a coroutine is decorated, whose body runs after its call has returned.

    Notes:
        Saves five to nine products of the matrix with a vector at order 2, a Cholesky factorisation (``n^3/3`` flops)
        at orders 3 and 4 and in :func:`matrix_tcr`, and nothing where eigenvalues are computed anyway. A
        :class:`Gram` is positive semi-definite as it stands, and never looked at. The switch belongs to the current
        thread (or async task). Functions compiled by ``torch.compile`` do not see it.

    References:
        torch.no_grad.

    Example:
        >>> import torch
        >>> from matinfo import no_checks, renyi_entropy
        >>> with no_checks():
        ...     float(renyi_entropy(torch.eye(4), 2).exp())
        4.0
    """

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """``@no_checks`` is ``@no_checks()``."""
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self) -> None:
        self._tokens: list[Token[bool]] = []

    def __call__(self, function: Any) -> Any:
        """The function with the checks switched off inside."""
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            raise TypeError(
                f"Expected no_checks to decorate a plain function, got {function.__name__}, whose body runs after its "
                "call has returned. Use a with block inside it."
            )
        return super().__call__(function)

    def __enter__(self) -> None:
        """Switch the checks off."""
        self._tokens.append(_enabled.set(False))

    def __exit__(self, *_: Any) -> None:
        """Switch them back to what they were."""
        _enabled.reset(self._tokens.pop())


def checks_are_on() -> bool:
    """Whether matrices are looked at."""
    return torch.compiler.is_compiling() or _enabled.get()
