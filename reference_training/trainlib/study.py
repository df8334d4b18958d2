"""Several runs side by side: methods times seeds, one table, one figure, one machine-readable summary."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from trainlib.config import FREE_ON_RESUME
from trainlib.environment import environments
from trainlib.errors import UsageError
from trainlib.files import read_names, read_summary, read_table, write_atomic, write_json
from trainlib.logs import read_metrics
from trainlib.pictures import draw_comparison
from trainlib.siamese.config import METHOD_OPTIONS
from trainlib.siamese.pictures import draw_information
from trainlib.tables import aggregate, group_by_method, results_table

MANIFEST, CONFIG, SUMMARY = "study.json", "config.json", "summary.json"
TABLE, FIGURE, INFORMATION = "table.md", "effective_rank.png", "information.png"
FEATURES = {
    "cls": "CLS feature", "pooled": "mean of the patch tokens", "backbone": "backbone", "projector": "projector",
}  # fmt: skip
MAY_DIFFER = (
    "method",
    "lambda_",
    "mu",
    "tcr_scale",
    "centering",
    "double_norm",
    "gather",
    "masks",
    "infonce_weight",
    "club_weight",
    "nll_weight",
    "temperature",
    "seed",
    *FREE_ON_RESUME,
)
OF_SIAMESE_METHODS = {*METHOD_OPTIONS, "augmentation", "crop_min", "lr", "weight_decay"}


def plan(config: Any, methods: list[str], seeds: list[int]) -> dict[str, Any]:
    """The configuration of every run, by the name of its folder; one seed after the other."""
    return {
        f"{method}-seed{seed}": dataclasses.replace(
            config.with_method(method) if len(methods) > 1 else config,
            run=dataclasses.replace(config.run, seed=seed),
        )
        for seed in seeds
        for method in methods
    }


def with_identity(config: Any, run: Any) -> Any:
    """``config`` with the method and the seed of ``run``: what a comparison itself varies."""
    return dataclasses.replace(
        config,
        method=dataclasses.replace(config.method, method=run.method.method),
        run=dataclasses.replace(config.run, seed=run.run.seed),
    )


def report(summaries: list[dict[str, Any]], run_dirs: list[Path], out: Path) -> str:
    """Write table, figure and summary of finished runs to ``out`` and return the table."""
    table = results_table(summaries)
    folders = {(s["label"], s["seed"]): d for s, d in zip(summaries, run_dirs, strict=True)}
    curves = {
        label: [read_metrics(folders[label, s["seed"]]) for s in group]
        for label, group in group_by_method(summaries).items()
    }
    write_atomic(out / TABLE, (table + "\n").encode())
    features = summaries[0]["features"]
    draw_comparison(curves, {name: FEATURES[name] for name in features}, out / FIGURE)
    if all("mutual_information" in values for values in features.values()):
        draw_information(curves, out / INFORMATION)
    write_json(
        out / SUMMARY,
        {"methods": aggregate(summaries), "environments": environments(run_dirs), "runs": summaries},
    )
    return table


def expand(folders: list[Path]) -> list[Path]:
    """The folders of the runs; a comparison's folder stands for all runs in it."""
    run_dirs = []
    for folder in folders:
        if (folder / MANIFEST).is_file():
            run_dirs += [folder / name for name in read_names(folder / MANIFEST)]
        else:
            run_dirs.append(folder)
    return run_dirs


def collect(folders: list[Path]) -> tuple[list[dict[str, Any]], list[Path]]:
    """Summaries and folders of all finished runs in ``folders``, refusing what cannot be compared."""
    run_dirs = expand(folders)
    summaries: list[dict[str, Any]] = []
    kept: list[Path] = []
    seen: dict[tuple[str, int], Path] = {}
    common: dict[str, Any] | None = None
    for run_dir in run_dirs:
        if not (run_dir / SUMMARY).is_file() or not (run_dir / CONFIG).is_file():
            raise UsageError(
                "FOLDER", f"{run_dir} holds no finished run", "finish it with --resume or leave it out"
            )
        config, summary = read_table(run_dir / CONFIG, model=dict, data=dict), read_summary(run_dir)
        free = {*MAY_DIFFER, *(OF_SIAMESE_METHODS if "backbone" in config["model"] else ())}
        shared = {s: {k: v for k, v in config[s].items() if k not in free} for s in config}
        common = common or shared
        for section, values in shared.items():
            for key, value in values.items():
                if value != common[section].get(key):
                    raise UsageError(
                        "FOLDER", f"{run_dir} has {key} {value}, {kept[0]} has {common[section].get(key)}",
                        "summarise only runs of one recipe",
                    )  # fmt: skip
        identity = (summary["label"], summary["seed"])
        if identity in seen:
            raise UsageError(
                "FOLDER", f"{run_dir} and {seen[identity]} are both {summary['label']} with seed {summary['seed']}",
                "give each run once",
            )  # fmt: skip
        seen[identity] = run_dir
        summaries.append(summary)
        kept.append(run_dir)
    return summaries, kept
