"""One table, one figure and one machine-readable summary from the folders of finished runs.

    python reference_training/summarize_runs.py RUN_OR_COMPARISON [...] --out REPORT

A comparison's folder stands for all runs in it. Runs are grouped by method and weight; seeds are averaged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

PROGRAM = "summarize_runs.py"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.cli import OneLineParser, fail, missing_package
    from trainlib.errors import USAGE_EXIT_CODE, UsageError, describe_os_error

    parser = OneLineParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="runs or comparisons")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="folder for table.md, summary.json, picture"
    )
    arguments = parser.parse_args(argv)
    try:
        from trainlib.study import collect, report
    except ModuleNotFoundError as error:
        return missing_package(PROGRAM, error)
    try:
        summaries, folders = collect(arguments.folders)
        arguments.out.mkdir(parents=True, exist_ok=True)
        print(report(summaries, folders, arguments.out))
    except UsageError as error:
        return fail(PROGRAM, str(error), USAGE_EXIT_CODE)
    except OSError as error:
        return fail(PROGRAM, describe_os_error(error, str(arguments.out)), USAGE_EXIT_CODE)
    return 0


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
