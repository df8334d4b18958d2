"""Figures 1 to 5 of Information Flow in Self-Supervised Learning (Tan et al. 2024) from the folders of runs.

    python reference_training/plot_figures.py RUN_OR_COMPARISON [...] --out FIGURES

1, 2: mutual information and joint entropy of the two branches during training; 3: SimCLR at several temperatures;
4: effective rank of MAE, U-MAE and M-MAE; 5: Jensen-Shannon divergences of the branches. Mean over seeds, band of one
standard deviation. Each picture has its numbers beside it as JSON. Runs need not be finished. Figures for which there
are no runs are skipped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PROGRAM = "plot_figures.py"


def build_parser() -> argparse.ArgumentParser:
    """All options; nothing heavy is imported for ``--help``."""
    from trainlib.cli import program_parser

    parser = program_parser(PROGRAM, __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="runs or comparisons")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="folder for figure1.png, figure1.json, ..."
    )
    parser.add_argument(
        "--figure", type=int, nargs="+", choices=range(1, 7), metavar="N", default=[1, 2, 3, 4, 5, 6],
        help="only these figures [1 to 6; 6: the bound of entropy and reconstruction]",
    )  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = build_parser().parse_args(argv)
    from trainlib.cli import guarded

    return guarded(PROGRAM, str(arguments.out), lambda: _carry_out(arguments))


def _carry_out(arguments: argparse.Namespace) -> None:
    from trainlib.errors import UsageError
    from trainlib.figures import OPTION, read_runs, write_figures

    wanted = sorted(set(arguments.figure))
    written, skipped = write_figures(read_runs(arguments.folders), arguments.out, wanted)
    if not written:
        raise UsageError(OPTION, "no figure can be drawn from these runs", "; ".join(skipped))
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    for path in written:
        print(path)


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
