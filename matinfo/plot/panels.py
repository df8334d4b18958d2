"""Several quantities side by side: against the step of a training, and from layer to layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from matinfo.entropy import von_neumann_entropy
from matinfo.layers import LayerReport
from matinfo.measures.registry import limit_of
from matinfo.plot.inputs import (
    Drawable,
    Table,
    columns_of,
    is_number,
    numeric_names,
    plain,
    spectrum_of,
    unit_of,
)
from matinfo.plot.matrix import information_matrix
from matinfo.plot.theme import (
    far_apart,
    ground_of,
    legend_label,
    line_style,
    matplotlib_module,
    name_ticks,
    new_axes,
    spread,
)
from matinfo.rank import effective_rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_curves(
    history: Table,
    quantities: Sequence[str] | None = None,
    *,
    step: str = "step",
    by: str | None = None,
    units: Mapping[str, str] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> np.ndarray:
    """Quantities during training, one panel each.

    The columns of a log against its step. A name with a slash is ``line/quantity``: ``encoder/rankme`` and
    ``head/rankme`` are two lines of one panel.

    Args:
        history: Rows (mappings from names to numbers, gaps allowed) or one mapping of columns.
        quantities: Panels to draw, in this order; None for every column of numbers.
        step: Column of the horizontal axis.
        by: Column whose values tell lines apart, such as ``"layer"`` in a log with a row for each layer; None if the
            names of the columns do.
        units: Unit of a quantity by name, where the name of a quantity of this package does not tell it.
        ax: One axes for each panel; None for a new figure.

    Returns:
        ``(panels,)``, an array of axes. y: nats for entropies, information, divergences and coding rates, dimensions
        for ranks, nothing where the unit is not known.

    Raises:
        ValueError: If the column of steps or a quantity is missing, there is nothing to draw, or the axes are too few.
        TypeError: If the rows are not mappings.

    Notes:
        Rows need no order. Gaps (None, NaN, a missing name) are left out, so that quantities measured at different
        steps are whole lines.

    References:
        Tan et al. (2024), Figures 1 and 2, for information curves during training.

    Example:
        >>> from matinfo import plot
        >>> history = [{"step": i, "a/rankme": 2.0 * i, "b/rankme": 3.0, "loss": 1 / (i + 1)} for i in range(5)]
        >>> axes = plot.training_curves(history)
        >>> [ax.get_ylabel() for ax in axes]
        ['rankme (dimensions)', 'loss']
    """
    columns = columns_of(history)
    if step not in columns:
        raise ValueError(
            f"Expected a column {step!r} of steps, got {', '.join(columns) or 'no columns'}. Use step=..."
        )
    if by is not None and by not in columns:
        raise ValueError(f"Expected a column {by!r}, got {', '.join(columns)}.")
    names = numeric_names(columns, {step, by or step})
    lines = _lines(columns, names, step, by)
    panels = _chosen(list(lines), quantities)
    return _draw(panels, lines, step, None, units, ax)


def layers(
    report: LayerReport | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    quantities: Sequence[str] | None = None,
    *,
    units: Mapping[str, str] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> np.ndarray:
    """Quantities from layer to layer, one panel each.

    The value of a quantity at each layer, in the order given. Of layers that are operands, ``H_1(K)`` and
    ``exp(H_1(K))``.

    Args:
        report: What :func:`matinfo.layers.layerwise` returns, or a mapping from names of models to such reports; a
            mapping from layers to mappings from quantities to numbers; rows with a ``name`` or ``layer``; or a mapping
            from layers to matrices ``(n, n)``, :class:`~matinfo.Gram` or eigenvalues ``(n,)``.
        quantities: Panels to draw, in this order; None for all.
        units: Unit of a quantity by name, where the name of a quantity of this package does not tell it.
        ax: One axes for each panel; None for a new figure.

    Returns:
        ``(panels,)``, an array of axes. x: layer; y as for :func:`training_curves`.

    Raises:
        ValueError: If there is nothing to draw, a quantity is missing, or the axes are too few; as :func:`spectrum`.
        TypeError: If a layer is neither numbers nor an operand.

    Notes:
        One decomposition for each operand; none for numbers. A dotted line is the largest value that n rows and d
        columns of that layer allow, where the shape limits the quantity: ``min(n, d)``, or its logarithm. The axis of
        dimensions is logarithmic where the largest is above ten times the lowest.

    References:
        Skean et al. (2025), Layer by layer, for entropies across the layers of language models.

    Example:
        >>> import numpy as np
        >>> from matinfo import Gram, plot
        >>> Z = np.random.default_rng(0).normal(size=(64, 8))
        >>> axes = plot.layers({"block 1": Gram(Z), "block 2": Gram(Z**3), "head": Gram(Z[:, :2])})
        >>> [ax.get_ylabel() for ax in axes]
        ['entropy (nats)', 'effective rank (dimensions)']
    """
    reports = _reports(report)
    lines: Lines = {}
    if reports:
        names = max([list(one.names) for one in reports.values()], key=len)
        for label, one in reports.items():
            for name, values in one.columns().items():
                if name in ("entropy", "effective_rank", *one.quantities):
                    heights = np.asarray(plain(values))
                    lines.setdefault(name, {})[label] = _without_gaps(range(len(heights)), heights)
    else:
        if isinstance(report, Mapping):
            rows = [(str(name), _of_layer(str(name), value)) for name, value in report.items()]
        else:
            assert not isinstance(report, LayerReport)  # which is a mapping of reports by now
            rows = [
                (str(row.get("name", row.get("layer", i))), _numbers(row)) for i, row in enumerate(report)
            ]
        names = [name for name, _ in rows]
        columns = columns_of([numbers for _, numbers in rows])
        for name in numeric_names(columns, ()):
            lines[name] = {"": _without_gaps(range(len(rows)), columns[name])}
    panels = _chosen(list(lines), quantities)
    axes = _draw(panels, lines, "layer", names, units, ax, _largest(reports, panels))
    if reports and ax is None:
        described = dict.fromkeys(one.description for one in reports.values())
        axes[0].get_figure().suptitle("\n".join(described), fontsize="small")
    return axes


def layers_over_training(
    reports: Mapping[Any, LayerReport], quantity: str = "effective_rank", *, ax: Axes | None = None
) -> Axes:
    """A quantity of every layer at every checkpoint of a training, as a picture.

    The value at layer i and checkpoint j as the colour of row i, from below, and column j.

    Args:
        reports: What :func:`matinfo.layers.layerwise` found, by step or name of the checkpoint, in this order; all with
            the same layers.
        quantity: Column of :meth:`~matinfo.layers.LayerReport.columns`.
        ax: Axes to draw on; None for a new figure. The colour bar takes its room from them.

    Returns:
        The axes. x: checkpoint; y: layer.

    Raises:
        ValueError: If there are no reports, their layers differ or a report lacks the quantity.

    References:
        Skean et al. (2025), Layer by layer, for layers over the training of a language model.

    Example:
        >>> import torch
        >>> from matinfo import plot
        >>> from matinfo.layers import layerwise
        >>> reports = {step: layerwise([torch.eye(4), torch.eye(4)[:, : 2 + step]]) for step in (0, 1, 2)}
        >>> ax = plot.layers_over_training(reports)
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('checkpoint', 'layer')
    """
    found = list(reports.values())
    if not found or len({one.names for one in found}) > 1:
        raise ValueError(
            f"Expected at least one report, all with the same layers, got {[len(one.names) for one in found]} layers."
        )
    columns = [one.columns() for one in found]
    if missing := [
        str(step) for step, column in zip(reports, columns, strict=True) if quantity not in column
    ]:
        raise ValueError(
            f"Expected every report to have {quantity!r}, got none in {', '.join(missing)}. There are "
            f"{', '.join(columns[0])}."
        )
    values = np.stack([np.asarray(plain(column[quantity])) for column in columns], 1)
    ax = information_matrix(
        values[::-1],
        (list(found[0].names)[::-1], [str(step) for step in reports]),
        quantity=quantity.replace("_", " "),
        unit=unit_of(quantity),
        norm="log" if unit_of(quantity) == "dimensions" and far_apart(values) else None,
        ax=ax,
    )
    ax.set(xlabel="checkpoint", ylabel="layer")
    ax.set_title(found[0].description, fontsize="small", wrap=True)
    return ax


Lines = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
"""Quantity -> label -> x, y."""


def _reports(report: Any) -> dict[str, LayerReport]:
    """Reports by label: a report alone, with its reference, or several models."""
    if isinstance(report, LayerReport):
        return {"": report} if report.reference is None else {"model": report, "reference": report.reference}
    reports = list(report.values()) if isinstance(report, Mapping) else [None]
    several = all(isinstance(one, LayerReport) for one in reports)
    return {str(label): one for label, one in report.items()} if several else {}


def _largest(reports: Mapping[str, LayerReport], panels: Sequence[str]) -> Lines:
    """Per quantity that the shape of Z limits and per model: the largest value at each layer."""
    lines: Lines = {}
    for quantity in panels:
        limit = limit_of("renyi_entropy" if quantity == "entropy" else quantity)
        if not limit:
            continue
        for label, one in reports.items():
            # Of sentences the mean length: log min(n, d) is concave, so that no mean entropy is above it.
            sizes = np.minimum(one.widths, one.rows / one.entropies.shape[1] if one.rows else np.inf)
            heights = np.log(sizes) if limit.startswith("log") else sizes
            lines.setdefault(quantity, {})[label] = np.arange(len(sizes)), heights
    return lines


def _of_layer(name: str, value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return _numbers(value)
    if isinstance(value, Drawable):
        S = spectrum_of(value, "matinfo.plot.layers")
        return {"entropy": float(von_neumann_entropy(S)), "effective_rank": float(effective_rank(S))}
    raise TypeError(
        f"Expected layer {name!r} to be a mapping from quantities to numbers, a matrix, a Gram or eigenvalues, "
        f"got {type(value).__name__}."
    )


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in {"name", "layer"} and is_number(value)}


def _without_gaps(x: Sequence[Any], y: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places, heights = np.asarray(x, dtype=float), np.asarray(y, dtype=float)  # a gap is None, and becomes NaN
    good = np.isfinite(places) & np.isfinite(heights)
    order = np.argsort(places[good], kind="stable")
    return places[good][order], heights[good][order]


def _lines(columns: Mapping[str, list[Any]], names: Sequence[str], step: str, by: str | None) -> Lines:
    lines: Lines = {}
    for name in names:
        line, _, quantity = name.rpartition("/")
        if by is None:
            lines.setdefault(quantity, {})[line] = _without_gaps(columns[step], columns[name])
            continue
        for group in dict.fromkeys(str(value) for value in columns[by]):
            mine = [i for i, value in enumerate(columns[by]) if str(value) == group]
            label = f"{group}/{line}" if line else group
            x, y = ([column[i] for i in mine] for column in (columns[step], columns[name]))
            lines.setdefault(quantity, {})[label] = _without_gaps(x, y)
    return lines


def _chosen(present: list[str], wanted: Sequence[str] | None) -> list[str]:
    if not present:
        raise ValueError("Expected at least one quantity that is a number, got none.")
    missing = [name for name in wanted or () if name not in present]
    if missing:
        raise ValueError(f"Expected quantities among {', '.join(present)}, got {', '.join(missing)}.")
    return list(wanted) if wanted else present


def _draw(
    panels: list[str],
    lines: Lines,
    across: str,
    ticks: list[str] | None,
    units: Mapping[str, str] | None,
    ax: Axes | Sequence[Axes] | None,
    largest: Lines | None = None,
) -> np.ndarray:
    matplotlib_module()
    given = (
        new_axes(len(panels)) if ax is None else list(ax) if isinstance(ax, Sequence | np.ndarray) else [ax]
    )
    if len(given) != len(panels):
        raise ValueError(
            f"Expected one axes for each of {len(panels)} panels, got {len(given)}: {', '.join(panels)}."
        )
    labels = dict.fromkeys(label for panel in panels for label in lines[panel])
    looks = {label: i for i, label in enumerate(labels)}
    for axes, quantity in zip(given, panels, strict=True):
        for label, (x, y) in lines[quantity].items():
            every = max(1, len(x) // 8)
            look = line_style(axes, looks[label])
            axes.plot(x, y, label=legend_label(label), markevery=(looks[label] % every, every), **look)
        limits = (largest or {}).get(quantity, {})
        if limits:
            # Dotted: in grey if it is one line for all models, else in the colour of each.
            shared = len({y.tobytes() for _, y in limits.values()}) == 1
            for label, (x, y) in list(limits.items())[: 1 if shared else None]:
                colour = ground_of(axes).muted if shared else line_style(axes, looks[label])["color"]
                (line,) = axes.plot(x, y, ":", color=colour, linewidth=1.4)
                line.set_label("largest possible" if label == next(iter(limits)) else "_")
        title, unit = quantity.replace("_", " "), {**(units or {})}.get(quantity, unit_of(quantity))
        axes.set(xlabel=across, ylabel=f"{title} ({unit})" if unit else title)
        if unit == "dimensions":
            spread(axes)
        if ticks is not None:
            name_ticks(axes, ticks)
            axes.set_xlim(-0.3, len(ticks) - 0.7)
        named = any(lines[quantity]) and (
            quantity == panels[0] or set(lines[quantity]) - set(lines[panels[0]])
        )
        if named or (limits and quantity == next(iter(largest or {}))):
            axes.legend()
    result = np.empty(len(given), dtype=object)
    result[:] = given
    return result
