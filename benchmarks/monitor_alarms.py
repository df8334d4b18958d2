"""Which runs the default monitor warns of: ``python -m benchmarks.monitor_alarms``.

Short real trainings on the handwritten digits of scikit-learn (1,797 images of 8 x 8), some of which collapse by
construction: a part that keeps features apart is taken out of the method. Each is watched by a ``Monitor`` with its
defaults on all layers; what it warned of is compared with whether features were lost, which kNN of the
features shows. A false alarm is a healthy run with a warning, a miss a collapsed one without.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from matinfo import losses
from matinfo.monitor import Monitor

BATCH, STEPS, EVERY = 128, 400, 20


def digits() -> tuple[Tensor, Tensor]:
    """Images ``(1797, 1, 8, 8)``, standardised, and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 16
    return (images - images.mean()) / images.std(), torch.from_numpy(data.target)


def view(images: Tensor) -> Tensor:
    """Shifted by up to a pixel, scaled and noisy."""
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    row, column = torch.randint(0, 3, (2,)).tolist()
    shifted = padded[:, :, row : row + 8, column : column + 8]
    scale = 1 + 0.4 * (torch.rand(len(images), 1, 1, 1) - 0.5)
    return scale * shifted + 0.4 * torch.randn_like(shifted)


class Network(nn.Module):
    """A small convolutional encoder (64 features), a projector and a predictor."""

    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()

        def block(a: int, b: int, stride: int) -> nn.Sequential:
            conv = nn.Conv2d(a, b, 3, stride, 1)
            return nn.Sequential(conv, nn.BatchNorm2d(b) if norm else nn.Identity(), nn.ReLU())

        self.blocks = nn.ModuleList([block(1, 16, 2), block(16, 32, 1), block(32, 64, 2)])
        hidden = nn.BatchNorm1d(128) if norm else nn.Identity()
        self.projector = nn.Sequential(nn.Linear(64, 128), hidden, nn.ReLU(), nn.Linear(128, 64))
        self.predictor = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 64))
        self.head = nn.Linear(64, 10)
        self.decoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))

    def encode(self, x: Tensor) -> Tensor:
        """Features ``(n, 64)``."""
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))


Loss = Callable[[Network, Network, Tensor, Tensor], Tensor]


def _joint(loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    def call(net: Network, target: Network, x: Tensor, y: Tensor) -> Tensor:
        return loss(*(net.projector(net.encode(view(x))) for _ in range(2)))

    return call


def _siamese(*, stop: bool = True, predict: bool = True, ema: bool = False) -> Loss:
    def call(net: Network, target: Network, x: Tensor, y: Tensor) -> Tensor:
        x1, x2 = view(x), view(x)
        z1, z2 = (net.projector(net.encode(v)) for v in (x1, x2))
        p1, p2 = (net.predictor(z1), net.predictor(z2)) if predict else (z1, z2)
        t1, t2 = (target.projector(target.encode(v)) for v in (x1, x2)) if ema else (z1, z2)
        if stop:
            t1, t2 = t1.detach(), t2.detach()
        return -(nn.functional.cosine_similarity(p1, t2) + nn.functional.cosine_similarity(p2, t1)).mean()

    return call


def _masked(*, latent: bool = False) -> Loss:
    """Pixels, or latent features of the other view, from three quarters of the pixels hidden."""

    def call(net: Network, target: Network, x: Tensor, y: Tensor) -> Tensor:
        hidden = torch.rand(len(x), 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3) < 0.5
        features = net.encode(x.masked_fill(hidden, 0.0))
        if latent:
            return (net.decoder(features) - net.encode(x)).square().mean()
        pixels = net.decoder(features).view(-1, 1, 8, 8)
        return ((pixels - x).square() * hidden).sum() / hidden.sum()

    return call


def _labels(net: Network, target: Network, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(net.head(net.encode(view(x))), y)


RUNS: dict[str, tuple[Loss, dict[str, Any], bool]] = {
    "SimCLR": (_joint(losses.ntxent_loss), {}, False),
    "VICReg": (_joint(losses.vicreg_loss), {}, False),
    "Barlow Twins": (_joint(losses.barlow_twins_loss), {}, False),
    "SimSiam": (_siamese(), {}, False),
    "BYOL": (_siamese(ema=True), {}, False),
    "masked autoencoder": (_masked(), {}, False),
    "masked autoencoder without normalisation layers": (_masked(), {"norm": False}, False),
    "classifier": (_labels, {}, False),
    "classifier without normalisation layers": (_labels, {"norm": False}, False),
    "SimSiam without stop-gradient and predictor": (_siamese(stop=False, predict=False), {}, True),
    "SimSiam without stop-gradient, predictor and normalisation": (
        _siamese(stop=False, predict=False), {"norm": False}, True,
    ),
    "BYOL without predictor and moving average": (_siamese(predict=False, stop=False), {"seed": 1}, True),
    "VICReg without variance": (
        _joint(lambda a, b: losses.vicreg_loss(a, b, variance=0.0)), {"norm": False}, True,
    ),
    "VICReg without variance and covariance": (
        _joint(lambda a, b: losses.vicreg_loss(a, b, variance=0.0, covariance=0.0)), {}, True,
    ),
    "latent prediction without a target network": (_masked(latent=True), {}, True),
    "classifier with a weight decay of 3": (_labels, {"norm": False, "weight_decay": 3.0}, True),
}  # fmt: skip
"""Name -> loss, options, whether it collapses by construction."""


def train(name: str, *, steps: int = STEPS, every: int = EVERY, **options: Any) -> dict[str, Any]:
    """One run under a monitor."""
    loss, settings, collapses = RUNS[name]
    torch.manual_seed(settings.get("seed", 0))
    images, labels = digits()
    net = Network(norm=settings.get("norm", True))
    target = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=settings.get("weight_decay", 1e-2))
    watched = ["blocks.*", "projector" if loss in () else "blocks.2"]
    with (
        warnings.catch_warnings(record=True) as said,
        Monitor(net, watched, every=every, **options) as monitor,
    ):
        warnings.simplefilter("always")
        for _ in range(steps):
            index = torch.randint(0, len(images), (BATCH,))
            optimizer.zero_grad()
            loss(net, target, images[index], labels[index]).backward()
            optimizer.step()
            for slow, fast in zip(target.parameters(), net.parameters(), strict=True):
                slow.data.lerp_(fast.data, 0.05)
            monitor.step()
    return {"collapses": collapses, "history": monitor.history}
