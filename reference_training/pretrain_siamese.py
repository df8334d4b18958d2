"""Joint-embedding pre-training (SimCLR, Barlow Twins, BYOL and others) with the information of its branches measured.

    python reference_training/pretrain_siamese.py

Without options: SimCLR on scikit-learn's digits, a minute or two on one core. Defaults are in square brackets; where
they depend on --data, each data set's is given. See also README.md.
"""

from __future__ import annotations

PROGRAM = "pretrain_siamese.py"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.programs import parser, run_program

    return run_program(PROGRAM, parser(PROGRAM, __doc__).parse_args(argv))


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
