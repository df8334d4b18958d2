"""A network with its optimiser and captured steps, and the runs that pass through it."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainlib import augment
from trainlib.loop import CAPTURE_WARMUP, record
from trainlib.masked import MaskedMethod
from trainlib.optim import make_optimizer
from trainlib.rng import generator


class EpochDraws(NamedTuple):
    """What one epoch of one seed consumes, by step: image numbers, crops, mask noise."""

    order: Tensor  # (steps, B)
    crops: Tensor  # (steps, B, augment.NUMBERS)
    noise: Tensor  # (steps, B, L)


def draw_epoch(config: Any, images: int, length: int, epoch: int, device: torch.device) -> EpochDraws:
    """The random numbers of an epoch, drawn on the device: functions of seed and epoch alone."""
    batch, seed = config.optim.batch, config.run.seed
    steps = images // batch
    order = torch.randperm(images, generator=generator(seed, "order", epoch, device=device), device=device)
    source = generator(seed, "augment", epoch, device=device)
    crops = torch.rand(steps, batch, augment.NUMBERS, generator=source, device=device)
    source = generator(seed, "mask", epoch, device=device)
    noise = torch.rand(steps, batch, length, generator=source, device=device)
    return EpochDraws(order[: steps * batch].reshape(steps, batch), crops, noise)


@dataclass
class Run:
    """One run of the fleet: its configuration, its folder, and its tensors between two turns."""

    config: Any
    folder: Path = Path()
    state: list[Tensor] = field(default_factory=list)
    # The mean of every logged number, by epoch, on the device.
    history: list[Tensor] = field(default_factory=list)
    spectra: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def method(self) -> Any:
        """What distinguishes its training step from those of the other runs: all but the seed."""
        return self.config.method


class Lane:
    """A network with its optimiser, through which runs pass one after the other; on CUDA a stream of its own."""

    def __init__(self, config: Any, dataset: Any, device: torch.device) -> None:
        self.dataset, self.device, self.cuda = dataset, device, device.type == "cuda"
        self.precision = config.run.precision
        torch.manual_seed(config.run.seed)
        self.module = MaskedMethod(config, dataset.channels, dataset.classes).to(device)
        self.images, self.labels = dataset.splits["train"].images, dataset.splits["train"].labels
        self.crop = (config.data.crop_min, config.data.flip, config.data.image_size)
        steps, batch = dataset.steps_per_epoch(), config.optim.batch
        draws = draw_epoch(config, len(self.labels), self.module.autoencoder.length, 0, device)
        self.draws = EpochDraws(*(torch.zeros_like(d) for d in draws))
        self.rates = torch.zeros(steps, device=device)
        self.cursor = torch.zeros(1, dtype=torch.long, device=device)
        self.steps, self.batch = steps, batch
        self.stream = torch.cuda.Stream() if self.cuda else None
        self.graphs: dict[Any, Any] = {}
        self.pool = None
        self.optimizer = make_optimizer(self.module, config.optim, captured=self.cuda)
        self.names: tuple[str, ...] = ()
        self.sums = torch.zeros(0)

    def on_stream(self) -> contextlib.AbstractContextManager:
        """Work inside goes to the lane's stream."""
        return torch.cuda.stream(self.stream) if self.cuda else contextlib.nullcontext()

    def autocast(self) -> contextlib.AbstractContextManager:
        """The precision of the runs."""
        enabled = self.precision != "32"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def tensors(self) -> list[Tensor]:
        """Everything that a training step changes, in a fixed order."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments = [
            self.optimizer.state[p][name] for p in parameters for name in ("exp_avg", "exp_avg_sq", "step")
        ]
        return [p.data for p in parameters] + moments

    def start(self) -> None:
        """One step that is thrown away, so that optimiser state and compiled code exist."""
        with self.on_stream():
            self.step()

    def step(self) -> None:
        """The training step that ``cursor`` points to, without a word to the host."""
        order, crops, noise = (d.index_select(0, self.cursor)[0] for d in self.draws)
        rate = self.rates.index_select(0, self.cursor)[0]
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = float(rate)  # on a CPU a number is there already
        pixels = augment.random_crop(self.images[order], augment.split(crops), *self.crop)
        with self.autocast():
            output = self.module(self.dataset.normalize(pixels), self.labels[order], noise)
        self.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        self.optimizer.step()
        self.names = tuple(output.logs)
        values = torch.stack([value.detach().float() for value in output.logs.values()])
        if len(self.sums) != len(values):
            self.sums = torch.zeros_like(values)
        self.sums += values
        self.cursor += 1

    def capture(self, method: Any) -> None:
        """Record the step of one method as a CUDA graph (elsewhere it stays what it is)."""
        self.module.config = method
        if not self.cuda or method in self.graphs:
            return
        with self.on_stream():
            for _ in range(CAPTURE_WARMUP):
                self.cursor.zero_()
                self.step()
        graph = record(self.step, self.stream, f"the step of {method.method}", self.pool)
        if graph is not None:
            self.graphs[method], self.pool = graph, graph.pool()

    def epoch(self, run: Run, draws: EpochDraws, rates: Tensor) -> None:
        """Pass one epoch of a run: its tensors in, the steps, its tensors out."""
        if self.cuda:
            self.stream.wait_stream(torch.cuda.current_stream())
            for given in (*draws, rates):  # their memory is free again when this stream has read them
                given.record_stream(self.stream)
        with self.on_stream(), torch.no_grad():
            torch._foreach_copy_(self.tensors(), run.state)
            for own, given in zip((*self.draws, self.rates), (*draws, rates), strict=True):
                own.copy_(given)
            self.cursor.zero_()
            self.sums.zero_()
        self.module.config = run.method
        graph = self.graphs.get(run.method)
        with self.on_stream():
            for _ in range(self.steps):
                self.step() if graph is None else graph.replay()
            with torch.no_grad():
                torch._foreach_copy_(run.state, self.tensors())
                run.history.append(self.sums / self.steps)


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
