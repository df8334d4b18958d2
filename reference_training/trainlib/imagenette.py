"""Imagenette, ten classes of ImageNet's photographs, as tensors of 96 x 96 pixels."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import Imagenette
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transform

from trainlib.errors import UsageError
from trainlib.rng import generator

SIDE = 96
CLASSES = 10
FOLDER = "imagenette2-160"  # the smallest of the published sizes: the shorter side has 160 pixels
Images = tuple[Tensor, Tensor]


def load_imagenette(data_dir: str, *, download: bool) -> tuple[Images, Images, int]:
    """Train and validation images ``(N, 3, 96, 96)`` uint8 with labels, and the number of classes."""
    train, test = (_split(data_dir, split, download) for split in ("train", "val"))
    return train, test, CLASSES


def _split(data_dir: str, split: str, download: bool) -> Images:
    try:
        files = Imagenette(data_dir, split, "160px", download=download, loader=_read)
        pairs = [files[i] for i in range(len(files))]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            "--data-dir",
            f"{Path(data_dir) / FOLDER / split} cannot be read as Imagenette ({reason})",
            f"name the folder that contains {FOLDER}/, or add --download",
        ) from error
    labels = torch.tensor([label for _, label in pairs])
    # The files lie class by class, and a part of a split is taken from its beginning.
    order = torch.randperm(len(labels), generator=generator(0, "order"))
    return torch.stack([image for image, _ in pairs])[order], labels[order]


def _read(path: str) -> Tensor:
    """The largest central square, resized."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    image = transform.center_crop(image, [min(image.size)] * 2)
    return transform.pil_to_tensor(transform.resize(image, [SIDE, SIDE], InterpolationMode.BICUBIC))
