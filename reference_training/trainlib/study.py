"""Several runs side by side: methods times seeds, one table, one figure, one machine-readable summary."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from trainlib import figures
from trainlib.config import FREE_ON_RESUME, MaskedConfig, to_dict
from trainlib.environment import environments
from trainlib.errors import UsageError
from trainlib.files import CONFIG, SUMMARY, expand, read_summary, write_atomic, write_json
from trainlib.run import check_comparable, read_pretraining_config
from trainlib.siamese.config import METHOD_OPTIONS, SiameseRunConfig
from trainlib.tables import aggregate, group_by_method, results_table

TABLE, FIGURE, INFORMATION = "table.md", "effective_rank.png", "information.png"
BRANCHES_FIGURE = figures.PaperFigure(
    "information of the two branches",
    figures.grid("mutual_information", "joint_entropy", "matrix_js"),
    figures.SIAMESE,
)
# What runs of one table may differ in: what a method may set for itself, and what does not change the result.
OF_MASKED_METHODS = {f.name for f in dataclasses.fields(MaskedConfig)} - {"recipe", "mask_ratio", "norm_pix"}
MAY_DIFFER = {*OF_MASKED_METHODS, "seed", *FREE_ON_RESUME}
OF_SIAMESE_METHODS = {*METHOD_OPTIONS, "augmentation", "crop_min", "lr", "weight_decay"}


def plan(config: Any, methods: list[str], seeds: list[int]) -> dict[str, Any]:
    """The configuration of every run, by the name of its folder; one seed after the other."""
    return {
        f"{method}-seed{seed}": (config.with_method(method) if len(methods) > 1 else config).with_seed(seed)
        for seed in seeds
        for method in methods
    }


def report(summaries: list[dict[str, Any]], run_dirs: list[Path], out: Path) -> str:
    """Write table, figure and summary of finished runs to ``out`` and return the table."""
    table = results_table(summaries)
    folders = {(s["label"], s["seed"]): d for s, d in zip(summaries, run_dirs, strict=True)}
    ordered = [(label, s["seed"]) for label, group in group_by_method(summaries).items() for s in group]
    runs = [figures.read_run(folders[label, seed], label) for label, seed in ordered]
    write_atomic(out / TABLE, (table + "\n").encode())
    features = summaries[0]["features"]
    ranks = figures.numbers(
        figures.PaperFigure("effective rank", figures.beside("effective_rank", tuple(features)), figures.ANY),
        runs,
    )
    first = ranks["panels"][0]
    ends = ", ".join(f"{curve['label']}: {curve['mean'][-1]:.1f}" for curve in first["curves"])
    ranks["title"] = f"effective rank of the {figures.FEATURES[first['feature']]} at the end — {ends}"
    figures.draw(ranks, out / FIGURE)
    if all("mutual_information" in values for values in features.values()):
        figures.draw(figures.numbers(BRANCHES_FIGURE, runs), out / INFORMATION)
    write_json(
        out / SUMMARY,
        {"methods": aggregate(summaries), "environments": environments(run_dirs), "runs": summaries},
    )
    return table


def collect(folders: list[Path]) -> tuple[list[dict[str, Any]], list[Path]]:
    """Summaries and folders of all finished runs in ``folders``, refusing what cannot be compared."""
    run_dirs = expand(folders)
    summaries, configs = [], []
    for run_dir in run_dirs:
        if not (run_dir / SUMMARY).is_file() or not (run_dir / CONFIG).is_file():
            raise UsageError(
                figures.OPTION, f"{run_dir} holds no finished run", "finish it with --resume or leave it out"
            )
        summaries.append(read_summary(run_dir))
        configs.append(read_pretraining_config(run_dir, figures.OPTION))
    common = _shared(configs[0])
    for run_dir, config in zip(run_dirs, configs, strict=True):
        for name, value in _shared(config).items():
            if value != common.get(name):
                raise UsageError(
                    figures.OPTION, f"{run_dir} has {name} {value}, {run_dirs[0]} has {common.get(name)}",
                    "summarise only runs of one recipe",
                )  # fmt: skip
    labels = [summary["label"] for summary in summaries]
    check_comparable(figures.OPTION, list(zip(labels, run_dirs, configs, [None] * len(labels), strict=True)))
    return summaries, run_dirs


def _shared(config: Any) -> dict[str, Any]:
    """The options of a run in which no other run of its table may differ."""
    free = MAY_DIFFER | (OF_SIAMESE_METHODS if isinstance(config, SiameseRunConfig) else set())
    return {k: v for section in to_dict(config).values() for k, v in section.items() if k not in free}
