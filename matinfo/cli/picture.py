"""The picture of a report, without a display."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from matinfo._extras import optional
from matinfo.cli.arguments import Options
from matinfo.cli.as_text import array_names, describe
from matinfo.cli.report import Report
from matinfo.cli.value import Value, order_name
from matinfo.measures.registry import limit_of
from matinfo.plot import entropy_profile, layers, spectrum, style
from matinfo.plot.spectra import unit_name
from matinfo.plot.theme import line_style, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_MOST_CURVES = 6
"""Colours that can be told apart, and names that fit above a panel."""

_LONGEST_NAME = 28
_MOST_BOUNDS = 4
"""Files of more shapes have a thicket of them, which says nothing of any file."""


def picture_bytes(report: Report, options: Options, theme: str, kind: str) -> bytes:
    """The picture as a file of this kind: png, svg or pdf."""
    optional("matplotlib.figure", "--html" if options.plot is None else "--plot", "plot")
    with style(theme):
        figure = _draw(report, options)
        buffer = io.BytesIO()
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        figure.savefig(buffer, format=kind, dpi=150, metadata=dates)
    return buffer.getvalue()


def _draw(report: Report, options: Options) -> Figure:
    """Spectra and entropies where there are few arrays, numbers array by array where there are many or several."""
    figure_class = optional("matplotlib.figure", "a picture", "plot").Figure
    names = [_shorten(name) for name in array_names(report)]
    curves = len(names) <= _MOST_CURVES
    panels = _panels(report) if report.pair is None and len(names) > 1 else []
    informations = [v for v in report.pair.values if v.chance] if report.pair else []
    rows = curves + bool(panels)
    height = 3.9 * rows + (0.22 * len(names) if len(names) > 1 and curves else 0)
    width = max((2 + bool(informations)) * curves, len(panels))
    figure: Figure = figure_class(figsize=(10.5 if width < 3 else 14, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    figure.suptitle(_title(report, options), fontsize="medium")
    parts = list(figure.subfigures(rows, 1, squeeze=False)[:, 0])
    if curves:
        _curves(report, names, options, parts.pop(0), informations)
    if panels:
        axes = list(parts.pop(0).subplots(1, len(panels), squeeze=False)[0])
        heights = {
            name: {panel: float(array.values[i].value or 0.0) for panel, i in panels}
            for name, array in zip(names, report.arrays, strict=True)
        }
        layers(heights, units={panel: report.arrays[0].values[i].unit for panel, i in panels}, ax=axes)
        for ax, (_, i) in zip(axes, panels, strict=True):
            tidy(ax)
            _from_zero(ax, [array.values[i].value or 0.0 for array in report.arrays])
            bounds = _bounds_of(report, report.arrays[0].values[i].name, options)
            if 0 < len(bounds) <= _MOST_BOUNDS:
                _bounded(ax, bounds)
            ax.set_xlabel("")
    return figure


def _curves(
    report: Report, names: list[str], options: Options, part: SubFigure, informations: list[Value]
) -> None:
    axes = part.subplots(1, 2 + bool(informations))
    labels = names if len(names) == 1 else [f"{name} ({_shape(report, i)})" for i, name in enumerate(names)]
    drawn = {label: array.measured.S for label, array in zip(labels, report.arrays, strict=True)}
    single = next(iter(drawn.values())) if len(drawn) == 1 else drawn
    for ax in axes:
        tidy(ax)
    spectrum(single, ax=axes[0])
    if len(drawn) > 1:
        axes[0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))
    entropy_profile(single, base=options.base, ax=axes[1])
    if len(drawn) > 1:
        axes[1].get_legend().remove()
    _bounded(axes[1], _bounds_of(report, "renyi_entropy", options))
    if informations:
        _informations(axes[2], informations, report, options)


def _bounds_of(report: Report, name: str, options: Options) -> dict[float, str]:
    """Largest values that n rows and d columns allow a measure of the spectrum, with their names."""
    largest = limit_of(name)
    bounds: dict[float, str] = {}
    for m in [array.measured for array in report.arrays] if largest else ():
        for letter, count in (("n", m.rows), ("d", m.source.columns)):
            if largest == "min(n, d)":
                bounds.setdefault(count, f"{letter} = {count}")
            else:
                bound = math.log(count) / options.unit
                bounds.setdefault(bound, f"log {letter} = {bound:.3g}")
    return bounds


def _bounded(ax: Axes, bounds: dict[float, str]) -> None:
    """From zero, with the bounds, so that a curve that is nearly flat is seen to be."""
    top = max(float(np.max(np.asarray(line.get_ydata(), dtype=float))) for line in ax.get_lines())
    lowest = min((bound for bound in bounds if bound >= top * (1 - 1e-9)), default=top)
    top = 1.12 * max(lowest, top, 1e-9)
    ax.set_ylim(0.0, top)
    for bound in [bound for bound in bounds if bound <= top]:
        ax.axhline(bound, color=ax.xaxis.label.get_color(), linestyle=":", linewidth=1.0)
        place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "fontsize": "small"}
        ax.annotate(bounds[bound], (0.99, bound), **place)  # type: ignore[arg-type]
    above = [text for bound, text in bounds.items() if bound > top]
    if above:
        ax.annotate(
            f"{', '.join(above)} (above)", (0.99, 1.0),
            xycoords="axes fraction", ha="right", va="top", fontsize="small",
        )  # fmt: skip


def _informations(ax: Axes, values: list[Value], report: Report, options: Options) -> None:
    """Information of each order above what rows in random order have."""
    assert report.pair is not None
    n = report.pair.rows or report.arrays[0].measured.total
    places = list(range(len(values)))
    found, chance = (line_style(ax, i) | {"linestyle": "none", "markersize": 8} for i in range(2))
    ax.plot(places, [v.value for v in values], label=f"{n} rows as they are", **found)  # type: ignore[arg-type]
    levels = [v.chance for v in values if v.chance]
    ax.errorbar(
        places, [c.mean for c in levels], [2 * c.std for c in levels], capsize=5,
        label=f"by chance: {levels[0].permutations} permutations, ± 2 sd", **chance
    )  # fmt: skip
    ax.set_xticks(places, [order_name(v.alpha) for v in values if v.alpha is not None])
    ax.set(
        xlabel="order α",
        ylabel=f"mutual information ({unit_name(options.base)})",
        xlim=(-0.5, len(values) - 0.5),
    )
    _from_zero(ax, [v.value or 0.0 for v in values] + [c.mean for c in levels])
    ax.legend()


def _from_zero(ax: Axes, heights: list[float]) -> None:
    """Zero on the axis: the part of it where the numbers are would make a trend of their last digits."""
    low, high = min(0.0, *heights), max(0.0, *heights)
    ax.set_ylim(1.15 * low, 1.15 * high or 1.0)


def _panels(report: Report) -> list[tuple[str, int]]:
    """One entropy, of the order nearest to 1, and what has no order, each once."""
    values = report.arrays[0].values
    orders = [v.alpha for v in values if v.alpha is not None]
    nearest = min(orders, key=lambda alpha: abs(alpha - 1))
    same = {"participation_ratio", "vendi_score"}
    return [
        (v.title, i)
        for i, v in enumerate(values)
        if v.value is not None and v.alpha in {None, nearest} and v.name not in same
    ]


def _title(report: Report, options: Options) -> str:
    """The file, what is common to its arrays, and which matrix was measured."""
    files = dict.fromkeys(array.measured.source.file.name for array in report.arrays)
    shapes = dict.fromkeys(_shape(report, i) for i in range(len(report.arrays)))
    name = next(iter(files)) if len(files) == 1 else f"{len(files)} files"
    if len(report.arrays) == 1:
        name = array_names(report)[0]
    common = f": {next(iter(shapes))}" if len(shapes) == 1 else ""
    return f"{_shorten(name)}{common}. {describe(options)}"


def _shape(report: Report, i: int) -> str:
    measured = report.arrays[i].measured
    columns = "" if measured.options.kind == "matrix" else f", d = {measured.source.columns}"
    return f"n = {measured.rows}{columns}"


def _shorten(name: str) -> str:
    """A dollar sign is text, not mathematics; the end of a long name tells more than its start."""
    plain = name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]
    return plain.replace("$", r"\$")
