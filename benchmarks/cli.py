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


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        quick: Small sizes and few repetitions.
        cases: Names of cases or groups; empty for all.
        clock: ``"cpu"`` or ``"wall"``, from which ratios are formed. Both are recorded.
        threads: Of every library.
        rounds: Samples of each contender, in turns.
        seconds: Time after which a contender of a case takes no further samples.
        budget: Seconds for the scaling curves.
        peer_paths: Folders put on the import path for peers.
        out: Folder for the results; None to print only.
        render: Only draw the tables and the plot again from the JSON file in ``out``.
        show: Only list the cases.
    """

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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--quick", action="store_true", help="small sizes, few repetitions: does everything run?"
    )
    what.add_argument(
        "--case", action="append", default=[], metavar="NAME", help="a case or group; repeatable"
    )
    what.add_argument("--list", action="store_true", help="list the cases and stop")
    what.add_argument(
        "--render", action="store_true", help="only rewrite the tables and the plot from the JSON"
    )
    how = parser.add_argument_group("how to measure")
    how.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="clock of the ratios; cpu (processor time) on a machine that others use too (default: wall)",
    )
    how.add_argument(
        "--threads", type=_positive(int), default=1, metavar="N", help="of all libraries (default: 1)"
    )
    how.add_argument(
        "--rounds", type=_positive(int), metavar="N", help="samples per contender (default: 9; quick: 2)"
    )
    how.add_argument(
        "--seconds",
        type=_positive(float),
        metavar="S",
        help="a contender of a case stops sampling after this time (default: 5; quick: 0.2)",
    )
    how.add_argument(
        "--budget-seconds",
        type=_positive(float),
        metavar="S",
        help="for the scaling curves: a size expected to exceed it is left out (default: 90; quick: 3)",
    )
    where = parser.add_argument_group("where")
    where.add_argument(
        "--peer-path", action="append", default=[], metavar="DIR", help="checkout of a peer; repeatable"
    )
    where.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: benchmarks/results for a full run, else nothing is written); of some "
        "cases, those are replaced there",
    )
    a = parser.parse_args(arguments)
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
    arguments: list[str] | None, program: str, text: str, **flags: tuple[Any, ...]
) -> argparse.Namespace:
    """The command line of another program of this folder.

    Args:
        arguments: After the program's name.
        program: Its module.
        text: What it does.
        **flags: By name: the default, whose type is that of the value; what it is; what else argparse is to know.

    Returns:
        The values by name.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{program}", description=text)
    for name, (default, words, *more) in flags.items():
        kind: dict[str, Any] = {"type": type(default), "default": default}
        if isinstance(default, bool):
            kind = {"action": "store_true"}
        elif isinstance(default, Path):
            kind["type"] = Path
        options = kind | (more[0] if more else {})
        shown = f" (default: {default})" if kind.get("default") not in (None, [""]) else ""
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
