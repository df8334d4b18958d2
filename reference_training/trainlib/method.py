"""What the training loop asks of a method. Each hook but ``forward`` and ``encode`` has a default that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainlib import optim

DEFAULT = "default"  # before a quantity's name: of the untrained network with batch norms as initialised
Measurements = dict[str, dict[str, float]]  # feature -> quantity -> value


class StepOutput(NamedTuple):
    """The loss to minimise, numbers to log, features to measure, and the two views' projections where there are any."""

    loss: Tensor
    logs: dict[str, Tensor]
    features: Tensor
    views: tuple[Tensor, Tensor] | None = None


class Method(nn.Module):
    """A loss with its networks. All its state lies in parameters and buffers, so that checkpoints hold it."""

    skips_parameters = False
    """Whether some steps leave parameters without a gradient, which several processes must know beforehand."""

    spectral = True
    """Whether its features have spectra worth a place in the log; a classifier's log has its accuracies instead."""

    capturable = False
    """Whether a step takes tensors of fixed shapes and never waits for the device, so that it can be recorded."""

    captured = False
    """Whether the loop records it: the optimiser then keeps its rate on the device."""

    def compile_parts(self) -> None:
        """Compile the networks in place; names of weights stay. Losses stay as they are: they are small."""

    def make_optimizer(self, config) -> torch.optim.Optimizer:
        """The optimiser of a run with configuration ``config``."""
        return optim.make_optimizer(self, config.optim, captured=self.captured)

    def prepare(self, dataset) -> None:
        """Called once, on the training device and before a checkpoint is read, for state that depends on the data."""

    def train_batches(self, dataset, epoch: int, seed: int) -> Iterator[tuple[Any, Tensor]]:
        """The augmented batches of one epoch, and their labels."""
        return dataset.train_batches(epoch, seed)

    def before_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch, also after a resume."""

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """The random numbers that one step needs, on the generator's device, which need not be the CPU."""
        return torch.empty(0, device=generator.device)

    def forward(self, images: Any, labels: Tensor, draws: Tensor) -> StepOutput:
        """The loss of a batch."""
        raise NotImplementedError

    def after_step(self, epoch: float) -> None:
        """Called after every step of the optimiser; ``epoch`` counts with its fraction."""

    def instrument(self, config, output: StepOutput) -> dict[str, float]:
        """Further numbers of a step for the training log; the output is that of the whole batch."""
        return {}

    def encode(self, images: Tensor) -> dict[str, Tensor]:
        """Features ``{name: (N, d)}`` of images as they are."""
        raise NotImplementedError

    def measure(self, dataset, autocast: Callable[[], AbstractContextManager]) -> Measurements:
        """Further measurements on held-out images, besides the spectra of ``encode``'s features."""
        return {}

    def measure_untrained(self, dataset, autocast: Callable[[], AbstractContextManager]) -> Measurements:
        """Further measurements before the first step."""
        return {}

    def summarize(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Entries of ``summary.json`` that only this method has, from the training log."""
        return {}

    def draw_pictures(self, dataset, config, records: list[dict[str, Any]], folder: Path) -> None:
        """The pictures of a finished run."""
