"""The command line, generated from the configuration dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from pathlib import Path
from typing import Any, NoReturn

from trainlib.config import flag_of, sections
from trainlib.errors import USAGE_EXIT_CODE


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line that names the option, with the way to the help."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        self.exit(USAGE_EXIT_CODE, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def program_parser(program: str, text: str | None, **options: Any) -> OneLineParser:
    """The parser of a program whose help is its docstring as it stands."""
    return OneLineParser(
        prog=program, description=text, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter, **options,
    )  # fmt: skip


def _plain_type(annotation: Any) -> type:
    """The type behind ``X`` or ``X | None``."""
    return next((a for a in typing.get_args(annotation) if a is not type(None)), annotation)


def _default_text(item: dataclasses.Field[Any], recipes: dict[str, dict[str, Any]]) -> str:
    if item.metadata["shown"] is not None:
        return item.metadata["shown"]
    if item.default is not None:
        return str(item.default)
    values: dict[Any, list[str]] = {}
    for name, recipe in recipes.items():
        if item.name in recipe:
            values.setdefault(recipe[item.name], []).append(name)
    return ", ".join(f"{value} ({'/'.join(names)})" for value, names in values.items()) or "none"


def add_config_options(parser: argparse.ArgumentParser, default: Any) -> None:
    """One group of options per section; an option that is not given stays out of the parsed namespace."""
    for name, section in sections(default):
        group = parser.add_argument_group(type(section).__doc__ or name)
        types = typing.get_type_hints(type(section))
        for item in dataclasses.fields(section):
            kind = _plain_type(types[item.name])
            text = f"{item.metadata['help']} [{_default_text(item, default.recipes)}]".replace("%", "%%")
            common: dict[str, Any] = {
                "dest": f"{name}.{item.name}",
                "default": argparse.SUPPRESS,
                "help": text,
            }
            if kind is bool:
                group.add_argument(flag_of(item), action=argparse.BooleanOptionalAction, **common)
            else:
                metavar = item.metadata["metavar"] or {int: "N", float: "X", str: "PATH"}[kind]
                metavar = None if item.metadata["choices"] else metavar
                group.add_argument(
                    flag_of(item), type=kind, choices=item.metadata["choices"], metavar=metavar, **common
                )


def add_work_options(parser: argparse.ArgumentParser, compared: str) -> None:
    """What a training script does: a fresh run, a resumed one, or several; ``compared`` names --compare's methods."""
    work = parser.add_argument_group("what to do")
    work.add_argument(
        "--out", metavar="PATH", type=Path, help="new folder for the results [runs/METHOD-DATA, numbered]"
    )
    work.add_argument(
        "--resume", metavar="PATH", type=Path, help="continue the run, or the comparison, in this folder"
    )
    work.add_argument(
        "--compare", action="store_true", help=f"train {compared} from the same seed and compare"
    )
    work.add_argument("--seeds", metavar="N|LIST", type=parse_seeds,
                      help="repeat with N seeds counted from --seed, or with a list such as 0,1,2")  # fmt: skip


def read_config(arguments: argparse.Namespace, base: Any) -> Any:
    """``base`` with the options given on the command line put in their places."""
    changed: dict[str, dict[str, Any]] = {}
    for key, value in vars(arguments).items():
        if "." in key:
            section, name = key.split(".", 1)
            changed.setdefault(section, {})[name] = value
    parts = {name: dataclasses.replace(getattr(base, name), **values) for name, values in changed.items()}
    return dataclasses.replace(base, **parts)


def parse_seeds(text: str) -> list[int] | int:
    """``3`` means three seeds counted from --seed, ``0,1,5`` names them."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number of seeds or a list such as 0,1,2, got {text!r}"
        ) from None
    if ("," not in text and values[0] < 1) or min(values) < 0 or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(
            f"expected at least one seed, each at least 0 and given once, got {text!r}"
        )
    return values if "," in text else values[0]


def protocol_parser(program: str, text: str, default: Any, *, trains: bool = True) -> OneLineParser:
    """The command line of an evaluation protocol: runs, where the results go, and the options of ``default``."""
    parser = program_parser(program, text, usage=f"{program} RUN [RUN ...] [options]")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a pre-training run, or of a comparison"
    )
    work = parser.add_argument_group("what to do")
    work.add_argument("--out", metavar="PATH", type=Path, help="folder for the results [each run's own]")
    if trains:
        work.add_argument(
            "--resume", action="store_true", help="continue what was stopped; finished parts are kept"
        )
        work.add_argument("--seeds", metavar="N|LIST", type=parse_seeds,
                          help="repeat with N seeds counted from --seed, or with a list such as 0,1,2")  # fmt: skip
    add_config_options(parser, default)
    return parser


def fail(program: str, message: str, code: int) -> int:
    """Print one line to stderr and return the exit code."""
    print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def missing_package(program: str, error: ModuleNotFoundError) -> int:
    """One line for a package that is not installed, and the exit code."""
    remedy = "install this project with its training parts, as the README shows: pip install '.[train]'"
    return fail(program, f"the package {error.name} is not installed; {remedy}", USAGE_EXIT_CODE)
