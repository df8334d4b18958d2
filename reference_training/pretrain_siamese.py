"""Joint-embedding pre-training (SimCLR, Barlow Twins, BYOL and others) with the information of its branches measured.

Without arguments: SimCLR on scikit-learn's digits, a minute or two on one core. See ``--help`` and ``README.md``.
"""

from __future__ import annotations

import argparse

PROGRAM = "pretrain_siamese.py"


def build_parser() -> argparse.ArgumentParser:
    """All options; nothing heavy is imported for ``--help``."""
    from trainlib.cli import OneLineParser, add_config_options, add_work_options
    from trainlib.siamese.config import SiameseRunConfig

    parser = OneLineParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [options]",
        description="Joint-embedding pre-training with the matrix information of the two branches measured. Without "
        "options: SimCLR on scikit-learn's digits. Defaults are in square brackets; where they depend on --data, each "
        "data set's is given.",
        allow_abbrev=False,
    )
    add_work_options(parser, "SimCLR, Barlow Twins and BYOL")
    add_config_options(parser, SiameseRunConfig())
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = build_parser().parse_args(argv)
    from trainlib.cli import missing_package

    try:
        from trainlib.programs import run_program
    except ModuleNotFoundError as error:
        return missing_package(PROGRAM, error)
    return run_program(PROGRAM, arguments)


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
