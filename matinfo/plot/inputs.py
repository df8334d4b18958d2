"""What may be drawn: spectra of operands, one or several by label, and tables of numbers with their units."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from matinfo._validation import check_trace
from matinfo.operands import AnyGram, as_tensor
from matinfo.spectrum import Spectrum, as_spectral, spectrum

Drawable: TypeAlias = Tensor | np.ndarray | AnyGram | Spectrum
Drawables: TypeAlias = Drawable | Sequence[Drawable] | Mapping[str, Drawable]
Table: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Any]

_UNITS = (  # the first that occurs in the name of a quantity
    (r"effective rank|erank|rankme|vendi|participation|\brank\b", "dimensions"),
    (r"normalized|accuracy|overlap|fraction|share|ratio", ""),
    (r"entropy|information|divergence|kl\b|js\b|tcr|coding rate|rate reduction|total correlation", "nats"),
)


def labelled(K: Drawables, labels: str | Sequence[str] | None, function: str) -> list[tuple[str, Spectrum]]:
    """Spectra with their labels (empty for one operand without)."""
    if isinstance(K, Mapping):
        if labels is not None:
            raise ValueError("Expected labels=None with a mapping, whose keys are the labels, got both.")
        names, operands = [str(name) for name in K], list(K.values())
    elif isinstance(K, Drawable):
        names, operands = [labels if isinstance(labels, str) else (labels or [""])[0]], [K]
    else:
        operands = list(K)
        names = (
            [labels] if isinstance(labels, str) else list(labels or [str(i) for i in range(len(operands))])
        )
    if not operands:
        raise ValueError(f"Expected at least one operand, got none: {function}(K).")
    if len(names) != len(operands):
        raise ValueError(f"Expected one label for each operand, got {len(names)} for {len(operands)}.")
    return [(name, spectrum_of(K, function)) for name, K in zip(names, operands, strict=True)]


def spectrum_of(K: Drawable, function: str) -> Spectrum:
    """The spectrum of a matrix ``(n, n)`` or a Gram, or of eigenvalues ``(m,)`` in any order, off the graph."""
    given = as_tensor(K)
    operand = given if isinstance(given, Tensor) and given.ndim == 1 else as_spectral(given, "K", function)
    if len(operand.shape) > 2:
        raise ValueError(
            f"Expected one matrix (n, n), got a batch of shape {tuple(operand.shape)}. "
            f"Pass them by name: {function}({{'first': K[0], 'second': K[1]}})."
        )
    if isinstance(operand, Tensor):
        _check_finite(operand)
    S = Spectrum(operand) if isinstance(operand, Tensor) and operand.ndim == 1 else spectrum(operand)
    _check_finite(S.eigenvalues)
    check_trace(S.eigenvalues.detach().sum().cpu())
    return S.detach()


def shares(S: Spectrum) -> np.ndarray:
    """Eigenvalues above round-off, over the sum of all: descending."""
    x = S.eigenvalues.cpu()
    return (x / x.sum())[: int(S.rank)].numpy()


def _check_finite(x: Tensor) -> None:
    if not bool(x.isfinite().all()):
        raise ValueError(
            "Expected finite numbers, got NaN or infinity. Leave such rows out: Z[Z.isfinite().all(-1)]."
        )


def unit_of(quantity: str) -> str:
    """The unit that a quantity of this name has, empty if it has none or is not known."""
    for pattern, unit in _UNITS:
        if re.search(pattern, quantity.lower().replace("_", " ")):
            return unit
    return ""


def columns_of(table: Table) -> dict[str, list[Any]]:
    """Columns of one length; what a row does not have is None."""
    if isinstance(table, Mapping):
        columns = {
            str(name): list(plain(column))
            if isinstance(column, Tensor)
            else [plain(value) for value in column]
            for name, column in table.items()
        }
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Expected columns of one length, got {lengths}.")
        return columns
    rows = list(table)
    if not all(isinstance(row, Mapping) for row in rows):
        raise TypeError(
            "Expected rows that are mappings from quantities to numbers, or one mapping of columns."
        )
    names = dict.fromkeys(str(name) for row in rows for name in row)
    return {name: [plain(row.get(name)) for row in rows] for name in names}


def plain(value: Any) -> Any:
    """NumPy for a Tensor; float64 for floating point, as NumPy lacks bfloat16."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()


def is_number(value: Any) -> bool:
    """Whether this is a number that can be drawn (not a truth value)."""
    value = plain(value)
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "fiu"
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def numeric_names(columns: Mapping[str, Sequence[Any]], leave_out: Iterable[str]) -> list[str]:
    """Columns that hold a number somewhere and nothing else but gaps."""
    return [
        name
        for name, column in columns.items()
        if name not in leave_out
        and any(is_number(value) for value in column)
        and all(value is None or is_number(value) for value in column)
    ]
