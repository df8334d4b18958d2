"""RandAugment's operations against Pillow's, as timm applies them to single images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as oracle
from trainlib import randaugment
from trainlib.randaugment import COLOURS, GEOMETRIC, LAYERS, NUMBERS, RandAugment

SIDE = 24
COLOUR_NAMES = (
    "AutoContrast", "Equalize", "Invert", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd", "ColorIncreasing",
    "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing",
)  # fmt: skip
GEOMETRIC_NAMES = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
HPARAMS = {"translate_pct": randaugment.SHIFT, "img_mean": (9, 90, 200)}


@pytest.fixture
def pixels():
    """Noise, a constant, a ramp and dark images, whole numbers."""
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, SIDE, SIDE), generator=source).float()
    images[1] = 77
    images[2] = torch.arange(SIDE).float() * 10
    images[3] = (images[3] / 4).floor()
    images[4, 1:] = 0
    return images


def theirs(image: torch.Tensor, name: str, level: float, sign: float, monkeypatch) -> torch.Tensor:
    monkeypatch.setattr(oracle, "_randomly_negate", lambda v: sign * v)
    argument = oracle.LEVEL_TO_ARG[name]
    values = () if argument is None else argument(10 * level, HPARAMS)
    options = {"fillcolor": HPARAMS["img_mean"], "resample": Image.Resampling.BICUBIC}
    picture = Image.fromarray(image.permute(1, 2, 0).byte().numpy())
    changed = oracle.NAME_TO_OP[name](picture, *values, **options)
    return torch.from_numpy(np.array(changed)).permute(2, 0, 1).float()


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("level", [0.3, 0.76, 0.9, 0.98])
@pytest.mark.parametrize("number", range(len(COLOURS)), ids=COLOUR_NAMES)
def test_colour_operation_equals_pillows(pixels, number, level, sign, monkeypatch):
    levels, signs = torch.full((len(pixels),), level), torch.full((len(pixels),), sign)
    ours = COLOURS[number](pixels, levels, signs).round()
    for image, changed in zip(pixels, ours, strict=True):
        expected = theirs(image, COLOUR_NAMES[number], level, sign, monkeypatch)
        assert float((changed - expected).abs().max()) <= 1


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("number", range(len(GEOMETRIC)), ids=GEOMETRIC_NAMES)
def test_geometric_operation_moves_a_smooth_image_as_pillow_does(number, sign, monkeypatch):
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    image = torch.stack([128 + 60 * (x / 5).sin(), 4 * x + 5 * y, 128 + 60 * (y / 4).cos()]).round()
    level, one = torch.tensor([0.9]), torch.tensor([sign])
    fill = torch.tensor(HPARAMS["img_mean"])[:, None, None].float()
    maps = randaugment.affine(torch.tensor([number]), level, one, SIDE)
    ours = randaugment.move(image[None], maps, fill)[0].clamp(0, 255)
    difference = (ours - theirs(image, GEOMETRIC_NAMES[number], 0.9, sign, monkeypatch)).abs()
    assert float(difference.median()) <= 1
    assert (
        float((difference > 6).float().mean()) < 0.12
    )  # at the border, where the two extend the image differently


def test_batch_applies_what_each_image_drew(pixels):
    operation = RandAugment("full", torch.tensor([0.4, 0.5, 0.6]))
    numbers = torch.ones(len(pixels), LAYERS, NUMBERS)  # a probability of one half: none is applied
    assert torch.equal(operation.batch(pixels, numbers), pixels)
    numbers[2, 0] = torch.tensor([2.5 / 15, 0.0, 0.5, 0.9])  # the third operation, inversion
    changed = operation.batch(pixels, numbers)
    assert torch.equal(changed[2], 255 - pixels[2])
    assert torch.equal(changed[[0, 1, 3, 4, 5]], pixels[[0, 1, 3, 4, 5]])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operations", ["full", "geometric"])
def test_batch_gives_whole_numbers_in_the_range_for_any_draw(operations, channels):
    source = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (512, channels, 8, 8), generator=source).float()
    operation = RandAugment(operations, torch.full((channels,), 0.5))
    changed = operation.batch(pixels, operation.draw(len(pixels), source))
    assert torch.equal(changed, changed.round().clamp(0, 255))
    share = float((changed != pixels).flatten(1).any(1).float().mean())
    assert 0.55 < share < 0.9  # three quarters, less the operations that leave an image as it is


def test_batch_of_an_image_depends_on_its_own_draws(pixels):
    operation, source = RandAugment("full", torch.full((3,), 0.5)), torch.Generator().manual_seed(1)
    numbers, order = operation.draw(len(pixels), source), torch.randperm(len(pixels), generator=source)
    changed = operation.batch(pixels, numbers)
    assert torch.equal(operation.batch(pixels[order], numbers[order]), changed[order])


def test_geometric_moves_and_never_recolours():
    operation, source = RandAugment("geometric", torch.tensor([100 / 255])), torch.Generator().manual_seed(0)
    numbers = operation.draw(20, source)
    flat = torch.full((20, 1, 8, 8), 100.0)
    assert torch.equal(operation.batch(flat, numbers), flat)  # of the colour of the fill
    pattern = torch.arange(64.0).reshape(1, 1, 8, 8).expand(20, -1, -1, -1)
    assert not torch.equal(operation.batch(pattern, numbers), pattern)
