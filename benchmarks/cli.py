"""Options, messages and files of the programs. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

DESCRIPTION = """\
Time matinfo beside its peers: one process, the same tensors, the same number of threads, the contenders in turns.
Without options every case runs (about ten minutes) and benchmarks/results/ is written anew: cpu.json (numbers and
environment), cpu.md (tables) and cpu.svg (plot). docs/benchmarks.md shows the last two."""

EPILOG = """\
A peer that is not installed is skipped with a line that says so. Peers that are looked for: repitl, vendi-score,
pennylane, qutip. A checkout that is not installed is found through --peer-path.

examples:
  python -m benchmarks --quick                      everything, tiny, in a minute; nothing is written
  python -m benchmarks --case h2 --case tcr         two cases at full size, printed only
  python -m benchmarks --clock cpu --peer-path ../representation-itl
  python -m benchmarks --render                     tables and plot again from the JSON file
"""


REPEATABLE: dict[str, Any] = {"action": "append", "type": str}


@dataclass(frozen=True)
class Options:
    """What the user asked for, as ``--help`` explains it; cases empty for all, out None to print only."""

    quick: bool = False
    cases: tuple[str, ...] = ()
    clock: str = "wall"
    threads: int = 1
    rounds: int = 9
    seconds: float = 5.0
    budget: float = 90.0
    peer_paths: tuple[str, ...] = field(default=())
    out: Path | None = None
    render: bool = False
    show: bool = False


def parse(arguments: list[str]) -> Options:
    """Read the command line; ``--help`` and mistakes end the program here."""
    a = read(
        arguments,
        "benchmarks",
        DESCRIPTION,
        EPILOG,
        quick=(False, "small sizes, few repetitions: does everything run?"),
        case=([], "a case or group; repeatable", REPEATABLE | {"metavar": "NAME"}),
        list=(False, "list the cases and stop"),
        render=(False, "only rewrite the tables and the plot from the JSON"),
        clock=(
            "wall",
            "clock of the ratios; cpu (processor time) on a machine that others use too",
            {"choices": ("wall", "cpu")},
        ),
        threads=(1, "of all libraries", {"type": _positive(int)}),
        rounds=(None, "samples per contender (default: 9; quick: 2)", {"type": _positive(int)}),
        seconds=(
            None,
            "a contender of a case stops sampling after this time (default: 5; quick: 0.2)",
            {"type": _positive(float)},
        ),
        budget_seconds=(
            None,
            "for the scaling curves: a size expected to exceed it is left out (default: 90; quick: 3)",
            {"type": _positive(float)},
        ),
        peer_path=([], "checkout of a peer; repeatable", REPEATABLE | {"metavar": "DIR"}),
        out=(
            None,
            "folder of the results, for a full run benchmarks/results; of some cases, those are replaced there",
            {"type": Path, "metavar": "DIR"},
        ),
    )
    full = not (a.quick or a.case)
    return Options(
        quick=a.quick,
        cases=tuple(a.case),
        clock=a.clock,
        threads=a.threads,
        rounds=a.rounds or (2 if a.quick else 9),
        seconds=a.seconds or (0.2 if a.quick else 5.0),
        budget=a.budget_seconds or (3.0 if a.quick else 90.0),
        peer_paths=tuple(a.peer_path),
        out=a.out or (RESULTS if full else None),
        render=a.render,
        show=a.list,
    )


def _positive(kind: type) -> type:
    def read(text: str) -> int | float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
        return value

    read.__name__ = kind.__name__  # argparse shows it when the text is no number
    return read  # type: ignore[return-value]


def read(
    arguments: list[str] | None, program: str, text: str, more: str = "", **flags: tuple[Any, ...]
) -> argparse.Namespace:
    """The command line of a program of this folder.

    Args:
        arguments: After the program's name.
        program: Its module.
        text: What it does.
        more: After the flags.
        **flags: By name: the default, whose type is that of the value; what it is; what else argparse is to know.

    Returns:
        The values by name.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=text,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, (default, words, *rest) in flags.items():
        kind: dict[str, Any] = {"type": type(default), "default": default}
        if isinstance(default, bool):
            kind = {"action": "store_true"}
        elif isinstance(default, Path):
            kind["type"] = Path
        options = kind | (rest[0] if rest else {})
        shown = f" (default: {default})" if isinstance(kind.get("default"), int | float | str | Path) else ""
        parser.add_argument(f"--{name.replace('_', '-')}", help=words + shown, **options)
    return parser.parse_args(arguments)


def say(text: str) -> None:
    """One message to the terminal, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write(path: Path, record: dict[str, Any]) -> None:
    """A JSON file of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
