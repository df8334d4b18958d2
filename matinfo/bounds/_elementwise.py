"""The calling convention of functions of numbers: float in, float out; tensors and arrays elementwise."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._keywords import answers_keywords
from matinfo._validation import check_floating, check_number, values_are_readable


def elementwise(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Let a formula over :func:`float64_of` its arguments give a float of numbers, and a tensor or array of these."""
    of_tensors, of_numbers = quantity(function), answers_keywords(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, Tensor | np.ndarray) for x in (*args, *kwargs.values())):
            return of_tensors(*args, **kwargs)
        return of_numbers(*args, **kwargs).item()

    return wrapper


def float64_of(x: Any, name: str) -> Tensor:
    """A number or a tensor in float64."""
    if isinstance(x, Tensor):
        return check_floating(x, name, gram=False).double()
    return torch.tensor(check_number(x, name, "a number, a tensor or an array"), dtype=torch.float64)


def not_negative(x: Any, name: str, remedy: str = "") -> Tensor:
    """The same of numbers >= 0; NaN passes."""
    numbers = float64_of(x, name)
    if numbers.device.type == "cpu" and values_are_readable(numbers) and bool((numbers < 0).any()):
        raise ValueError(f"Expected {name} >= 0, got {numbers.min().item():.3g}. {remedy}".rstrip())
    return numbers
