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

from matinfo.plot.theme import MARKERS, spread
from trainlib.environment import environments
from trainlib.errors import UsageError
from trainlib.files import CONFIG, expand, write_json
from trainlib.logs import read_metrics
from trainlib.method import DEFAULT
from trainlib.pictures import COLOURS, draw_band, legend_below, save, tidy
from trainlib.run import check_comparable, read_pretraining_config
from trainlib.siamese.config import SiameseRunConfig
from trainlib.tables import grouped

OPTION = "FOLDER"
LINEAR_BELOW = 1e-3  # nats


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


class Quantity(NamedTuple):
    """How a quantity in the log is shown."""

    axis: str
    title: str
    bounded: bool = False  # by the logarithm of the feature's width
    near_zero: bool = False  # so small that only a logarithmic axis shows it


QUANTITIES = {
    "mutual_information": Quantity("I₁(K₁; K₂) (nats)", "mutual information", bounded=True),
    "joint_entropy": Quantity("H₁(K₁, K₂) (nats)", "joint entropy", bounded=True),
    "matrix_js": Quantity("JS of the matrices (nats)", "matrix divergence", near_zero=True),
    "spectrum_js": Quantity("JS of the spectra (nats)", "eigenspace divergence", near_zero=True),
    "knn_accuracy": Quantity("kNN accuracy (%)", "nearest neighbours"),
    "effective_rank": Quantity("effective rank", "effective rank"),
    "sphere_bound": Quantity("entropy minus reconstruction (nats)", "ER bound"),
    "sphere_entropy": Quantity("entropy on the sphere (nats)", "entropy"),
    "sphere_reconstruction": Quantity("reconstruction (nats)", "reconstruction"),
}
FEATURES = {
    "cls": "CLS feature", "pooled": "mean of the patch tokens", "cls_masked": "CLS feature of masked images",
    "backbone": "backbone", "projector": "projector",
}  # fmt: skip
BRANCHES = ("projector", "backbone")
Panels = tuple[tuple[tuple[str, str], ...], ...]  # rows of features with their quantities


class Choice(NamedTuple):
    """The runs that a figure is of, and their name where there are none."""

    choose: Callable[[list[Run]], list[Run]]
    name: str


class PaperFigure(NamedTuple):
    """What one figure shows, and of which runs."""

    title: str
    rows: Panels
    of: Choice


def _swept(runs: list[Run]) -> list[Run]:
    """SimCLR at several temperatures; none where there is one only."""
    chosen = [r for r in runs if r.siamese and r.config.method.method == "simclr"]
    return chosen if len({r.config.method.temperature for r in chosen}) > 1 else []


SIAMESE = Choice(
    lambda runs: [r for r in runs if r.siamese], "runs of pretrain_siamese.py (SimCLR, Barlow Twins, BYOL)"
)
MASKED = Choice(
    lambda runs: [r for r in runs if not r.siamese], "runs of pretrain_mmae.py (MAE, U-MAE, M-MAE)"
)
ANY = Choice(lambda runs: runs, "runs of either program")
SWEPT = Choice(
    _swept, "runs of pretrain_siamese.py --method simclr with at least two values of --temperature (0.3, 0.5, 0.7)"
)  # fmt: skip


def grid(*quantities: str, features: tuple[str, ...] = BRANCHES) -> Panels:
    """A row for each feature, a column for each quantity."""
    return tuple(tuple((feature, quantity) for quantity in quantities) for feature in features)


def beside(quantity: str, features: tuple[str, ...] = BRANCHES) -> Panels:
    """One quantity, a column for each feature."""
    return (tuple((feature, quantity) for feature in features),)


FIGURES = {
    1: PaperFigure("matrix mutual information of the branches", beside("mutual_information"), SIAMESE),
    2: PaperFigure("matrix joint entropy of the branches", beside("joint_entropy"), SIAMESE),
    3: PaperFigure(
        "SimCLR at several temperatures", grid("mutual_information", "joint_entropy", "knn_accuracy"), SWEPT
    ),
    4: PaperFigure(
        "effective rank during masked pre-training", beside("effective_rank", ("cls", "pooled")), MASKED
    ),
    5: PaperFigure("Jensen-Shannon divergences of the branches", grid("matrix_js", "spectrum_js"), SIAMESE),
    6: PaperFigure(  # of Rodríguez-Gálvez et al. (2023), not of Tan et al.
        "entropy, reconstruction and their bound on the information of the projections",
        grid("sphere_bound", "sphere_entropy", "sphere_reconstruction", features=("projector",)), SIAMESE,
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
        for feature in BRANCHES:
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


def numbers(figure: PaperFigure, runs: list[Run]) -> dict[str, Any] | None:
    """What a figure plots, ready for JSON, or ``None`` where no run has measured it.

    A curve has the mean over seeds and the sample standard deviation (``None`` with one seed) at each epoch at which
    all its seeds were measured, and the values themselves, a row for each seed.
    """
    keys = {f"{feature}_{quantity}" for row in figure.rows for feature, quantity in row}
    chosen = [r for r in figure.of.choose(runs) if any(keys & record.keys() for record in r.measured)]
    if not figure.of.choose(chosen):
        return None
    groups = grouped(chosen, lambda run: run.label)
    drawn = []
    for row, line in enumerate(figure.rows):
        for column, (feature, quantity) in enumerate(line):
            shown = QUANTITIES[quantity]
            curves = [_curve(label, group, f"{feature}_{quantity}") for label, group in groups.items()]
            widths = sorted({_width(r, feature) for r in chosen}) if shown.bounded else []
            drawn.append({
                "row": row, "column": column, "title": f"{shown.title}, {FEATURES[feature]}", "axis": shown.axis,
                "feature": feature, "quantity": quantity,
                "logarithmic": shown.near_zero,
                "limits": [{"n": n, "log_n": math.log(n)} for n in widths],
                "curves": [c for c in curves if c["epochs"]],
            })  # fmt: skip
    return {
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
    check_comparable(OPTION, [(run.label, run.folder, run.config, None) for run in runs])


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
    quantities = {panel["quantity"] for panel in content["panels"]}
    # One quantity has one axis: ranks of 1.0 and 1.3 are alike, and would not look so on an axis of their own.
    places = figure.subplots(rows, columns, squeeze=False, sharey=len(quantities) == 1)
    labels = list(dict.fromkeys(curve["label"] for panel in content["panels"] for curve in panel["curves"]))
    for panel in content["panels"]:
        axes = places[panel["row"]][panel["column"]]
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
    if quantities == {"effective_rank"}:
        spread(*places.flat)
    figure.suptitle(content["title"])
    figure.tight_layout()
    legend_below(figure, places.flat, columns=4)
    save(figure, path)


def _draw_curve(axes, curve: dict[str, Any], index: int) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
    every = max(1, len(curve["epochs"]) // 12)
    draw_band(
        axes, curve["epochs"], curve["mean"], curve["sd"], color=colour, label=curve["label"], lw=1.6, marker=marker,
        ms=4, markevery=(index % every, every),
    )  # fmt: skip
    if curve["untrained_default_norms"] is not None and len(curve["epochs"]) > 1:
        axes.plot(
            curve["epochs"][:2], [curve["untrained_default_norms"], curve["mean"][1]], color=colour, lw=1, ls=":",
            marker=marker, ms=5, mfc="none", markevery=[0],
        )  # fmt: skip


def write_figures(runs: list[Run], out: Path, wanted: Iterable[int]) -> tuple[list[Path], list[str]]:
    """Draw what the runs allow into ``out``; the pictures, and a line for each figure that was left out."""
    contents, skipped = {}, []
    for number in wanted:
        figure = FIGURES[number]
        content = numbers(figure, runs)
        if content is None:
            skipped.append(f"figure {number} needs {figure.of.name}")
        else:
            _check_comparable([run for run in runs if str(run.folder) in content["runs"]])
            contents[number] = {"figure": number, **content}
    written = []
    if contents:
        out.mkdir(parents=True, exist_ok=True)
    for number, content in contents.items():
        draw(content, out / f"figure{number}.png")
        made = environments(Path(folder) for folder in content["runs"])
        write_json(out / f"figure{number}.json", {**content, "environments": made})
        written.append(out / f"figure{number}.png")
    return written, skipped
