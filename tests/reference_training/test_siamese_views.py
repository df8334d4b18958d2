"""The augmentation of joint-embedding methods against torchvision's, one image at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from siamese_options import siamese_config
from torchvision.transforms.v2 import functional as oracle
from trainlib import augment, views
from trainlib.data import load_dataset

PLAIN = views.ViewRecipe(crop_min=1.0, flip=False, jitter_p=0.0, grey_p=0.0)


@pytest.fixture
def images():
    """Images with saturated, grey, black and white places among random ones."""
    pixels = torch.randint(0, 256, (32, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    pixels[0, :, :4] = 0
    pixels[1, :, :4] = 255
    pixels[2] = pixels[2, :1]
    pixels[3, 1:] = 0
    return pixels


def drawn(batch: int, seed: int = 0) -> torch.Tensor:
    return views.draw(batch, torch.Generator().manual_seed(seed))


def made(images: torch.Tensor, recipe: views.ViewRecipe, seed: int = 0) -> torch.Tensor:
    crops = augment.draw(len(images), torch.Generator().manual_seed(seed + 100))
    pixels = augment.random_crop(images, crops, recipe.crop_min, recipe.flip, images.shape[-1])
    return views.recolour(pixels.clamp(0, 255), drawn(len(images), seed), recipe)


COLOUR_CHANGES = (
    oracle.adjust_brightness, oracle.adjust_contrast, oracle.adjust_saturation, oracle.adjust_hue,
)  # fmt: skip


@pytest.mark.parametrize("kind", range(4), ids=["brightness", "contrast", "saturation", "hue"])
def test_colour_change_equals_torchvision_image_by_image(kind, images):
    factors = torch.linspace(*((-0.5, 0.5) if kind == 3 else (0.0, 2.0)), len(images))
    each = factors[:, None, None, None]
    kinds = torch.full_like(each, kind, dtype=torch.long)
    ours = views.hue(images, each) if kind == 3 else views.blend(images, kinds, each)
    theirs = torch.stack(
        [COLOUR_CHANGES[kind](x / 255, float(f)) * 255 for x, f in zip(images, factors, strict=True)]
    )
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # of 255, float32


def test_jitter_follows_the_order_and_the_factors_that_each_image_drew(images):
    strength = (0.8, 0.7, 0.6, 0.2)
    draws = drawn(len(images))
    ours = views.recolour(images, draws, replace(PLAIN, jitter=strength, jitter_p=0.6))
    uniform, order, chance, _ = draws.split([4, 4, 4, 1], 1)
    orders = set()
    for i, image in enumerate(images):
        expected = image / 255
        if chance[i, 0] < 0.6:
            orders.add(tuple(order[i].argsort().tolist()))
            for kind in order[i].argsort().tolist():
                low = 1 - strength[kind] if kind < 3 else -strength[kind]
                factor = low + 2 * strength[kind] * float(uniform[i, kind])
                expected = COLOUR_CHANGES[kind](expected, factor)
        torch.testing.assert_close(ours[i], expected * 255, atol=5e-3, rtol=0)
    assert len(orders) > 10


def test_grey_and_solarised_images_equal_torchvisions(images):
    grey, solarised = made(images, replace(PLAIN, grey_p=1.0)), made(images, replace(PLAIN, solarize_p=1.0))
    torch.testing.assert_close(grey, oracle.rgb_to_grayscale(images, 3), atol=0.05, rtol=0)
    assert torch.equal(solarised.round(), oracle.solarize(images.to(torch.uint8), 128).float())


def test_blur_equals_torchvisions_away_from_the_border():
    images = 255 * torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.7, 1.3])
    ours = views.blur(images, sigma)
    for i in range(3):
        theirs = oracle.gaussian_blur(images[i], [21, 21], [float(sigma[i])] * 2)
        inside = slice(10, -10)
        torch.testing.assert_close(ours[i, :, inside, inside], theirs[:, inside, inside], atol=1e-2, rtol=0)
    torch.testing.assert_close(
        views.blur(torch.ones(1, 3, 8, 8), torch.tensor([2.0])), torch.ones(1, 3, 8, 8)
    )


@pytest.mark.parametrize("name", views.AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_views_stay_in_the_range_and_differ_between_images(name, channels, images):
    same = images[:1, :channels].expand(32, -1, -1, -1).to(torch.uint8)
    for recipe in views.AUGMENTATIONS[name]:
        view = made(same, recipe)
        assert view.shape == (32, channels, 16, 16)
        assert float(view.min()) >= 0
        assert float(view.max()) <= 255
        assert len({tuple(x.flatten().tolist()) for x in view}) == 32


def test_views_follow_from_the_draws_alone(images):
    recipe = views.AUGMENTATIONS["symmetric"][0]
    assert torch.equal(made(images, recipe, 1), made(images, recipe, 1))
    assert not torch.equal(made(images, recipe, 1), made(images, recipe, 2))


def test_images_are_not_changed_in_place(images):
    before = images.clone()
    made(images, views.AUGMENTATIONS["symmetric"][0])
    assert torch.equal(images, before)


def test_probabilities_are_those_of_the_recipe():
    source = torch.Generator().manual_seed(0)
    images = 10 + 90 * torch.rand(2000, 3, 4, 4, generator=source)  # below the threshold of solarisation
    for recipe, share in (
        (replace(PLAIN, grey_p=0.2), 0.2),
        (replace(PLAIN, jitter_p=0.8), 0.8),
        (replace(PLAIN, blur_p=0.5), 0.5),
        (replace(PLAIN, solarize_p=0.2), 0.0),
    ):
        changed = (made(images, recipe) - images).abs().amax((1, 2, 3)) > 1e-3
        assert float(changed.float().mean()) == pytest.approx(share, abs=0.04)  # three standard deviations


def test_one_channel_gets_brightness_and_contrast_only():
    images = 255 * torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    colours = replace(
        PLAIN, grey_p=1.0, blur_p=1.0, solarize_p=1.0, jitter=(0.0, 0.0, 0.8, 0.4), jitter_p=1.0
    )
    torch.testing.assert_close(made(images, colours), images, atol=1e-3, rtol=0)
    assert not torch.allclose(made(images, replace(colours, jitter=(0.4, 0.4, 0.0, 0.0))), images, atol=1)


def test_asymmetric_views_differ_in_solarisation_alone():
    first, second = views.AUGMENTATIONS["asymmetric"]
    assert replace(second, solarize_p=0.0) == first
    assert second.solarize_p == 0.2


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(siamese_config())


def test_view_batches_depend_on_seed_and_epoch_only(dataset):
    recipes = views.AUGMENTATIONS["symmetric"]

    def batches(epoch: int, seed: int) -> list:
        return [pair for pair, _ in dataset.view_batches(epoch, seed, recipes)]

    first, again = batches(3, 5), batches(3, 5)
    assert len(first) == dataset.steps_per_epoch()
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(first[0].first, first[0].second)
    assert not torch.equal(first[0].first, batches(4, 5)[0].first)
    assert not torch.equal(first[0].first, batches(3, 6)[0].first)


def test_view_batches_name_the_images_they_show(dataset):
    whole = replace(PLAIN, jitter_p=0.0)
    pair, labels = next(dataset.view_batches(0, 0, (whole, whole)))
    split = dataset.splits["train"]
    torch.testing.assert_close(
        pair.first, dataset.normalize(split.images[pair.index].float()), atol=1e-4, rtol=0
    )
    assert torch.equal(labels, split.labels[pair.index])


def test_evaluation_views_are_the_same_at_every_call(dataset):
    recipe = views.AUGMENTATIONS["asymmetric"][0]
    first, second = dataset.evaluation_views(recipe, 50)
    again, _ = dataset.evaluation_views(recipe, 50)
    assert first.shape == (50, 1, 8, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
