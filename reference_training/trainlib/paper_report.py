"""Table, summary and figures of one figure or table of the paper, from the runs that are finished."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from trainlib import figures
from trainlib.environment import environments
from trainlib.files import CONFIG, MANIFEST, SUMMARY, read_json, read_summary, write_atomic, write_json
from trainlib.paper import What, data_of, plan
from trainlib.paper_commands import RESULTS, Chosen, Command, run_folder
from trainlib.pictures import COLOURS, save, tidy
from trainlib.protocol import NOTE
from trainlib.study import TABLE
from trainlib.tables import aligned, mean_and_sd, spread

SWEEP = "mu.png"


class Column(NamedTuple):
    """One quantity of a finished run: which file of it, which feature, which number."""

    title: str
    source: str
    feature: str
    key: str
    digits: int = 2

    @property
    def name(self) -> str:
        """The column in ``summary.json``."""
        return f"{self.source}_{self.feature}_{self.key}" if self.feature else self.key

    def value(self, record: dict[str, Any]) -> float | None:
        """The number of one run, or ``None`` where it was not measured."""
        content = record.get(self.source)
        if content is None:
            return None
        if not self.feature:
            return content[self.key]
        if "heads" not in content:
            return content["features"].get(self.feature, {}).get(self.key)
        if any(self.feature not in head["features"] for head in content["heads"]):
            return None
        return statistics.fmean(head["features"][self.feature][self.key] for head in content["heads"])


def _of_run(features: tuple[str, ...], digits: int = 2, **titles: str) -> tuple[Column, ...]:
    """For each feature the quantities of its summary, by key, with their titles."""
    return tuple(
        Column(f"{title}, {feature}", "run", feature, key, digits)
        for feature in features for key, title in titles.items()
    )  # fmt: skip


TOKENS = ("cls", "pooled")
TIME = (Column("seconds", "run", "", "seconds", 0), Column("CPU s", "run", "", "cpu_seconds", 0))
COLUMNS = {
    "siamese": (
        *_of_run(("projector", "backbone"), 3, mutual_information="I", joint_entropy="joint H", matrix_js="JS"),
        *_of_run(("backbone",), knn_accuracy="kNN %", probe_accuracy="probe %"), *TIME,
    ),
    "masked": (*_of_run(TOKENS, effective_rank="eff. rank", knn_accuracy="kNN %"), *TIME),
    "strength": (
        *_of_run(TOKENS, effective_rank="eff. rank", knn_accuracy="kNN %", probe_accuracy="probe %"), *TIME
    ),
    "protocols": (
        *_of_run(("cls",), effective_rank="eff. rank", knn_accuracy="kNN %"),
        *(
            Column(f"{word}, {feature}, {title}", source, feature, key)
            for source, word in (("linear_probe", "linear"), ("finetune", "fine-tuned"))
            for feature in TOKENS
            for key, title in (("top1", "top-1 last"), ("max_top1", "max"), ("top5", "top-5 last"))
        ),
        *TIME,
    ),
}  # fmt: skip
# Published values, top-1 %: linear probe and fine-tuning. Shown beside runs of the same recipe and data only.
PUBLISHED: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {
    ("table1", "imagenet"): {
        "MAE": (55.4, 82.9), "U-MAE": (58.5, 83.0), "M-MAE": (62.4, 83.1),
        "MAE, ViT-L": (62.2, 83.3), "U-MAE, ViT-L": (65.8, 83.2), "M-MAE, ViT-L": (66.0, 84.3),
    },
    ("table2", "imagenet"): {
        f"M-MAE, mu {mu}, code's scale": (value,)
        for mu, value in (("0.1", 58.61), ("0.5", 59.38), ("0.75", 59.87), ("1", 62.40), ("1.25", 59.54),
                          ("1.5", 57.76), ("3", 50.46))
    },
    ("table3", "cifar-full"): {"MAE": (59.2, 84.5), "U-MAE": (59.7, 84.1), "M-MAE": (60.9, 83.8)},
}  # fmt: skip


def report(
    name: str, scale: str, what: What, todo: list[Command], diverged: list[Command], chosen: Chosen
) -> str:
    """Write ``table.md``, ``summary.json``, ``study.json`` and the pictures of what is finished; return the table."""
    out = chosen.out / name
    out.mkdir(parents=True, exist_ok=True)
    rows, runs = [], []
    for training in what.rows:
        folders = [run_folder(training, seed, chosen) for seed in range(chosen.seeds)]
        records = [_record(folder) for folder in folders if (folder / SUMMARY).is_file()]
        rows.append({"label": training.title, "records": records})
        runs += [
            figures.read_run(folder, training.title) for folder in folders if (folder / CONFIG).is_file()
        ]
    as_in_paper = what == plan(name, scale) and chosen.data == data_of(name, scale)
    published = PUBLISHED.get((name, scale), {}) if as_in_paper else {}
    text = f"{_table(rows, COLUMNS[what.columns], published)}\n"
    done = sum(command.state() == "finished" for command in todo)
    text += f"\n{what.title}; scale {scale}, {chosen.data}; {done} of {len(todo)} commands finished.\n"
    text += f"\n{NOTE}\n" if what.columns == "protocols" else ""
    text += "".join(f"\nDiverged: {c.title}, seed {c.seed}.\n" for c in diverged)
    write_atomic(out / TABLE, text.encode())
    write_json(out / MANIFEST, {"runs": [os.path.relpath(run.folder, out) for run in runs]})
    write_json(out / SUMMARY, _summary(name, scale, what, rows, diverged, chosen))
    figures.write_figures(runs, out, what.figures)
    if what.swept:
        _draw_sweep(runs, out / SWEEP)
    return text


def _record(folder: Path) -> dict[str, Any]:
    """What the files of a finished run say: ``run``, and the protocols that have ended."""
    found = {"run": read_summary(folder), "folder": str(folder)}
    for protocol in RESULTS.values():
        if (folder / f"{protocol}.json").is_file():
            found[protocol] = read_json(folder / f"{protocol}.json")
    return found


def _values(records: list[dict[str, Any]], column: Column) -> list[float]:
    return [value for record in records if (value := column.value(record)) is not None]


def _table(
    rows: list[dict[str, Any]], columns: tuple[Column, ...], published: dict[str, tuple[float, ...]]
) -> str:
    """One row for each training, also for those not finished; columns of which no run knows a value are left out."""
    shown = [c for c in columns if any(_values(row["records"], c) for row in rows)]
    names = ("paper's linear", "paper's fine-tuned")[: max(map(len, published.values()), default=0)]
    lines = [["method", "seeds", *(column.title for column in shown), *names]]
    for row in rows:
        values = [_values(row["records"], column) for column in shown]
        cells = [spread(v, c.digits) if v else "-" for v, c in zip(values, shown, strict=True)]
        theirs = [f"{value:g}" for value in published.get(row["label"], ())]
        theirs += ["-"] * (len(names) - len(theirs))
        lines.append([row["label"], str(len(row["records"])), *cells, *theirs])
    return aligned(lines)


def _summary(
    name: str, scale: str, what: What, rows: list[dict[str, Any]], diverged: list[Command], chosen: Chosen
) -> dict[str, Any]:
    content = []
    for row in rows:
        values = {c.name: _values(row["records"], c) for c in COLUMNS[what.columns]}
        content.append({
            "label": row["label"],
            "runs": [record["folder"] for record in row["records"]],
            "seeds": [record["run"]["seed"] for record in row["records"]],
            "values": {key: mean_and_sd(v) for key, v in values.items() if v},
        })  # fmt: skip
    folders = [Path(folder) for row in content for folder in row["runs"]]
    return {
        "what": name, "title": what.title, "scale": scale, "data": chosen.data,
        "environments": environments(folders), "rows": content,
        "diverged": [str(command.folder) for command in diverged],
    }  # fmt: skip


def _draw_sweep(runs: list[figures.Run], path: Path) -> None:
    """Linear probe and effective rank of the CLS feature against mu, a line for each scale of the coding rate."""
    columns = (
        Column("linear probe, CLS feature, top-1 last (%)", "linear_probe", "cls", "top1"),
        Column("effective rank, CLS feature", "run", "cls", "effective_rank"),
    )
    points: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for run in runs:
        if (run.folder / SUMMARY).is_file():
            method = run.config.method
            points.setdefault((method.tcr_scale, method.mu), []).append(_record(run.folder))
    if not points:
        return
    figure = Figure(figsize=(10, 3.9))
    for axes, column in zip(figure.subplots(1, 2), columns, strict=True):
        for scale, colour, marker in (("code", COLOURS[2], "o"), ("paper", COLOURS[1], "s")):
            line = {m: v for (s, m), r in sorted(points.items()) if s == scale and (v := _values(r, column))}
            if line:
                spreads = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in line.values()]
                means = [statistics.fmean(v) for v in line.values()]
                label = f"{scale}'s scale"
                axes.errorbar(list(line), means, spreads, color=colour, marker=marker, capsize=3, label=label)
        axes.set(xscale="log", xlabel="mu", ylabel=column.title)
        tidy(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    save(figure, path)
