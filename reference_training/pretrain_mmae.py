"""Masked pre-training with matrix information regularisers: MAE, U-MAE, M-MAE, or one of their relatives.

    python reference_training/pretrain_mmae.py

Without options: M-MAE on scikit-learn's digits, a few minutes on two cores. Defaults are in square brackets; where they
depend on --data, each data set's is given. See also README.md.
"""

from __future__ import annotations

PROGRAM = "pretrain_mmae.py"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.programs import parser, run_program

    return run_program(PROGRAM, parser(PROGRAM, __doc__).parse_args(argv))


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
