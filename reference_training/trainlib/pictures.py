"""The pictures of a run and of a comparison."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from trainlib.files import write_atomic
from trainlib.rng import generator

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#4c566a", "#2a78b5", "#d1495b", "#3a9d6e", "#b07aa1", "#e0902f", "#17a2b8", "#8c564b")


def _save(figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    plt.close(figure)
    write_atomic(path, buffer.getvalue())


def _tidy(axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(alpha=0.25)


@torch.no_grad()
def draw_reconstructions(method, dataset, seed: int, path: Path, count: int = 8) -> None:
    """Held-out images: original, what the encoder sees, and the reconstruction."""
    images, _ = next(dataset.evaluation_batches("test", count, count))
    noise = method.draw(len(images), generator(seed, "evaluation")).to(images.device)
    visible, filled = method.reconstruct(images, noise)
    hidden = visible.new_zeros(()).expand_as(visible)
    rows = [
        dataset.denormalize(images),
        dataset.denormalize(torch.where(visible == 0, hidden, visible)),
        dataset.denormalize(filled),
    ]
    figure, axes = plt.subplots(3, len(images), figsize=(1.25 * len(images) + 1, 4.1), squeeze=False)
    for line, (batch, title) in enumerate(zip(rows, ("original", "visible", "reconstruction"), strict=True)):
        for column, image in enumerate(batch.cpu().float().permute(0, 2, 3, 1).numpy()):
            cell = axes[line, column]
            grey = image.shape[-1] == 1
            cell.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=1)
            cell.set_xticks([])
            cell.set_yticks([])
        axes[line, 0].set_ylabel(title)
    figure.subplots_adjust(wspace=0.06, hspace=0.06)
    _save(figure, path)


def draw_training(records: list[dict[str, Any]], label: str, path: Path) -> None:
    """Loss (left) and effective rank (right) during training."""
    train = [r for r in records if r["kind"] == "train"]
    measured = [r for r in records if r["kind"] == "eval"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    epochs = [r["epoch"] for r in train]
    left.plot(epochs, [r["loss"] for r in train], color=COLOURS[2], lw=1.2, label="total")
    left.plot(epochs, [r["reconstruction"] for r in train], color=COLOURS[1], lw=1.2, label="reconstruction")
    left.set(xlabel="epoch", ylabel="training loss", title=label)
    right.plot(epochs, [r["batch_effective_rank"] for r in train], color=COLOURS[0], lw=0.7, alpha=0.6,
               label="CLS, masked training batch")  # fmt: skip
    epochs = [r["epoch"] for r in measured]
    for key, name, colour in (("cls", "CLS", COLOURS[2]), ("pooled", "pooled", COLOURS[1])):
        values = [r[f"{key}_effective_rank"] for r in measured]
        right.plot(epochs, values, color=colour, marker="o", ms=2.5, label=f"{name}, held-out images")
    right.set(xlabel="epoch", ylabel="effective rank", title="effective rank")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        _tidy(axes)
    _save(figure, path)


def draw_comparison(curves: dict[str, list[list[dict[str, Any]]]], path: Path) -> None:
    """Effective rank of held-out images during pre-training, per method: mean over seeds, band of one sd."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4))
    for axes, key, title in (
        (panels[0], "cls", "CLS feature"),
        (panels[1], "pooled", "mean of the patch tokens"),
    ):
        for (label, seeds), colour in zip(curves.items(), COLOURS * 4, strict=False):
            measured = [[r for r in records if r["kind"] == "eval"] for records in seeds]
            length = min(len(m) for m in measured)
            epochs = [r["epoch"] for r in measured[0][:length]]
            values = np.array([[r[f"{key}_effective_rank"] for r in m[:length]] for m in measured])
            mean = values.mean(0)
            axes.plot(epochs, mean, color=colour, label=label, marker="o", ms=2.5)
            if len(values) > 1:
                sd = values.std(0, ddof=1)
                axes.fill_between(epochs, mean - sd, mean + sd, color=colour, alpha=0.18, lw=0)
        axes.set(xlabel="epoch of pre-training", ylabel="effective rank (held-out images)", title=title)
        axes.legend(frameon=False)
        _tidy(axes)
    _save(figure, path)
