"""Fine-tuning of the encoders of finished (or unfinished) pre-training runs by the published protocol.

    python reference_training/finetune.py RUN_OR_COMPARISON [...]

AdamW with layer decay, drop path, RandAugment, mixup, cutmix, random erasing, label smoothing. What a data set's
defaults leave out is said at the start. Results go to RUN/finetune.json and finetune.png; with --scratch to
RUN/scratch.json. Defaults are in square brackets; where they depend on the data set, each one's is given.
"""

from __future__ import annotations

PROGRAM = "finetune.py"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.programs import parser, run_program

    return run_program(PROGRAM, parser(PROGRAM, __doc__).parse_args(argv))


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
