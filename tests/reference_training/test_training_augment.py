"""Batched crops against torchvision's, one image at a time."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as oracle
from trainlib import augment


def random_crops(batch: int, side: int, crop_min: float, flip: bool = True, seed: int = 0) -> augment.Crops:
    draws = augment.draw(batch, torch.Generator().manual_seed(seed))
    return augment.boxes(draws, side, side, crop_min, flip)


@pytest.mark.parametrize(("side", "size"), [(32, 32), (8, 8), (40, 24)])
def test_crop_resize_equals_torchvision_image_by_image(side, size):
    images = torch.randint(
        0, 256, (16, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    crops = random_crops(16, side, 0.2)
    ours = augment.crop_resize(images, crops, size)
    for i, image in enumerate(images):
        top, left, height, width, flip = (int(c[i]) for c in crops)
        expected = oracle.resized_crop(
            image.float(), top, left, height, width, [size, size], InterpolationMode.BICUBIC, antialias=True
        )
        expected = expected.flip(-1) if flip else expected
        torch.testing.assert_close(ours[i], expected, atol=2e-3, rtol=0)  # of 255


def test_crop_resize_of_whole_image_is_identity():
    images = torch.rand(2, 1, 8, 8)
    whole = torch.tensor([8, 8])
    zero = torch.tensor([0, 0])
    same = augment.crop_resize(
        images, augment.Crops(zero, zero, whole, whole, torch.tensor([False, True])), 8
    )
    torch.testing.assert_close(same[0], images[0])
    torch.testing.assert_close(same[1], images[1].flip(-1))


def test_boxes_stay_inside_and_have_the_requested_areas_and_ratios():
    crops = random_crops(4000, 32, 0.2)
    assert bool((crops.top >= 0).all())
    assert bool((crops.top + crops.height <= 32).all())
    assert bool((crops.left >= 0).all())
    assert bool((crops.left + crops.width <= 32).all())
    share = (crops.height * crops.width).double() / 32**2
    assert 0.15 < float(share.min()) < 0.25
    assert float(share.max()) > 0.9
    ratio = crops.width / crops.height
    assert 0.65 < float(ratio.min()) < 0.8
    assert 1.25 < float(ratio.max()) < 1.5
    assert 0.45 < float(crops.flip.float().mean()) < 0.55
    free = crops.height < 32
    relative = crops.top[free] / (32 - crops.height[free])
    assert float(relative.mean()) == pytest.approx(0.5, abs=0.03)


def test_boxes_have_parameters_of_their_own_for_each_image():
    crops = random_crops(64, 32, 0.2)
    assert len(set(zip(*(c.tolist() for c in crops), strict=True))) > 60


def test_boxes_without_flip_never_mirror():
    assert not random_crops(64, 32, 0.2, flip=False).flip.any()


def test_boxes_fall_back_to_the_central_crop_where_no_try_fits():
    draws = augment.CropDraws(torch.ones(1, 10), torch.zeros(1, 10), torch.rand(1, 2), torch.rand(1))
    crops = augment.boxes(draws, 10, 40, 1.0, False)  # an area of 400 at ratio 3/4 is 23 pixels high
    assert [int(c[0]) for c in crops[:4]] == [0, 13, 10, 13]


def test_draws_depend_on_the_generator_only():
    first, second, other = (augment.draw(4, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.area, other.area)
