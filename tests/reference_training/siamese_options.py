"""Tiny joint-embedding runs and configurations."""

from __future__ import annotations

import torch
from protocol_runs import changed
from trainlib.config import resolve
from trainlib.siamese.config import SiameseRunConfig
from trainlib.views import Views

TINY_SIAMESE = [
    "--width", "4", "--projector-hidden", "16", "--projector-width", "8", "--epochs", "2", "--batch", "256",
    "--threads", "1", "--rank-images", "64", "--knn-images", "200", "--no-tensorboard", "--device", "cpu",
]  # fmt: skip


def siamese_config(method: str = "simclr", **changes) -> SiameseRunConfig:
    """A resolved tiny configuration; keyword arguments replace single options of any section."""
    tiny = {
        "knn_images": 200, "width": 4, "projector_hidden": 16, "projector_width": 8, "epochs": 2, "batch": 64,
        "device": "cpu", "threads": 1, "rank_images": 64, "tensorboard": False,
    }  # fmt: skip
    return resolve(changed(SiameseRunConfig(), method=method, **(tiny | changes)))


def siamese_method(method: str = "simclr", *, seed: int = 0, channels: int = 1, **changes):
    """A method with weights from ``seed``."""
    torch.manual_seed(seed)
    return siamese_config(method, **changes).build(channels, 10)


def random_views(
    batch: int = 24, *, channels: int = 1, side: int = 8, seed: int = 0
) -> tuple[Views, torch.Tensor]:
    """Two noisy views of random images, and labels."""
    source = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, channels, side, side, generator=source)
    first, second = (images + 0.3 * torch.randn(images.shape, generator=source) for _ in range(2))
    return Views(first, second, torch.arange(batch)), torch.arange(batch) % 10
