"""Accuracy of weighted nearest neighbours on the features of pre-training runs.

    python reference_training/knn.py RUN_OR_COMPARISON [...] --k 1 20 200

Cosine similarity, votes weighted by exp(cosine / temperature). Results go to RUN/knn.json, in place of earlier ones.
"""

from __future__ import annotations

PROGRAM = "knn.py"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.cli import missing_package, protocol_parser
    from trainlib.protocol_config import KnnRunConfig

    parser = protocol_parser(PROGRAM, __doc__, KnnRunConfig(), trains=False)
    parser.add_argument(
        "--k", metavar="N", type=int, nargs="+", default=[20], help="numbers of neighbours [20]"
    )
    arguments = parser.parse_args(argv)
    try:
        from trainlib.neighbours import run_neighbours
    except ModuleNotFoundError as error:
        return missing_package(PROGRAM, error)
    return run_neighbours(arguments)


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
