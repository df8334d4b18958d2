"""The figures of *Information Flow in Self-Supervised Learning* (Tan et al. 2024), from the logs of runs.

First the numbers of a figure are collected, then they are drawn, and saved beside the picture as JSON.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from matinfo.plot.theme import MARKERS
from trainlib import study
from trainlib.environment import environments
from trainlib.errors import UsageError
from trainlib.files import CONFIG, expand, write_json
from trainlib.logs import read_metrics
from trainlib.method import DEFAULT
from trainlib.pictures import COLOURS, save, tidy
from trainlib.run import read_pretraining_config
from trainlib.siamese.config import SiameseRunConfig

OPTION = "FOLDER"
LINEAR_BELOW = 1e-3  # nats
NOT_SIAMESE = "runs of pretrain_siamese.py (SimCLR, Barlow Twins, BYOL)"
NOT_MASKED = "runs of pretrain_mmae.py (MAE, U-MAE, M-MAE)"
NOT_SWEPT = (
    "runs of pretrain_siamese.py --method simclr with at least two values of --temperature (0.3, 0.5, 0.7)"
)


class Run(NamedTuple):
    """One run, finished or not, and the measurements on held-out images in its log."""

    label: str
    folder: Path
    config: Any
    measured: list[dict[str, Any]]

    @property
    def siamese(self) -> bool:
        """Whether the run has two branches."""
        return isinstance(self.config, SiameseRunConfig)


class Panel(NamedTuple):
    """One quantity of one feature: ``key`` in the log, labels, and whether ``log n`` bounds it from above."""

    feature: str
    quantity: str
    axis: str
    title: str
    bounded: bool = False
    near_zero: bool = False  # so small that only a logarithmic axis shows it

    @property
    def key(self) -> str:
        """The name of the quantity in the log."""
        return f"{self.feature}_{self.quantity}"


class PaperFigure(NamedTuple):
    """What one figure shows, row by row, of which runs, and what is missing where there are none."""

    title: str
    rows: tuple[tuple[Panel, ...], ...]
    choose: Callable[[list[Run]], list[Run]]
    missing: str


def _information(feature: str) -> Panel:
    return Panel(feature, "mutual_information", "I₁(K₁; K₂) (nats)", f"mutual information, {feature}", True)


def _joint(feature: str) -> Panel:
    return Panel(feature, "joint_entropy", "H₁(K₁, K₂) (nats)", f"joint entropy, {feature}", True)


def _divergences(feature: str) -> tuple[Panel, ...]:
    return (
        Panel(
            feature, "matrix_js", "JS of the matrices (nats)", f"matrix divergence, {feature}", near_zero=True
        ),
        Panel(
            feature,
            "spectrum_js",
            "JS of the spectra (nats)",
            f"eigenspace divergence, {feature}",
            near_zero=True,
        ),
    )


def _swept(runs: list[Run]) -> list[Run]:
    """SimCLR at several temperatures; none where there is one only."""
    chosen = [r for r in runs if r.siamese and r.config.method.method == "simclr"]
    return chosen if len({r.config.method.temperature for r in chosen}) > 1 else []


def _siamese(runs: list[Run]) -> list[Run]:
    return [r for r in runs if r.siamese]


def _masked(runs: list[Run]) -> list[Run]:
    return [r for r in runs if not r.siamese]


FEATURES = ("projector", "backbone")
FIGURES = {
    1: PaperFigure(
        "matrix mutual information of the branches",
        (tuple(_information(f) for f in FEATURES),), _siamese, NOT_SIAMESE,
    ),
    2: PaperFigure(
        "matrix joint entropy of the branches", (tuple(_joint(f) for f in FEATURES),), _siamese, NOT_SIAMESE
    ),
    3: PaperFigure(
        "SimCLR at several temperatures",
        tuple(
            (_information(f), _joint(f), Panel(f, "knn_accuracy", "kNN accuracy (%)", f"nearest neighbours, {f}"))
            for f in FEATURES
        ), _swept, NOT_SWEPT,
    ),
    4: PaperFigure(
        "effective rank during masked pre-training",
        ((Panel("cls", "effective_rank", "effective rank", "CLS feature"),
          Panel("pooled", "effective_rank", "effective rank", "mean of the patch tokens")),), _masked, NOT_MASKED,
    ),
    5: PaperFigure(
        "Jensen-Shannon divergences of the branches",
        tuple(_divergences(f) for f in FEATURES), _siamese, NOT_SIAMESE,
    ),
    6: PaperFigure(  # of Rodríguez-Gálvez et al. (2023), not of Tan et al.
        "entropy, reconstruction and their bound on the information of the projections",
        ((Panel("projector", "sphere_bound", "entropy minus reconstruction (nats)", "ER bound"),
          Panel("projector", "sphere_entropy", "entropy on the sphere (nats)", "entropy"),
          Panel("projector", "sphere_reconstruction", "reconstruction (nats)", "reconstruction")),),
        _siamese, NOT_SIAMESE,
    ),
}  # fmt: skip


def read_run(folder: Path, label: str | None = None) -> Run:
    """The run in ``folder``, called ``label`` or by its method and settings.

    Raises:
        UsageError: There is no run of this program, or its configuration is damaged.
    """
    config = read_pretraining_config(folder, OPTION)
    measured = [r for r in read_metrics(folder) if r["kind"] == "eval"]
    for record in measured:
        for feature in FEATURES:
            if f"{feature}_sphere_entropy" in record:
                record[f"{feature}_sphere_bound"] = (
                    record[f"{feature}_sphere_entropy"] - record[f"{feature}_sphere_reconstruction"]
                )
    return Run(label or config.label(), folder, config, measured)


def read_runs(folders: list[Path]) -> list[Run]:
    """All runs in ``folders``; a comparison stands for its runs, of which some may not have begun."""
    found = []
    for folder in folders:
        begun = [d for d in expand([folder]) if d == folder or (d / CONFIG).is_file()]
        found += [read_run(d) for d in begun]
    return found


def numbers(number: int, runs: list[Run]) -> dict[str, Any] | None:
    """What a figure plots, ready for JSON, or ``None`` where no run has measured it.

    A curve has the mean over seeds and the sample standard deviation (``None`` with one seed) at each epoch at which
    all its seeds were measured, and the values themselves, a row for each seed.
    """
    figure = FIGURES[number]
    chosen = figure.choose(runs)
    panels = [panel for row in figure.rows for panel in row]
    chosen = [r for r in chosen if any(p.key in record for record in r.measured for p in panels)]
    if not chosen or not figure.choose(chosen):
        return None
    _check_comparable(chosen)
    groups: dict[str, list[Run]] = {}
    for run in chosen:
        groups.setdefault(run.label, []).append(run)
    drawn = []
    for row, line in enumerate(figure.rows):
        for column, panel in enumerate(line):
            curves = [_curve(label, group, panel.key) for label, group in groups.items()]
            widths = sorted({_width(r, panel.feature) for r in chosen}) if panel.bounded else []
            drawn.append({
                "row": row, "column": column, "title": panel.title, "axis": panel.axis,
                "feature": panel.feature, "quantity": panel.quantity,
                "logarithmic": panel.near_zero,
                "limits": [{"n": n, "log_n": math.log(n)} for n in widths],
                "curves": [c for c in curves if c["epochs"]],
            })  # fmt: skip
    return {
        "figure": number,
        "title": f"{figure.title}, {chosen[0].config.data.data}",
        "data": chosen[0].config.data.data,
        "runs": [str(r.folder) for r in chosen],
        "panels": drawn,
    }


def _check_comparable(runs: list[Run]) -> None:
    """Refuse a figure of several data sets, and curves that would average what is unlike."""
    for run in runs:
        if run.config.data.data != runs[0].config.data.data:
            raise UsageError(
                OPTION, f"{run.folder} was trained on {run.config.data.data}, {runs[0].folder} on "
                f"{runs[0].config.data.data}", "name runs of one data set",
            )  # fmt: skip
    study.check_comparable(OPTION, [(run.label, run.folder, run.config, None) for run in runs])


def _curve(label: str, runs: list[Run], key: str) -> dict[str, Any]:
    """One quantity during training of the runs of one label, at the epochs that all of them have measured."""
    series = [{record["epoch"]: record[key] for record in r.measured if key in record} for r in runs]
    epochs = sorted(set.intersection(*(set(values) for values in series)))
    rows = [[values[epoch] for epoch in epochs] for values in series]
    columns = list(zip(*rows, strict=True))
    feature, quantity = key.split("_", 1)
    initial = [r.measured[0].get(f"{feature}_{DEFAULT}_{quantity}") for r in runs]
    return {
        "label": label,
        "seeds": [r.config.run.seed for r in runs],
        "epochs": epochs,
        "mean": [statistics.fmean(values) for values in columns],
        "sd": [statistics.stdev(values) for values in columns] if len(rows) > 1 else None,
        "values": rows,
        "untrained_default_norms": None if None in initial else statistics.fmean(initial),
    }


def _width(run: Run, feature: str) -> int:
    """The width of a feature, which is the size of its correlation matrix."""
    model = run.config.model
    if feature == "projector":
        return model.projector_width
    return 8 * model.width if model.backbone == "convnet" else 512


def draw(content: dict[str, Any], path: Path) -> None:
    """The picture of a figure's numbers: mean over seeds, band of one standard deviation, dashes at ``log n``.

    A dotted line starts where the untrained network would be with batch norms as they are initialised.
    """
    rows, columns = (1 + max(panel[name] for panel in content["panels"]) for name in ("row", "column"))
    figure = Figure(figsize=(4.9 * columns, 3.7 * rows + 0.4))
    grid = figure.subplots(rows, columns, squeeze=False)
    labels = list(dict.fromkeys(curve["label"] for panel in content["panels"] for curve in panel["curves"]))
    for panel in content["panels"]:
        axes = grid[panel["row"]][panel["column"]]
        for curve in panel["curves"]:
            _draw_curve(axes, curve, labels.index(curve["label"]))
        for limit in panel["limits"]:
            axes.axhline(limit["log_n"], color="0.35", lw=1, ls=(0, (5, 3)))
            axes.annotate(
                f"log {limit['n']}", (1, limit["log_n"]), xycoords=("axes fraction", "data"), fontsize=8,
                color="0.25", ha="right", va="bottom", xytext=(0, 1), textcoords="offset points",
            )  # fmt: skip
        axes.set(xlabel="epoch", ylabel=panel["axis"], title=panel["title"])
        if panel["logarithmic"]:  # linear below the threshold: a divergence may be 0, and -1e-8 by rounding
            axes.set_yscale("symlog", linthresh=LINEAR_BELOW)
            axes.set_ylim(bottom=0)
        tidy(axes)
    figure.suptitle(content["title"])
    figure.tight_layout()
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        [handles[label] for label in labels], labels, loc="upper center", bbox_to_anchor=(0.5, 0.01),
        ncol=min(4, len(labels)), frameon=False,
    )  # fmt: skip
    save(figure, path)


def _draw_curve(axes, curve: dict[str, Any], index: int) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
    every = max(1, len(curve["epochs"]) // 12)
    axes.plot(
        curve["epochs"], curve["mean"], color=colour, label=curve["label"], lw=1.6, marker=marker, ms=4,
        markevery=(index % every, every),
    )  # fmt: skip
    if curve["untrained_default_norms"] is not None and len(curve["epochs"]) > 1:
        axes.plot(
            curve["epochs"][:2], [curve["untrained_default_norms"], curve["mean"][1]], color=colour, lw=1, ls=":",
            marker=marker, ms=5, mfc="none", markevery=[0],
        )  # fmt: skip
    if curve["sd"] is not None:
        low = [mean - sd for mean, sd in zip(curve["mean"], curve["sd"], strict=True)]
        high = [mean + sd for mean, sd in zip(curve["mean"], curve["sd"], strict=True)]
        axes.fill_between(curve["epochs"], low, high, color=colour, alpha=0.18, lw=0)


def write_figures(runs: list[Run], out: Path, wanted: Iterable[int]) -> tuple[list[Path], list[str]]:
    """Draw what the runs allow into ``out``; the pictures, and a line for each figure that was left out."""
    contents, skipped = {}, []
    for number in wanted:
        content = numbers(number, runs)
        if content is None:
            skipped.append(f"figure {number} needs {FIGURES[number].missing}")
        else:
            contents[number] = content
    written = []
    if contents:
        out.mkdir(parents=True, exist_ok=True)
    for number, content in contents.items():
        draw(content, out / f"figure{number}.png")
        made = environments(Path(folder) for folder in content["runs"])
        write_json(out / f"figure{number}.json", {**content, "environments": made})
        written.append(out / f"figure{number}.png")
    return written, skipped
