"""The pictures of a run and of a comparison."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure  # draws with Agg: no display, no global state
from torch import Tensor

from matinfo.plot.theme import LIGHT as COLOURS
from trainlib.files import write_atomic
from trainlib.rng import generator

_PAIR = (COLOURS[2], COLOURS[1])  # of two lines that belong together


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


def legend_below(figure: Figure, panels: Iterable[Any], *, columns: int = 6) -> None:
    """One legend for all panels, each label once, under them."""
    entries: dict[str, Any] = {}
    for axes in panels:
        entries |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        entries.values(), entries.keys(), loc="upper center", bbox_to_anchor=(0.5, 0.01), frameon=False,
        ncol=min(columns, len(entries)),
    )  # fmt: skip


def draw_band(axes, epochs, mean, sd, *, color: str, **line: Any) -> None:
    """A mean over seeds during training, and a band of one standard deviation where there are several."""
    axes.plot(epochs, mean, color=color, **line)
    if sd is not None:
        low, high = np.subtract(mean, sd), np.add(mean, sd)
        axes.fill_between(epochs, low, high, color=color, alpha=0.18, lw=0)


@torch.no_grad()
def draw_reconstructions(method, dataset, seed: int, path: Path, *, note: str = "", count: int = 8) -> None:
    """Held-out images: original, what the encoder sees, and the reconstruction."""
    images, _ = next(dataset.evaluation_batches("test", count, count))
    noise = method.draw(len(images), generator(seed, "evaluation")).to(images.device)
    visible, filled = method.reconstruct(images, noise)
    rows = {"original": images, "visible": visible, "reconstruction": filled}
    draw_mosaic({name: dataset.denormalize(batch) for name, batch in rows.items()}, path, note=note)


@torch.no_grad()
def draw_views(method, dataset, seed: int, path: Path, *, count: int = 8) -> None:
    """Two views of training images, as the method made them in its first step."""
    (first, second, _), _ = next(iter(method.train_batches(dataset, 0, seed)))
    rows = {"first view": first, "second view": second}
    draw_mosaic({name: dataset.denormalize(view[:count]) for name, view in rows.items()}, path)


def draw_mosaic(rows: dict[str, Tensor], path: Path, *, note: str = "") -> None:
    """Rows of images, named at the left."""
    canvas, middles = mosaic(list(rows.values()))
    count = len(next(iter(rows.values())))
    figure = Figure(figsize=(1.25 * count + 1, 1.3 * len(rows) + 0.2))
    axes = figure.subplots()
    axes.imshow(canvas, vmin=0, vmax=1, cmap="gray" if canvas.ndim == 2 else None, interpolation="nearest")
    axes.set_yticks(middles, list(rows), rotation=90, va="center")
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
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


def draw_training(
    records: list[dict[str, Any]], label: str, path: Path, *, losses: dict[str, str], batch: str,
    panels: dict[str, tuple[str, ...]], features: tuple[str, str],
) -> None:  # fmt: skip
    """The losses during training, and a panel for each title with its quantities of both features on held-out images.

    A quantity that the log also has of the training batch is drawn faintly, and called ``batch``.
    """
    train = [r for r in records if r["kind"] == "train"]
    measured = [r for r in records if r["kind"] == "eval"]
    columns = min(3, 1 + len(panels))
    rows = math.ceil((1 + len(panels)) / columns)
    figure = Figure(figsize=(5 * columns, 3.7 * rows))
    first, *others = figure.subplots(rows, columns).flat
    for (name, key), colour in zip(losses.items(), _PAIR, strict=False):
        first.plot([r["epoch"] for r in train], [r[key] for r in train], color=colour, lw=1.2, label=name)
    first.set(ylabel="training loss", title=label)
    for axes, (title, quantities) in zip(others, panels.items(), strict=True):
        axes.set(title=title)
        for quantity, style in zip(quantities, ("-", ":"), strict=False):
            if f"batch_{quantity}" in train[0]:
                values = [r[f"batch_{quantity}"] for r in train]
                faint = {"color": COLOURS[0], "lw": 0.7, "alpha": 0.6}
                axes.plot([r["epoch"] for r in train], values, label=batch, **faint)
            for feature, colour in zip(features, _PAIR, strict=True):
                values = [r[f"{feature}_{quantity}"] for r in measured]
                name = feature if len(quantities) == 1 else f"{feature}, {quantity.replace('_', ' ')}"
                line = {"color": colour, "marker": "o", "ms": 2.5, "label": name}
                axes.plot([r["epoch"] for r in measured], values, style, **line)
    for axes in (first, *others):
        axes.set_xlabel("epoch")
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    figure.tight_layout()
    save(figure, path)


def draw_accuracy(curves: dict[str, list[list[dict[str, Any]]]], label: str, path: Path) -> None:
    """Top-1 accuracy of held-out images over the epochs of a classifier: mean over seeds, band of one sd."""
    figure = Figure(figsize=(6, 3.8))
    axes = figure.subplots()
    for (name, seeds), colour in zip(curves.items(), _PAIR, strict=False):
        measured = [[r for r in records if r["kind"] == "eval"] for records in seeds]
        key = next(k for k in measured[0][-1] if k.endswith("_top1"))
        values = np.array([[r[key] for r in records] for records in measured])
        sd = values.std(0, ddof=1) if len(values) > 1 else None
        line = {"label": f"{name} ({key.removesuffix('_top1')})", "marker": "o", "ms": 2.5}
        draw_band(axes, [r["epoch"] for r in measured[0]], values.mean(0), sd, color=colour, **line)
    axes.set(xlabel="epoch", ylabel="top-1 accuracy (held-out images) %", title=label)
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    save(figure, path)
