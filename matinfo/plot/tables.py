"""Tables of numbers: rows or columns, and the units of their quantities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

Table: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Any]

_UNITS = (  # the first that occurs in the name of a quantity
    (r"effective rank|erank|rankme|vendi|participation|\brank\b", "dimensions"),
    (r"normalized|accuracy|overlap|fraction|share|ratio", ""),
    (r"entropy|information|divergence|kl\b|js\b|tcr|coding rate|rate reduction|total correlation", "nats"),
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
