"""What image data sets share, whether they lie in memory or in files."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trainlib import ranks, views
from trainlib.randaugment import RandAugment
from trainlib.rng import generator


class ImageDataset:
    """What image data sets share: an order, a normalisation, and a RandAugment after the crops, if one is set.

    A data set gives the size of a split, ``_crops`` of training images, and plain images of a split.
    """

    after_crop: RandAugment | None = None
    name: str
    classes: int
    channels = 3
    device = torch.device("cpu")
    """Where the batches go."""

    def __init__(self, config) -> None:
        self.config, self.image_size = config, config.data.image_size

    def size(self, split: str) -> int:
        """Number of images of a split."""
        raise NotImplementedError

    def to(self, device: torch.device) -> ImageDataset:
        """Give batches on this device."""
        self.device, self.mean, self.std = device, self.mean.to(device), self.std.to(device)
        return self

    def steps_per_epoch(self) -> int:
        """Full batches in the training split; the remainder of an epoch is dropped."""
        return self.size("train") // self.config.optim.batch

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 255] to zero mean and unit variance per channel."""
        return (pixels.float() / 255 - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalize(self, images: Tensor) -> Tensor:
        """Normalised images back to [0, 1], for pictures."""
        return (images * self.std[:, None, None] + self.mean[:, None, None]).clamp(0, 1)

    def train_batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented, normalised batches of one epoch."""
        data = self.config.data
        for _, (pixels,), labels, source in self._crops(epoch, seed, [(data.crop_min, data.flip)]):
            if self.after_crop is not None:
                drawn = ranks.share(self.after_crop.draw(self.config.optim.batch, source))
                pixels = self.after_crop.batch(pixels, drawn.to(pixels.device))
            yield self.normalize(pixels), labels

    def view_batches(
        self, epoch: int, seed: int, recipes: tuple[views.ViewRecipe, views.ViewRecipe]
    ) -> Iterator[tuple[views.Views, Tensor]]:
        """Two views of the images of each batch of one epoch, each view by its recipe."""
        crops = [(recipe.crop_min, recipe.flip) for recipe in recipes]
        for index, pixels, labels, source in self._crops(epoch, seed, crops):
            first, second = (
                self._coloured(crop, recipe, ranks.share(views.draw(self.config.optim.batch, source)))
                for crop, recipe in zip(pixels, recipes, strict=True)
            )
            yield views.Views(first, second, index), labels

    def _coloured(self, pixels: Tensor, recipe: views.ViewRecipe, drawn: Tensor) -> Tensor:
        pixels = pixels.float().clamp(0, 255)
        return self.normalize(views.recolour(pixels, drawn.to(pixels.device), recipe))

    def evaluation_views(self, recipe: views.ViewRecipe, limit: int) -> tuple[Tensor, Tensor]:
        """Two views of held-out images, the same ones at every call and for every seed."""
        source = generator(0, "evaluation")
        crops = self._held_out(limit, [(recipe.crop_min, recipe.flip)] * 2, source)
        first, second = (self._coloured(c, recipe, views.draw(len(c), source)) for c in crops)
        return first, second

    def _crops(
        self, epoch: int, seed: int, kinds: list[tuple[float, bool]]
    ) -> Iterator[tuple[Tensor, list[Tensor], Tensor, torch.Generator]]:
        """Batches of an epoch: the images' numbers, a crop of each kind (smallest area, flip), labels, and a source.

        The source gives what else is random about the batch. Several processes get their shares.
        """
        raise NotImplementedError

    def _held_out(self, limit: int, kinds: list[tuple[float, bool]], source: torch.Generator) -> list[Tensor]:
        """A crop of each kind of at most ``limit`` held-out images."""
        raise NotImplementedError

    def _order(self, epoch: int, seed: int, device: torch.device) -> Iterator[tuple[Tensor, torch.Generator]]:
        """The images of each batch of an epoch, and the source of its augmentation."""
        batch, source = self.config.optim.batch, generator(seed, "order", epoch, device=device)
        order = torch.randperm(self.size("train"), generator=source, device=device)
        for step in range(self.steps_per_epoch()):
            part = order[step * batch : (step + 1) * batch]
            yield part, generator(seed, "augment", epoch, step, device=device)
