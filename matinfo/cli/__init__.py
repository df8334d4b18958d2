"""The command line: ``matinfo report FILE``, also ``python -m matinfo``.

It runs no code of a file: pickled objects are refused, and ``.pt`` goes through torch's restricted unpickler only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from matinfo._extras import MissingExtra
from matinfo.cli.arguments import parse
from matinfo.cli.errors import InputError, printable
from matinfo.cli.report import load, make_report
from matinfo.cli.write import write_report

__all__ = ["load", "main"]

BAD_INPUT = 2  # as argparse has it
INTERRUPTED = 130  # as shells have it: 128 and the number of the signal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the name of the program; None for those of the process.

    Returns:
        Exit status: 0, or 2 for arguments or files that cannot be used, with one line about it on standard error, or
        130 if interrupted.

    Notes:
        What a report costs is one pass over each file and one decomposition of a matrix of order min(n, d).

    Example:
        >>> import tempfile, pathlib, numpy as np
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> np.save(folder / "features.npy", np.eye(4))
        >>> main(["report", str(folder / "features.npy"), "--alpha", "1"])
        features.npy: 4 rows, 4 columns, float64
        ...
        effective rank ... 4 dimensions
        ...
        0
    """
    try:
        options = parse(argv)
        if isinstance(options, int):
            return options
        write_report(make_report(options), options)
        sys.stdout.flush()
        return 0
    except (InputError, MissingExtra) as error:
        sys.stderr.write(f"matinfo: error: {printable(str(error))}\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        sys.stderr.write("matinfo: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
