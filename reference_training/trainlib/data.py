"""Data sets held in memory as one uint8 tensor: scikit-learn's digits, CIFAR-10, CIFAR-100 and Imagenette.

A data set gives two things to the training loop: ``train_batches`` (augmented, in an order that depends only
on seed and epoch) and ``evaluation_batches`` (plain images of a split). ``folder.py`` has the same interface
for image files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainlib import augment, ranks
from trainlib.errors import UsageError
from trainlib.images import ImageDataset


@dataclass(frozen=True)
class Split:
    """Images ``(N, C, H, W)`` uint8 and labels ``(N,)`` int64."""

    images: Tensor
    labels: Tensor


class TensorDataset(ImageDataset):
    """Two splits in memory, augmented and normalised on the training device."""

    def __init__(self, name: str, train: Split, test: Split, classes: int, config) -> None:
        super().__init__(config)
        self.name, self.classes = name, classes
        self.splits = {"train": train, "test": test}
        self.channels = train.images.shape[1]
        statistics = train.images[:: max(1, len(train.images) // 10_000)].float().div(255)
        self.mean = statistics.mean((0, 2, 3))
        self.std = statistics.std((0, 2, 3))

    def size(self, split: str) -> int:
        return len(self.splits[split].labels)

    def to(self, device: torch.device) -> ImageDataset:
        """Move the images to the training device, where augmentation happens."""
        self.splits = {k: Split(s.images.to(device), s.labels.to(device)) for k, s in self.splits.items()}
        return super().to(device)

    def _crops(self, epoch, seed, kinds):
        split = self.splits["train"]
        for index, source in self._order(epoch, seed, split.images.device):
            draws = [ranks.share(augment.draw(len(index), source)) for _ in kinds]
            own = ranks.share(index)
            yield own, self._cropped(split.images[own], draws, kinds), split.labels[own], source

    def _held_out(self, limit, kinds, source):
        images = self.splits["test"].images[:limit]
        return self._cropped(images, [augment.draw(len(images), source) for _ in kinds], kinds)

    def _cropped(self, images, draws, kinds):
        return [
            augment.random_crop(images, own, crop_min, flip, self.image_size)
            for own, (crop_min, flip) in zip(draws, kinds, strict=True)
        ]

    def evaluation_batches(
        self, split: str, batch: int, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images without augmentation; the first ``limit`` of them (the splits are in random order)."""
        images, labels = self.splits[split].images, self.splits[split].labels
        end = len(labels) if limit is None else min(limit, len(labels))
        for start in range(0, end, batch):
            stop = min(start + batch, end)
            chunk = images[start:stop].float()
            if chunk.shape[-1] != self.image_size:
                chunk = torch.nn.functional.interpolate(
                    chunk, (self.image_size, self.image_size), mode="bicubic", antialias=True
                )
            yield self.normalize(chunk), labels[start:stop]


def load_dataset(config):
    """The data set that the configuration names, checked against the batch size. It does not know the seed."""
    name = config.data.data
    if name == "digits":
        dataset = _digits(config)
    elif name == "imagefolder":
        from trainlib.folder import ImageFolderDataset

        dataset = ImageFolderDataset(config)
    else:
        from trainlib import cifar, imagenette

        where = {"data_dir": config.data.data_dir, "download": config.data.download}
        found = (
            imagenette.load_imagenette(**where) if name == "imagenette" else cifar.load_cifar(name, **where)
        )
        train, test, classes = found
        dataset = TensorDataset(name, Split(*train), Split(*test), classes, config)
    if config.optim.batch > dataset.size("train"):
        raise UsageError(
            "--batch",
            f"{config.optim.batch} images are more than the {dataset.size('train')} training images of {name}",
            f"choose at most {dataset.size('train')}",
        )
    return dataset


def _digits(config) -> TensorDataset:
    """The 1,797 digits of 8 x 8 pixels, one fifth of each class held out (the same one for every seed)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    parts = train_test_split(images, digits.target, test_size=0.2, stratify=digits.target, random_state=0)
    train_x, test_x, train_y, test_y = (torch.from_numpy(np.ascontiguousarray(p)) for p in parts)
    return TensorDataset("digits", Split(train_x, train_y.long()), Split(test_x, test_y.long()), 10, config)
