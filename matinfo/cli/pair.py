"""What two files share, as far as it is defined for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinfo.cli.arguments import Options
from matinfo.cli.errors import InputError, about
from matinfo.cli.measure import Measured, checked_rows, load, prepared
from matinfo.cli.value import Value, order_name
from matinfo.divergence import matrix_js, matrix_kl, spectrum_js
from matinfo.entropy import joint_entropy
from matinfo.information import mutual_information
from matinfo.operands import Gram
from matinfo.plot.profile import unit_name
from matinfo.streaming import JointAccumulator


def pair_values(first: Measured, second: Measured, options: Options) -> list[Value]:
    """Mutual information and joint entropy at each order, and the divergences."""
    with about(f"{first.source.path} and {second.source.path}"):
        return [*_shared(first, second, options), *_divergences(first, second, options)]


def _shared(first: Measured, second: Measured, options: Options) -> list[Value]:
    Ks = _aligned(first, second, options)
    unit, suffix = unit_name(options.base), "" if options.base is None else f", base={options.base:g}"
    values = []
    for function in (mutual_information, joint_entropy):
        for alpha in options.alphas:
            call = f"{function.__name__}(K1, K2, alpha={order_name(alpha)}{suffix})"
            number, reason = (
                (None, Ks) if isinstance(Ks, str) else _number(function(*Ks, alpha=alpha, base=options.base))
            )
            values.append(Value(function.__name__, number, unit, call, alpha, reason))
    return values


def _divergences(first: Measured, second: Measured, options: Options) -> list[Value]:
    unit = unit_name(options.base)
    divided = "" if options.base is None else f" / log({options.base:g})"
    operands = _comparable(first, second, options)
    values = []
    names = [m.source.name for m in (first, second)]
    if names[0] == names[1]:
        names = [m.source.path for m in (first, second)]
    for call, function in _calls(options).items():
        if isinstance(operands, str):
            number, reason = None, operands
        else:
            more, fewer = names if "1" in call.split(",")[0] else names[::-1]
            number, reason = _number(
                function(*operands) / options.unit, f"{more} has directions that {fewer} lacks"
            )
        values.append(Value(call.split("(")[0], number, unit, call + divided, reason=reason))
    number, _ = _number(spectrum_js(first.K, second.K) / options.unit)
    return [*values, Value("spectrum_js", number, unit, f"spectrum_js(K1, K2){divided}")]


def _calls(options: Options) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The divergence of matrices as given, and of features by second moments: of unit trace, where that matters."""
    if options.kind == "matrix":
        return {
            "matrix_kl(K1, K2)": matrix_kl,
            "matrix_kl(K2, K1)": lambda K1, K2: matrix_kl(K2, K1),
            "matrix_js(K1, K2)": matrix_js,
        }
    return {
        "matrix_kl(M1/tr M1, M2/tr M2)": lambda M1, M2: matrix_kl(M1 / M1.trace(), M2 / M2.trace()),
        "matrix_kl(M2/tr M2, M1/tr M1)": lambda M1, M2: matrix_kl(M2 / M2.trace(), M1 / M1.trace()),
        "matrix_js(M1, M2)": matrix_js,
    }


def _number(value: Any, why: str = "the numbers overflow") -> tuple[float | None, str]:
    number = float(value)
    if math.isfinite(number):
        return number, ""
    return None, f"infinite: {why}" if number == math.inf else "not a number: the numbers overflow"


def _comparable(first: Measured, second: Measured, options: Options) -> tuple[Tensor, Tensor] | str:
    """Two matrices of one order: those given, or second moments of features."""
    if options.kind == "matrix":
        assert isinstance(first.K, Tensor)
        assert isinstance(second.K, Tensor)
        if first.K.shape != second.K.shape:
            return f"needs matrices of one order, got {len(first.K)} and {len(second.K)}"
        return first.K, second.K
    if first.source.columns != second.source.columns:
        return f"needs the same columns in both files, got {first.source.columns} and {second.source.columns}"
    M1, M2 = first.moment(), second.moment()
    if isinstance(M1, str) or isinstance(M2, str):
        return M1 if isinstance(M1, str) else str(M2)
    return M1, M2


def _aligned(first: Measured, second: Measured, options: Options) -> tuple[Any, Any] | str:
    """Two matrices over the same samples, or why there are none."""
    if options.kind == "matrix":
        return _comparable(first, second, options)
    totals = [m.rows + m.skipped for m in (first, second)]
    if totals[0] != totals[1]:
        return f"needs the same samples in both files, got {totals[0]} and {totals[1]} rows"
    if options.center:
        return "needs rows of one length, which --center undoes"
    n, d1, d2 = totals[0], first.source.columns, second.source.columns
    if d1 * d2 <= 0.8 * n and 8 * (d1 * d2) ** 2 <= options.memory:
        return _streamed(first, second, options)
    if 8 * n * max(n, d1, d2) <= options.memory:
        return _in_memory(first, second, options)
    order = min(n, d1 * d2)
    return (
        f"needs a matrix of order {order}, {8 * order**2 / 2**30:.1f} GiB, more than --memory "
        f"{options.memory / 2**30:g}; project the features to fewer columns, take fewer rows, or raise --memory"
    )


def _streamed(first: Measured, second: Measured, options: Options) -> tuple[Any, Any]:
    stream = JointAccumulator(
        first.source.columns,
        second.source.columns,
        normalize=options.normalize,
        nan=options.nan,
        max_memory=options.memory,
    )
    for Z1, Z2 in _side_by_side(first, second, options):
        stream.update(torch.from_numpy(Z1), torch.from_numpy(Z2))
    return stream.grams()


def _side_by_side(
    first: Measured, second: Measured, options: Options
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of the same rows of both files, whatever batches each is read in."""
    streams = [checked_rows(m.source, options) for m in (first, second)]
    rest = [np.empty((0, m.source.columns)) for m in (first, second)]
    while True:
        for i, stream in enumerate(streams):
            while (
                len(rest[i]) == 0 and (rows := next(stream, None)) is not None
            ):  # a batch may be blank lines
                rest[i] = rows
        count = min(len(rows) for rows in rest)
        if count == 0:
            return
        yield rest[0][:count], rest[1][:count]
        rest = [rows[count:] for rows in rest]


def _in_memory(first: Measured, second: Measured, options: Options) -> tuple[Any, Any]:
    Z1, Z2 = (load(m.source, options) for m in (first, second))
    good = np.isfinite(Z1).all(1) & np.isfinite(Z2).all(1)
    if not good.any():
        raise InputError(f"{first.source.path} and {second.source.path}: no row is finite in both.")
    return Gram(prepared(Z1[good], options)), Gram(prepared(Z2[good], options))
