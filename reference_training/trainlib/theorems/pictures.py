"""Values against their bounds over the steps of training, with the gaps shaded: one picture a group of statements."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from matinfo.plot.theme import GROUNDS
from trainlib.pictures import COLOURS, legend_below, save, tidy
from trainlib.theorems.catalogue import OPERANDS, OPERANDS_OF, statements_of
from trainlib.theorems.statement import Statement
from trainlib.theorems.verdict import Run


class Panel(NamedTuple):
    """One quantity, the statements that bound it, and how its axis is scaled. ``*`` stands for the operand."""

    label: str
    keys: tuple[str, ...]
    scale: str = "linear"


GROUPS = {
    "information": (Panel("I₂ (nats)", ("*/I_2",)), Panel("I₁ (nats)", ("*/I_1",))),
    "joint-entropy": (Panel("H₂(K₁, K₂) (nats)", ("*/H_2",)), Panel("H₁(K₁, K₂) (nats)", ("*/H_1",))),
    "coding-rate": (
        Panel("T(K₁∘K₂), mu = 1 (nats)", ("*/T",), "symlog"),
        Panel("T(K₁∘K₂), mu = 3 (nats)", ("*/T_product",)),
    ),
    "overlap": (Panel("overlap S", ("*/overlap",), "log"),),
    "always": (
        Panel("I₁ (nats)", ("*/I_1_most",)),
        Panel("H₁(K₁, K₂) (nats)", ("*/H_1_joint", "*/H_1_sum", "*/H_1_rank")),
    ),
    "divergence": (Panel("JS (nats)", ("*/JS_most", "*/JS_least"), "log"),),
    "radius": (
        Panel("λ_max / m, m = d/mu", ("code/ratio",), "log"),
        Panel("λ_max / m, m = mu", ("paper/ratio",), "log"),
    ),
    "remainder": (
        Panel("r / U-MAE term, m = d/mu", ("code/share",)),
        Panel("r / U-MAE term, m = mu", ("paper/share",)),
    ),
    "rate": (
        Panel("log det(I + G/m), m = d/mu", ("code/rate_most", "code/rate_least")),
        Panel("log det(I + G/m), m = mu", ("paper/rate_most", "paper/rate_least"), "log"),
    ),
}
NAMES = {"barlow_twins": "Barlow Twins", "spectral": "Spectral contrastive", "mae": "MAE", "umae": "U-MAE",
         "mmae": "M-MAE"}  # fmt: skip
SHADES = (*(COLOURS[i] for i in (5, 3, 4, 2, 6)), GROUNDS["light"].muted)  # besides the value's and the gap's


class Column(NamedTuple):
    """A run, and for two views the matrices that are looked at."""

    run: Run
    operand: str
    statements: dict[str, Statement]

    def find(self, key: str) -> Statement | None:
        """The run's statement for a key of a panel."""
        return self.statements.get(key.replace("*", self.operand))


def draw(runs: list[Run], out: Path) -> list[Path]:
    """One picture for each group of which some run has statements; their paths."""
    everything = [
        Column(run, operand, {statement.key: statement for statement in statements_of(run.method)})
        for run in runs
        for operand in OPERANDS_OF.get(run.method, ("",))
    ]
    drawn = []
    for group, panels in GROUPS.items():
        columns = [column for column in everything if column.find(panels[0].keys[0])]
        if columns:
            drawn.append(out / f"{group}.png")
            _draw_group(columns, panels, drawn[-1])
    return drawn


def _draw_group(columns: list[Column], panels: tuple[Panel, ...], path: Path) -> None:
    figure = Figure(figsize=(3.4 * len(columns) + 0.4, 2.6 * len(panels) + 0.4))
    grid = figure.subplots(len(panels), len(columns), squeeze=False, sharex="col")
    colours: dict[str, str] = {}
    for column, stack in zip(columns, grid.T, strict=True):
        for panel, axes in zip(panels, stack, strict=True):
            _draw_panel(axes, column, panel, colours)
        stack[0].set_title(
            "\n".join([NAMES[column.run.method], OPERANDS.get(column.operand, "")]), fontsize=9
        )
        stack[-1].set_xlabel("step of training")
    for panel, row in zip(panels, grid, strict=True):
        row[0].set_ylabel(panel.label)
        low, high = min(a.get_ylim()[0] for a in row), max(a.get_ylim()[1] for a in row)
        for axes in row:  # one range, so that runs can be compared
            axes.set_ylim(low, high)
    legend_below(figure, grid.flat, columns=4)
    figure.tight_layout()
    save(figure, path)


def _draw_panel(axes: Any, column: Column, panel: Panel, colours: dict[str, str]) -> None:
    run, first = column.run, column.find(panel.keys[0])
    assert first is not None
    values = np.array(run.numbers(first.key))
    for key in panel.keys:
        statement = column.find(key)
        if statement is None:
            continue
        bounds = {form: np.array(run.numbers(statement.key, form)) for form in statement.forms}
        tightest = (np.max if statement.side == "at least" else np.min)(list(bounds.values()), axis=0)
        axes.fill_between(run.steps, values, tightest, color=COLOURS[1], alpha=0.16, lw=0,
                          label="gap")  # fmt: skip
        for number, (form, bound) in enumerate(bounds.items()):
            text = statement.forms[form] or "bound"
            if panel.scale == "log" and not bound.any():
                continue  # a bound of zero has no place on the axis
            colour = colours.setdefault(text, SHADES[len(colours) % len(SHADES)])
            axes.plot(run.steps, bound, "--" if number == 0 else "-", color=colour, lw=1.2, label=text)
    axes.plot(run.steps, values, color=COLOURS[0], lw=1.8, label="value")
    if panel.scale == "symlog":
        axes.set_yscale("symlog", linthresh=100.0)  # above the values at the widths in use
    else:
        axes.set_yscale(panel.scale)
    tidy(axes)
