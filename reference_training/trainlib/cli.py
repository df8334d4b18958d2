"""The command line, generated from the configuration dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Callable
from typing import Any, NoReturn

from trainlib.config import flag_of, sections
from trainlib.errors import (
    DIVERGED_EXIT_CODE,
    INTERRUPTED_EXIT_CODE,
    USAGE_EXIT_CODE,
    DivergedError,
    UsageError,
    describe_os_error,
)


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
            annotation = types[item.name]  # X, or X | None
            kind = next((a for a in typing.get_args(annotation) if a is not type(None)), annotation)
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


def seed_list(given: list[int] | int | None, first: int) -> list[int]:
    """The seeds that ``--seeds`` names, or the first one alone."""
    if given is None:
        return [first]
    return given if isinstance(given, list) else list(range(first, first + given))


def fail(program: str, message: str, code: int) -> int:
    """Print one line to stderr and return the exit code."""
    print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def guarded(program: str, out: str, work: Callable[[], int | None]) -> int:
    """Do the work of a program and give its exit code; every foreseeable error becomes one line."""
    try:
        return work() or 0
    except UsageError as error:
        return fail(program, str(error), USAGE_EXIT_CODE)
    except DivergedError as error:
        return fail(program, str(error), DIVERGED_EXIT_CODE)
    except OSError as error:
        return fail(program, describe_os_error(error, out), USAGE_EXIT_CODE)
    except ModuleNotFoundError as error:
        remedy = "install this project with its training parts, as the README shows: pip install '.[train]'"
        return fail(program, f"the package {error.name} is not installed; {remedy}", USAGE_EXIT_CODE)
    except KeyboardInterrupt as error:  # with what a training says of how to go on
        return fail(program, "; ".join(["interrupted", *map(str, error.args)]), INTERRUPTED_EXIT_CODE)
