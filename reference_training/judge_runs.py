"""Which arm is above which, over paired seeds, with intervals and corrected p-values; which number predicts the probe.

    python reference_training/judge_runs.py results/cifar10.json --above "M-MAE 0.01" "U-MAE 0.1" --picture matched.png
    python reference_training/judge_runs.py RUN RUN ... --above "M-MAE 0.01" MAE --predict --json judged.json
    python reference_training/judge_runs.py judged.json --predict

The first form reads a summary of this program, of a comparison or of ``summarize_runs.py``; the second reads folders of
finished runs, and with ``--predict`` also the eigenvalues that runs of ``cifar-medium`` keep; the third prints again
what ``--json`` wrote. Verdicts are those of ``results/plan.md``: yes, no, underpowered.
"""

from __future__ import annotations

import argparse
from pathlib import Path

PROGRAM = "judge_runs.py"


def build_parser() -> argparse.ArgumentParser:
    """All options; nothing heavy is imported for ``--help``."""
    from trainlib.cli import program_parser

    parser = program_parser(PROGRAM, __doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="PATH", help="a summary, or folders of finished runs")
    add("--above", nargs=2, action="append", metavar=("A", "B"), default=[], help="claim: the runs labelled A are "
        "above those labelled B")  # fmt: skip
    add(
        "--margin",
        type=float,
        default=1.0,
        metavar="X",
        help="smallest difference that matters, in points [1]",
    )
    add("--quantities", nargs="+", default=["knn_accuracy", "probe_accuracy"], metavar="NAME", help="what is compared "
        "for every feature [knn_accuracy probe_accuracy]")  # fmt: skip
    add("--predict", action="store_true", help="how well label-free numbers order the runs (folders, or a file of "
        "--json)")  # fmt: skip
    add("--picture", type=Path, metavar="FILE", help="draw the paired differences")
    add("--json", type=Path, metavar="FILE", help="write everything, and the runs' numbers, for later")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = build_parser().parse_args(argv)
    from trainlib.cli import guarded

    def work() -> None:
        from trainlib.judgement import judge

        print(judge(arguments))

    return guarded(PROGRAM, str(arguments.json or arguments.picture or "."), work)


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
