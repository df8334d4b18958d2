"""Image files in torchvision's ImageFolder layout, read and cropped by worker processes.

The random numbers of every crop are drawn in the main process, exactly as for data sets in memory, and travel
to the workers with the index of the image: the batches do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from trainlib import augment, ranks
from trainlib.errors import UsageError
from trainlib.rng import generator

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BICUBIC = InterpolationMode.BICUBIC
Request = tuple[int, augment.CropDraws | None]


class _Reader(Dataset):
    """Answers a request (index, draws) with a uint8 image and its label, or with a line about a damaged file."""

    def __init__(
        self, samples: list[tuple[str, int]], size: int, crop_min: float, flip: bool, after_crop: Any
    ) -> None:
        self.samples, self.size, self.crop_min, self.flip = samples, size, crop_min, flip
        self.after_crop = after_crop

    def __getitem__(self, request: Request) -> tuple[Tensor, int] | str:
        index, draws = request
        path, label = self.samples[index]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            return f"{path} cannot be read as an image ({type(error).__name__})"
        image = self._centre(image) if draws is None else self._crop(image, draws)
        return transform.pil_to_tensor(image), label

    def _crop(self, image: Image.Image, draws: augment.CropDraws) -> Image.Image:
        box = augment.boxes(draws, image.height, image.width, self.crop_min, self.flip)
        top, left, height, width, flip = (int(value) for value in box)
        image = transform.resized_crop(image, top, left, height, width, [self.size, self.size], BICUBIC)
        image = transform.horizontal_flip(image) if flip else image
        return image if self.after_crop is None else self.after_crop(image, draws)

    def _centre(self, image: Image.Image) -> Image.Image:
        image = transform.resize(image, [round(self.size * 256 / 224)], BICUBIC)
        return transform.center_crop(image, [self.size, self.size])


def _collate(items: list[tuple[Tensor, int] | str]) -> tuple[Tensor, Tensor] | str:
    for item in items:
        if isinstance(item, str):
            return item
    return torch.stack([item[0] for item in items]), torch.tensor([item[1] for item in items])


class ImageFolderDataset:
    """``train/`` and ``val/`` (or ``test/``), one folder per class in each; interface of ``TensorDataset``."""

    channels = 3
    after_crop = None  # a RandAugment for the cropped training images

    def __init__(self, config: Any) -> None:
        self.name, self.config = "imagefolder", config
        self.image_size = config.data.image_size
        root = Path(config.data.data_dir)
        held_out = "val" if (root / "val").is_dir() or not (root / "test").is_dir() else "test"
        train, test = _scan(root / "train"), _scan(root / held_out)
        if train.classes != test.classes:
            raise UsageError(
                "--data-dir", f"{root / 'train'} and {root / held_out} do not hold the same classes",
                "give both one folder per class, of equal names",
            )  # fmt: skip
        self.samples = {"train": train.samples, "test": test.samples}
        self.classes = len(train.classes)
        self.device = torch.device("cpu")
        self.mean, self.std = torch.tensor(MEAN), torch.tensor(STD)

    def size(self, split: str) -> int:
        """Number of images of a split."""
        return len(self.samples[split])

    def to(self, device: torch.device) -> ImageFolderDataset:
        """Where the batches go."""
        self.device = device
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return self

    def steps_per_epoch(self) -> int:
        """Full batches in the training split; the remainder of an epoch is dropped."""
        return self.size("train") // self.config.optim.batch

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 255] to ImageNet's zero mean and unit variance per channel."""
        return (pixels.float() / 255 - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalize(self, images: Tensor) -> Tensor:
        """Normalised images back to [0, 1], for pictures."""
        return (images * self.std[:, None, None] + self.mean[:, None, None]).clamp(0, 1)

    def train_batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented, normalised batches of one epoch."""
        batch = self.config.optim.batch
        order = torch.randperm(self.size("train"), generator=generator(seed, "order", epoch))
        requests = []
        for step in range(self.steps_per_epoch()):
            draws = ranks.share(augment.draw(batch, generator(seed, "augment", epoch, step)))
            index = ranks.share(order[step * batch : (step + 1) * batch]).tolist()
            rows = [augment.CropDraws(*(d[i : i + 1] for d in draws)) for i in range(len(index))]
            requests.append(list(zip(index, rows, strict=True)))
        yield from self._read("train", requests)

    def evaluation_batches(
        self, split: str, batch: int, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised central crops; with a ``limit``, that many images spread evenly over the split."""
        total = self.size(split)
        count = total if limit is None else min(limit, total)
        chosen = [i * total // count for i in range(count)]
        requests = [[(i, None) for i in chosen[s : s + batch]] for s in range(0, count, batch)]
        yield from self._read(split, requests)

    def _read(self, split: str, requests: list[list[Request]]) -> Iterator[tuple[Tensor, Tensor]]:
        data = self.config.data
        reader = _Reader(self.samples[split], self.image_size, data.crop_min, data.flip, self.after_crop)
        loader = DataLoader(
            reader, batch_sampler=requests, num_workers=data.workers, collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
        )  # fmt: skip
        for answer in loader:
            if isinstance(answer, str):
                raise UsageError("--data-dir", answer, "repair or remove the file")
            images, labels = answer
            yield (
                self.normalize(images.to(self.device, non_blocking=True)),
                labels.to(self.device, non_blocking=True),
            )


def _scan(folder: Path) -> ImageFolder:
    if not folder.is_dir():
        raise UsageError(
            "--data-dir",
            f"there is no folder {folder}",
            "name a folder with train/ and val/, one folder per class in each",
        )
    try:
        return ImageFolder(str(folder))
    except FileNotFoundError as error:
        reason = str(error).split(". ")[0].rstrip(".")
        raise UsageError(
            "--data-dir", f"{folder} holds no images ({reason})", "put one folder of images per class into it"
        ) from error
