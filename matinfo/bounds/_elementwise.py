"""The calling convention of functions of a number: float in, float out; tensors and arrays elementwise."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinfo._interface import quantity


def elementwise(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Let a float64 formula take a number, a tensor or an array as its first argument and return the same kind."""
    wrapped = quantity(function)

    @functools.wraps(function)
    def wrapper(value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, Tensor | np.ndarray):
            return wrapped(value, *args, **kwargs)
        return wrapped(torch.tensor(float(value), dtype=torch.float64), *args, **kwargs).item()

    return wrapper
