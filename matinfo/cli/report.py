"""The numbers of a report, each the value of a call of the library, and how to make the call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matinfo.cli.arguments import Options
from matinfo.cli.errors import InputError, about, first_line
from matinfo.cli.files import open_files
from matinfo.cli.measure import Measured, matrix, measure
from matinfo.cli.pair import MOST_ROWS, Pair, aligned_rows, measure_pair
from matinfo.cli.source import Source
from matinfo.cli.value import Value, value_of
from matinfo.measures import MEASURES
from matinfo.operands import dtype_given


@dataclass(frozen=True)
class ArrayReport:
    """What one array was found to be."""

    measured: Measured
    values: list[Value]


@dataclass(frozen=True)
class Report:
    """All arrays, the pair if there are two files, and what the reader should know."""

    arrays: list[ArrayReport]
    pair: Pair | None = None
    notes: list[str] = field(default_factory=list)


def make_report(options: Options) -> Report:
    """Read the files and compute."""
    files, notes = open_files(options)
    arrays = []
    for sources in files:
        refused: list[InputError] = []
        for source in sources:
            try:
                arrays.append(_array_report(measure(source, options), options))
            except InputError as error:
                if len(sources) == 1:
                    raise
                refused.append(error)
        if len(refused) == len(sources):
            raise refused[0]
        notes += [f"Left out: {error}" for error in refused]
    notes += [note for array in arrays for note in array.measured.notes]
    if len(files) != 2 or len(arrays) != 2:
        several = "No report of the pair: a file holds several arrays. Choose one of each with --key, twice."
        return Report(arrays, None, notes + [several] * (len(files) == 2))
    pair = measure_pair(arrays[0].measured, arrays[1].measured, options)
    return Report(arrays, pair, notes + pair.notes)


def _array_report(measured: Measured, options: Options) -> ArrayReport:
    known: dict[str, Any] = {"S": measured.S, "Z": measured.Z}
    # The singular values of rows in memory are exact; those of a stream are roots, with half of the digits.
    rows = "S" if measured.Z is None else "Z"
    features = options.kind == "features"
    with about(measured.source.path):
        values = [
            *(value_of("renyi_entropy", known, "S", options, alpha=alpha) for alpha in options.alphas),
            value_of("effective_rank", known, "S", options),
            value_of("vendi_score", known, "S", options),
            value_of("participation_ratio", known, "S", options),
            value_of("rankme", known if features else "is defined for features only", rows, options),
            value_of("tcr" if features else "matrix_tcr", known, rows, options, mu=options.mu),
        ]
    present = {value.name for value in values}
    values += [_asked_for(measured, name, options) for name in options.measures if name not in present]
    for what, absent in (("centred", not options.center), ("unit length", not options.normalize)):
        names = ", ".join(name for name in options.measures if what in MEASURES[name].rows)
        if absent and names:
            note = f"{measured.source.name}: {names}: defined for rows that are {what}; here they are not."
            measured.notes.append(note)
    return ArrayReport(measured, values)


def _asked_for(measured: Measured, name: str, options: Options) -> Value:
    """A measure by name: of the spectrum, or of rows, which are read again if they are not in memory."""
    known: dict[str, Any] | str = {"S": measured.S, "Z": measured.Z}
    operand = "S" if MEASURES[name].of == "spectrum" else "Z"
    if operand == "Z" and options.kind == "matrix":
        known = "is defined for features only"
    elif operand == "Z" and measured.Z is None:
        fits = int(options.memory / 8 / measured.source.columns)
        if "in order" not in MEASURES[name].rows:
            known, operand = _sample(measured, fits), "R"
        elif measured.total <= fits:
            known = {"Z": aligned_rows([measured.source], measured.options)[0]}
        else:
            known = "is defined for rows in order, which are too many for --memory"
    try:
        return value_of(name, known, operand, options)
    except ValueError as error:
        return value_of(name, first_line(error), operand, options)


def _sample(measured: Measured, fits: int) -> dict[str, Any]:
    """Rows of a stream, few enough for measures of all pairs of them."""
    if not measured.sample:
        rows = min(measured.total, measured.options.rows or MOST_ROWS, max(2, fits))
        (R,) = aligned_rows([measured.source], replace(measured.options, rows=rows))
        measured.sample.update(R=R, rows=rows)
        if rows < measured.total:
            measured.notes.append(
                f"{measured.source.name}: measures of rows (R in their calls) are of {rows} of them."
            )
    return measured.sample


def load(
    *files: str | Path,
    kind: str = "features",
    key: str | Sequence[str] | None = None,
    drop: Sequence[str] = (),
    rows: int | None = None,
    seed: int = 0,
    normalize: bool = True,
    center: bool = False,
    nan: str = "error",
) -> Any:
    """The rows, or the matrix, that ``matinfo report`` measures of a file.

    ``Z``, with rows divided by their length (``normalize``), then less their mean (``center``); or ``K``.

    Args:
        *files: One file or more, of any kind that the command reads.
        kind: ``"features"`` or ``"matrix"``.
        key: Which array of a file of several: one for all files, or one each.
        drop: Columns of a table to leave out.
        rows: How many rows to draw at random, the same of all files; None for all.
        seed: Of the draw.
        normalize: Whether to divide each row by its l2 norm.
        center: Whether to subtract the mean row after that.
        nan: ``"error"`` refuses rows with NaN or infinity, ``"skip"`` leaves them out, of all files.

    Returns:
        A float64 array ``(n, d)``, or ``(n, n)`` in the dtype of the file (a tensor, if that is bfloat16: NumPy has
        none); of several files a list of them.

    Raises:
        InputError: A ``ValueError`` in one line, if a file cannot be read, or holds several arrays and no key is given.

    Notes:
        The array is in memory as a whole, which that of the command need not be.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from matinfo.cli import load
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "features.npy"
        >>> np.save(file, np.array([[3.0, 4.0], [0.0, 2.0]]))
        >>> load(file)
        array([[0.6, 0.8],
               [0. , 1. ]])
    """
    keys = () if key is None else (key,) if isinstance(key, str) else tuple(key)
    options = Options(
        tuple(map(Path, files)), kind, keys, tuple(drop), normalize=normalize, center=center, nan=nan, rows=rows,
        seed=seed, quiet=True, memory=np.inf,
    )  # fmt: skip
    sources: list[Source] = []
    for found in open_files(options)[0]:
        if len(found) > 1:
            present = ", ".join(str(source.key) for source in found)
            raise InputError(f"{found[0].file}: expected key= to choose one of the arrays {present}.")
        sources += found
    if kind == "matrix":
        tensors = [K.to(dtype_given(K)) for K in (matrix(source, options) for source in sources)]
    else:
        tensors = aligned_rows(sources, options)
    arrays = [x if x.dtype == torch.bfloat16 else x.numpy() for x in tensors]
    return arrays[0] if len(arrays) == 1 else arrays


_IMPORTS = [
    "from math import inf, log",
    "from matinfo import *",
    "from matinfo.measures import *",
    "from matinfo.cli import load",
]


def setup_of(measured: Measured) -> list[str]:
    """Lines of Python after which the calls of an array give its numbers."""
    name = "K" if measured.options.kind == "matrix" else "Z"
    S = "spectrum(K)" if name == "K" else "spectrum(Gram(Z))"
    lines = [f"{name} = {_loading([measured], measured.options)}", f"S = {S}"]
    if measured.sample:
        lines.append(f"R = {_loading([measured], replace(measured.options, rows=measured.sample['rows']))}")
    return [*_IMPORTS, *lines]


def setup_of_pair(report: Report, options: Options) -> list[str]:
    """Lines of Python after which the calls of the pair give its numbers."""
    assert report.pair is not None
    both = [array.measured for array in report.arrays]
    together = _loading(both, replace(options, rows=report.pair.rows))
    if options.kind == "matrix":
        return [*_IMPORTS, f"K1, K2 = {together}"]
    lines = [f"Z{i} = {_loading([m], m.options)}" for i, m in enumerate(both, 1)]
    return [
        *_IMPORTS,
        *lines,
        "M1, M2 = (Z.T @ Z / (Z * Z).sum() for Z in (Z1, Z2))",
        *(
            [f"K1, K2 = map(Gram, {together})"]
            if any(v.value is not None for v in report.pair.values[:1])
            else []
        ),
    ]


def _loading(measured: Sequence[Measured], options: Options) -> str:
    keys = [m.source.key for m in measured]
    tables = [m.source.key for m in measured if options.keys or m.source.key is not None]
    arguments = {
        "kind": options.kind,
        "key": (keys[0] if len(keys) == 1 else keys) if tables else None,
        "drop": options.drop,
        "rows": options.rows,
        "seed": options.seed if options.rows is not None else 0,
        "normalize": options.normalize,
        "center": options.center,
        "nan": options.nan,
    }
    default = Options(())
    given = [repr(str(m.source.file)) for m in measured]
    given += [
        f"{k}={v!r}" for k, v in arguments.items() if v != (None if k == "key" else getattr(default, k))
    ]
    return f"load({', '.join(given)})"
