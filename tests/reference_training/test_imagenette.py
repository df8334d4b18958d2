"""Imagenette in torchvision's layout: squares of one size, classes mixed, errors that name the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import Imagenette
from trainlib.data import load_dataset
from trainlib.errors import UsageError
from trainlib.imagenette import FOLDER, load_imagenette

CLASSES = sorted(Imagenette._WNID_TO_CLASS)
WIDE, HIGH = (200, 160), (160, 213)  # sizes of the published files


def write_imagenette(folder: Path, count: int = 3) -> Path:
    """Photographs of one colour each, which says its class."""
    for split in ("train", "val"):
        for label, name in enumerate(CLASSES):
            (folder / FOLDER / split / name).mkdir(parents=True)
            for i in range(count):
                image = Image.new("RGB", WIDE if i % 2 else HIGH, (20 * label, 100, 200))
                image.save(folder / FOLDER / split / name / f"{i}.JPEG", quality=95)
    return folder


def test_imagenette_is_squares_of_one_size_whose_labels_are_theirs(tmp_path):
    train, test, classes = load_imagenette(str(write_imagenette(tmp_path)), download=False)
    assert classes == 10
    for images, labels in (train, test):
        assert images.shape == (30, 3, 96, 96)
        assert images.dtype == torch.uint8
        red = images[:, 0].float().mean((1, 2))
        assert torch.equal((red / 20).round().long(), labels)


def test_a_part_of_imagenette_has_every_class_and_is_the_same_each_time(tmp_path):
    folder = str(write_imagenette(tmp_path, 12))
    (_, labels), _, _ = load_imagenette(folder, download=False)
    assert set(labels[:60].tolist()) == set(range(10))
    assert torch.equal(labels, load_imagenette(folder, download=False)[0][1])


def test_imagenette_keeps_the_centre(tmp_path):
    folder = write_imagenette(tmp_path, 1)
    pixels = np.zeros((160, 200, 3), np.uint8)
    pixels[:, 20:180] = 255
    for name in CLASSES:
        Image.fromarray(pixels).save(folder / FOLDER / "val" / name / "0.JPEG", quality=95)
    _, (images, _), _ = load_imagenette(str(folder), download=False)
    assert int(images.min()) > 240


def test_imagenette_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(
        UsageError, match=r"--data-dir: .*imagenette2-160.*name the folder.*or add --download"
    ):
        load_imagenette(str(tmp_path), download=False)
    write_imagenette(tmp_path, 1)
    (tmp_path / FOLDER / "val" / CLASSES[3] / "0.JPEG").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"--data-dir: .*val cannot be read as Imagenette"):
        load_imagenette(str(tmp_path), download=False)


def test_imagenette_is_trained_on_at_the_size_asked_for(tmp_path, make_config):
    data = {"data": "imagenette", "data_dir": str(write_imagenette(tmp_path)), "image_size": 48}
    dataset = load_dataset(make_config(batch=10, **data))
    images, labels = next(dataset.train_batches(0, seed=0))
    assert images.shape == (10, 3, 48, 48)
    assert next(dataset.evaluation_batches("test", 30))[0].shape == (30, 3, 48, 48)
    assert labels.dtype == torch.int64
