"""The programs that train or evaluate runs, by the names of their scripts: command lines, and what carries them out.

Nothing heavy is imported before a command line has been read, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from trainlib.cli import add_config_options, guarded, parse_seeds, program_parser
from trainlib.config import MaskedRunConfig
from trainlib.paper import FINETUNE, KNN, MASKED, PROBE, SIAMESE
from trainlib.protocol_config import FinetuneRunConfig, KnnRunConfig, ProbeRunConfig
from trainlib.siamese.config import SiameseRunConfig

CONFIGS = {
    MASKED: MaskedRunConfig, SIAMESE: SiameseRunConfig,
    PROBE: ProbeRunConfig, FINETUNE: FinetuneRunConfig, KNN: KnnRunConfig,
}  # fmt: skip
COMPARED = {MASKED: "MAE, U-MAE and M-MAE", SIAMESE: "SimCLR, Barlow Twins and BYOL"}


@functools.cache
def parser(program: str, text: str = "") -> argparse.ArgumentParser:
    """The command line of a program, generated from its configuration; ``text`` is its help."""
    pretrains = program in COMPARED
    usage = f"{program} [options]" if pretrains else f"{program} RUN [RUN ...] [options]"
    reader = program_parser(program, text, usage=usage)
    if not pretrains:
        found = "folder of a pre-training run, or of a comparison"
        reader.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=found)
    add = reader.add_argument_group("what to do").add_argument
    if pretrains:
        place = "new folder for the results [runs/METHOD-DATA, numbered]"
        add("--out", metavar="PATH", type=Path, help=place)
        add("--resume", metavar="PATH", type=Path, help="continue the run, or the comparison, in this folder")
        compared = f"train {COMPARED[program]} from the same seed and compare"
        add("--compare", action="store_true", help=compared)
    else:
        add("--out", metavar="PATH", type=Path, help="folder for the results [each run's own]")
        if program != KNN:
            add("--resume", action="store_true", help="continue what was stopped; finished parts are kept")
    if program == KNN:
        add("--k", metavar="N", type=int, nargs="+", default=[20], help="numbers of neighbours [20]")
    else:
        add("--seeds", metavar="N|LIST", type=parse_seeds,
            help="repeat with N seeds counted from --seed, or with a list such as 0,1,2")  # fmt: skip
    add_config_options(reader, CONFIGS[program]())
    return reader


def run_program(program: str, arguments: argparse.Namespace) -> int:
    """Carry out a command line of the program that was read; its exit code."""

    def work() -> None:
        if program in COMPARED:
            from trainlib.driver import pretrain

            pretrain(CONFIGS[program], arguments)
        elif program == KNN:
            from trainlib.neighbours import measure

            measure(arguments)
        else:
            from trainlib import finetuning, probing
            from trainlib.protocol import evaluate

            evaluate(probing.PROTOCOL if program == PROBE else finetuning.PROTOCOL, arguments)

    place = arguments.out or (arguments.resume or "runs" if program in COMPARED else arguments.runs[0])
    return guarded(program, str(place), work)
