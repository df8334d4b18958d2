"""Quantities of a layer from one eigendecomposition.

The formulas are those of the public functions, written over eigenvalues that are known already; the tests equate them.
A callable that is not one of these functions gets the Gram matrix and does its own work.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from matinfo import entropy as entropies
from matinfo import rank as ranks
from matinfo._validation import check_base, check_order, check_positive
from matinfo.coding_rate import coding_rate as public_coding_rate
from matinfo.coding_rate import matrix_tcr as public_matrix_tcr
from matinfo.coding_rate import tcr as public_tcr
from matinfo.distributed import ShardedGram, reduce_sum
from matinfo.operands import Gram, normalize_rows, smaller_side
from matinfo.spectral.eigensystem import Noise
from matinfo.spectral.entropy_function import entropy_of_eigenvalues
from matinfo.spectral.precision import at_least_float32
from matinfo.spectral.traces import spectrum

Quantities: TypeAlias = Iterable[str] | Mapping[str, "str | Callable[..., Any]"]

RESERVED = ("step", "layer", "rows", "width", "event")
"""Columns of a record that are no quantities."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the smaller side of a Gram matrix.

    Attributes:
        eigenvalues: ``(m,)``, descending, float64, at least min(rows, width) of them.
        rows: n.
        width: d.
        noise: What is known of their errors.
    """

    eigenvalues: Tensor
    rows: int
    width: int
    noise: Noise

    @classmethod
    def of(cls, gram: Gram) -> Spectrum:
        """In float64, off the autograd graph, on the device of the features."""
        side = smaller_side(gram, sensitive=True)
        return cls(spectrum(side.matrix, side.noise, side=side.name), gram.shape[-1], gram.width, side.noise)

    @property
    def probabilities(self) -> Tensor:
        """Eigenvalues over their sum, ``(m,)``."""
        return self.eigenvalues / self.eigenvalues.sum()

    @property
    def normalized(self) -> Tensor:
        """The min(rows, width) leading ones of them: the rest of the matrix's spectrum is zero."""
        return self.probabilities[: min(self.rows, self.width)]


def renyi_entropy(s: Spectrum, alpha: float = 1.0, *, base: float | None = None) -> Tensor:
    """As :func:`matinfo.renyi_entropy`."""
    unit, order = check_base(base), check_order(alpha)
    return entropy_of_eigenvalues(s.eigenvalues, order, s.noise) / unit


def von_neumann_entropy(s: Spectrum, *, base: float | None = None) -> Tensor:
    """As :func:`matinfo.von_neumann_entropy`."""
    return renyi_entropy(s, base=base)


def effective_rank(s: Spectrum, alpha: float = 1.0) -> Tensor:
    """As :func:`matinfo.effective_rank`."""
    return renyi_entropy(s, alpha).exp()


def participation_ratio(s: Spectrum) -> Tensor:
    """As :func:`matinfo.participation_ratio`."""
    return renyi_entropy(s, 2.0).exp()


def vendi_score(s: Spectrum, q: float = 1.0) -> Tensor:
    """As :func:`matinfo.vendi_score`."""
    return renyi_entropy(s, q).exp()


def rankme(s: Spectrum, *, offset: float = 0.0) -> Tensor:
    """As :func:`matinfo.rankme` of the features."""
    x = s.eigenvalues
    sigma = torch.where(x > s.noise.cut(x.flip(-1)), x, 0.0)[: min(s.rows, s.width)].sqrt()
    return torch.special.entr(sigma / sigma.sum() + offset).sum().exp()


def tcr(s: Spectrum, mu: float = 1.0) -> Tensor:
    """As :func:`matinfo.tcr` of the features."""
    return _logdet(s, mu, s.width)


def matrix_tcr(s: Spectrum, mu: float = 1.0) -> Tensor:
    """As :func:`matinfo.matrix_tcr`."""
    return _logdet(s, mu, s.rows)


def coding_rate(s: Spectrum, *, eps: float = 0.5) -> Tensor:
    """As :func:`matinfo.coding_rate` of the features."""
    ridge = s.rows * check_positive(eps, "eps") ** 2 / s.width
    return 0.5 * (s.eigenvalues / ridge).log1p().sum()


def _logdet(s: Spectrum, mu: float, order: int) -> Tensor:
    check_positive(mu, "mu")
    return (s.eigenvalues + mu).log().sum() + (order - s.eigenvalues.shape[0]) * math.log(mu)


Spectral = Callable[..., Tensor]

SPECTRAL: dict[Callable[..., Any], Spectral] = {
    entropies.renyi_entropy: renyi_entropy,
    entropies.von_neumann_entropy: von_neumann_entropy,
    ranks.effective_rank: effective_rank,
    ranks.participation_ratio: participation_ratio,
    ranks.vendi_score: vendi_score,
    ranks.rankme: rankme,
    public_tcr: tcr,
    public_matrix_tcr: matrix_tcr,
    public_coding_rate: coding_rate,
}
"""Public functions that need nothing but the eigenvalues."""

NAMES = tuple(function.__name__ for function in SPECTRAL)

DEFINED_AT_ZERO = (tcr, matrix_tcr, coding_rate)
"""What has a value for features that are all zero."""


@dataclass(frozen=True)
class Quantity:
    """A column of the records.

    Attributes:
        name: Of the column.
        compute: A function of a :class:`Spectrum`, or of a :class:`~matinfo.Gram`.
        spectral: Which of the two.
    """

    name: str
    compute: Callable[..., Any]
    spectral: bool

    def value(self, s: Spectrum, gram: Gram) -> Tensor:
        """A scalar, float64, on the device of the spectrum."""
        x = torch.as_tensor(self.compute(s if self.spectral else gram)).detach()
        if x.numel() != 1:
            raise ValueError(
                f"Expected the quantity {self.name!r} to be one number, got shape {tuple(x.shape)}."
            )
        return x.reshape(()).to(s.eigenvalues.device, torch.float64)

    @property
    def defined_at_zero(self) -> bool:
        """Whether features that are all zero have a value."""
        function = self.compute.func if isinstance(self.compute, functools.partial) else self.compute
        return function in DEFINED_AT_ZERO


def as_quantities(given: Quantities) -> list[Quantity]:
    """Names of public functions, or column names with public functions, partials of them, or callables of a Gram."""
    pairs = given.items() if isinstance(given, Mapping) else [(name, name) for name in _names(given)]
    columns = [_as_quantity(name, what) for name, what in pairs]
    names = [column.name for column in columns]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Expected quantities of different names, at least one, got {names}.")
    return columns


def _names(given: Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _as_quantity(name: str, what: str | Callable[..., Any]) -> Quantity:
    if name in RESERVED:
        raise ValueError(f"Expected a quantity not to be named {name!r}, which is a column of its own.")
    if isinstance(what, str):
        if what not in NAMES:
            raise ValueError(
                f"Expected a quantity to be one of {', '.join(NAMES)}, or a callable, got {what!r}."
            )
        return Quantity(name, globals()[what], spectral=True)
    if not callable(what):
        raise TypeError(
            f"Expected the quantity {name!r} to be a name or a callable, got {type(what).__name__}."
        )
    public, keywords = what, {}
    if isinstance(what, functools.partial) and not what.args:
        public, keywords = what.func, what.keywords
    spectral = SPECTRAL.get(public)
    if spectral is None:
        return Quantity(name, what, spectral=False)
    allowed = list(inspect.signature(spectral).parameters)[1:]
    if unknown := sorted(set(keywords) - set(allowed)):
        raise TypeError(
            f"Expected the arguments of {public.__name__} to be among {allowed}, got {unknown}: route, precision and "
            "the preparation of the features are the monitor's."
        )
    return Quantity(name, functools.partial(spectral, **keywords), spectral=True)


def prepared(
    Z: Tensor, *, center: bool, normalize: bool, eps: float, reduce: bool, group: Any = None
) -> Gram:
    """The Gram matrix of rows ``(n, d)``, over all ranks if asked; columns constant to round-off become zero."""
    spread = eps
    if normalize:
        spread *= 2  # of the entry and of the norm
        Z = normalize_rows(Z)
    if center:
        arithmetic = 4 * torch.finfo(at_least_float32(Z.dtype)).eps  # of pooled means and of the mean row
        Z = Z.double()
        count, total = Z.new_tensor([Z.shape[0]]), Z.sum(0)
        if reduce:
            count, total = reduce_sum(count, group=group), reduce_sum(total, group=group)
        mean = total / count
        Z = Z - mean
        variance = Z.square().sum(0)
        if reduce:
            variance = reduce_sum(variance, group=group)
        # Rounding spreads a constant column over many directions: a collapse would look like full rank. It leaves the
        # two neighbours of the constant, at most eps |mean| apart (eps is the layer's round-off, pooled rows may have a
        # lower one); numbers in an interval, and the means over tokens of them, have at most half its length as std.
        Z = torch.where(variance <= count * ((spread / 2 + arithmetic) * mean).square(), 0.0, Z)
    return ShardedGram(Z, group=group) if reduce else Gram(Z)
