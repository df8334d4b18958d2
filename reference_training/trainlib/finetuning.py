"""Fine-tuning of a whole encoder by the published protocol, on timm's parts."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from timm.data import Mixup
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing
from timm.layers import DropPath
from timm.models.vision_transformer import Block
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from trainlib.backbone import Backbone
from trainlib.evaluate import EVALUATION_BATCH
from trainlib.files import SUMMARY
from trainlib.logs import read_metrics
from trainlib.method import Measurements, Method, StepOutput
from trainlib.optim import peak_lr
from trainlib.pictures import draw_accuracy
from trainlib.protocol import Prepared, Protocol, accuracies
from trainlib.protocol_config import FinetuneRunConfig
from trainlib.randaugment import RandAugment
from trainlib.rng import seeded
from trainlib.validate import require

HEAD_STD = 2e-5
NAMES = {"finetune": "fine-tuned", "scratch": "from scratch"}


class Classifier(Method):
    """An encoder and a linear head on one of its features, both trained."""

    spectral = False

    def __init__(self, config, backbone: Backbone, classes: int) -> None:
        super().__init__()
        parts = config.finetune
        self.feature, self.smoothing, self.classes = backbone.chosen(parts.feature), parts.smoothing, classes
        if parts.scratch:
            self.backbone = backbone.untrained(config.run.seed)
        else:
            self.backbone = copy.deepcopy(backbone)
        set_drop_path(self.backbone, parts.drop_path)
        self.head = nn.Linear(backbone.widths[self.feature], classes)
        nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)
        self.mix: Mixup | None = None
        if parts.mixup or parts.cutmix:
            self.mix = Mixup(parts.mixup, parts.cutmix, label_smoothing=parts.smoothing, num_classes=classes)
        self.erase = RandomErasing(parts.erase, mode="pixel", device="cpu") if parts.erase else None

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """The layers from the lowest up, as timm asks for them; final norm and head are the layer above."""
        return {name: rf"backbone\.encoder\.(?:{rule})" for name, rule in self.backbone.kind.layers.items()}

    def make_optimizer(self, config) -> torch.optim.Optimizer:
        """AdamW with a learning rate that falls by ``layer_decay`` from each layer to the one below it."""
        optim = config.optim
        free = [f"backbone.encoder.{name}" for name in self.backbone.kind.no_weight_decay]
        groups = param_groups_layer_decay(
            self, optim.weight_decay, no_weight_decay_list=free, layer_decay=optim.layer_decay
        )
        for group in groups:
            group["peak"] = peak_lr(optim) * group["lr_scale"]
        return torch.optim.AdamW(groups, lr=peak_lr(optim), betas=(optim.beta1, optim.beta2))

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """The seed of a step's mixing, erasing and dropped paths."""
        return torch.randint(2**62, (batch,), generator=generator, device=generator.device)

    def forward(self, images: Tensor, labels: Tensor, draws: Tensor) -> StepOutput:
        """Cross-entropy with the soft labels of smoothing and mixing."""
        with seeded(int(draws[0])):
            images, targets = self.mixed(images, labels)
            logits = self.logits(images)
        with torch.autocast(labels.device.type, enabled=False):
            loss = nn.functional.cross_entropy(logits.float(), targets)
        return StepOutput(loss, {"loss": loss.detach()}, logits.detach())

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Erased and mixed images, and their targets ``(B, classes)``."""
        if self.erase is not None:
            self.erase.device = images.device
            images = self.erase(images.clone())
        if self.mix is not None:
            return self.mix(images.clone(), labels)
        return images, mixup_target(labels, self.classes, 1.0, self.smoothing)

    def logits(self, images: Tensor) -> Tensor:
        """Logits of images as they are."""
        return self.head(self.backbone(images)[self.feature])

    @torch.no_grad()
    def measure(self, dataset, autocast: Callable[[], AbstractContextManager]) -> Measurements:
        parts, labels = [], []
        for images, target in dataset.evaluation_batches("test", EVALUATION_BATCH):
            with autocast():
                parts.append(self.logits(images).float())
            labels.append(target)
        return {self.feature: accuracies(torch.cat(parts), torch.cat(labels))}


def set_drop_path(backbone: Backbone, rate: float) -> None:
    """Drop residual branches at random, from never in the first transformer block to ``rate`` in the last."""
    blocks = [module for module in backbone.encoder.modules() if isinstance(module, Block)]
    for index, block in enumerate(blocks):
        share = rate * index / max(1, len(blocks) - 1)
        for name in ("drop_path1", "drop_path2"):
            setattr(block, name, DropPath(share) if share else nn.Identity())


def parts_off(config, backbone: Backbone) -> list[str]:
    """What of the published recipe is off, a line each, with the reason where the defaults give one."""
    parts, lines = config.finetune, []
    small = " (a default for images so small: {})" if backbone.origin.config.data.image_size < 32 else ""
    for on, name, reason in (
        (parts.randaugment != "none", "RandAugment", small.format("its operations blur or move whole strokes")),
        (parts.erase, "random erasing", small.format("a rectangle hides most of a stroke")),
        (parts.mixup, "mixup", ""),
        (parts.cutmix, "cutmix", ""),
        (parts.smoothing, "label smoothing", ""),
        (parts.drop_path, "drop path", ""),
        (config.optim.layer_decay < 1, "layer decay",
         " (fresh lower layers have nothing to keep)" if parts.scratch else ""),
    ):  # fmt: skip
        if not on:
            lines.append(f"{name} is off{reason}")
    if parts.randaugment == "geometric":
        lines.append("RandAugment is without its colour operations")
    if parts.drop_path and not any(isinstance(m, Block) for m in backbone.encoder.modules()):
        lines.append("drop path is off (this encoder has no transformer blocks)")
    return lines


def check(config, backbone: Backbone) -> None:
    """Check the options against the encoder."""
    backbone.chosen(config.finetune.feature)
    require(
        config.finetune.randaugment != "full" or backbone.origin.channels > 1, "--randaugment",
        "full has colour operations, which greyscale images do not", "use geometric",
    )  # fmt: skip


def prepare(config, backbone: Backbone, dataset, fabric) -> Prepared:
    """What makes the classifier, and the images that it is trained on."""
    operations = config.finetune.randaugment
    dataset.after_crop = None if operations == "none" else RandAugment(operations, dataset.mean)
    for line in parts_off(config, backbone):
        print(f"note: {line}", file=sys.stderr)
    return lambda own: Classifier(own, backbone, dataset.classes).to(fabric.device), dataset


def finish(place: Path, label: str) -> None:
    """Draw the held-out accuracy over the epochs, of the pre-trained and of the fresh network."""
    curves = {}
    for name, title in NAMES.items():
        finished = sorted((place / name).glob(f"seed*/{SUMMARY}"))
        if finished:
            curves[title] = [read_metrics(summary.parent) for summary in finished]
    draw_accuracy(curves, label, place / "finetune.png")


PROTOCOL = Protocol(
    config_class=FinetuneRunConfig,
    name=lambda config: "scratch" if config.finetune.scratch else "finetune",
    check=check,
    prepare=prepare,
    finish=finish,
)
