"""Which runs the default monitor warns of: ``python -m benchmarks.monitor_alarms [--steps N] [--out FILE]``.

Short trainings on the handwritten digits of scikit-learn (1,797 images of 8 x 8), some of which have nothing that keeps
features apart: a part is taken out of the method. A ``Monitor`` with its defaults watches the blocks of the encoder
and the projector. A false alarm is a warning in a whole method, a miss a method without that part and without one.
"""

from __future__ import annotations

import copy
import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cli import read, say, write
from benchmarks.machine import environment
from matinfo import losses
from matinfo.monitor import CollapseWarning, Monitor

BATCH, STEPS, EVERY = 128, 800, 50


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


def _vicreg(covariance: float) -> Callable[[Tensor, Tensor], Tensor]:
    return functools.partial(losses.vicreg_loss, variance=1e-9, covariance=covariance)


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
    "masked autoencoder, no normalisation layers": (_masked(), {"norm": False}, False),
    "classifier": (_labels, {}, False),
    "classifier, no normalisation layers": (_labels, {"norm": False}, False),
    "SimSiam without stop-gradient and predictor": (_siamese(stop=False, predict=False), {}, True),
    "the same, no normalisation layers": (_siamese(stop=False, predict=False), {"norm": False}, True),
    "BYOL without predictor": (_siamese(predict=False, ema=True), {}, True),
    "VICReg without variance": (_joint(_vicreg(1.0)), {"norm": False}, True),
    "VICReg without variance and covariance": (_joint(_vicreg(1e-9)), {}, True),
    "masked latent prediction without a target": (_masked(latent=True), {"norm": False}, True),
}
"""Name -> loss, options, whether the method has nothing that keeps features apart."""


def train(name: str, *, steps: int = STEPS, every: int = EVERY, seed: int = 0) -> dict[str, Any]:
    """One run under a monitor with its defaults, on the encoder's blocks and on what the loss sees of them."""
    loss, settings, collapses = RUNS[name]
    torch.manual_seed(seed)
    images, labels = digits()
    net = Network(norm=settings.get("norm", True))
    target = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2)
    layers = ["blocks.*", *(["projector"] if "autoencoder" not in name and loss is not _labels else [])]
    layers = layers if "latent" not in name else ["blocks.*"]
    with Monitor(net, layers, every=every) as monitor, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(steps):
            index = torch.randint(0, len(images), (BATCH,))
            optimizer.zero_grad()
            loss(net, target, images[index], labels[index]).backward()
            optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(target.parameters(), net.parameters(), strict=True):
                    slow.lerp_(fast, 0.05)
            monitor.step()
    warned = [w.message for w in said if isinstance(w.message, CollapseWarning)]
    last = {record["layer"]: record for record in monitor.history[-len(monitor.layers) :]}
    return {
        "run": name,
        "collapses": collapses,
        "warned": [{"layer": w.layer, "step": w.step, "reason": w.reason} for w in warned],
        "ranks": {
            layer: [record["effective_rank"], record["effective_rank_centered"], record["width"]]
            for layer, record in last.items()
        },
        "nearest_neighbour": _nearest(net, images, labels),
    }


@torch.no_grad()
def _nearest(net: Network, images: Tensor, labels: Tensor) -> float:
    """Share of images whose nearest neighbour in the encoder's features has their label."""
    net.eval()
    Z = nn.functional.normalize(net.encode(images), dim=1)
    similarity = (Z @ Z.mT).fill_diagonal_(-2)
    return float((labels[similarity.argmax(1)] == labels).float().mean())


def main(arguments: list[str]) -> int:
    """Train all runs, print a line for each, and write the JSON file."""
    options = read(
        arguments,
        "benchmarks.monitor_alarms",
        (__doc__ or "").split(":")[0],
        steps=(STEPS, "of each run"),
        seed=(0, "of weights, views and batches"),
        out=(None, "the JSON file", {"type": Path}),
    )
    torch.set_num_threads(1)
    runs = []
    for name in RUNS:
        runs.append(train(name, steps=options.steps, seed=options.seed))
        say(row(runs[-1]))
    record = {
        "command": f"python -m benchmarks.monitor_alarms --seed {options.seed}",
        "environment": environment("cpu"),
        "settings": {"steps": options.steps, "seed": options.seed, "batch": BATCH, "every": EVERY},
        "runs": runs,
        "false_alarms": sum(bool(run["warned"]) for run in runs if not run["collapses"]),
        "misses": sum(not run["warned"] for run in runs if run["collapses"]),
    }
    say(f"{record['false_alarms']} false alarms, {record['misses']} misses of {len(runs)} runs")
    if options.out is not None:
        write(options.out, record)
    return 0


def row(run: dict[str, Any]) -> str:
    """A line of the table in the documentation."""
    layer = run["warned"][0]["layer"] if run["warned"] else list(run["ranks"])[-1]
    plain, centred, width = run["ranks"][layer]
    said = f"`{layer}`, step {run['warned'][0]['step']}" if run["warned"] else "no"
    return (
        f"| {run['run']} | {'yes' if run['collapses'] else 'no'} | {said} | {plain:.2f} and {centred:.1f} of {width} "
        f"(`{layer}`) | {run['nearest_neighbour']:.2f} |"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
