"""The commands that a figure or table of the paper consists of: their text, their state, and what carries them out."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from trainlib import deadline
from trainlib.cli import read_config
from trainlib.config import resolve
from trainlib.errors import DIVERGED_EXIT_CODE, INTERRUPTED_EXIT_CODE
from trainlib.files import CONFIG, SUMMARY, read_table
from trainlib.paper import FINETUNE, PROBE, Training, What
from trainlib.programs import COMPARED, CONFIGS, parser, run_program
from trainlib.run import check_same, configuration, read_run_config

RESULTS = {PROBE: "linear_probe", FINETUNE: "finetune"}
SCRIPTS = Path(__file__).resolve().parents[1]


class Chosen(NamedTuple):
    """What the user says for all runs."""

    out: Path
    data: str
    data_dir: str | None
    seeds: int
    device: str | None = None
    threads: int | None = None

    def common(self) -> tuple[str, ...]:
        """The options that every program takes."""
        pairs = (("--data-dir", self.data_dir), ("--device", self.device), ("--threads", self.threads))
        return tuple(text for flag, value in pairs if value is not None for text in (flag, str(value)))


class Command(NamedTuple):
    """One program on one run: its options but for the place, and its resolved configuration."""

    program: str
    title: str
    seed: int
    folder: Path  # of the pre-training run
    options: tuple[str, ...]  # as a shell has them
    parsed: argparse.Namespace
    config: Any

    @property
    def pretrains(self) -> bool:
        """Whether the command makes the run, or evaluates it."""
        return self.program in COMPARED

    def state(self) -> str:
        """``new``, ``begun`` or ``finished``.

        Raises:
            UsageError: What is there was made with other options.
        """
        if self.pretrains:
            if not (self.folder / CONFIG).is_file():
                return "new"
            check_same(self.config, read_run_config(self.folder, type(self.config)), self.folder)
            return "finished" if (self.folder / SUMMARY).is_file() else "begun"
        name = RESULTS[self.program]
        result = self.folder / f"{name}.json"
        if not result.is_file():
            return "begun" if (self.folder / name).is_dir() else "new"
        protocol = read_table(result, protocol=dict)["protocol"]
        check_same(self.config, configuration(result, type(self.config), protocol), result)
        return "finished"

    def text(self, state: str) -> str:
        """The whole command, for a shell."""
        new, place = state == "new", str(self.folder)
        if self.pretrains:
            arguments = [*self.options, "--out" if new else "--resume", place]
        else:
            arguments = [place, *self.options, *([] if new else ["--resume"])]
        return shlex.join(["python", os.path.relpath(SCRIPTS / self.program), *arguments])

    def run(self, state: str) -> int:
        """The same, here; an exit code."""
        new = state == "new"
        if self.pretrains:
            place = {"out": self.folder} if new else {"resume": self.folder}
        else:
            place = {"resume": not new}
        return run_program(self.program, argparse.Namespace(**vars(self.parsed) | place))


def commands(what: What, chosen: Chosen) -> list[Command]:
    """All commands of a figure or table, one seed after the other, each checked by its program's own rules."""
    return [
        command
        for seed in range(chosen.seeds)
        for training in what.rows
        for command in _of_training(training, seed, chosen)
    ]


def run_folder(training: Training, seed: int, chosen: Chosen) -> Path:
    """Where a run lies, equal for all figures and tables that share it."""
    return chosen.out / "runs" / f"{chosen.data}-{training.epochs}ep-{training.name}-seed{seed}"


def _of_training(training: Training, seed: int, chosen: Chosen) -> list[Command]:
    folder = run_folder(training, seed, chosen)
    options = ("--data", chosen.data, *training.options, "--seed", str(seed), *chosen.common())
    parsed = parser(training.program).parse_args(options)
    config = resolve(read_config(parsed, CONFIGS[training.program]()))
    config.validate()
    found = [Command(training.program, training.title, seed, folder, options, parsed, config)]
    for program, own in training.evaluations:
        following = (*own, *chosen.common())
        parsed = parser(program).parse_args([str(folder), *following])
        asked = resolve(read_config(parsed, CONFIGS[program]()).with_source(config))
        asked.validate()
        found.append(Command(program, training.title, seed, folder, following, parsed, asked))
    return found


def carry_out(todo: list[Command]) -> tuple[int, list[Command]]:
    """Carry out what is not finished; an exit code, and the trainings that diverged (the others go on).

    Raises:
        PausedError: The time is over; the same call goes on where this one stopped.
    """
    diverged: list[Command] = []
    for number, command in enumerate(todo, 1):
        state = command.state()
        if state == "finished" or any(other.folder == command.folder for other in diverged):
            continue
        if deadline.passed():
            raise deadline.PausedError
        print(f"[{number}/{len(todo)}] {command.text(state)}", file=sys.stderr, flush=True)
        with contextlib.redirect_stdout(io.StringIO()):  # the tables of single runs
            code = command.run(state)
        if code == INTERRUPTED_EXIT_CODE:
            raise KeyboardInterrupt
        if code == DIVERGED_EXIT_CODE:
            diverged.append(command)
        elif code:
            return code, diverged
    return DIVERGED_EXIT_CODE if diverged else 0, diverged
