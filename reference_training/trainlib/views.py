"""Two augmented views of a batch, each image with its own parameters, on the device where the images lie.

Crop and flip as in ``augment.py``, then torchvision's colour jitter (its four changes in an order of its own for each
image), greyscale, Gaussian blur and solarisation. Images of one channel get crop, brightness and contrast only.
The number of random numbers depends on the size of the batch alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

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


def draw(batch: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers ``(B, 13)`` behind the colours of one view, on the generator's device."""
    return torch.rand(batch, 13, generator=generator, device=generator.device)


def recolour(pixels: Tensor, colour: Tensor, recipe: ViewRecipe) -> Tensor:
    """Jitter, greyscale, blur and solarise pixels in [0, 255]; what a change does not meet passes through it.

    Every change is computed for all images and chosen by masks: lists of the images concerned would have the host wait
    for the device at each change.
    """
    factors, order, chance, sigma = colour[:, :, None, None].split([4, 4, 4, 1], 1)
    pixels = _jitter(pixels, factors, order.argsort(1), chance[:, :1] < recipe.jitter_p, recipe.jitter)
    if pixels.shape[1] == 1:
        return pixels
    if recipe.grey_p:
        pixels = torch.where(chance[:, 1:2] < recipe.grey_p, _grey(pixels), pixels)
    if recipe.blur_p:
        blurred = blur(pixels, BLUR[0] + (BLUR[1] - BLUR[0]) * sigma[:, 0, 0, 0])
        pixels = torch.where(chance[:, 2:3] < recipe.blur_p, blurred.clamp(0, 255), pixels)
    if recipe.solarize_p:
        solarised = torch.where(pixels >= SOLARIZE_FROM, 255 - pixels, pixels)
        pixels = torch.where(chance[:, 3:4] < recipe.solarize_p, solarised, pixels)
    return pixels


def _jitter(
    pixels: Tensor, uniform: Tensor, order: Tensor, jittered: Tensor, strength: tuple[float, ...]
) -> Tensor:
    """Change brightness (0), contrast (1), saturation (2) and hue (3) of the chosen images, each in its own order.

    The three blends are made before and after the hue, each image skipping those that are not its turn: six cheap
    changes and one dear one instead of four of each.
    """
    place = (order == 3).int().argmax(1, keepdim=True)  # of the hue
    turns = torch.arange(3, device=pixels.device)[:, None, None]
    kinds = order.gather(1, turns + (turns >= place)).unbind(1)  # of the blends in their order
    colours = 3 if pixels.shape[1] == 3 else 2  # without colours there is no saturation

    def blended(before: Tensor, turn: int, chosen: Tensor) -> Tensor:
        kind = kinds[turn][:, None]
        amount = _by_kind(kind, *strength[:3])
        least = (1 - amount).clamp(min=0)
        factor = least + (1 + amount - least) * uniform.gather(1, kind)
        return torch.where(jittered & chosen & (kind < colours), blend(before, kind, factor), before)

    for turn in range(3):
        pixels = blended(pixels, turn, turn < place)
    if colours == 3 and strength[3]:
        shift = strength[3] * (2 * uniform[:, 3:] - 1)
        pixels = torch.where(jittered, hue(pixels, shift), pixels)
    for turn in range(3):
        pixels = blended(pixels, turn, turn >= place)
    return pixels


def _by_kind(kind: Tensor, brightness: Any, contrast: Any, saturation: Any) -> Tensor:
    return torch.where(kind == 0, brightness, torch.where(kind == 1, contrast, saturation))


def blend(pixels: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Distance from a base times the factor, clipped to the range; ``kind`` and ``factor`` are ``(B, 1, 1, 1)``.

    The base is black (kind 0, brightness), the image's mean luminance (1, contrast) or each pixel's (2, saturation).
    """
    grey = _grey(pixels)
    base = _by_kind(kind, 0.0, grey.mean((1, 2, 3), keepdim=True), grey)
    return torch.lerp(base, pixels, factor).clamp(0, 255)


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.split(1, 1)
    return LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue


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
    place = torch.arange(5, 0, -2, device=pixels.device)[:, None, None]  # of red, green, blue
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
