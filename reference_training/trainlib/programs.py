"""The programs that train, by the name of their scripts, and what carries out a command line of theirs."""

from __future__ import annotations

import argparse
import functools

from trainlib.cli import add_config_options, add_work_options, program_parser, protocol_parser
from trainlib.config import MaskedRunConfig
from trainlib.driver import Program, run_command
from trainlib.finetuning import PROTOCOL as FINETUNING
from trainlib.mask_information import build_masked
from trainlib.paper import FINETUNE, MASKED, PROBE, SIAMESE
from trainlib.probing import PROTOCOL as PROBING
from trainlib.protocol import run_protocol
from trainlib.siamese.config import COMPARED, SiameseRunConfig
from trainlib.siamese.instrument import batch_information
from trainlib.siamese.registry import build_method
from trainlib.siamese.validate import validate_siamese
from trainlib.validate import validate_masked

PRETRAINING = {
    MASKED: Program(MASKED, MaskedRunConfig, build_masked, validate_masked, ("mae", "umae", "mmae")),
    SIAMESE: Program(SIAMESE, SiameseRunConfig, build_method, validate_siamese, COMPARED, batch_information),
}
PROTOCOLS = {PROBE: PROBING, FINETUNE: FINETUNING}


@functools.cache
def parser(program: str) -> argparse.ArgumentParser:
    """A reader of the program's options, for those who call it from here."""
    if program in PROTOCOLS:
        return protocol_parser(program, "", PROTOCOLS[program].config_class())
    reader = program_parser(program, "")
    add_work_options(reader, "")
    add_config_options(reader, PRETRAINING[program].config_class())
    return reader


def run_program(program: str, arguments: argparse.Namespace) -> int:
    """Carry out a parsed command line of the program; its exit code."""
    if program in PROTOCOLS:
        return run_protocol(PROTOCOLS[program], arguments)
    return run_command(PRETRAINING[program], arguments)
