"""Accuracy of weighted nearest neighbours on the features of pre-training runs.

    python reference_training/knn.py RUN_OR_COMPARISON [...] --k 1 20 200

Cosine similarity, votes weighted by exp(cosine / temperature). Results go to RUN/knn.json, in place of earlier ones.
"""

from __future__ import annotations

PROGRAM = "knn.py"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.programs import parser, run_program

    return run_program(PROGRAM, parser(PROGRAM, __doc__).parse_args(argv))


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
