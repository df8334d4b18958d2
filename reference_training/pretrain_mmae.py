"""Masked pre-training with matrix information regularisers: MAE, U-MAE, M-MAE and relatives.

Without arguments: M-MAE on scikit-learn's digits, a few minutes on two cores. See ``--help`` and ``README.md``.
"""

from __future__ import annotations

import argparse

PROGRAM = "pretrain_mmae.py"


def build_parser() -> argparse.ArgumentParser:
    """All options; nothing heavy is imported for ``--help``."""
    from trainlib.cli import OneLineParser, add_config_options, add_work_options
    from trainlib.config import MaskedRunConfig

    parser = OneLineParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [options]",
        description="Masked autoencoder pre-training: MAE, U-MAE, M-MAE, or one of their relatives. Without options: "
        "M-MAE on scikit-learn's digits. Defaults are in square brackets; where they depend on --data, each data "
        "set's is given.",
        allow_abbrev=False,
    )
    add_work_options(parser, "MAE, U-MAE and M-MAE")
    add_config_options(parser, MaskedRunConfig())
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
