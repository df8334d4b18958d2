"""What all joint-embedding methods share: two branches, an online probe, and what is measured."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from matinfo import correlation, joint_entropy, matrix_js, mutual_information, spectrum_js
from matinfo.losses import sphere_entropy, sphere_reconstruction
from trainlib import ranks
from trainlib.evaluate import extract, knn_accuracy
from trainlib.method import DEFAULT, Measurements, Method, StepOutput
from trainlib.optim import make_optimizer
from trainlib.pictures import draw_training, draw_views
from trainlib.siamese.networks import Branch, Projector, calibrate
from trainlib.views import AUGMENTATIONS, ViewRecipe, Views

CALIBRATION = 1000  # images
PROBE_LR = {"adamw": 1e-2, "sgd": 0.1, "lars": 0.1}  # the probe is a monitor: one rate for all methods
PANELS = {  # of the picture of a run
    "mutual information of the branches (nats)": ("mutual_information",),
    "joint entropy of the branches (nats)": ("joint_entropy",),
    "kNN accuracy, held-out images (%)": ("knn_accuracy",),
    "effective rank, held-out images": ("effective_rank",),
    "Jensen-Shannon divergence of the branches (nats)": ("matrix_js", "spectrum_js"),
}
MEASURED_VIEWS = AUGMENTATIONS["asymmetric"][0]


def measured_views(config) -> ViewRecipe:
    """How the held-out batch is augmented: by the data set alone, hence equal for all methods and options."""
    own = config.recipes[config.data.data]
    return replace(MEASURED_VIEWS, flip=own["flip"], crop_min=own.get("crop_min", MEASURED_VIEWS.crop_min))


class Rates(NamedTuple):
    """Base learning rate (for a batch of 256) and weight decay of a method with one optimiser."""

    lr: float
    weight_decay: float


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


@torch.no_grad()
def shared_information(K1: Tensor, K2: Tensor) -> dict[str, float]:
    """Mutual information and joint entropy (order 1, nats) of two correlation matrices."""
    information, joint = mutual_information(K1, K2), joint_entropy(K1, K2)
    return {"mutual_information": float(information), "joint_entropy": float(joint)}


@torch.no_grad()
def branch_information(features1: Tensor, features2: Tensor) -> dict[str, float]:
    """What two branches share: of their column-normalised correlation matrices, and the entropy-reconstruction bound.

    The Jensen-Shannon divergences are of the matrices and of their sorted spectra; the bound, on the sphere at
    kappa = 10, is entropy minus reconstruction.
    """
    K1, K2 = correlation(features1), correlation(features2)
    return shared_information(K1, K2) | {
        "matrix_js": float(matrix_js(K1, K2)),
        "spectrum_js": float(spectrum_js(K1, K2)),
        "sphere_entropy": float(sphere_entropy(features2)),
        "sphere_reconstruction": float(sphere_reconstruction(features1, features2)),
    }


class Projections(NamedTuple):
    """Projections ``(B, d)`` of both views, online and (without gradient) target, and the images' places."""

    online: tuple[Tensor, Tensor]
    target: tuple[Tensor, Tensor]
    index: Tensor


class SiameseMethod(Method):
    """Two views, one online network, and a target network where the method has an ``ema`` option.

    A method's file gives ``settings`` and ``loss``, and whatever heads and state the loss needs. The projector's
    output width comes from the configuration and is equal for all methods.
    """

    settings: ClassVar[Settings]

    def __init__(self, config, channels: int, classes: int) -> None:
        super().__init__()
        self.config, self.run, self.epochs = config.method, config.run, config.optim.epochs
        self.online = Branch(config.model, channels, self.settings.projector)
        self.target: Branch | None = None
        if self.settings.has("ema"):
            self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.probe = nn.Linear(self.online.features, classes)
        data = config.data
        self.views = tuple(
            replace(view, crop_min=data.crop_min, flip=data.flip)
            for view in AUGMENTATIONS[self.config.augmentation]
        )
        self.measured_views = measured_views(config)

    def compile_parts(self) -> None:
        """Both branches' backbones; heads are small."""
        for branch in (self.online, self.target):
            if branch is not None:
                branch.backbone.compile()

    def prepare(self, dataset) -> None:
        """Give the untrained networks the batch statistics of training images."""
        images, _ = next(iter(dataset.evaluation_batches("train", CALIBRATION, CALIBRATION)))
        for branch in (self.online, self.target):
            if branch is not None:
                calibrate(branch, images)

    def loss(self, batch: Projections) -> Tensor:
        """The method's loss in float32; it may update the method's buffers."""
        raise NotImplementedError

    def special_groups(self, optim) -> list[tuple[nn.Module, dict[str, Any]]]:
        """Parts of the method with optimiser settings of their own."""
        return [(self.probe, {"peak": PROBE_LR[optim.optimizer], "weight_decay": 0.0})]

    def followed(self) -> list[tuple[nn.Module, nn.Module]]:
        """Pairs (online, target) of modules of which the second follows the first by its moving average."""
        return [] if self.target is None else [(self.online, self.target)]

    def make_optimizer(self, config) -> torch.optim.Optimizer:
        return make_optimizer(self, config.optim, self.special_groups(config.optim))

    def train_batches(self, dataset, epoch: int, seed: int) -> Iterator[tuple[Views, Tensor]]:
        """Two views of each batch."""
        return dataset.view_batches(epoch, seed, self.views)

    def forward(self, images: Views, labels: Tensor, draws: Tensor) -> StepOutput:
        """The loss of a batch, the online probe's on top of it, and both branches' projections."""
        (h1, z1), (h2, z2) = self.online(images.first), self.online(images.second)
        t1, t2 = self._targets(images, z1, z2)
        with torch.autocast(labels.device.type, enabled=False):
            online, target = (tuple(map(ranks.gather, pair)) for pair in ((z1, z2), (t1, t2)))
            objective = self.loss(Projections(online, target, ranks.gather(images.index)))
            logits = self.probe(torch.cat([h1, h2]).detach())
            both = labels.repeat(2)
            probe_loss = nn.functional.cross_entropy(logits, both)
        logs = {
            "loss": objective.detach(),
            "probe_loss": probe_loss.detach(),
            "probe_accuracy": (logits.argmax(1) == both).float().mean(),
        }
        return StepOutput(objective + probe_loss, logs, z1.detach(), (z1.detach(), t2))

    @torch.no_grad()
    def _targets(self, images: Views, z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
        if self.target is None:
            return z1.detach(), z2.detach()
        return self.target(images.first)[1], self.target(images.second)[1]

    def instrument(self, config, output: StepOutput) -> dict[str, float]:
        """The information of the two projections that entered the loss."""
        if not config.method.instrument:
            return {}
        found = shared_information(*map(correlation, output.views))
        return {f"batch_{name}": value for name, value in found.items()}

    @torch.no_grad()
    def after_step(self, epoch: float) -> None:
        """Move the target network; the share that it keeps rises to 1 by half a cosine."""
        for online, target in self.followed():
            kept = 1 - (1 - self.config.ema) * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
            torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1 - kept)

    def encode(self, images: Tensor) -> dict[str, Tensor]:
        """Features of the online network."""
        return dict(zip(("backbone", "projector"), self.online(images), strict=True))

    def branches(self, first: Tensor, second: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Features of the first view by the online network and of the second by the target network."""
        (h1, z1), (h2, z2) = self.online(first), (self.target or self.online)(second)
        return {"backbone": (h1, h2), "projector": (z1, z2)}

    @torch.no_grad()
    def measure(self, dataset, autocast: Callable[[], AbstractContextManager]) -> Measurements:
        """Information between the branches on two fixed views of held-out images, and kNN accuracy."""
        limit = self.run.rank_images

        def encode(images: Tensor) -> dict[str, Tensor]:
            with autocast():
                return self.encode(images)

        views = dataset.evaluation_views(self.measured_views, limit)
        with autocast():
            branches = self.branches(*views)
        bank, bank_labels = extract(encode, dataset, "train", self.config.knn_images)
        query, query_labels = extract(encode, dataset, "test", limit)
        return {
            name: {
                **branch_information(*pair),
                "knn_accuracy": knn_accuracy(
                    bank[name], bank_labels, query[name], query_labels, dataset.classes
                ),
            }
            for name, pair in branches.items()
        }

    @torch.no_grad()
    def measure_untrained(self, dataset, autocast: Callable[[], AbstractContextManager]) -> Measurements:
        """``measure`` with the statistics of batch norms as they are initialised, in place of the calibrated ones."""
        norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        kept = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
        found = self.measure(dataset, autocast)
        for norm, buffers in zip(norms, kept, strict=True):
            for name, value in buffers.items():
                getattr(norm, name).copy_(value)
        return {kind: {f"{DEFAULT}_{k}": v for k, v in own.items()} for kind, own in found.items()}

    def summarize(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """The measurements before the first step, to compare with the final ones."""
        measured = [r for r in records if r["kind"] == "eval"]
        return {"untrained": {k: v for k, v in measured[0].items() if k not in ("kind", "step", "epoch")}}

    def draw_pictures(self, dataset, config, records: list[dict[str, Any]], folder: Path) -> None:
        """Views of training images; loss, accuracy and information during training."""
        draw_views(self, dataset, config.run.seed, folder / "views.png")
        draw_training(
            records, f"{config.label()}, {config.data.data}", folder / "training.png", losses={"loss": "loss"},
            features=("projector", "backbone"), panels=PANELS, batch="projector, training batch",
        )  # fmt: skip
