"""The published linear probe of the encoders of finished (or unfinished) pre-training runs.

    python reference_training/linear_probe.py RUN_OR_COMPARISON [...]

Frozen encoder, batch norm without affine map, linear head, LARS. Results go to RUN/linear_probe.json. Defaults are in
square brackets; where they depend on the data set, each one's is given.
"""

from __future__ import annotations

PROGRAM = "linear_probe.py"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.programs import parser, run_program

    return run_program(PROGRAM, parser(PROGRAM, __doc__).parse_args(argv))


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
