"""The arguments of the command, checked."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import matinfo
from matinfo._validation import check_base, check_order, check_positive
from matinfo.cli.errors import InputError
from matinfo.measures import MEASURES

PICTURES = (".png", ".svg", ".pdf")

_DESCRIPTION = """\
Entropies, effective ranks and coding rate of the features, or the matrices, in files, and what two files share.

features  one row a sample. The quantities are those of K = Z Z^T, with each row of Z divided by its length unless
          --no-normalize. Rows are streamed: memory does not grow with their number.
matrix    a symmetric positive semi-definite matrix K itself (--kind matrix).

Several arrays in one file, or more than two files, give a table. Two files give a report of each and of the pair.
Files: .npy .npz .pt .pth .safetensors .csv .tsv .parquet; no code in them is run. Pickled objects are refused; .pt and
.pth are read by torch's restricted unpickler (weights_only=True), which makes tensors and plain containers only."""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    files: tuple[Path, ...]
    kind: str = "features"
    keys: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    alphas: tuple[float, ...] = (0.5, 1.0, 2.0, math.inf)
    measures: tuple[str, ...] = ()
    mu: float = 1.0
    normalize: bool = True
    center: bool = False
    base: float | None = None
    rows: int | None = None
    seed: int = 0
    permutations: int | None = None
    batch_rows: int | None = None
    nan: str = "error"
    memory: float = 2.0 * 2**30
    plot: Path | None = None
    theme: str = "light"
    json: str | None = None
    html: Path | None = None
    progress: bool = False
    quiet: bool = False

    @property
    def unit(self) -> float:
        """One unit of information in nats."""
        return check_base(self.base)


class _Parser(argparse.ArgumentParser):
    """One line for an error, as for every other one of this program."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}. See: {self.prog} --help")


def parse(argv: Sequence[str] | None) -> Options | int:
    """Options, or the exit status if there is nothing more to do (help, version)."""
    try:
        given = _parser().parse_args(argv)
    except SystemExit as leave:
        return int(leave.code or 0)
    del given.command
    values: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in vars(given).items()}
    options = Options(**values)
    _check(options)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="matinfo", description="Matrix information theory of learned representations.")
    parser.add_argument("--version", action="version", version=f"matinfo {matinfo.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="report")
    report = commands.add_parser(
        "report",
        help="information quantities of the arrays in files",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # the defaults are those of Options
    )
    report.add_argument("files", nargs="+", type=Path, metavar="FILE")
    what = report.add_argument_group("what the files hold")
    what.add_argument("--kind", choices=("features", "matrix"), help="default: features")
    what.add_argument(
        "--key", dest="keys", action="append", metavar="NAME",
        help="which array of a file of several; once for all files, or once for each",
    )  # fmt: skip
    what.add_argument(
        "--drop", action="append", metavar="A,B,...",
        help="leave out these columns of a table; may be repeated",
    )  # fmt: skip
    what.add_argument(
        "--nan", choices=("error", "skip"),
        help="rows with NaN or infinity: refuse them (default) or leave them out",
    )  # fmt: skip
    how = report.add_argument_group("what is computed")
    how.add_argument(
        "--alpha", dest="alphas", type=_reads(_orders, "numbers in [0, inf] with commas between"), metavar="A,B,...",
        help="orders of the entropies, numbers or inf (default: 0.5,1,2,inf)",
    )  # fmt: skip
    how.add_argument(
        "--measures", type=_measures, metavar="A,B,...",
        help=f"further measures by name: {', '.join(MEASURES)}",
    )  # fmt: skip
    how.add_argument("--mu", type=_positive(), help="ridge of the coding rate (default: 1)")
    how.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction,
        help="divide each row by its length (default: yes)",
    )  # fmt: skip
    how.add_argument("--center", action="store_true", help="subtract the mean of the rows, after --normalize")
    how.add_argument(
        "--base",
        type=_reads(_base, "a number > 1 (2 for bits)"),
        metavar="B",
        help="base of the logarithm: 2 for bits (default: nats)",
    )
    how.add_argument(
        "--rows", type=_whole(1), metavar="N",
        help="draw this many rows at random, the same of all files (default: all that --memory allows)",
    )  # fmt: skip
    how.add_argument("--seed", type=_whole(0), metavar="S", help="of --rows and of the chance level (0)")
    how.add_argument(
        "--permutations", type=_whole(0), metavar="P",
        help="random pairings for the chance level of information (default: 19 to 99, by cost; 0: none)",
    )  # fmt: skip
    run = report.add_argument_group("running")
    run.add_argument(
        "--batch-rows", type=_whole(1), metavar="N", help="rows in memory at a time (default: by width)"
    )
    run.add_argument(
        "--memory", type=_positive(2**30), metavar="GIB",
        help="largest matrix to hold, in GiB (default: 2)",
    )  # fmt: skip
    run.add_argument("--progress", action="store_true", help="show progress even where there is no terminal")
    run.add_argument("--quiet", action="store_true", help="no progress, no notes on standard error")
    out = report.add_argument_group("output, besides the text")
    out.add_argument("--plot", type=Path, metavar="FILE.png", help="a picture: .png, .svg or .pdf")
    out.add_argument("--theme", choices=("light", "dark"), help="of --plot (default: light)")
    out.add_argument(
        "--json", nargs="?", const="-", metavar="FILE.json",
        help="JSON to this file; to standard output, in place of the text, if no file is named",
    )  # fmt: skip
    out.add_argument("--html", type=Path, metavar="FILE.html", help="one page with everything in it")
    return parser


def _check(options: Options) -> None:
    if len(options.keys) not in {0, 1, len(options.files)}:
        raise InputError(
            f"--key was given {len(options.keys)} times for {len(options.files)} files: once, or once each."
        )
    outputs = [
        (options.plot, "--plot", PICTURES),
        (options.html, "--html", (".html", ".htm")),
        (None if options.json in {None, "-"} else Path(str(options.json)), "--json", (".json",)),
    ]
    for path, option, suffixes in outputs:
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            hint = " To print it, write --json - or put --json last." if option == "--json" else ""
            raise InputError(f"{option} takes a file that ends in {' or '.join(suffixes)}, got {path}.{hint}")
        if not path.absolute().parent.is_dir():
            raise InputError(f"{option}: there is no folder {path.parent} to write {path.name} into.")
        for file in options.files:
            with contextlib.suppress(OSError):
                if path.samefile(file):  # whatever name or link leads to it
                    raise InputError(
                        f"{option} {path} is the input {file}, under another name. Name another file."
                    )
    if options.kind == "matrix" and (options.center or options.nan == "skip"):
        option = "--center" if options.center else "--nan skip"
        raise InputError(
            f"{option} is about rows of features, and --kind matrix has none. Leave one of them out."
        )


def _reads(convert: Callable[[str], Any], expected: str) -> Callable[[str], Any]:
    """A converter whose error says what was expected."""

    def converter(text: str) -> Any:
        try:
            return convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None

    return converter


def _orders(text: str) -> tuple[float, ...]:
    return tuple(dict.fromkeys(check_order(float(part)) for part in text.split(",")))


def _base(text: str) -> float:
    value = math.e if text == "e" else float(text)
    check_base(value)
    return value


def _positive(unit: float = 1) -> Callable[[str], Any]:
    return _reads(lambda text: check_positive(float(text), "number") * unit, "a number > 0")


def _measures(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := [name for name in names if name not in MEASURES]:
        raise argparse.ArgumentTypeError(f"expected names among {', '.join(MEASURES)}, got {unknown[0]!r}")
    return names


def _whole(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {least}, got {text!r}")
        return int(text)

    return convert
