"""Data sets: splits, order, augmentation, and what is said about files that are missing or wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from protocol_runs import image_folder
from sklearn.datasets import load_digits
from trainlib import cifar, views
from trainlib.data import load_dataset
from trainlib.errors import UsageError


def all_images(dataset, split: str) -> torch.Tensor:
    return torch.cat([dataset.denormalize(x) for x, _ in dataset.evaluation_batches(split, 100)])


def test_digits_splits_are_disjoint_stratified_and_complete(make_config):
    dataset = load_dataset(make_config())
    assert (dataset.size("train"), dataset.size("test"), dataset.channels, dataset.classes) == (
        1437,
        360,
        1,
        10,
    )
    images = torch.cat([all_images(dataset, "train"), all_images(dataset, "test")])[:, 0] * 16
    expected = torch.from_numpy(load_digits().images).float()
    torch.testing.assert_close(images.flatten(1).sum(1).sort().values, expected.flatten(1).sum(1).sort().values,
                               atol=1.0, rtol=0)  # fmt: skip
    counts = torch.bincount(torch.cat([y for _, y in dataset.evaluation_batches("test", 100)]))
    assert int(counts.min()) >= 34
    assert int(counts.max()) <= 37


def test_training_images_are_normalised(make_config):
    dataset = load_dataset(make_config(crop_min=1.0))
    images = torch.cat([x for x, _ in dataset.evaluation_batches("train", 500)])
    assert float(images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.std()) == pytest.approx(1, abs=1e-3)


def test_train_batches_depend_on_seed_and_epoch_only(make_config):
    dataset = load_dataset(make_config())
    first, again = ([x for x, _ in dataset.train_batches(3, seed=5)] for _ in range(2))
    assert len(first) == dataset.steps_per_epoch() == 22
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], next(dataset.train_batches(4, seed=5))[0])
    assert not torch.equal(first[0], next(dataset.train_batches(3, seed=6))[0])


def test_train_batches_visit_every_image_at_most_once(make_config):
    dataset = load_dataset(make_config())
    split = dataset.splits["train"]
    marked = type(split)(
        torch.arange(1437).div(6).to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8), split.labels
    )
    dataset.splits["train"] = marked  # constant images survive any crop
    values = torch.cat([dataset.denormalize(x)[:, 0, 0, 0] for x, _ in dataset.train_batches(0, seed=0)])
    counts = torch.bincount((values * 255).round().long())
    assert int(counts.sum()) == 22 * 64
    assert int(counts.max()) <= 6


def test_evaluation_batches_respect_the_limit_and_the_order(make_config):
    dataset = load_dataset(make_config())
    limited = torch.cat([y for _, y in dataset.evaluation_batches("test", 100, 150)])
    assert torch.equal(limited, dataset.splits["test"].labels[:150])


def write_cifar(folder: Path, *, count: int = 10, side: int = 32, top: int = 10) -> Path:
    """Five training files and a test file in torchvision's layout, without the original 'filenames' entry."""
    batches = folder / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        data = random.integers(0, 256, (count, 3 * side * side), dtype=np.uint8)
        content = {"labels": [i % top for i in range(count)], "data": data}
        (batches / name).write_bytes(pickle.dumps(content, protocol=4))
    meta = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}, protocol=4)
    (batches / "batches.meta").write_bytes(meta)
    return folder


@pytest.fixture
def small_cifar(monkeypatch):
    monkeypatch.setattr(cifar, "COUNTS", {"train": 50, "test": 10})


@pytest.mark.usefixtures("small_cifar")
def test_cifar_is_accepted_whatever_its_checksum_when_the_content_is_valid(tmp_path):
    (images, labels), (test_images, _), classes = cifar.load_cifar(
        "cifar10", str(write_cifar(tmp_path)), download=False
    )
    assert images.shape == (50, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert classes == 10
    assert labels.tolist() == [i % 10 for i in range(10)] * 5
    raw = pickle.loads((tmp_path / "cifar-10-batches-py" / "test_batch").read_bytes())["data"]
    assert np.array_equal(test_images.flatten(1).numpy(), raw)


@pytest.mark.usefixtures("small_cifar")
@pytest.mark.parametrize("fault", [{"count": 9}, {"top": 9}])
def test_cifar_of_wrong_content_is_refused(tmp_path, fault):
    with pytest.raises(
        UsageError, match="--data-dir: .* holds images .* not 50 images .* labels 0 to 9; restore"
    ):
        cifar.load_cifar("cifar10", str(write_cifar(tmp_path, **fault)), download=False)


def test_cifar_damaged_or_missing_files_are_named(tmp_path):
    with pytest.raises(UsageError, match="there is no CIFAR10 at .*; name the folder that contains"):
        cifar.load_cifar("cifar10", str(tmp_path), download=False)
    write_cifar(tmp_path)
    damaged = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(UsageError, match="cannot be read .*; restore the original files"):
        cifar.load_cifar("cifar10", str(tmp_path), download=False)
    damaged.unlink()
    with pytest.raises(UsageError, match="lacks data_batch_3"):
        cifar.load_cifar("cifar10", str(tmp_path), download=False)


def test_cifar_failed_download_is_one_line(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no route to host\nand more")

    monkeypatch.setitem(
        cifar.DATASETS, "cifar10", (type("CIFAR10", (cifar.CIFAR10,), {"__init__": refuse}), 10)
    )
    with pytest.raises(UsageError, match=r"--download: .*\(no route to host\); check the connection"):
        cifar.load_cifar("cifar10", str(tmp_path), download=True)


@pytest.fixture
def folder(tmp_path):
    return image_folder(tmp_path, train=8, val=3)


def folder_config(make_config, folder, **changes):
    return make_config(**{"data": "imagefolder", "data_dir": str(folder), "image_size": 16, "patch": 4, "batch": 5,
                          "workers": 0, **changes})  # fmt: skip


def test_imagefolder_batches_do_not_depend_on_the_number_of_workers(folder, make_config):
    first, second = (
        list(load_dataset(folder_config(make_config, folder, workers=w)).train_batches(1, seed=2))
        for w in (0, 2)
    )
    assert len(first) == 3
    assert first[0][0].shape == (5, 3, 16, 16)
    for (images, labels), (other_images, other_labels) in zip(first, second, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def test_imagefolder_views_do_not_depend_on_workers_and_show_one_image(folder, make_config):
    recipes = views.AUGMENTATIONS["symmetric"]
    first, second = (
        list(load_dataset(folder_config(make_config, folder, workers=w)).view_batches(1, 2, recipes))
        for w in (0, 2)
    )
    for (pair, labels), (other, other_labels) in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(pair, other, strict=True))
        assert torch.equal(labels, other_labels)
        assert not torch.equal(pair.first, pair.second)
    whole = views.ViewRecipe(crop_min=1.0, flip=False, jitter_p=0, grey_p=0)
    dataset = load_dataset(folder_config(make_config, folder))
    pair, labels = next(dataset.view_batches(0, 0, (whole, whole)))
    assert [dataset.samples["train"][i][1] for i in pair.index] == labels.tolist()
    assert float((pair.first - pair.second).abs().mean()) < 0.7 * float(
        (pair.first - pair.second.roll(1, 0)).abs().mean()
    )


def test_imagefolder_gives_its_first_batch_before_the_epoch_is_planned(folder, make_config, monkeypatch):
    dataset = load_dataset(folder_config(make_config, folder, batch=2))
    made = []
    draw = dataset._numbers
    monkeypatch.setattr(dataset, "_numbers", lambda *a: made.append(1) or draw(*a))
    next(dataset.train_batches(0, 0))
    assert len(made) == 1


def test_imagefolder_keeps_its_workers_from_epoch_to_epoch(folder, make_config):
    dataset = load_dataset(folder_config(make_config, folder, workers=1))
    list(dataset.train_batches(0, 0))
    (worker,) = dataset._loaders["train"][1]._iterator._workers
    list(dataset.train_batches(1, 0))
    assert dataset._loaders["train"][1]._iterator._workers == [worker]
    assert worker.is_alive()


def test_imagefolder_evaluates_every_held_out_image_once(folder, make_config):
    dataset = load_dataset(folder_config(make_config, folder))
    labels = torch.cat([y for _, y in dataset.evaluation_batches("test", 4)])
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    limited = torch.cat([y for _, y in dataset.evaluation_batches("test", 4, 2)])
    assert limited.tolist() == [0, 1]  # spread over the classes


def test_imagefolder_names_a_damaged_file(folder, make_config):
    (folder / "train" / "b" / "5.png").write_bytes(b"not an image")
    with pytest.raises(
        UsageError, match=r"--data-dir: .*5\.png cannot be read as an image .*; repair or remove"
    ):
        list(load_dataset(folder_config(make_config, folder, batch=16)).train_batches(0, seed=0))


def test_imagefolder_without_images_or_with_other_classes_is_refused(folder, tmp_path, make_config):
    (folder / "val" / "c").mkdir()
    (folder / "val" / "c" / "0.png").write_bytes((folder / "val" / "a" / "0.png").read_bytes())
    with pytest.raises(UsageError, match="do not hold the same classes"):
        load_dataset(folder_config(make_config, folder))
    empty = tmp_path / "empty"
    (empty / "train" / "a").mkdir(parents=True)
    (empty / "val").mkdir()
    with pytest.raises(UsageError, match="--data-dir: .*train holds no images"):
        load_dataset(folder_config(make_config, empty))
    with pytest.raises(UsageError, match="--data-dir: there is no folder .*train"):
        load_dataset(folder_config(make_config, tmp_path / "nowhere"))


def test_batch_larger_than_the_data_set_is_refused(make_config):
    with pytest.raises(
        UsageError, match="--batch: 2000 images are more than the 1437 .*; choose at most 1437"
    ):
        load_dataset(make_config(batch=2000))
