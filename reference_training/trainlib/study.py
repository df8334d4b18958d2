"""Several runs side by side: methods times seeds, one table, one figure, one machine-readable summary."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainlib.config import FREE_ON_RESUME, differences
from trainlib.environment import environments
from trainlib.errors import UsageError
from trainlib.files import CONFIG, SUMMARY, expand, read_summary, read_table, write_atomic, write_json
from trainlib.logs import read_metrics
from trainlib.pictures import draw_comparison
from trainlib.siamese.config import METHOD_OPTIONS
from trainlib.siamese.pictures import draw_information
from trainlib.tables import aggregate, group_by_method, results_table

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
        f"{method}-seed{seed}": (config.with_method(method) if len(methods) > 1 else config).with_seed(seed)
        for seed in seeds
        for method in methods
    }


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


def refuse_twins(option: str, runs: Iterable[tuple[str, int, Path]]) -> None:
    """Refuse one run given twice, of which a mean would be taken: equal label and seed, even in two folders."""
    seen: dict[tuple[str, int], Path] = {}
    for label, seed, folder in runs:
        if (label, seed) in seen:
            problem = f"{folder} and {seen[label, seed]} are both {label} with seed {seed}"
            raise UsageError(option, problem, "give each run once")
        seen[label, seed] = folder


def check_comparable(option: str, runs: list[tuple[str, Path, Any, int | None]]) -> None:
    """Refuse runs of equal label whose mean would be one of unlike recipes or of one run twice.

    A run is given by its label, folder, configuration, and finished epochs where they must be equal.
    """
    first: dict[str, tuple[Path, Any, int | None]] = {}
    for label, folder, config, epoch in runs:
        other, theirs_config, other_epoch = first.setdefault(label, (folder, config, epoch))
        unlike = differences(config, theirs_config.with_seed(config.run.seed))
        if not unlike and epoch != other_epoch:
            unlike = [("epoch", epoch, other_epoch)]
        for flag, ours, theirs in unlike:
            raise UsageError(
                option, f"{folder} has {flag} {ours}, {other} has {theirs}, and both are {label}",
                "name only runs of one recipe",
            )  # fmt: skip
    refuse_twins(option, ((label, config.run.seed, folder) for label, folder, config, _ in runs))


def collect(folders: list[Path]) -> tuple[list[dict[str, Any]], list[Path]]:
    """Summaries and folders of all finished runs in ``folders``, refusing what cannot be compared."""
    run_dirs = expand(folders)
    summaries: list[dict[str, Any]] = []
    kept: list[Path] = []
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
        summaries.append(summary)
        kept.append(run_dir)
    twins = ((s["label"], s["seed"], folder) for s, folder in zip(summaries, kept, strict=True))
    refuse_twins("FOLDER", twins)
    return summaries, kept
