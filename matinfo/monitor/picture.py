"""Spectra over time as a picture: a panel a layer, and the effective rank of all of them below."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from matinfo.rank import effective_rank
from matinfo.spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from matinfo.monitor.measurement import Spectra

_COLUMNS = 4
_MOST_LINES = 40
"""Spectra that are drawn of a layer, evenly spaced among those observed."""
_MOST_NAMED = 6
"""Events that the legend has room for."""


def draw(
    spectra: dict[str, Spectra], events: list[dict[str, Any]], description: str, figure: Figure | None
) -> Figure:
    """Draw what was observed, and say of which matrix; events are marked and named."""
    from matinfo.plot import spectra_over_time, training_curves
    from matinfo.plot.theme import ground_of, matplotlib_module, tidy

    seen = {}
    for layer, s in spectra.items():
        if (good := np.isfinite(s.eigenvalues).all(1)).any():
            seen[layer] = s.steps[good], s.eigenvalues[good]
    if not seen:
        raise ValueError("Expected at least one observed step with finite features, got none. Train first.")
    columns = min(_COLUMNS, len(seen))
    lines = math.ceil(len(seen) / columns)
    if figure is None:
        pyplot = matplotlib_module("pyplot")
        figure = pyplot.figure(figsize=(max(6.4, 4.2 * columns), 3.2 * lines + 2.8), layout="constrained")
    grid = figure.add_gridspec(lines + 1, columns)
    table = []
    for i, (layer, (steps, eigenvalues)) in enumerate(seen.items()):
        ax = figure.add_subplot(grid[i // columns, i % columns])
        drawn = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MOST_LINES)).round().astype(int))
        spectra_over_time(steps[drawn], eigenvalues[drawn], ax=ax)
        tidy(ax)
        ax.set_title(layer or "model")
        ranks = effective_rank(Spectrum(eigenvalues))
        table += [
            {"step": int(step), "layer": layer or "model", "effective rank": float(rank)}
            for step, rank in zip(steps, ranks, strict=True)
        ]
    ax = figure.add_subplot(grid[lines, :])
    training_curves(table, ["effective rank"], by="layer", units={"effective rank": "dimensions"}, ax=[ax])
    tidy(ax)
    for i, event in enumerate(events):
        name = f"{event['layer'] or 'model'}: {event['reason']}, step {event['step']}"
        label = name if i < _MOST_NAMED else "_"
        ax.axvline(event["step"], linestyle=":", linewidth=1.5, color=ground_of(ax).text, label=label)
    if events:
        ax.legend()
    figure.suptitle(f"α = 1, {description}", fontsize="small")
    return figure
