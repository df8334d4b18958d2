"""What a method's file states besides its loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Rates(NamedTuple):
    """Base learning rate (for a batch of 256) and weight decay of a method with one optimiser."""

    lr: float
    weight_decay: float


class Projector(NamedTuple):
    """Hidden layers of the projector, batch norm after them, and one without parameters at the end."""

    hidden_layers: int = 1
    norm: bool = True
    last_norm: bool = False


@dataclass(frozen=True)
class Settings:
    """Name in tables, rates by optimiser, how views are made, the projector, and the options that the method has.

    Options are those of ``SiameseConfig`` that are None there, with the method's defaults; the defaults of
    ``over_width`` are divided by the width of the projections.
    """

    label: str
    rates: dict[str, Rates]
    augmentation: str = "symmetric"
    projector: Projector = field(default_factory=Projector)
    options: dict[str, float] = field(default_factory=dict)
    over_width: dict[str, float] = field(default_factory=dict)

    def defaults(self, width: int) -> dict[str, float]:
        """The method's options for projections of this width."""
        return self.options | {name: value / width for name, value in self.over_width.items()}

    def has(self, option: str) -> bool:
        """Whether the method has this option."""
        return option in self.options or option in self.over_width
