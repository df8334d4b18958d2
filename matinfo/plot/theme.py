"""Colours, markers and dashes that can be told apart, on a light and on a dark ground."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from matinfo._extras import optional
from matinfo._validation import check_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours; those with less contrast than 3:1 to the ground are made darker, or lighter.
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#B5598B", "#000000", "#A87400", "#2F8FC4")
DARK = ("#56B4E9", "#E69F00", "#2BC496", "#CC79A7", "#FFFFFF", "#F0E442", "#F07A2E")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
SEQUENTIAL = "cividis"


class Ground(NamedTuple):
    """The colours behind and around the lines of a theme."""

    background: str
    text: str
    muted: str
    palette: tuple[str, ...]


GROUNDS = {
    "light": Ground("#FFFFFF", "#1B1F24", "#6A737D", LIGHT),
    "dark": Ground("#14181D", "#E6EAEE", "#8B949E", DARK),
}


def matplotlib_module(name: str = "") -> ModuleType:
    """``matplotlib`` or one of its modules."""
    return optional(f"matplotlib.{name}".rstrip("."), "matinfo.plot", "plot")


@contextlib.contextmanager
def style(theme: str = "light") -> Iterator[None]:
    """Context manager that makes figures light or dark.

    Sets matplotlib's parameters for the figures made inside: ground, text, grid, colours of lines. They come back as
    they were. Without it the functions of this module take the parameters as they are, and colours for their ground.

    Args:
        theme: ``"light"`` or ``"dark"``.

    Yields:
        Nothing.

    Raises:
        ValueError: If the theme is unknown.

    Notes:
        Lines have a contrast of at least 3:1 to their ground, text of at least 4.5:1.

    References:
        Okabe and Ito (2008), Color universal design.

    Example:
        >>> import numpy as np
        >>> from matinfo import plot
        >>> with plot.style("dark"):
        ...     ax = plot.spectrum(np.array([4.0, 2.0, 1.0]))
        >>> ax.get_xlabel()
        'index of the eigenvalue'
    """
    check_choice(theme, "theme", tuple(GROUNDS))
    matplotlib = matplotlib_module()
    ground = GROUNDS[theme]
    parameters = {
        "figure.facecolor": ground.background,
        "axes.facecolor": ground.background,
        "savefig.facecolor": "auto",
        "text.color": ground.text,
        "axes.labelcolor": ground.text,
        "axes.edgecolor": ground.muted,
        "axes.titlesize": "medium",
        "xtick.color": ground.text,
        "ytick.color": ground.text,
        "legend.frameon": False,
        "axes.prop_cycle": matplotlib.cycler(color=list(ground.palette)),
        "grid.color": ground.muted,
        "lines.linewidth": 1.8,
        "image.cmap": SEQUENTIAL,
    }
    with matplotlib.rc_context(parameters):
        yield


def ground_of(ax: Axes) -> Ground:
    """The theme that suits the colour of the axes, whoever chose it."""
    red, green, blue, opacity = matplotlib_module("colors").to_rgba(ax.get_facecolor())
    if opacity == 0:
        red, green, blue, _ = matplotlib_module("colors").to_rgba(ax.get_figure().get_facecolor())  # type: ignore[union-attr]
    return GROUNDS["dark" if luminance((red, green, blue)) < 0.18 else "light"]


def luminance(rgb: tuple[float, float, float]) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: tuple[float, float, float], second: tuple[float, float, float]) -> float:
    """Contrast ratio of two sRGB colours, 1 to 21 (WCAG 2)."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def line_style(ax: Axes, index: int) -> dict[str, Any]:
    """Colour, marker and dash of the line of this number; colour and dash repeat together after 28."""
    palette = ground_of(ax).palette
    return {
        "color": palette[index % len(palette)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": 1.8,
        "markersize": 4.5,
    }


def legend_label(name: str) -> str | None:
    """A name as the label of a line: matplotlib leaves out of legends what starts with an underscore."""
    return f" {name}" if name.startswith("_") else name or None


def new_axes(count: int = 1, *, size: tuple[float, float] = (5.6, 3.8)) -> list[Axes]:
    """Axes in a new pyplot figure, side by side, with a light grid and no box."""
    pyplot = matplotlib_module("pyplot")
    columns = min(3, count)
    rows = -(-count // columns)
    scale = 1.0 if columns == 1 else 0.8
    height = size[1] * rows * max(scale, 0.9)
    figure = pyplot.figure(figsize=(size[0] * columns * scale, height), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for ax in axes:
        tidy(ax)
    return axes


def tidy(ax: Axes) -> None:
    """No box, a light grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)


def axes_or_new(ax: Axes | None, *, size: tuple[float, float] = (5.6, 3.8)) -> Axes:
    """The axes given, or new ones."""
    matplotlib_module()
    return new_axes(size=size)[0] if ax is None else ax


def name_ticks(ax: Axes, names: list[str], *, most: int = 16) -> None:
    """Names along the horizontal axis, as many as there is room for."""
    stride = -(-len(names) // most)
    shown = names[::stride]
    crowded = sum(len(name) for name in shown) > 36
    ax.set_xticks(
        range(0, len(names), stride),
        shown,
        rotation=45 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor" if crowded else "default",
    )


def plain_ticks(ax: Axes) -> None:
    """1, 2, 5, 10, 20 ... up a logarithmic axis, written out: a rank is read as a number, not as a power of ten."""
    ticker = matplotlib_module("ticker")
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(ticker.NullLocator())


_MOST_LINEAR = 10
"""Ratio of ranks above which axis and colours are logarithmic: the lowest would be within a tenth of the foot."""


def spread(*panels: Axes) -> None:
    """A logarithmic axis where a number of dimensions near the lowest could not be read beside the largest."""
    heights = [np.asarray(line.get_ydata(), dtype=float) for ax in panels for line in ax.get_lines()]
    if far_apart(np.concatenate(heights)):
        for ax in panels:
            ax.set_yscale("log")
            plain_ticks(ax)


def far_apart(values: np.ndarray) -> bool:
    """Whether numbers of dimensions are too far apart for a linear scale."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) and 0 < _MOST_LINEAR * finite.min() < finite.max())
