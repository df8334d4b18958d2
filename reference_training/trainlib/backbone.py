"""From the folder of a pre-training run to its encoder: a module that gives named features of images.

A new kind of run plugs in by one entry of ``KINDS``, at its class of configurations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainlib import checkpoint
from trainlib.config import MaskedRunConfig
from trainlib.errors import UsageError
from trainlib.files import CONFIG
from trainlib.masked import token_features
from trainlib.models import Encoder, model_sizes
from trainlib.run import read_pretraining_config
from trainlib.siamese.config import SiameseRunConfig
from trainlib.siamese.networks import Branch
from trainlib.siamese.registry import METHOD_CLASSES

OPTION = "RUN"  # how the programs' command lines call the folder


class Kind(NamedTuple):
    """What distinguishes the encoders of one kind of run from those of another."""

    build: Callable[[Any, int], nn.Module]  # from configuration and channels: the encoder with fresh weights
    read: Callable[[Any], dict[str, Tensor]]  # from its output: its features, the standard one first
    prefix: str  # of the encoder's weights in the checkpoint
    layers: dict[str, str]  # regular expressions (of those) from the lowest up, as timm's group_matcher
    no_weight_decay: tuple[str, ...] = ()


def _encoder(config: Any, channels: int) -> Encoder:
    return Encoder(config.data.image_size, config.model.patch, channels, model_sizes(config.model))


def _branch(config: Any, channels: int) -> Branch:
    return Branch(config.model, channels, METHOD_CLASSES[config.method.method].settings.projector)


KINDS = {
    MaskedRunConfig: Kind(
        _encoder, token_features, prefix="autoencoder.encoder.",
        layers={"stem": "cls_token|patch_embed", "blocks": r"blocks\.(\d+)"}, no_weight_decay=("cls_token",),
    ),
    SiameseRunConfig: Kind(
        _branch, lambda outputs: dict(zip(("backbone", "projector"), outputs, strict=True)), prefix="online.",
        layers={"stem": r"backbone\.(?:conv1|bn1)", "stages": r"backbone\.(?:layer)?(\d+)"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """What the programs need to know of an encoder before they use it."""

    run_dir: Path | None
    config: Any
    epoch: int  # finished epochs of pre-training
    channels: int

    @property
    def label(self) -> str:
        """The pre-training method's name in tables."""
        return self.config.label()


class Backbone(nn.Module):
    """An encoder, of which only the parameters of its network are part of this module."""

    def __init__(self, kind: Kind, config: Any, channels: int) -> None:
        super().__init__()
        self.kind, self.origin = kind, Origin(None, config, 0, channels)
        self.encoder = kind.build(config, channels)
        self.eval()
        side = config.data.image_size
        with torch.no_grad():
            sample = self(torch.zeros(1, channels, side, side))
        self.widths = {name: features.shape[1] for name, features in sample.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features ``{name: (N, width)}`` of images as they are, equal to those of the run's own ``encode``."""
        return self.kind.read(self.encoder(images))

    def untrained(self, seed: int) -> Backbone:
        """The same network with fresh weights."""
        torch.manual_seed(seed)
        return Backbone(self.kind, self.origin.config, self.origin.channels)

    def chosen(self, feature: str | None) -> str:
        """The feature of this name; without one the standard feature."""
        if feature is None:
            return next(iter(self.widths))
        if feature not in self.widths:
            names = ", ".join(self.widths)
            raise UsageError(
                "--feature",
                f"{self.origin.label} ({self.origin.run_dir}) has no feature {feature}",
                f"choose of {names}",
            )
        return feature

    def several(self, feature: str | None) -> list[str]:
        """The features that an option names, of which ``all`` is every one."""
        return list(self.widths) if feature == "all" else [self.chosen(feature)]

    def fingerprint(self) -> str:
        """A digest of the weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


def load_backbone(run_dir: Path) -> Backbone:
    """The encoder of the last checkpoint of a run, in evaluation mode on the CPU.

    Raises:
        UsageError: There is no such run, or no checkpoint yet, or one that is damaged or not the run's.
    """
    config = read_pretraining_config(Path(run_dir), OPTION)
    kind = KINDS[type(config)]
    found = checkpoint.load(Path(run_dir), config, option=OPTION)
    if found is None:
        raise UsageError(
            OPTION,
            f"{run_dir} has no {checkpoint.NAME}",
            f"train it first (pre-training continues with --resume {run_dir})",
        )
    progress, states = found
    weights = {
        name.removeprefix(kind.prefix): value
        for name, value in states.get("model", {}).items()
        if name.startswith(kind.prefix)
    }
    images = next((value for value in weights.values() if value.ndim == 4), None)  # the first convolution's
    misfit = UsageError(
        OPTION,
        f"{Path(run_dir) / checkpoint.NAME} does not hold the encoder that {CONFIG} describes",
        "put back the checkpoint of this run",
    )
    if images is None:
        raise misfit
    backbone = Backbone(kind, config, images.shape[1])
    try:
        backbone.encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise misfit from error
    backbone.origin = replace(backbone.origin, run_dir=Path(run_dir), epoch=progress.epoch)
    return backbone
