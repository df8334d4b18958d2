"""One table, one figure and one machine-readable summary from the folders of finished runs.

    python reference_training/summarize_runs.py RUN_OR_COMPARISON [...] --out REPORT

A comparison's folder stands for all runs in it. Runs are grouped by method and weight; seeds are averaged.
"""

from __future__ import annotations

from pathlib import Path

PROGRAM = "summarize_runs.py"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.cli import guarded, program_parser

    parser = program_parser(PROGRAM, __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="runs or comparisons")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="folder for table.md, summary.json, picture"
    )
    arguments = parser.parse_args(argv)

    def work() -> None:
        from trainlib.study import collect, report

        summaries, folders = collect(arguments.folders)
        arguments.out.mkdir(parents=True, exist_ok=True)
        print(report(summaries, folders, arguments.out))

    return guarded(PROGRAM, str(arguments.out), work)


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
