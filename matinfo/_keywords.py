"""A keyword that a function does not have, answered with the one that was meant."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_OTHER_NAMES = {
    "alpha": {"order", "a", "q"},
    "q": {"alpha", "order"},
    "bandwidth": {"gamma", "sigma", "lengthscale", "length_scale", "h"},
    "lambda_": {"lam", "lambd", "lmbda", "weight", "lambda_param", "off_diagonal_weight"},
    "eps": {"epsilon", "eps2", "epsilon2"},
    "mu": {"ridge", "eps", "epsilon"},
    "permutations": {"n_permutations", "num_permutations", "n_perm", "iters"},
    "temperature": {"tau", "t", "temp"},
    "normalize": {"normalise", "normalized", "l2"},
    "center": {"centre", "centered", "centering"},
}
"""What other packages call an argument."""


def answers_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that is no quantity say which of its arguments an unknown keyword stands for."""
    known = tuple(inspect.signature(function).parameters)  # torch.compile takes no view of a dictionary

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs and not torch.compiler.is_compiling() and not kwargs.keys() <= {*known}:
            check_keywords(function, kwargs)
        return function(*args, **kwargs)

    return wrapper


def check_keywords(function: Callable[..., Any], given: Iterable[str]) -> None:
    """Refuse keywords that a function or class does not have.

    One that takes further keywords for another (``**options``) refuses only what is another name of its own argument.
    """
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    known = [p.name for p in parameters if p.kind != p.VAR_KEYWORD]
    unknown = set(given).difference(known)
    if len(known) < len(parameters):
        unknown = {word for word in unknown if _other_names(word, known)}
    if unknown:
        raise _unknown_keyword(function.__qualname__.removesuffix(".__init__"), min(unknown), known)


def _unknown_keyword(function: str, word: str, known: list[str]) -> TypeError:
    """The error for a keyword that a function does not have, with the one that it stands for."""
    meant = _other_names(word, known) or difflib.get_close_matches(word, known, 1, 0.7)
    remedy = f"Did you mean {meant[0]}?" if meant else f"It has {', '.join(known)}."
    if (word, meant) == ("gamma", ["bandwidth"]):
        remedy = "Give bandwidth=, with gamma = 1/(2 bandwidth^2) in a Gaussian kernel."
    return TypeError(f"{function}() got an unexpected keyword argument {word!r}. {remedy}")


def _other_names(word: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if word in _OTHER_NAMES.get(name, ())]
