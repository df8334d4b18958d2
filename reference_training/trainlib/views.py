"""Two augmented views of a batch, each image with its own parameters, on the device where the images lie.

Crop and flip as in ``augment.py``, then torchvision's colour jitter (its four changes in an order of its own for each
image), greyscale, Gaussian blur and solarisation. Images of one channel get crop, brightness and contrast only.
All random numbers are drawn on the CPU, and their number depends on the size of the batch alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from trainlib import augment

BLUR = (0.1, 2.0)  # pixels, standard deviation
SOLARIZE_FROM = 128.0
LUMINANCE = (0.2989, 0.587, 0.114)


class Views(NamedTuple):
    """Two normalised views ``(B, C, H, W)`` of the training images ``index (B,)``."""

    first: Tensor
    second: Tensor
    index: Tensor


@dataclass(frozen=True)
class ViewRecipe:
    """Strengths and probabilities; ``jitter`` is brightness, contrast, saturation, hue as in torchvision."""

    crop_min: float = 0.08
    flip: bool = True
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_p: float = 0.8
    grey_p: float = 0.2
    blur_p: float = 0.0
    solarize_p: float = 0.0


_STRONG = ViewRecipe(jitter=(0.8, 0.8, 0.8, 0.2), blur_p=0.5)
_MILD = ViewRecipe()
_VICREG = ViewRecipe(crop_min=0.2, solarize_p=0.1)
_WEAK = ViewRecipe(jitter=(0.4, 0.4, 0.4, 0.1))
AUGMENTATIONS = {
    "symmetric": (_STRONG, _STRONG),
    "asymmetric": (_MILD, replace(_MILD, solarize_p=0.2)),
    "weak": (_WEAK, _WEAK),
    "vicreg": (_VICREG, _VICREG),
}


class ViewDraws(NamedTuple):
    """Uniform numbers of one view: of the crop, and ``(B, 13)`` of the colours."""

    crop: augment.CropDraws
    colour: Tensor


def draw(batch: int, generator: torch.Generator) -> ViewDraws:
    """Uniform numbers for one view of a batch, on the generator's device."""
    colour = torch.rand(batch, 13, generator=generator, device=generator.device)
    return ViewDraws(augment.draw(batch, generator), colour)


def make_view(images: Tensor, draws: ViewDraws, recipe: ViewRecipe, size: int) -> Tensor:
    """One view of ``images (B, C, H, W)`` with pixels in [0, 255], as floats in the same range."""
    pixels = augment.random_crop(images, draws.crop, recipe.crop_min, recipe.flip, size).clamp(0, 255)
    factors, order, chance, sigma = draws.colour.split([4, 4, 4, 1], 1)
    pixels = _jitter(pixels, factors, order.argsort(1), chance[:, 0] < recipe.jitter_p, recipe.jitter)
    if pixels.shape[1] == 1:
        return pixels
    for column, probability, change in (
        (1, recipe.grey_p, lambda x, _: _grey(x).expand_as(x)),
        (2, recipe.blur_p, lambda x, i: blur(x, BLUR[0] + (BLUR[1] - BLUR[0]) * sigma[i, 0])),
        (3, recipe.solarize_p, lambda x, _: torch.where(x >= SOLARIZE_FROM, 255 - x, x)),
    ):
        chosen = (chance[:, column] < probability).nonzero()[:, 0]
        if len(chosen):
            rows = chosen.to(pixels.device)
            pixels[rows] = change(pixels[rows], chosen)
    return pixels


def _jitter(
    pixels: Tensor, uniform: Tensor, order: Tensor, jittered: Tensor, strength: tuple[float, ...]
) -> Tensor:
    """Change brightness, contrast, saturation and hue of the chosen images, each in the order that it drew."""
    changes = (brightness, contrast) if pixels.shape[1] == 1 else (brightness, contrast, saturation, hue)
    for turn in range(4):
        for kind, (change, amount) in enumerate(zip(changes, strength, strict=False)):
            chosen = (jittered & (order[:, turn] == kind)).nonzero()[:, 0]
            if amount == 0 or len(chosen) == 0:
                continue
            low, high = (-amount, amount) if change is hue else (max(0.0, 1 - amount), 1 + amount)
            factor = (low + (high - low) * uniform[chosen, kind])[:, None, None, None].to(pixels.device)
            rows = chosen.to(pixels.device)
            pixels[rows] = change(pixels[rows], factor)
    return pixels


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] == 1:
        return pixels
    weights = torch.tensor(LUMINANCE, device=pixels.device)[:, None, None]
    return (pixels * weights).sum(1, keepdim=True)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Pixels times the factor, clipped to the range."""
    return (pixels * factor).clamp(0, 255)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Distance from the image's mean luminance times the factor, clipped to the range."""
    mean = _grey(pixels).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, pixels, factor).clamp(0, 255)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Distance from each pixel's luminance times the factor, clipped to the range."""
    return torch.lerp(_grey(pixels).expand_as(pixels), pixels, factor).clamp(0, 255)


def hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """The hue turned by ``shift`` (1 is the whole circle) at equal value and saturation (HSV)."""
    red, green, blue = pixels.unbind(1)
    value, chroma = pixels.amax(1), pixels.amax(1) - pixels.amin(1)
    scale = 1 / torch.where(chroma > 0, chroma, 1)
    sextant = torch.where(
        value == red,
        (green - blue) * scale,
        torch.where(value == green, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )
    place = torch.tensor([5.0, 3.0, 1.0], device=pixels.device)[:, None, None]
    k = (place + sextant[:, None] + 6 * shift) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a width of its own for each image; at the border the kernel is cut and rescaled."""
    side = pixels.shape[-1]
    places = torch.arange(side, device=pixels.device)
    distance = (places[:, None] - places).square()
    kernel = torch.exp(-distance / (2 * sigma.to(pixels.device)[:, None, None].square()))
    kernel = (kernel / kernel.sum(-1, keepdim=True))[:, None]
    return kernel @ pixels @ kernel.mT
