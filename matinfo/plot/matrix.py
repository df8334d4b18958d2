"""A quantity of every pair, as a matrix of colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from matinfo.plot.inputs import plain
from matinfo.plot.theme import SEQUENTIAL, axes_or_new, luminance, name_ticks, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_MOST_WITH_NUMBERS = 12
"""Rows and columns of a matrix whose cells have room for their numbers."""


def information_matrix(
    M: Tensor | np.ndarray,
    labels: Sequence[str] | tuple[Sequence[str], Sequence[str]] | None = None,
    *,
    quantity: str = "mutual information",
    unit: str = "nats",
    norm: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Matrix of mutual informations, or of another quantity of pairs, as a picture.

    ``M_ij`` as the colour of row i and column j, with its number where there are at most 12 of a side. Entries that are
    not finite stay blank.

    Args:
        M: ``(r, c)``, Tensor or NumPy array.
        labels: Names of the rows and the columns: one sequence for both of a square matrix, or a pair of them.
        quantity: What the entries are, for the colour bar.
        unit: Its unit; empty for a pure number.
        norm: Scale of the colours by its name in matplotlib, such as ``"log"``; None for a linear one.
        ax: Axes to draw on; None for a new figure. The colour bar takes its room from them.

    Returns:
        The axes.

    Raises:
        ValueError: If M has not two dimensions, or no finite entry, or the number of labels is another.

    Notes:
        The colours run evenly in lightness, so that they survive grey printing and colour blindness.

    References:
        Nuñez, Anderton and Renslow (2018) for the colour map cividis.

    Example:
        >>> import numpy as np
        >>> from matinfo import plot
        >>> ax = plot.information_matrix(np.array([[1.1, 0.3], [0.3, 0.9]]), ["first", "second"])
        >>> [text.get_text() for text in ax.texts]
        ['1.10', '0.30', '0.30', '0.90']
    """
    values = np.asarray(plain(M), dtype=float)
    if values.ndim != 2 or not np.isfinite(values).any():
        raise ValueError(
            f"Expected a matrix (r, c) with finite entries, got shape {values.shape}"
            f"{'' if values.ndim != 2 else ' without one'}."
        )
    rows, columns = _names(labels, values.shape)
    ax = axes_or_new(
        ax,
        size=(1.8 + 0.62 * min(14, max(4, values.shape[1])), 1.0 + 0.55 * min(14, max(4, values.shape[0]))),
    )
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    shown = np.ma.masked_invalid(values)
    image = ax.imshow(shown, cmap=SEQUENTIAL, norm=norm, aspect="auto", interpolation="nearest")
    if rows:
        stride = -(-len(rows) // 24)
        ax.set_yticks(range(0, len(rows), stride), rows[::stride])
    if columns:
        name_ticks(ax, columns, most=24)
    ax.tick_params(length=0)
    if max(values.shape) <= _MOST_WITH_NUMBERS:
        _write_numbers(ax, image, values)
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, ax=ax, label=f"{quantity} ({unit})" if unit else quantity)
    bar.outline.set_visible(False)
    if norm == "log":
        plain_ticks(bar.ax)
    return ax


def _write_numbers(ax: Axes, image: AxesImage, values: np.ndarray) -> None:
    """Each entry in the middle of its field, black or white, whichever can be read there."""
    largest, digits = float(np.abs(values[np.isfinite(values)]).max()), 2
    if largest >= 10 or 0 < largest < 0.1:
        digits = int(np.clip(2 - np.floor(np.log10(largest)), 0, 4))
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.to_rgba(np.atleast_1d(value))[0]
            colour = "white" if luminance((red, green, blue)) < 0.18 else "black"
            text = f"{value:.{digits}f}".replace("-", "−")
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize="small")


def _names(labels: object, shape: tuple[int, ...]) -> tuple[list[str], list[str]]:
    if labels is None:
        return [], []
    given = list(labels)  # type: ignore[call-overload]
    pair = len(given) == 2 and not any(isinstance(names, str) for names in given)
    rows, columns = ([str(name) for name in names] for names in (given if pair else (given, given)))
    if (len(rows), len(columns)) != shape:
        raise ValueError(
            f"Expected {shape[0]} names of rows and {shape[1]} of columns, got {len(rows)} and {len(columns)}. "
            "For a matrix that is not square pass (rows, columns)."
        )
    return rows, columns
