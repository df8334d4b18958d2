"""From parsed options to finished runs: what to train, where, and how errors end the program."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from trainlib import ranks, study
from trainlib.cli import read_config, seed_list
from trainlib.config import resolve
from trainlib.data import load_dataset
from trainlib.errors import UsageError
from trainlib.files import MANIFEST, new_folder, read_names, write_json
from trainlib.run import check_same, check_shares, create_run_dir, prepare_device, read_run_config, train_run


def pretrain(config_class: type, arguments: argparse.Namespace) -> None:
    """Carry out the command line of a pre-training script."""
    plan = _planned if arguments.resume is None else _resumed
    out, runs = plan(config_class, arguments)
    for config in runs.values():
        config.validate()
    first = next(iter(runs.values()))  # the runs of a comparison differ in method and seed only
    prepare_device(first)
    check_shares(first)
    dataset = load_dataset(first)  # all that can be wrong with the data is said before any folder is made
    ranks.connect(first.run.device)
    out = ranks.agree(out)
    if arguments.resume is None and ranks.is_first():
        _create(out, runs)
    ranks.agree(None)  # the folders are there
    folders = [out / name for name in runs]
    summaries = [
        train_run(config, dataset, folder) for config, folder in zip(runs.values(), folders, strict=True)
    ]
    ranks.disconnect()
    if not ranks.is_first():
        return
    compared = runs.keys() != {""}
    print(study.report(summaries, folders, out) if compared else study.results_table(summaries))
    print(f"results: {out}, picture: {out / study.FIGURE}" if compared else f"results: {out}")


def _planned(config_class: type, arguments: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Folder and configurations of a fresh command; a single run has the name ''."""
    config = read_config(arguments, config_class())
    if arguments.compare and "method.method" in vars(arguments):
        methods = ", ".join(config.compared)
        raise UsageError(
            "--compare", f"it trains {methods}, whatever --method says", "leave one of the two out"
        )
    seeds = seed_list(arguments.seeds, config.run.seed)
    chosen = list(config.compared) if arguments.compare else [config.method.method]
    name = "compare" if arguments.compare else config.method.method
    out = arguments.out or free_folder(Path("runs") / f"{name}-{config.data.data}")
    single = len(chosen) * len(seeds) == 1
    runs = {"": config} if single else study.plan(config, chosen, seeds)
    return out, {name: resolve(run) for name, run in runs.items()}


def free_folder(wanted: Path) -> Path:
    """``wanted``, or the first of ``wanted-2``, ``wanted-3``, ... that does not exist."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _create(out: Path, runs: dict[str, Any]) -> None:
    if "" not in runs:
        new_folder(out)
        write_json(out / MANIFEST, {"runs": list(runs)})
    for name, config in runs.items():
        create_run_dir(out / name, config)


def _resumed(config_class: type, arguments: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Folder and saved configurations of an earlier command; options given anew must agree with them."""
    out = arguments.resume
    if arguments.out is not None:
        raise UsageError("--out", "a resumed run stays in its own folder", "leave --out out")
    if arguments.compare or arguments.seeds is not None:
        raise UsageError(
            "--resume", "the folder knows its own methods and seeds", "leave --compare and --seeds out"
        )
    if not out.is_dir():
        raise UsageError("--resume", f"there is no folder {out}", "name the --out of an earlier run")
    names = read_names(out / MANIFEST) if (out / MANIFEST).is_file() else [""]
    for name in names:  # a run that is continued is written to: never outside of the folder that was named
        if name and (Path(name).name != name or name in (".", "..") or (out / name).is_symlink()):
            raise UsageError(
                str(out / MANIFEST), f"names {name!r}, which is not a folder in {out}", "put back a copy"
            )
    runs = {}
    for name in names:
        saved = read_run_config(out / name, config_class)
        asked = read_config(arguments, saved)
        if name:  # a comparison sets method and seed of its runs itself
            method = dataclasses.replace(asked.method, method=saved.method.method)
            asked = dataclasses.replace(asked.with_seed(saved.run.seed), method=method)
        check_same(asked, saved, out / name)
        runs[name] = asked
    return out, runs
