"""What a method hands to the training loop after each forward pass."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class StepOutput(NamedTuple):
    """The loss to minimise, numbers to log, features to measure, and the two views' projections where there are any."""

    loss: Tensor
    logs: dict[str, Tensor]
    features: Tensor
    views: tuple[Tensor, Tensor] | None = None
