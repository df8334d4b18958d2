"""Tiny joint-embedding runs and configurations."""

from __future__ import annotations

import dataclasses

import torch
from trainlib.config import DataConfig, RunConfig, resolve
from trainlib.siamese.config import SiameseConfig, SiameseModelConfig, SiameseOptimConfig, SiameseRunConfig
from trainlib.views import Views

TINY_SIAMESE = [
    "--width", "4", "--projector-hidden", "16", "--projector-width", "8", "--epochs", "2", "--batch", "256",
    "--threads", "1", "--rank-images", "64", "--knn-images", "200", "--no-tensorboard", "--device", "cpu",
]  # fmt: skip


def siamese_config(method: str = "simclr", **changes) -> SiameseRunConfig:
    """A resolved tiny configuration; keyword arguments replace single options of any section."""
    config = SiameseRunConfig(
        method=SiameseConfig(method=method, knn_images=200),
        data=DataConfig(),
        model=SiameseModelConfig(width=4, projector_hidden=16, projector_width=8),
        optim=SiameseOptimConfig(epochs=2, batch=64),
        run=RunConfig(device="cpu", threads=1, rank_images=64, tensorboard=False),
    )
    for name in ("method", "data", "model", "optim", "run"):
        section = getattr(config, name)
        values = {
            f.name: changes.pop(f.name)
            for f in dataclasses.fields(section)
            if f.name in changes and f.name != "method"
        }
        config = dataclasses.replace(config, **{name: dataclasses.replace(section, **values)})
    assert not changes, f"unknown options {sorted(changes)}"
    return resolve(config)


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
