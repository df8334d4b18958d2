"""Image files in torchvision's ImageFolder layout, read and cropped by worker processes.

The random numbers of every crop are drawn in the main process, and travel to the workers with the numbers of the
images, a few dozen images a request: the batches do not depend on the number of workers. Requests are made as the
workers ask for them, and the workers stay from epoch to epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from trainlib import augment, ranks
from trainlib.errors import UsageError
from trainlib.images import ImageDataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BICUBIC = InterpolationMode.BICUBIC
CHUNK = 32  # images of a request: enough to make its pickling cheap, few enough to share a batch among the workers


class Request(NamedTuple):
    """Images by their numbers; for each kind of crop its smallest area, its flip and uniform numbers. None: centre."""

    index: np.ndarray
    kinds: tuple[tuple[float, bool], ...]
    numbers: np.ndarray  # (kinds, images, augment.NUMBERS)


class _Reader(Dataset):
    """Answers a request with uint8 images ``(kinds, N, 3, S, S)`` and labels, or with a line about a damaged file."""

    def __init__(self, samples: list[tuple[str, int]], size: int) -> None:
        self.samples, self.size = samples, size

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | str:
        crops: list[list[Tensor]] = []
        for row, number in enumerate(request.index):
            path = self.samples[number][0]
            try:
                with Image.open(path) as file:
                    image = file.convert("RGB")
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                return f"{path} cannot be read as an image ({type(error).__name__})"
            made = [
                self._crop(image, torch.from_numpy(numbers[row : row + 1]), *kind)
                for kind, numbers in zip(request.kinds, request.numbers, strict=True)
            ]
            crops.append([transform.pil_to_tensor(i) for i in made or [self._centre(image)]])
        labels = torch.tensor([self.samples[number][1] for number in request.index])
        return torch.stack([torch.stack(kind) for kind in zip(*crops, strict=True)]), labels

    def _crop(self, image: Image.Image, numbers: Tensor, crop_min: float, flip: bool) -> Image.Image:
        box = augment.boxes(augment.split(numbers), image.height, image.width, crop_min, flip)
        top, left, height, width, mirrored = (int(value) for value in box)
        image = transform.resized_crop(image, top, left, height, width, [self.size, self.size], BICUBIC)
        return transform.horizontal_flip(image) if mirrored else image

    def _centre(self, image: Image.Image) -> Image.Image:
        image = transform.resize(image, [round(self.size * 256 / 224)], BICUBIC)
        return transform.center_crop(image, [self.size, self.size])


class _Requests:
    """A sampler whose content is given anew for each reading."""

    given: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.given)


class ImageFolderDataset(ImageDataset):
    """``train/`` and ``val/`` (or ``test/``), one folder per class in each."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.name = "imagefolder"
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
        self.mean, self.std = torch.tensor(MEAN), torch.tensor(STD)
        self._loaders: dict[str, tuple[_Requests, DataLoader]] = {}

    def size(self, split: str) -> int:
        return len(self.samples[split])

    def _crops(self, epoch, seed, kinds):
        ahead, behind = itertools.tee(self._order(epoch, seed, torch.device("cpu")))
        batches = ((ranks.share(index), self._numbers(len(index), kinds, source)) for index, source in ahead)
        for (index, source), (pixels, labels) in zip(
            behind, self._read("train", batches, kinds), strict=False
        ):
            yield ranks.share(index).to(self.device), list(pixels), labels, source

    def _numbers(self, batch: int, kinds: list[tuple[float, bool]], source: torch.Generator) -> Tensor:
        rows = [ranks.share(torch.rand(batch, augment.NUMBERS, generator=source)) for _ in kinds]
        return torch.stack(rows)

    def _held_out(self, limit, kinds, source):
        index = self._spread("test", limit)
        numbers = torch.rand(len(kinds), len(index), augment.NUMBERS, generator=source)
        ((pixels, _),) = self._read("test", iter([(index, numbers)]), kinds)
        return list(pixels)

    def _spread(self, split: str, limit: int | None) -> Tensor:
        """The numbers of all images of a split, or of so many spread evenly over it (it is sorted by class)."""
        total = self.size(split)
        count = total if limit is None else min(limit, total)
        return torch.arange(count) * total // count

    def evaluation_batches(
        self, split: str, batch: int, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised central crops; with a ``limit``, that many images spread evenly over the split."""
        parts = self._spread(split, limit).split(batch)
        batches = ((part, torch.empty(0, len(part), augment.NUMBERS)) for part in parts)
        for pixels, labels in self._read(split, batches, []):
            yield self.normalize(pixels[0]), labels

    def _read(
        self, split: str, batches: Iterator[tuple[Tensor, Tensor]], kinds: list[tuple[float, bool]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Crops ``(kinds, B, 3, S, S)`` and labels of batches of image numbers with their uniform numbers."""
        if split not in self._loaders:
            workers, requests = self.config.data.workers, _Requests()
            self._loaders[split] = requests, DataLoader(
                _Reader(self.samples[split], self.image_size), batch_size=None, sampler=requests, num_workers=workers,
                persistent_workers=workers > 0, pin_memory=self.device.type == "cuda",
            )  # fmt: skip
        requests, loader = self._loaders[split]
        sizes: list[int] = []

        def given() -> Iterator[Request]:
            for index, numbers in batches:
                sizes.append(len(index))
                for start in range(0, len(index), CHUNK):
                    part = slice(start, start + CHUNK)
                    yield Request(index[part].numpy(), tuple(kinds), numbers[:, part].numpy())

        requests.given = given()
        waiting: list[tuple[Tensor, Tensor]] = []
        for answer in loader:
            if isinstance(answer, str):
                raise UsageError("--data-dir", answer, "repair or remove the file")
            waiting.append(answer)
            if sum(len(labels) for _, labels in waiting) == sizes[0]:
                sizes.pop(0)
                pixels, labels = zip(*waiting, strict=True)
                waiting = []
                yield (
                    torch.cat([p.to(self.device, non_blocking=True) for p in pixels], 1),
                    torch.cat(labels).to(self.device, non_blocking=True),
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
