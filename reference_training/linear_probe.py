"""The published linear probe of the encoders of finished (or unfinished) pre-training runs.

    python reference_training/linear_probe.py RUN_OR_COMPARISON [...]

Frozen encoder, batch norm without affine map, linear head, LARS. Results go to RUN/linear_probe.json. Defaults are in
square brackets; where they depend on the data set, each one's is given.
"""

from __future__ import annotations

PROGRAM = "linear_probe.py"


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from trainlib.cli import missing_package, protocol_parser
    from trainlib.protocol_config import ProbeRunConfig

    arguments = protocol_parser(PROGRAM, __doc__, ProbeRunConfig()).parse_args(argv)
    try:
        from trainlib.probing import PROTOCOL
        from trainlib.protocol import run_protocol
    except ModuleNotFoundError as error:
        return missing_package(PROGRAM, error)
    return run_protocol(PROTOCOL, arguments)


if __name__ == "__main__":
    from trainlib.entry import enter

    enter(PROGRAM, main)
