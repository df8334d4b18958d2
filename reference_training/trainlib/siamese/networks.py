"""Backbones and heads of joint-embedding methods."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Projector(NamedTuple):
    """Hidden layers of the projector, batch norm after them, and one without parameters at the end."""

    hidden_layers: int = 1
    norm: bool = True
    last_norm: bool = False


def convnet(channels: int, width: int) -> tuple[nn.Module, int]:
    """Stem and three stages that halve the side and double the width, global mean; features ``8 width`` wide.

    Small images (8 x 8) end at one pixel, larger ones (32 x 32) at 4 x 4.
    """
    layers = [_block(channels, width, 1)]
    for stage in range(3):
        inner = width * 2**stage
        layers += [_block(inner, 2 * inner, 2), _block(2 * inner, 2 * inner, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 8 * width


def _block(inner: int, outer: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.ReLU(inplace=True))


def resnet18(channels: int) -> tuple[nn.Module, int]:
    """ResNet-18 with the stem for small images: 3 x 3 at stride 1, no pooling; features 512 wide."""
    from torchvision.models import resnet18 as build

    network = build(weights=None)
    network.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    return network, 512


def mlp(widths: list[int], *, norm: bool = True, last_norm: bool = False) -> nn.Sequential:
    """Linear layers with (batch norm and) ReLU between them; ``last_norm`` ends with a norm without parameters."""
    layers: list[nn.Module] = []
    for inner, outer in itertools.pairwise(widths[:-1]):
        layers.append(nn.Linear(inner, outer, bias=not norm))
        layers += [nn.BatchNorm1d(outer)] if norm else []
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(widths[-2], widths[-1], bias=not last_norm))
    layers += [nn.BatchNorm1d(widths[-1], affine=False)] if last_norm else []
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Cosines with ``count`` learned directions (a linear layer with weight normalisation and unit gain)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, width) / width**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Cosines ``(..., B, count)`` of features ``(..., B, width)``."""
        return normalize(features, dim=-1) @ normalize(self.weight, dim=-1).mT


class Branch(nn.Module):
    """Backbone and projector; gives the features of both."""

    def __init__(self, model, channels: int, projector: Projector) -> None:
        super().__init__()
        self.backbone, self.features = (
            convnet(channels, model.width) if model.backbone == "convnet" else resnet18(channels)
        )
        hidden = [model.projector_hidden] * projector.hidden_layers
        self.projector = mlp(
            [self.features, *hidden, model.projector_width],
            norm=projector.norm,
            last_norm=projector.last_norm,
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Backbone features ``(B, features)`` and projections ``(B, projector width)`` in float32."""
        features = self.backbone(images.contiguous(memory_format=torch.channels_last))
        return features.float(), self.projector(features).float()


@torch.no_grad()
def calibrate(branch: Branch, images: Tensor) -> None:
    """Set the running statistics of all batch norms to those of ``images``.

    They start at mean 0 and variance 1, which no layer has: an untrained network measured with those is not the one
    that starts to train.
    """
    norms = [m for m in branch.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    branch.train()
    branch(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
