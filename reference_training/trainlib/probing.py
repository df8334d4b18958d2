"""The linear probe of the published protocol: frozen encoder, normalised features, one linear layer, LARS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from timm.optim import Lars
from torch import Tensor, nn

from trainlib import ranks
from trainlib.backbone import Backbone
from trainlib.evaluate import EVALUATION_BATCH, extract
from trainlib.method import Measurements, Method, StepOutput
from trainlib.optim import peak_lr
from trainlib.protocol import Prepared, Protocol, accuracies
from trainlib.protocol_config import ProbeRunConfig
from trainlib.rng import generator

HEAD_STD = 0.01
NORM_EPS = 1e-6


class FrozenFeatures:
    """A data set of features in place of images: ``(N, sum of the widths)``, the features side by side.

    Held-out features are computed once. Those of the training images follow new crops in every epoch, or are
    computed once from plain images (``cached``).
    """

    def __init__(self, backbone: Backbone, dataset, names: list[str], autocast, *, cached: bool) -> None:
        self.backbone, self.dataset, self.names, self.autocast = backbone, dataset, names, autocast
        self.backbone.eval().requires_grad_(False)
        self.test = self._extract("test")
        self.train = self._extract("train") if cached else None

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Features of a batch of images, without a graph; large batches in parts, to save memory."""
        parts = []
        for part in images.split(EVALUATION_BATCH):
            with self.autocast():
                features = self.backbone(part)
            parts.append(torch.cat([features[name] for name in self.names], 1))
        return torch.cat(parts)

    def _extract(self, split: str) -> tuple[Tensor, Tensor]:
        features, labels = extract(lambda images: {"all": self.encode(images)}, self.dataset, split)
        return features["all"], labels

    def size(self, split: str) -> int:
        return self.dataset.size(split)

    def steps_per_epoch(self) -> int:
        return self.dataset.steps_per_epoch()

    def train_batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and labels of the training images, in an order that depends on seed and epoch only."""
        if self.train is None:
            for images, labels in self.dataset.train_batches(epoch, seed):
                yield self.encode(images), labels
            return
        features, labels = self.train
        batch = self.dataset.config.optim.batch
        order = torch.randperm(len(labels), generator=generator(seed, "order", epoch)).to(labels.device)
        for step in range(self.steps_per_epoch()):
            index = ranks.share(order[step * batch : (step + 1) * batch])
            yield features[index], labels[index]


class LinearProbe(Method):
    """One head for each feature: batch norm without affine map, then a linear layer. The heads share nothing."""

    spectral = False

    def __init__(self, widths: dict[str, int], classes: int) -> None:
        super().__init__()
        self.widths = widths
        self.heads = nn.ModuleDict({name: _head(width, classes) for name, width in widths.items()})

    def make_optimizer(self, config) -> torch.optim.Optimizer:
        """LARS with adapted rates for the weights; biases follow plain momentum, without decay."""
        optim = config.optim
        weights = [p for p in self.parameters() if p.ndim > 1]
        biases = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": optim.weight_decay, "always_adapt": True},
            {"params": biases, "weight_decay": 0.0, "always_adapt": False},
        ]
        return Lars(groups, lr=peak_lr(optim), momentum=optim.momentum, trust_coeff=optim.trust)

    def logits(self, features: Tensor) -> dict[str, Tensor]:
        """Logits in float32 for each feature, from the features side by side."""
        parts = features.float().split(list(self.widths.values()), dim=1)
        with torch.autocast(features.device.type, enabled=False):
            return {
                name: head(part.contiguous())
                for (name, head), part in zip(self.heads.items(), parts, strict=True)
            }

    def forward(self, images: Tensor, labels: Tensor, draws: Tensor) -> StepOutput:
        """The sum of the heads' cross-entropies (``images`` are features here)."""
        logits = self.logits(images)
        losses = {name: nn.functional.cross_entropy(values, labels) for name, values in logits.items()}
        total = torch.stack(list(losses.values())).sum()
        logs = {"loss": total.detach() / len(losses)}
        logs |= {f"{name}_loss": loss.detach() for name, loss in losses.items()}
        return StepOutput(total, logs, images)

    @torch.no_grad()
    def measure(self, dataset, autocast: Callable[[], AbstractContextManager]) -> Measurements:
        features, labels = dataset.test
        return {name: accuracies(values, labels) for name, values in self.logits(features).items()}


def _head(width: int, classes: int) -> nn.Sequential:
    linear = nn.Linear(width, classes)
    nn.init.trunc_normal_(linear.weight, std=HEAD_STD)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(width, eps=NORM_EPS, affine=False), linear)


def prepare(config, backbone: Backbone, dataset, fabric) -> Prepared:
    """What makes the probe, and the features that it is trained on."""
    names = backbone.several(config.probe.feature)
    features = FrozenFeatures(backbone, dataset, names, fabric.autocast, cached=config.probe.cached)
    widths = {name: backbone.widths[name] for name in names}
    return lambda _: LinearProbe(widths, dataset.classes), features


PROTOCOL = Protocol(
    config_class=ProbeRunConfig,
    name=lambda config: "linear_probe",
    check=lambda config, backbone: backbone.several(config.probe.feature),
    prepare=prepare,
)
