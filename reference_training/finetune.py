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
    from trainlib.cli import missing_package, protocol_parser
    from trainlib.protocol_config import FinetuneRunConfig

    arguments = protocol_parser(PROGRAM, __doc__, FinetuneRunConfig()).parse_args(argv)
    try:
        from trainlib.finetuning import PROTOCOL
        from trainlib.protocol import run_protocol
    except ModuleNotFoundError as error:
        return missing_package(PROGRAM, error)
    return run_protocol(PROTOCOL, arguments)


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
