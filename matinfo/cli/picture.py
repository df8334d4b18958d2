"""The picture of a report, without a display."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matinfo.cli.arguments import Options
from matinfo.cli.as_text import array_names
from matinfo.cli.errors import optional
from matinfo.cli.report import Report
from matinfo.plot import entropy_profile, layers, spectrum, style
from matinfo.plot.theme import tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CURVES = 6
_LONGEST_NAME = 28


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
    figure_class = optional("matplotlib.figure", "a picture", "plot").Figure
    names = [_shorten(name) for name in array_names(report)]
    curves = len(report.arrays) <= _MOST_CURVES
    panels = _panels(report, names) if report.pair is None and len(report.arrays) > 1 else None
    width = max(2 * curves, len(next(iter(panels.values()))) if panels else 0)
    rows = curves + (panels is not None)
    height = 3.6 * rows + (0.22 * len(names) if len(names) > 1 and curves else 0)
    figure: Figure = figure_class(figsize=(10.5 if width < 4 else 13, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    parts = list(figure.subfigures(rows, 1, squeeze=False)[:, 0])
    if curves:
        left, right = parts.pop(0).subplots(1, 2)
        drawn = {name: array.measured.S for name, array in zip(names, report.arrays, strict=True)}
        single = next(iter(drawn.values())) if len(drawn) == 1 else drawn
        for ax in (left, right):
            tidy(ax)
        spectrum(single, ax=left)
        if len(drawn) > 1:
            left.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))
        entropy_profile(single, base=options.base, ax=right)
    if panels is not None:
        axes = parts.pop(0).subplots(1, width if not curves else len(next(iter(panels.values()))))
        for ax in axes:
            tidy(ax)
        units = {v.title: v.unit for v in report.arrays[0].values}
        layers(panels, units=units, ax=list(axes))
        for ax in axes:
            ax.set_xlabel("")
    return figure


def _panels(report: Report, names: list[str]) -> dict[str, dict[str, float]]:
    """One entropy, of the order nearest to 1, and what has no order."""
    values = report.arrays[0].values
    orders = [v.alpha for v in values if v.alpha is not None]
    nearest = min(orders, key=lambda alpha: abs(alpha - 1))
    chosen = [
        i
        for i, v in enumerate(values)
        if v.value is not None and v.alpha in {None, nearest} and v.name != "participation_ratio"
    ]
    return {
        name: {a.values[i].title: float(a.values[i].value or 0.0) for i in chosen}
        for name, a in zip(names, report.arrays, strict=True)
    }


def _shorten(name: str) -> str:
    """A dollar sign is text, not mathematics; the end of a long name tells more than its start."""
    plain = name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]
    return plain.replace("$", r"\$")
