"""The pictures of joint-embedding runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from trainlib.pictures import COLOURS, draw_curve, mosaic, save, tidy

FEATURES = (("backbone", COLOURS[1]), ("projector", COLOURS[2]))


@torch.no_grad()
def draw_views(method, dataset, seed: int, path: Path, *, count: int = 8) -> None:
    """Two views of training images, as the method made them in its first step."""
    (first, second, _), _ = next(iter(method.train_batches(dataset, 0, seed)))
    rows = [dataset.denormalize(view[:count]) for view in (first, second)]
    canvas, middles = mosaic(rows)
    figure = Figure(figsize=(1.25 * len(rows[0]) + 1, 2.8))
    axes = figure.subplots()
    axes.imshow(canvas, vmin=0, vmax=1, cmap="gray" if canvas.ndim == 2 else None, interpolation="nearest")
    axes.set_yticks(middles, ("first view", "second view"), rotation=90, va="center")
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    save(figure, path)


def draw_training(records: list[dict[str, Any]], label: str, path: Path) -> None:
    """Loss, kNN accuracy, mutual information, joint entropy and divergences during training."""
    train = [r for r in records if r["kind"] == "train"]
    measured = [r for r in records if r["kind"] == "eval"]
    epochs = [r["epoch"] for r in measured]
    figure = Figure(figsize=(15, 7.2))
    panels = figure.subplots(2, 3).flat
    panels[0].plot([r["epoch"] for r in train], [r["loss"] for r in train], color=COLOURS[2], lw=1.2)
    panels[0].set(ylabel="training loss", title=label)
    for axes, key, title in (
        (panels[1], "mutual_information", "mutual information of the branches (nats)"),
        (panels[2], "joint_entropy", "joint entropy of the branches (nats)"),
        (panels[3], "knn_accuracy", "kNN accuracy, held-out images (%)"),
        (panels[4], "effective_rank", "effective rank, held-out images"),
    ):
        if f"batch_{key}" in train[0]:
            values = [r[f"batch_{key}"] for r in train]
            axes.plot([r["epoch"] for r in train], values, color=COLOURS[0], lw=0.7, alpha=0.6,
                      label="projector, training batch")  # fmt: skip
        for feature, colour in FEATURES:
            values = [r[f"{feature}_{key}"] for r in measured]
            axes.plot(epochs, values, color=colour, marker="o", ms=2.5, label=feature)
        axes.set(title=title)
    for feature, colour in FEATURES:
        for key, style in (("matrix_js", "-"), ("spectrum_js", ":")):
            values = [r[f"{feature}_{key}"] for r in measured]
            name = f"{feature}, {'matrices' if key == 'matrix_js' else 'spectra'}"
            panels[5].plot(epochs, values, style, color=colour, marker="o", ms=2.5, label=name)
    panels[5].set(title="Jensen-Shannon divergence of the branches (nats)")
    for axes in panels:
        axes.set_xlabel("epoch")
        tidy(axes)
    for axes in panels[1:]:
        axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    save(figure, path)


def draw_information(curves: dict[str, list[list[dict[str, Any]]]], path: Path) -> None:
    """Mutual information, joint entropy and divergences by method: mean over seeds, band of one sd."""
    figure = Figure(figsize=(15, 7.2))
    panels = figure.subplots(2, 3)
    for row, feature in zip(panels, ("projector", "backbone"), strict=True):
        for axes, key, title in zip(
            row,
            ("mutual_information", "joint_entropy", "matrix_js"),
            ("mutual information", "joint entropy", "matrix Jensen-Shannon divergence"),
            strict=True,
        ):
            for (label, seeds), colour in zip(curves.items(), COLOURS * 4, strict=False):
                draw_curve(axes, seeds, f"{feature}_{key}", label, colour)
            axes.set(xlabel="epoch", ylabel="nats", title=f"{title}, {feature}")
            tidy(axes)
    figure.tight_layout()
    lines, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="upper center", bbox_to_anchor=(0.5, 0.01), ncol=6, frameon=False)
    save(figure, path)
