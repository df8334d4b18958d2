"""The border between the user's arrays and the float64 results of the formulas."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from matinfo._keywords import check_keywords
from matinfo._record import is_recording, recording
from matinfo.operands import as_tensor
from matinfo.spectral.precision import at_least_float32, without_autocast

P = ParamSpec("P")
R = TypeVar("R")


def quantity(function: Callable[P, R]) -> Callable[P, R]:
    """Give a formula over tensors the public calling convention.

    NumPy arrays among the arguments become tensors and the result a NumPy array (a scalar for no batch dimensions);
    otherwise the result has the promoted dtype of the floating-point arguments, at least float32.
    Autocast is switched off inside. The names of the steps recorded by ``explain`` are the function's.
    """
    keywords = inspect.signature(function).parameters.keys()
    call = cast(Callable[..., Tensor], function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs and not torch.compiler.is_compiling() and not kwargs.keys() <= keywords:
            check_keywords(function, kwargs)
        data = [*args, *kwargs.values()]  # an array is one whether it is passed by position or by name
        operands: list[Any] = []
        numpy, tensors = False, False
        for i, a in enumerate(data):
            if isinstance(a, Tensor):
                tensors = True
            elif isinstance(a, np.ndarray):
                numpy, a = True, as_tensor(a)
                data[i] = a
            elif isinstance(a, (float, int)) or not hasattr(a, "given_dtype"):
                continue  # a number may be symbolic while compiling, and then has no attributes
            else:
                known = getattr(a, "is_numpy", False)
                numpy, tensors = numpy or known, tensors or not known
            operands.append(a)
        if numpy and tensors:
            raise TypeError(
                "Expected either NumPy arrays or tensors, got both. Convert one with torch.from_numpy, and what stands "
                "for a number, such as alpha, with alpha.item()."
            )
        values: Any = args
        named: Any = kwargs
        if numpy:
            values, named = data[: len(args)], dict(zip(kwargs, data[len(args) :], strict=True))
        with context(function.__name__, operands):
            result = call(*values, **named)
        if numpy:  # which a quantity inside may have seen to, where the operand is a Gram of an array
            return cast(R, result.double().numpy()[()] if isinstance(result, Tensor) else result)
        return cast(R, result.to(_result_dtype(operands)))

    return wrapper


def context(name: str, operands: list[Any]) -> contextlib.AbstractContextManager:
    """Autocast off and the name on record, where there is anything to switch off or to record."""
    autocast = without_autocast(operands[0].device if operands else torch.device("cpu"))
    if not is_recording():
        return autocast
    stack = contextlib.ExitStack()
    stack.enter_context(autocast)
    stack.enter_context(recording(name))
    return stack


def _result_dtype(operands: list[Any]) -> torch.dtype:
    if len(operands) == 1 and isinstance(operands[0], Tensor):  # the common case
        return at_least_float32(operands[0].dtype)
    dtypes = [a.dtype if isinstance(a, Tensor) else a.given_dtype for a in operands]
    dtypes = [dtype for dtype in dtypes if dtype.is_floating_point]
    return (
        at_least_float32(functools.reduce(torch.promote_types, dtypes))
        if dtypes
        else torch.get_default_dtype()
    )
