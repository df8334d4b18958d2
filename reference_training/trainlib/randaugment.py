"""RandAugment (Cubuk et al. 2020) with timm's operations and magnitudes, on a whole batch at once, on its device.

timm's ``rand-m9-mstd0.5-inc1``: two operations of magnitude 9 +- 0.5 (of 10), each with probability 1/2. Every
operation is computed for all images and chosen by masks, since lists of images would have the host wait for the
device; the geometric ones are one affine map. Pixels are whole numbers in [0, 255] between operations, as in Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

MAGNITUDE, SPREAD, MOST = 9.0, 0.5, 9.999  # at 10, timm's own limit, posterize keeps no bits
LAYERS, NUMBERS = 2, 4  # uniform numbers of a layer: which operation, whether, how strong, which sign
SHIFT = 0.45  # of the side, as timm's training recipes set it
GREY = (19595, 38470, 7471)  # Pillow's luminance, in 65536ths
Change = Callable[[Tensor, Tensor, Tensor], Tensor]  # pixels, level in [0, 1), sign


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.split(1, 1)
    return ((GREY[0] * red + GREY[1] * green + GREY[2] * blue + 32768) / 65536).floor()


def autocontrast(pixels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Each channel stretched to the whole range; a constant one stays."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    stretched = ((pixels - low) * (255 / (high - low).clamp(min=1))).floor()
    return torch.where(high > low, stretched, pixels)


def equalize(pixels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Each channel mapped to a flat histogram, by Pillow's rule: the brightest value does not count for the step."""
    batch, channels, height, width = pixels.shape
    flat = pixels.long().reshape(batch * channels, -1)
    histogram = torch.zeros(len(flat), 256, device=pixels.device).scatter_add_(
        1, flat, torch.ones_like(flat, dtype=torch.float)
    )
    brightest = histogram.gather(1, flat.amax(1, keepdim=True))
    step = ((height * width - brightest) / 255).floor()
    below = histogram.cumsum(1) - histogram
    table = ((below + (step / 2).floor()) / step.clamp(min=1)).floor().clamp(max=255)
    mapped = torch.where(step > 0, table.gather(1, flat), flat.float())
    return mapped.reshape(pixels.shape)


def _blend(base: Tensor, pixels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    factor = _column((1 + sign * 0.9 * level).clamp(min=0.1))
    return (base + (pixels - base) * factor).clamp(0, 255).floor()  # Pillow cuts


def sharpness(pixels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Away from, or towards, Pillow's smoothed image, whose border is the image's own."""
    kernel = torch.ones(3, 3, device=pixels.device)
    kernel[1, 1] = 5
    channels = pixels.shape[1]
    smooth = pixels.clone()
    weights = (kernel / 13).expand(channels, 1, 3, 3)
    smooth[..., 1:-1, 1:-1] = functional.conv2d(pixels, weights, groups=channels).round()
    return _blend(smooth, pixels, level, sign)


def posterize(pixels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """The highest ``4 - int(4 level)`` bits."""
    step = 2 ** (4 + (4 * level).floor())
    return (pixels / _column(step)).floor() * _column(step)


def solarize(pixels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Inverted from ``256 - int(256 level)`` on."""
    return torch.where(pixels < _column(256 - (256 * level).floor()), pixels, 255 - pixels)


def solarize_add(pixels: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Brighter by ``int(110 level)`` below 128."""
    return torch.where(pixels < 128, (pixels + _column((110 * level).floor())).clamp(max=255), pixels)


COLOURS: tuple[Change, ...] = (
    autocontrast,
    equalize,
    lambda x, level, sign: 255 - x,
    posterize,
    solarize,
    solarize_add,
    lambda x, level, sign: _blend(_grey(x), x, level, sign),  # colour
    lambda x, level, sign: _blend(
        (_grey(x).mean((1, 2, 3), keepdim=True) + 0.5).floor(), x, level, sign
    ),  # contrast
    lambda x, level, sign: _blend(torch.zeros_like(x), x, level, sign),  # brightness
    sharpness,
)
GEOMETRIC = ("rotate", "shear x", "shear y", "shift x", "shift y")


def affine(kind: Tensor, level: Tensor, sign: Tensor, side: int) -> Tensor:
    """Maps ``(B, 2, 3)`` from places in the result to places in the image, in pixels, as Pillow's transformations."""
    amount = sign * level
    angle = torch.where(kind == 0, -math.radians(30) * amount, 0.0)
    shear_x, shear_y = (torch.where(kind == k, 0.3 * amount, 0.0) for k in (1, 2))
    shift_x, shift_y = (torch.where(kind == k, SHIFT * side * amount, 0.0) for k in (3, 4))
    cos, sin, middle = angle.cos(), angle.sin(), side / 2
    first = torch.stack([cos, sin + shear_x, middle - middle * (cos + sin) + shift_x], 1)
    second = torch.stack([shear_y - sin, cos, middle - middle * (cos - sin) + shift_y], 1)
    return torch.stack([first, second], 1)


def move(pixels: Tensor, maps: Tensor, fill: Tensor) -> Tensor:
    """Pixels at the places that the maps say, between pixels by bicubic interpolation, ``fill`` outside."""
    side = pixels.shape[-1]
    places = torch.arange(side, device=pixels.device) + 0.5
    y, x = torch.meshgrid(places, places, indexing="ij")
    homogeneous = torch.stack([x, y, torch.ones_like(x)], -1)
    grid = 2 / side * (homogeneous @ maps[:, None].mT) - 1
    moved = functional.grid_sample(
        pixels - fill, grid, mode="bicubic", padding_mode="zeros", align_corners=False
    )
    return moved + fill


class RandAugment:
    """Two random operations on every image; ``geometric`` only rotates, shears and shifts."""

    def __init__(self, operations: str, mean: Tensor) -> None:
        self.colours = COLOURS if operations != "geometric" else ()
        self.fill = (255 * mean).round()[:, None, None]

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """The uniform numbers of a batch, on the generator's device."""
        return torch.rand(batch, LAYERS, NUMBERS, generator=generator, device=generator.device)

    def batch(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """Pixels ``(B, C, S, S)`` in [0, 255]; the results are whole numbers."""
        pixels = pixels.float().round().clamp(0, 255)
        fill = self.fill.to(pixels.device)
        for layer in numbers.unbind(1):
            pixels = self._layer(pixels, layer, fill).round().clamp(0, 255)
        return pixels

    def _layer(self, pixels: Tensor, numbers: Tensor, fill: Tensor) -> Tensor:
        which, whether, strength, side = numbers.unbind(1)
        count = len(self.colours) + len(GEOMETRIC)
        kind = (which * count).long().clamp(max=count - 1)
        kind = torch.where(whether < 0.5, kind, -1)
        level = (MAGNITUDE + SPREAD * torch.special.ndtri(strength.clamp(1e-6, 1 - 1e-6))).clamp(0, MOST) / 10
        sign = torch.where(side < 0.5, -1.0, 1.0)
        place = kind - len(self.colours)
        moved = move(pixels, affine(place, level, sign, pixels.shape[-1]), fill)
        changed = torch.where(_column(place >= 0), moved, pixels)
        for number, change in enumerate(self.colours):
            changed = torch.where(_column(kind == number), change(pixels, level, sign), changed)
        return changed
