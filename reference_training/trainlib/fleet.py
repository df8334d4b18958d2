"""Many runs of one network on one device, in one process: seeds and methods take turns on a network that stays.

A small transformer leaves a large card idle: between its launches, and while every run starts, compiles and stops
anew. Here the network, its optimiser and one captured training step for each method exist once (or a few times, on
streams of their own: a ``Lane``). A run is the list of its tensors (weights, the optimiser's moments): they are copied
into a lane, an epoch passes, and they are copied back. Every seed's order, crops and masks are drawn once an epoch and
used by all of its methods, so that runs of equal seeds are pairs. No number goes to the host before the epoch is over.

The folders are those of ordinary runs: configuration, log, summary, and at the end a checkpoint with which
``pretrain_mmae.py --resume`` or an evaluation continues.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainlib import augment, checkpoint, deadline
from trainlib.checkpoint import Progress
from trainlib.config import to_dict
from trainlib.environment import ENVIRONMENT, environment
from trainlib.evaluate import EVALUATION_BATCH, knn_accuracy, linear_probe_accuracy, spectrum
from trainlib.factors import probe_factors
from trainlib.files import write_atomic, write_json
from trainlib.logs import MetricsLog
from trainlib.masked import MaskedMethod
from trainlib.optim import learning_rate, make_optimizer
from trainlib.rng import generator
from trainlib.run import CONFIG, SUMMARY, create_run_dir

SPECTRA = "spectra.npz"  # of a run: eigenvalues of its features at every measurement
MASKED_CLS = "cls_masked"  # the feature that the training itself sees
KEPT = 2000  # held-out images whose features are kept at the end
BANK = 10_000  # training images behind the measurements on the way
QUICK_ITERATIONS = 60  # of L-BFGS in those
MEASUREMENTS = 4  # by default, at even distances
RESERVE = 0.92  # of the time that training may have by the measurements; the rest is for what no one foresaw
CAPTURE_WARMUP = 3  # steps before a capture, as PyTorch's own recipe has it


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
    history: list[Tensor] = field(
        default_factory=list
    )  # mean of every logged number, by epoch, on the device
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
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                self.step()
        except RuntimeError as error:  # something in the step waits for the device: it runs, only slower
            say(f"the step of {method.method} is not captured ({str(error).splitlines()[0]})")
            torch.cuda.synchronize()
            return
        self.pool = graph.pool()
        self.graphs[method] = graph

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


class Fleet:
    """The runs, the lanes, and what is written."""

    def __init__(self, configs: list[Any], dataset: Any, lanes: int) -> None:
        self.runs, self.dataset = [Run(config) for config in configs], dataset
        self.device = device = dataset.splits["train"].labels.device
        self.began = time.monotonic()
        runs, first = self.runs, configs[0]
        self.lanes = [Lane(first, dataset, device) for _ in range(lanes)]
        for lane in self.lanes:
            if first.run.compile:
                lane.module.compile_parts()
        for lane in self.lanes:
            lane.start()
        for lane in self.lanes:
            for method in dict.fromkeys(run.method for run in runs):
                lane.capture(method)
        self.wait()
        fresh: dict[int, list[Tensor]] = {}
        for run in runs:
            seed = run.config.run.seed
            fresh[seed] = fresh.get(seed) or self._fresh(run.config)
            run.state = [t.clone() for t in fresh[seed]]

    def _fresh(self, config: Any) -> list[Tensor]:
        """The tensors of a run before its first step: the weights of an ordinary run of this seed."""
        torch.manual_seed(config.run.seed)
        module = MaskedMethod(config, self.dataset.channels, self.dataset.classes).to(self.device)
        groups = module.make_optimizer(config).param_groups
        parameters = [p.data for group in groups for p in group["params"]]
        return parameters + [torch.zeros_like(t) for t in self.lanes[0].tensors()[len(parameters) :]]

    def seconds_of_an_epoch(self, lanes: int, rounds: int = 1) -> float:
        """Measured time of one epoch of one run with so many lanes at work; the runs stay as they are."""
        probes = [
            Run(self.runs[0].config, state=[t.clone() for t in self.runs[0].state]) for _ in range(lanes)
        ]
        config = self.runs[0].config
        draws = self._draws(config, 0)
        rates = torch.zeros(self.lanes[0].steps, device=self.device)
        self.wait()
        began = time.monotonic()
        for _ in range(rounds):
            for lane, run in zip(self.lanes, probes, strict=False):
                lane.epoch(run, draws, rates)
        self.wait()
        return (time.monotonic() - began) / (rounds * lanes)

    def _draws(self, config: Any, epoch: int) -> EpochDraws:
        length = self.lanes[0].module.autoencoder.length
        return draw_epoch(config, self.dataset.size("train"), length, epoch, self.device)

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def train_epoch(self, epoch: int) -> None:
        """One epoch of every run; seeds in the outer loop, so that their draws are made once.

        A run keeps its lane, whose stream keeps its epochs in order; the lanes need not wait for each other.
        """
        by_seed: dict[int, list[Run]] = {}
        for run in self.runs:
            by_seed.setdefault(run.config.run.seed, []).append(run)
        for members in by_seed.values():
            draws = self._draws(members[0].config, epoch)
            for run in members:
                self.lanes[self.runs.index(run) % len(self.lanes)].epoch(
                    run, draws, self._rates(run.config, epoch)
                )

    def _rates(self, config: Any, epoch: int) -> Tensor:
        steps = self.lanes[0].steps
        rates = [learning_rate(config.optim, epoch + step / steps) for step in range(steps)]
        return torch.tensor(rates, dtype=torch.float32).to(self.device)

    @torch.no_grad()
    def features(
        self, run: Run, split: str, limit: int | None = None, *, masked: bool = False
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Features of images of a split without crops, evenly spread if there is a limit, and their labels.

        As in training, images may be masked: their features have names of their own, and only CLS is kept.
        """
        lane = self.lanes[0]
        torch._foreach_copy_(lane.tensors(), run.state)
        lane.module.eval()
        after = run.config.optim.epochs + (split == "test")  # a number that no epoch has
        source = generator(run.config.run.seed, "mask", after, device=self.device)
        parts: dict[str, list[Tensor]] = {}
        labels = []
        for images, target in self.dataset.evaluation_batches(split, 4 * EVALUATION_BATCH, limit):
            noise = lane.module.draw(len(images), source) if masked else None
            with lane.autocast():
                encoded = lane.module.encode(images, noise)
            if masked:
                encoded = {MASKED_CLS: encoded["cls"]}
            for name, values in encoded.items():
                parts.setdefault(name, []).append(values)
            labels.append(target)
        lane.module.train()
        return {name: torch.cat(values) for name, values in parts.items()}, torch.cat(labels)

    def measure(self, run: Run, epoch: int, *, last: bool) -> dict[str, dict[str, float]]:
        """Spectra, neighbours and probes; their numbers go to the log, the eigenvalues to the run's arrays."""
        self.wait()
        classes = self.dataset.classes
        bank = min(BANK, self.dataset.size("train"))
        train, train_labels = self.features(run, "train", None if last else bank)
        test, test_labels = self.features(run, "test")
        if last:
            train |= self.features(run, "train", masked=True)[0]
            test |= self.features(run, "test", masked=True)[0]
        pick = torch.arange(bank, device=self.device) * len(train_labels) // bank
        found: dict[str, dict[str, float]] = {}
        for name, own in test.items():
            own_train = train[name]
            found[name] = spectrum(own) | {
                "quick_knn_accuracy": knn_accuracy(
                    own_train[pick], train_labels[pick], own, test_labels, classes
                ),
                "quick_probe_accuracy": linear_probe_accuracy(
                    own_train[pick], train_labels[pick], own, test_labels, classes, iterations=QUICK_ITERATIONS,
                ),
            }  # fmt: skip
            if last:
                found[name] |= {
                    "knn_accuracy": knn_accuracy(own_train, train_labels, own, test_labels, classes),
                    "probe_accuracy": linear_probe_accuracy(
                        own_train, train_labels, own, test_labels, classes
                    ),
                }
            if last and name == "cls":
                found[name] |= probe_factors(own_train, train_labels, own, test_labels, classes)
            for kind, matrix in _second_moments(own).items():
                key = f"{name}/{kind}/{epoch}"
                run.spectra[key] = torch.linalg.eigvalsh(matrix).cpu().numpy()
            if last and name != MASKED_CLS:
                run.spectra[f"{name}/features"] = own[:KEPT].half().cpu().numpy()
        if last:
            run.spectra["labels"] = test_labels[:KEPT].cpu().numpy()
        return found


def _second_moments(features: Tensor) -> dict[str, Tensor]:
    """``F'F / N`` of the features as they are, centred, and with rows of length one, in float64."""
    f = features.double()
    rows = torch.nn.functional.normalize(f, dim=1)
    return {
        "raw": f.T @ f / len(f),
        "centred": (f - f.mean(0)).T @ (f - f.mean(0)) / len(f),
        "rows": rows.T @ rows / len(f),
        "rows_centred": (rows - rows.mean(0)).T @ (rows - rows.mean(0)) / len(f),
    }


def fitted_epochs(fleet: Fleet, minutes: float) -> tuple[int, dict[str, Any]]:
    """How many epochs fit into the minutes since the fleet began, and the measurements that say so.

    The number of lanes becomes the one that was fastest. The evaluations are timed as they will be made; what is left
    is training, less a share for what no one foresaw.
    """
    rates: dict[int, float] = {}
    for lanes in range(1, len(fleet.lanes) + 1):
        fleet.seconds_of_an_epoch(lanes)
        rates[lanes] = fleet.seconds_of_an_epoch(lanes)
    runs = len(fleet.runs)
    best = min(rates, key=lambda lanes: rates[lanes] * _evenly(runs, lanes))
    fleet.lanes = fleet.lanes[:best]
    seconds = {}
    for last in (False, True):
        fleet.measure(fleet.runs[0], 0, last=last)
        start = time.monotonic()
        fleet.measure(fleet.runs[0], 0, last=last)
        seconds[last] = time.monotonic() - start
    fleet.runs[0].spectra.clear()
    left = 60 * minutes - (time.monotonic() - fleet.began)
    training = RESERVE * (left - runs * ((MEASUREMENTS - 1) * seconds[False] + seconds[True]))
    epochs = max(1, int(training / (runs * rates[best] * _evenly(runs, best))))
    images = fleet.lanes[0].steps * fleet.lanes[0].batch
    return epochs, {
        "images_per_second_by_lanes": {str(k): images / v for k, v in rates.items()},
        "lanes": best,
        "seconds_of_a_measurement": {"quick": seconds[False], "last": seconds[True]},
        "seconds_before_training": time.monotonic() - fleet.began,
        "epochs": epochs,
    }


def _evenly(runs: int, lanes: int) -> float:
    """How much longer the fullest lane works than it would if the runs could be shared out evenly."""
    return math.ceil(runs / lanes) * lanes / runs


def train_fleet(
    fleet: Fleet, configs: list[Any], folders: list[Path], *, record: dict[str, Any] | None = None,
    measurements: int = MEASUREMENTS, checkpoints: bool = True,
) -> None:  # fmt: skip
    """Train the fleet's runs, or continue them from the checkpoints in their folders.

    Args:
        fleet: Of configurations that differ from ``configs`` in the schedule at most.
        configs: Resolved configurations, which differ in method and seed only.
        folders: The runs' folders.
        record: What else to note with the environment.
        measurements: How often the features are measured, at even distances up to the last epoch.
        checkpoints: Whether the runs' checkpoints are written at the end, and when the time of ``deadline`` is over.

    Raises:
        PausedError: The time is over; the same call continues.
    """
    for run, config, folder in zip(fleet.runs, configs, folders, strict=True):
        run.config, run.folder = config, folder
        if not (folder / CONFIG).is_file():
            create_run_dir(folder, config)
        write_json(folder / ENVIRONMENT, environment() | {"fleet": record})
    say(f"{len(configs)} runs together: {record}")
    done = _restore(fleet)
    epochs, spent = configs[0].optim.epochs, done.train_seconds
    stops = {round(epochs * (i + 1) / measurements) for i in range(measurements)}
    written, since = done.epoch, time.monotonic()
    for epoch in range(done.epoch, epochs):
        fleet.train_epoch(epoch)
        finished = epoch + 1
        stop = finished < epochs and deadline.passed()
        if finished not in stops and not stop:
            continue
        fleet.wait()
        spent, since = spent + time.monotonic() - since, time.monotonic()
        _write(fleet, written, finished, spent, last=finished == epochs, measured=finished in stops)
        say(
            f"epoch {finished}/{epochs}: {spent:.0f} s of training, measured in {time.monotonic() - since:.1f} s"
        )
        written = finished
        if checkpoints and (stop or finished == epochs):
            _save(fleet, Progress(finished, finished * fleet.lanes[0].steps, spent, spent))
        if stop:
            raise deadline.PausedError
        since = time.monotonic()


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def _save(fleet: Fleet, progress: Progress) -> None:
    """Each run's checkpoint, as an ordinary run writes it."""
    lane = fleet.lanes[0]
    for run in fleet.runs:
        torch._foreach_copy_(lane.tensors(), run.state)
        states = {
            "model": lane.module.state_dict(), "optimizer": lane.optimizer.state_dict(), "precision": {},
        }  # fmt: skip
        checkpoint.save(run.folder, run.config, progress, states)


def _restore(fleet: Fleet) -> Progress:
    """Read the runs' checkpoints into their tensors, if every run has one."""
    found = [checkpoint.load(run.folder, run.config) for run in fleet.runs]
    if any(f is None for f in found):
        return Progress()
    lane = fleet.lanes[0]
    for run, (_, states) in zip(fleet.runs, found, strict=True):
        module = MaskedMethod(run.config, fleet.dataset.channels, fleet.dataset.classes)
        module.load_state_dict(states["model"])
        own = [p for group in make_optimizer(module, run.config.optim).param_groups for p in group["params"]]
        moments = [
            states["optimizer"]["state"][i][name]
            for i in range(len(own)) for name in ("exp_avg", "exp_avg_sq", "step")
        ]  # fmt: skip
        given = [p.data for p in own] + moments
        run.state = [
            t.to(like.device, like.dtype).clone() for t, like in zip(given, lane.tensors(), strict=True)
        ]
        if (run.folder / SPECTRA).is_file():
            with np.load(run.folder / SPECTRA) as arrays:
                run.spectra = dict(arrays)
    return found[0][0]


def _write(fleet: Fleet, before: int, finished: int, seconds: float, *, last: bool, measured: bool) -> None:
    """The log since the last writing, the measurements, and at the end the summaries."""
    steps, batch = fleet.lanes[0].steps, fleet.lanes[0].batch
    speed = finished * steps * batch * len(fleet.runs) / max(1e-9, seconds)
    for run in fleet.runs:
        numbers = torch.stack(run.history).double().cpu().tolist()
        run.history.clear()
        log = MetricsLog(run.folder, step=before * steps, tensorboard=False)
        names = fleet.lanes[0].names
        train: dict[str, float] = {}
        for epoch, values in enumerate(numbers, before + 1):
            if not all(map(math.isfinite, values)):
                log.write("stopped", step=epoch * steps, epoch=epoch, reason="the loss is not finite")
                break
            train = dict(zip(names, values, strict=True))
            rate = learning_rate(run.config.optim, epoch)
            log.write("train", step=epoch * steps, epoch=epoch, lr=rate, images_per_second=speed, **train)
        else:
            found = fleet.measure(run, finished, last=last) if measured else {}
            if found:
                flat = {f"{kind}_{k}": v for kind, own in found.items() for k, v in own.items()}
                log.write("eval", step=finished * steps, epoch=finished, **flat)
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **run.spectra)
            write_atomic(run.folder / SPECTRA, buffer.getvalue())
            if last:
                write_json(run.folder / SUMMARY, _summary(fleet, run, finished, seconds, speed, train, found))
        log.close()


def _summary(
    fleet: Fleet, run: Run, epochs: int, seconds: float, speed: float, train: dict[str, float],
    features: dict[str, dict[str, float]],
) -> dict[str, Any]:  # fmt: skip
    share = seconds / len(fleet.runs)
    return {
        "label": run.config.label(),
        "method": to_dict(run.config)["method"],
        "data": run.config.data.data,
        "seed": run.config.run.seed,
        "epochs": epochs,
        "steps": epochs * fleet.lanes[0].steps,
        "loss": train["loss"],
        "reconstruction": train["reconstruction"],
        "online_probe_accuracy": 100 * train["probe_accuracy"],
        "features": features,
        "rank_images": fleet.dataset.size("test"),
        "seconds": share,
        "train_seconds": share,
        "cpu_seconds": share,
        "measure_percent": 0.0,
        "images_per_second": speed,
    }
