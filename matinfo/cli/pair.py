"""What two files share, and what they would share by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from matinfo.cli.arguments import Options
from matinfo.cli.errors import InputError, about
from matinfo.cli.measure import Measured, Rows, as_given, matrix
from matinfo.cli.progress import watched
from matinfo.cli.source import Source
from matinfo.cli.value import Chance, Value, order_name, value_of
from matinfo.independence import independence_test
from matinfo.operands import Gram, Matrix, as_matrix
from matinfo.operands.gram import prepared_rows

MOST_ROWS = 2048
"""Rows of a sample: the decomposition of a matrix over them takes about a second."""

_MOST_FLOPS = 2e10
"""Of one product and its decomposition, above which a sample is taken: the chance level takes dozens of them."""

_FLOPS_OF_CHANCE = 2e11
"""Of all permutations together: some twenty seconds. There are between 19 (p-values from 0.05 on) and 99 of them."""


@dataclass(frozen=True)
class Pair:
    """The numbers of two files."""

    values: list[Value]
    rows: int | None
    """Rows that the informations are of, if a sample of all."""
    notes: list[str] = field(default_factory=list)


def measure_pair(first: Measured, second: Measured, options: Options) -> Pair:
    """Mutual information and joint entropy at each order with their chance level, and the divergences."""
    with about(f"{first.source.path} and {second.source.path}"):
        rows, reason = _rows_to_compare(first, second, options)
        Ks: dict[str, Any] | str = reason
        if not reason:
            chosen = replace(options, rows=rows)
            K1, K2 = operands([first.source, second.source], chosen)
            Ks = {"K1": K1, "K2": K2}
        informations = [
            value_of("mutual_information", Ks, "K1, K2", options, alpha=a)
            for a in watched(options.alphas, "information", options)
        ]
        if not isinstance(Ks, str) and options.permutations != 0:
            informations = _with_chance(informations, Ks["K1"], Ks["K2"], options)
        joint = [
            value_of("joint_entropy", Ks, "K1, K2", options, alpha=a)
            for a in watched(options.alphas, "joint entropy", options)
        ]
        notes = []
        if rows is not None and options.rows is None and not reason:
            notes.append(
                f"Information and joint entropy are of the same {rows} rows of both files, drawn at random (--rows, "
                "--seed): all rows would take too long or too much memory. They rise with the number of rows."
            )
        if not options.normalize and options.kind == "features":
            notes.append(
                "Rows are not of one length (--no-normalize), so that mutual information may be negative."
            )
        return Pair([*informations, *joint, *_divergences(first, second, options)], rows, notes)


def _rows_to_compare(first: Measured, second: Measured, options: Options) -> tuple[int | None, str]:
    """How many rows of both to compare, None for all, or why they cannot be compared."""
    totals = [m.total for m in (first, second)]
    if totals[0] != totals[1]:
        if options.kind == "matrix":
            return None, f"needs matrices of one order, got {totals[0]} and {totals[1]}"
        return None, f"needs the same samples in both files, got {totals[0]} and {totals[1]} rows"
    if options.center:
        return None, "needs rows of one length, which --center undoes"
    asked = [m.options.rows for m in (first, second) if m.options.rows is not None]
    n = min([*totals, *asked])
    widths = [n if options.kind == "matrix" else m.source.columns for m in (first, second)]
    if options.rows is None and (
        _flops(n, *widths) > _MOST_FLOPS or 32 * n * max(min(n, math.prod(widths)), *widths) > options.memory
    ):
        fits = min(math.isqrt(int(options.memory / 32)), int(options.memory / 32 / max(widths)))
        n = min(n, MOST_ROWS, n if options.kind == "matrix" else fits)
    if n < 2:
        return None, "needs more memory than --memory allows for even two rows"
    return (n if asked or n < min(totals) else None), ""


def _flops(n: int, d1: int, d2: int) -> float:
    """To form a product of matrices over n samples on its smaller side, and to decompose it."""
    m = min(n, d1 * d2)
    return float(n * m**2 + m**3)


def operands(sources: Sequence[Source], options: Options) -> list[Gram | Matrix]:
    """Matrices over the same samples of each source."""
    if options.kind == "matrix":
        return [as_matrix(matrix(source, options), "K", "report") for source in sources]
    return [Gram(Z) for Z in aligned_rows(sources, options)]


def aligned_rows(sources: Sequence[Source], options: Options) -> list[Tensor]:
    """Rows of each source, prepared; those that are not finite in one of them are left out of all."""
    given = [np.concatenate([*Rows(source, options), np.empty((0, source.columns))]) for source in sources]
    good = np.logical_and.reduce([np.isfinite(rows).all(1) for rows in given])
    if not good.any():
        raise InputError(
            f"{' and '.join(source.path for source in sources)}: no row is finite in all of them."
        )
    return [
        prepared_rows(as_given(rows[good], source), options.center, options.normalize)
        for rows, source in zip(given, sources, strict=True)
    ]


def _with_chance(values: list[Value], K1: Any, K2: Any, options: Options) -> list[Value]:
    """The same with mean, spread and p-value under random pairings of the rows."""
    n = K1.shape[-1]
    widths = [K.width if isinstance(K, Gram) else n for K in (K1, K2)]
    count = options.permutations or int(np.clip(_FLOPS_OF_CHANCE / _flops(n, *widths), 19, 99))
    tests = independence_test(
        K1,
        K2,
        alpha=options.alphas,
        permutations=count,
        seed=options.seed,
        progress=lambda draws: watched(draws, "chance level", options),
    )
    orders = ", ".join(order_name(alpha) for alpha in options.alphas)
    call = f"independence_test(K1, K2, alpha=[{orders}], permutations={count}, seed={options.seed})"
    chances = [
        Chance(
            test.null_mean / options.unit, test.null_std / options.unit, test.p_value, count, f"{call}[{i}]"
        )
        for i, test in enumerate(tests)
    ]
    return [
        replace(value, chance=chance) if value.value is not None else value
        for value, chance in zip(values, chances, strict=True)
    ]


def _divergences(first: Measured, second: Measured, options: Options) -> list[Value]:
    names = [m.source.name for m in (first, second)]
    if names[0] == names[1]:
        names = [m.source.path for m in (first, second)]
    both = "K1, K2" if options.kind == "matrix" else "M1, M2"
    comparable = _comparable(first, second, options)
    values = []
    for order in (both, ", ".join(both.split(", ")[::-1])):
        more, fewer = names if order == both else names[::-1]
        values.append(
            value_of("matrix_kl", comparable, order, options, f"{more} has directions that {fewer} lacks")
        )
    values.append(value_of("matrix_js", comparable, both, options))
    Ks = {"K1": first.K, "K2": second.K, "Gram(Z1)": first.K, "Gram(Z2)": second.K}
    whole = "K1, K2" if options.kind == "matrix" else "Gram(Z1), Gram(Z2)"
    return [*values, value_of("spectrum_js", Ks, whole, options)]


def _comparable(first: Measured, second: Measured, options: Options) -> dict[str, Any] | str:
    """Two matrices of one order: those given, or second moments of features, of unit trace."""
    if options.kind == "matrix":
        if first.K.shape != second.K.shape:
            return f"needs matrices of one order, got {first.K.shape[-1]} and {second.K.shape[-1]}"
        return {"K1": first.K, "K2": second.K}
    if first.source.columns != second.source.columns:
        return f"needs the same columns in both files, got {first.source.columns} and {second.source.columns}"
    M1, M2 = first.moment(), second.moment()
    if isinstance(M1, str) or isinstance(M2, str):
        return M1 if isinstance(M1, str) else str(M2)
    return {"M1": M1 / M1.trace(), "M2": M2 / M2.trace()}
