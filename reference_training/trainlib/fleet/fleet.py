"""The runs, the lanes that they take turns in, and what is measured of them."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from trainlib.evaluate import EVALUATION_BATCH, accuracies, extract, spectrum
from trainlib.factors import probe_factors
from trainlib.fleet.lane import EpochDraws, Lane, Run, draw_epoch
from trainlib.masked import MaskedMethod
from trainlib.optim import learning_rate
from trainlib.rng import generator
from trainlib.tables import grouped

MASKED_CLS = "cls_masked"  # the feature that the training itself sees
KEPT = 2000  # held-out images whose features are kept at the end
BANK = 10_000  # training images behind the measurements on the way
QUICK_ITERATIONS = 60  # of L-BFGS in those
MEASUREMENTS = 4  # by default, at even distances
RESERVE = 0.92  # of the time that training may have by the measurements; the rest is for what no one foresaw


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
        for members in grouped(self.runs, lambda run: run.config.run.seed).values():
            draws = self._draws(members[0].config, epoch)
            for run in members:
                lane = self.lanes[self.runs.index(run) % len(self.lanes)]
                rates = [
                    learning_rate(run.config.optim, epoch + step / lane.steps) for step in range(lane.steps)
                ]
                lane.epoch(run, draws, torch.tensor(rates, dtype=torch.float32).to(self.device))

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

        def encode(images: Tensor) -> dict[str, Tensor]:
            noise = lane.module.draw(len(images), source) if masked else None
            with lane.autocast():
                encoded = lane.module.encode(images, noise)
            return {MASKED_CLS: encoded["cls"]} if masked else encoded

        found = extract(encode, self.dataset, split, limit, batch=4 * EVALUATION_BATCH)
        lane.module.train()
        return found

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
            quick = accuracies(
                own_train[pick], train_labels[pick], own, test_labels, classes, iterations=QUICK_ITERATIONS
            )
            found[name] = spectrum(own) | {f"quick_{key}": value for key, value in quick.items()}
            if last:
                found[name] |= accuracies(own_train, train_labels, own, test_labels, classes)
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


def fitted_epochs(fleet: Fleet, minutes: float, most: int | None = None) -> tuple[int, dict[str, Any]]:
    """How many epochs, ``most`` at most, fit into the minutes since the fleet began, and the measurements that say so.

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
    epochs = epochs if most is None else min(epochs, most)
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
