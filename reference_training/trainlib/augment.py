"""Random resized crop and flip of a whole batch at once, each image with its own parameters.

Crop, resize and flip act on rows and columns separately, so each image's transformation is a pair of small
matrices and a batch is two batched matrix products: fast on every device. Boxes follow torchvision's
``RandomResizedCrop``, weights its antialiased bicubic resize.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

ATTEMPTS = 10
NUMBERS = 2 * ATTEMPTS + 3  # uniform numbers behind one crop
RATIO = (3 / 4, 4 / 3)


class Crops(NamedTuple):
    """Boxes in pixels, ``(B,)`` each, and whether to mirror."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor


class CropDraws(NamedTuple):
    """The uniform numbers behind the boxes: area and ratio ``(B, attempts)``, position ``(B, 2)``, flip ``(B,)``."""

    area: Tensor
    ratio: Tensor
    position: Tensor
    flip: Tensor


def draw(batch: int, generator: torch.Generator) -> CropDraws:
    """Uniform numbers for one batch, on the generator's device; they do not depend on the sizes of the images."""
    return split(torch.rand(batch, NUMBERS, generator=generator, device=generator.device))


def split(numbers: Tensor) -> CropDraws:
    """The ``NUMBERS`` uniform numbers of each image by what they are for."""
    return CropDraws(numbers[:, :ATTEMPTS], numbers[:, ATTEMPTS:-3], numbers[:, -3:-1], numbers[:, -1])


def boxes(draws: CropDraws, height: int, width: int, crop_min: float, flip: bool) -> Crops:
    """Crop boxes for images of one size: the first of ten tries that fits, else the largest central crop."""
    area = height * width * (crop_min + (1 - crop_min) * draws.area.double())
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = torch.exp(low + (high - low) * draws.ratio.double())
    w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    fallback_w = min(width, round(height * RATIO[1]))
    fallback_h = min(height, round(width / RATIO[0]))
    found = fits.any(1)
    w = torch.where(found, w.gather(1, first)[:, 0], fallback_w)
    h = torch.where(found, h.gather(1, first)[:, 0], fallback_h)
    free = torch.stack([height - h, width - w], 1)
    position = (draws.position.double() * (free + 1)).long().clamp(max=free)
    position = torch.where(found[:, None], position, free // 2)
    mirrored = (draws.flip < 0.5) if flip else torch.zeros_like(draws.flip, dtype=torch.bool)
    return Crops(position[:, 0], position[:, 1], h, w, mirrored)


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -1/2."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((2.5 - 0.5 * x) * x - 4) * x + 2
    return torch.where(x < 1, near, far) * (x < 2)


def resize_weights(start: Tensor, length: Tensor, size_in: int, size_out: int) -> Tensor:
    """Matrices ``(B, size_out, size_in)`` that crop ``[start, start + length)`` of a line and resize it."""
    start, length = start.float()[:, None, None], length.float()[:, None, None]
    scale = length / size_out
    source = torch.arange(size_in, device=start.device) + 0.5
    centre = start + (torch.arange(size_out, device=start.device)[:, None] + 0.5) * scale
    weights = _bicubic((source - centre) / scale.clamp(min=1))
    weights = weights * ((source > start) & (source < start + length))
    return weights / weights.sum(-1, keepdim=True)


def crop_resize(images: Tensor, crops: Crops, size: int) -> Tensor:
    """Crop, resize and mirror ``images (B, C, H, W)`` to ``(B, C, size, size)`` floats; the range is kept."""
    batch, channels, height, width = images.shape
    rows = resize_weights(crops.top, crops.height, height, size)
    columns = resize_weights(crops.left, crops.width, width, size)
    columns = torch.where(crops.flip[:, None, None], columns.flip(1), columns)
    wide = torch.bmm(images.float().reshape(batch, channels * height, width), columns.transpose(1, 2))
    wide = wide.reshape(batch, channels, height, size)
    return rows[:, None] @ wide


def random_crop(images: Tensor, draws: CropDraws, crop_min: float, flip: bool, size: int) -> Tensor:
    """Each image's own random resized crop, perhaps mirrored; ``draws`` may lie on another device."""
    crops = boxes(draws, *images.shape[-2:], crop_min, flip)
    return crop_resize(images, Crops(*(c.to(images.device) for c in crops)), size)
