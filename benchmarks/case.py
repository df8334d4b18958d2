"""What a case is: contenders over the same tensors, the targets, and the least time that the work can take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import Rates
from benchmarks.timing import Call

OURS = "matinfo"


@dataclass(frozen=True)
class Target:
    """How many times faster than the best of the named contenders.

    Attributes:
        over: Names of contenders; those that are missing are left out.
        ratio: Their time over ours.
    """

    over: tuple[str, ...]
    ratio: float


@dataclass(frozen=True)
class Floor:
    """The least time for the work, from rates measured on this machine.

    Attributes:
        what: The work, in words.
        seconds: Of the rates.
    """

    what: str
    seconds: Callable[[Rates], float]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: For ``--case``.
        title: Quantity, forward or forward + backward, size.
        build: Makes the inputs and returns the contenders, ours under ``OURS``.
        targets: What is to be reached.
        floor: The least time; None where there is no useful bound.
        group: For ``--case``, several at once; that of its name if empty.
    """

    name: str
    title: str
    build: Callable[[], dict[str, Call]]
    targets: tuple[Target, ...] = field(default=())
    floor: Floor | None = None
    group: str = ""


def value_of(function: Callable[..., Any], *inputs: Any) -> Call:
    """A call that computes the value alone."""

    def call() -> tuple[Any, None]:
        with torch.no_grad():
            return function(*inputs), None

    return call


def gradient_of(function: Callable[..., Tensor], *inputs: Tensor) -> Call:
    """A call that computes the value and its gradient in every input, anew each time."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]

    def call() -> tuple[Tensor, Tensor]:
        value = function(*leaves)
        gradients = torch.autograd.grad(value, leaves)
        return value.detach(), gradients[0]

    return call
