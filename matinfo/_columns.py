"""Columns of a report: quantities by name, as functions, or as callables of one's own, out of one decomposition."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from matinfo.measures import MEASURES
from matinfo.operands import AnyGram, Gram
from matinfo.spectrum import Spectrum

Quantities: TypeAlias = Iterable[str] | Mapping[str, "str | Callable[..., Any]"]


@dataclass(frozen=True)
class _OfRows:
    """A measure of features as a function of their Gram matrix; a class, so that what holds it can be pickled."""

    function: Callable[..., Any]

    def __call__(self, gram: Gram) -> Any:
        return self.function(gram.features())


@dataclass(frozen=True)
class Column:
    """A quantity under a name.

    Attributes:
        name: Of the column.
        compute: A function of a :class:`~matinfo.Spectrum`, or of a :class:`~matinfo.Gram`.
        spectral: Which of the two.
    """

    name: str
    compute: Callable[..., Any]
    spectral: bool

    @property
    def needs_rows(self) -> bool:
        """Whether sums over rows cannot stand for them."""
        return isinstance(self.compute, _OfRows)

    def value(self, S: Spectrum, gram: AnyGram) -> Tensor:
        """One number for each matrix, float64, on the device of the spectrum."""
        x = torch.as_tensor(self.compute(S if self.spectral else gram))
        if x.numel() != S.shape[:-2].numel():
            raise ValueError(
                f"Expected the quantity {self.name!r} to be one number, got shape {tuple(x.shape)}."
            )
        return x.reshape(S.shape[:-2]).to(S.device, torch.float64)


def as_columns(given: Quantities, *, reserved: Iterable[str] = ()) -> list[Column]:
    """Names of public functions, or column names with public functions, partials of them, or callables of a Gram."""
    if isinstance(given, str):
        given = [given]
    pairs = given.items() if isinstance(given, Mapping) else [(name, name) for name in given]
    columns = [_as_column(name, what, reserved) for name, what in pairs]
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        raise ValueError(f"Expected quantities of different names, got {names}.")
    return columns


def _as_column(name: str, what: str | Callable[..., Any], reserved: Iterable[str]) -> Column:
    if name in reserved:
        raise ValueError(f"Expected a quantity not to be named {name!r}, which is a column of its own.")
    if isinstance(what, str):
        if what not in MEASURES:
            raise ValueError(
                f"Expected a quantity to be one of {', '.join(MEASURES)}, or a callable, got {what!r}."
            )
        function, of = MEASURES[what].function, MEASURES[what].of
        return Column(name, function if of == "spectrum" else _OfRows(function), spectral=of == "spectrum")
    if not callable(what):
        raise TypeError(
            f"Expected the quantity {name!r} to be a name or a callable, got {type(what).__name__}."
        )
    inner = what.func if isinstance(what, functools.partial) and not what.args else what
    if inner not in [m.function for m in MEASURES.values() if m.of == "spectrum"]:
        return Column(name, what, spectral=False)
    # A trial: arguments that a Spectrum cannot answer are refused here and not after an hour of training.
    what(Spectrum(torch.tensor([2.0, 1.0]), rows=3, width=2))
    return Column(name, what, spectral=True)
