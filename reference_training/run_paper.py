"""One figure or table of Information Flow in Self-Supervised Learning (Tan et al. 2024): train, evaluate, draw.

    python reference_training/run_paper.py figure3 --scale digits --seeds 1
    python reference_training/run_paper.py figure4 --scale cifar-full --data-dir DATA --minutes 10

figure1: mutual information, joint entropy, divergences of SimCLR, Barlow Twins, BYOL (Figures 1, 2, 5); figure3: SimCLR
at three temperatures; figure4: effective rank of MAE, U-MAE, M-MAE; table1, table3: their linear probe and fine-tuning
(on CIFAR-100 for table3); table2: M-MAE over mu, in the code's and in the paper's scale; strength: M-MAE against U-MAE
at equal weight and at equal strength; matched: at equal strength alone; defects: three defects of the published code;
er: entropy-reconstruction objectives at small batch and small EMA; mimae: MI-MAE style against its controls. The same
command continues what was stopped and skips what is finished; runs that figures share are trained once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

PROGRAM = "run_paper.py"


def build_parser() -> argparse.ArgumentParser:
    """All options; nothing heavy is imported for ``--help``."""
    from trainlib.cli import program_parser
    from trainlib.paper import SCALES, WHATS

    parser = program_parser(PROGRAM, __doc__)
    add = parser.add_argument
    add("what", choices=(*WHATS, "all"), metavar="WHAT", help=", ".join((*WHATS, "all")))
    add("--scale", choices=SCALES, required=True, help="digits, cifar-small, imagenette: for CPU cores; "
        "cifar-medium, cifar-long: for ten minutes on a GPU; cifar-full, imagenet: "
        "the paper's recipes, for a GPU")  # fmt: skip
    add(
        "--data",
        choices=("cifar10", "cifar100"),
        help="at the scales of CIFAR [cifar10; figure4, table3: cifar100]",
    )
    add(
        "--data-dir",
        metavar="PATH",
        help="folder with CIFAR in torchvision's layout, or with train/ and val/",
    )
    add("--out", type=Path, metavar="PATH", help="folder of runs and results [runs/paper-SCALE]")
    add("--seeds", type=int, metavar="N", help="seeds 0 to N-1 [digits: 3; else 1]")
    add("--epochs", type=int, metavar="N", help="epochs of pre-training [the scale's]")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), help="where to train [auto]")
    add("--threads", type=int, metavar="N", help="CPU threads [the recipes']")
    add("--minutes", type=float, metavar="X", help="stop at the first checkpoint after so many minutes")
    add("--lanes", type=int, default=2, metavar="N", help="at cifar-medium and -long: networks side by side on "
        "the card, at most [2]")  # fmt: skip
    add(
        "--checkpoints",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="at cifar-medium and -long: keep the weights of the masked runs",
    )
    add("--dry-run", action="store_true", help="print the commands and a rough cost, do nothing")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = build_parser().parse_args(argv)
    from trainlib.cli import guarded

    def work() -> int:
        from trainlib.paper_run import run_paper

        try:
            return run_paper(arguments)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("continue with the same command") from None

    return guarded(PROGRAM, str(arguments.out or "runs"), work)


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
