"""Every bound of Tan et al. (2024), and the sharper ones of matinfo, held against real training.

    python reference_training/check_theorems.py                  # trains five methods on digits, minutes on one core
    python reference_training/check_theorems.py RUN [RUN ...]    # runs that this program trained earlier

Prints one table, writes theorems.json, table.md and pictures, and exits with 1 if a statement that is claimed to hold
was violated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

PROGRAM = "check_theorems.py"
VIOLATED_EXIT_CODE = 1
EPOCHS_HELP = "passes over the training images [the recipe's; masked methods 60 on digits, 3 on CIFAR]"
OPTIONS = (
    ("--data-dir", "data.data_dir", str, "folder with CIFAR in torchvision's layout"),
    ("--epochs", "optim.epochs", int, EPOCHS_HELP),
    ("--batch", "optim.batch", int, "images per step [the recipe's]"),
    ("--projector-width", "model.projector_width", int, "width of the projections [the recipe's]"),
    ("--lambda", "method.lambda_", float, "weight in the losses of two views [the method's]"),
    ("--log-every", "run.log_every", int, "steps between two evaluations [the recipe's]"),
    ("--seed", "run.seed", int, "seed of everything random [0]"),
    ("--threads", "run.threads", int, "CPU threads [the recipe's]"),
)


def build_parser() -> argparse.ArgumentParser:
    """All options; nothing heavy is imported for ``--help``."""
    from trainlib.cli import program_parser

    parser = program_parser(PROGRAM, __doc__)
    add = parser.add_argument
    add("folders", nargs="*", type=Path, metavar="RUN", help="folders of runs that this program trained")
    add("--out", type=Path, metavar="PATH", help="new folder for runs and report [runs/theorems, numbered]; "
        "for earlier runs, folder for the report alone [the first RUN's parent]")  # fmt: skip
    add("--methods", type=lambda text: text.split(","), metavar="LIST",
        help="what to train [barlow_twins,spectral,mae,umae,mmae]")  # fmt: skip
    add("--data", dest="data.data", choices=("digits", "cifar10", "cifar100"), default=argparse.SUPPRESS,
        help="data set [digits]")  # fmt: skip
    for flag, name, kind, text in OPTIONS:
        metavar = {str: "PATH", int: "N", float: "X"}[kind]
        add(flag, dest=name, type=kind, default=argparse.SUPPRESS, help=text, metavar=metavar)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.cli import fail, guarded

    arguments = build_parser().parse_args(argv)

    def work() -> int:
        from trainlib import ranks
        from trainlib.theorems.study import report

        ranks.expect_one()
        folders, out = _folders(arguments)
        text, violated = report(folders, out)
        print(text)
        print(f"results: {out}")
        for record in violated:
            told = f"violated: {record['number']}, {record['claim']}, in {record['folder']}"
            fail(PROGRAM, told, VIOLATED_EXIT_CODE)
        return VIOLATED_EXIT_CODE if violated else 0

    return guarded(PROGRAM, str(arguments.out or "runs"), work)


def _folders(arguments: argparse.Namespace) -> tuple[list[Path], Path]:
    """The runs to judge, trained now if none were named, and where the report goes."""
    from trainlib.errors import UsageError
    from trainlib.theorems.catalogue import METHODS

    if arguments.folders:
        if arguments.methods or any("." in name for name in vars(arguments)):
            raise UsageError("RUN", "it is trained already", "leave the options of training out")
        return arguments.folders, arguments.out or arguments.folders[0].resolve().parent
    methods = arguments.methods or list(METHODS)
    if not set(methods) <= set(METHODS) or len(set(methods)) < len(methods):
        raise UsageError(
            "--methods", f"got {','.join(methods)}", f"name some of {','.join(METHODS)}, each once"
        )
    from trainlib.driver import free_folder
    from trainlib.theorems.study import configurations, train

    out = arguments.out or free_folder(Path("runs") / "theorems")
    return train(configurations(arguments, methods), out), out


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
