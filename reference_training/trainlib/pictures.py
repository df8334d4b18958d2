"""The pictures of a run and of a comparison."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure  # draws with Agg: no display, no global state
from torch import Tensor

from matinfo.plot.theme import LIGHT as COLOURS
from matinfo.plot.theme import spread
from trainlib.files import write_atomic
from trainlib.rng import generator


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    write_atomic(path, buffer.getvalue())


def tidy(axes) -> None:
    """No box, a light grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(alpha=0.25)


@torch.no_grad()
def draw_reconstructions(method, dataset, seed: int, path: Path, *, note: str = "", count: int = 8) -> None:
    """Held-out images: original, what the encoder sees, and the reconstruction."""
    images, _ = next(dataset.evaluation_batches("test", count, count))
    noise = method.draw(len(images), generator(seed, "evaluation")).to(images.device)
    visible, filled = method.reconstruct(images, noise)
    rows = [dataset.denormalize(batch) for batch in (images, visible, filled)]
    figure = Figure(figsize=(1.25 * len(images) + 1, 4.1))
    axes = figure.subplots()
    canvas, middles = mosaic(rows)
    axes.imshow(canvas, vmin=0, vmax=1, cmap="gray" if canvas.ndim == 2 else None, interpolation="nearest")
    axes.set_yticks(middles, ("original", "visible", "reconstruction"), rotation=90, va="center")
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if note:
        axes.set_xlabel(note, fontsize=8)
    save(figure, path)


def mosaic(rows: list[Tensor]) -> tuple[np.ndarray, list[float]]:
    """Rows of images on one white canvas, and the height of the middle of each row."""
    count, channels, side, _ = rows[0].shape
    gap = max(1, side // 16)
    step = side + gap
    canvas = np.ones((len(rows) * step - gap, count * step - gap, channels), dtype=np.float32)
    for line, batch in enumerate(rows):
        for column, image in enumerate(batch.cpu().float().permute(0, 2, 3, 1).numpy()):
            top, left = line * step, column * step
            canvas[top : top + side, left : left + side] = image
    return canvas[..., 0] if channels == 1 else canvas, [i * step + side / 2 - 0.5 for i in range(len(rows))]


def draw_training(records: list[dict[str, Any]], label: str, path: Path) -> None:
    """Loss (left) and effective rank (right) during training."""
    train = [r for r in records if r["kind"] == "train"]
    measured = [r for r in records if r["kind"] == "eval"]
    figure = Figure(figsize=(10, 3.8))
    left, right = figure.subplots(1, 2)
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
        tidy(axes)
    save(figure, path)


def draw_curve(axes, seeds: list[list[dict[str, Any]]], key: str, label: str, colour: str) -> None:
    """One measured quantity during training: mean over seeds, band of one sd."""
    measured = [[r for r in records if r["kind"] == "eval"] for records in seeds]
    length = min(len(m) for m in measured)
    epochs = [r["epoch"] for r in measured[0][:length]]
    values = np.array([[r[key] for r in m[:length]] for m in measured])
    mean = values.mean(0)
    axes.plot(epochs, mean, color=colour, label=label, marker="o", ms=2.5)
    if len(values) > 1:
        sd = values.std(0, ddof=1)
        axes.fill_between(epochs, mean - sd, mean + sd, color=colour, alpha=0.18, lw=0)


def draw_comparison(
    curves: dict[str, list[list[dict[str, Any]]]], features: dict[str, str], path: Path
) -> None:
    """Effective rank of held-out images during pre-training, per method: mean over seeds, band of one sd.

    One axis for all features: 1.0 and 1.3 are alike, and would not look so on an axis of their own.
    """
    figure = Figure(figsize=(10, 4))
    panels = np.atleast_1d(figure.subplots(1, len(features), sharey=True))
    for axes, (key, title) in zip(panels, features.items(), strict=True):
        for (label, seeds), colour in zip(curves.items(), COLOURS * 4, strict=False):
            draw_curve(axes, seeds, f"{key}_effective_rank", label, colour)
        axes.set(xlabel="epoch of pre-training", title=title)
        tidy(axes)
    panels[0].set(ylabel="effective rank (held-out images)")
    spread(*panels)
    lines, labels = panels[0].get_legend_handles_labels()
    ends = [f"{line.get_label()}: {line.get_ydata()[-1]:.1f}" for line in panels[0].get_lines()]
    figure.suptitle(f"effective rank of the {panels[0].get_title()} at the end — {', '.join(ends)}", y=1.0)
    figure.legend(lines, labels, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncol=6, frameon=False)
    save(figure, path)


def draw_accuracy(curves: dict[str, list[list[dict[str, Any]]]], label: str, path: Path) -> None:
    """Top-1 accuracy of held-out images over the epochs of a classifier: mean over seeds, band of one sd."""
    figure = Figure(figsize=(6, 3.8))
    axes = figure.subplots()
    for (name, seeds), colour in zip(curves.items(), (COLOURS[2], COLOURS[1]), strict=False):
        key = next(k for k in seeds[0][-1] if k.endswith("_top1"))
        draw_curve(axes, seeds, key, f"{name} ({key.removesuffix('_top1')})", colour)
    axes.set(xlabel="epoch", ylabel="top-1 accuracy (held-out images) %", title=label)
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    save(figure, path)
