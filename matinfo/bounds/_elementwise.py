"""The calling convention of functions of a number: float in, float out; tensors and arrays elementwise."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_floating, values_are_readable


def elementwise(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Let a float64 formula take a number, a tensor or an array as its first argument and return the same kind."""
    wrapped = quantity(function)

    @functools.wraps(function)
    def wrapper(value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, Tensor | np.ndarray):
            return wrapped(value, *args, **kwargs)
        return function(torch.tensor(float(value), dtype=torch.float64), *args, **kwargs).item()

    return wrapper


def check_not_negative(x: Tensor, name: str, remedy: str = "") -> Tensor:
    """Accept numbers >= 0 and return them in float64; NaN passes."""
    check_floating(x, name)
    if x.device.type == "cpu" and values_are_readable(x) and bool((x < 0).any()):
        raise ValueError(f"Expected {name} >= 0, got {x.min().item():.3g}.{' ' + remedy if remedy else ''}")
    return x.double()


def check_count(n: object, name: str) -> int:
    """Accept an integer >= 1."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"Expected {name} to be an integer, got {type(n).__name__}.")
    if n < 1:
        raise ValueError(f"Expected {name} >= 1, got {n}.")
    return int(n)
