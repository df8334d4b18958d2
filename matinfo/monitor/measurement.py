"""One observation of one layer: from rows to numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from matinfo.monitor.quantities import Quantity, Spectrum, effective_rank, prepared
from matinfo.spectral.precision import without_autocast


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra of one layer over time.

    Attributes:
        steps: ``(T,)``, integers.
        eigenvalues: ``(T, m)``, descending, each row with sum 1, filled up with zeros where there were fewer rows than
            m; a row of NaN where the features were zero or not finite.

    Example:
        >>> import numpy as np
        >>> from matinfo.monitor import Spectra
        >>> Spectra(np.array([0]), np.array([[0.5, 0.5]])).eigenvalues.shape
        (1, 2)
    """

    steps: np.ndarray
    eigenvalues: np.ndarray

    @classmethod
    def of(cls, kept: list[tuple[int, Tensor]]) -> Spectra:
        """From the step and the eigenvalues of each observation."""
        width = max([len(p) for _, p in kept], default=0)
        eigenvalues = np.zeros((len(kept), width))
        for row, (_, p) in zip(eigenvalues, kept, strict=True):
            row[: len(p)] = np.nan if p[0].isnan() else p.numpy()
            row[len(p) :] = row[0] * 0.0
        return cls(np.array([step for step, _ in kept], dtype=np.int64), eigenvalues)


class Measured(NamedTuple):
    """What the rows of one layer and step gave.

    Attributes:
        values: Of the quantities; NaN where they are not defined.
        rank: Effective rank, ``exp(H_1)``; NaN if it is not defined.
        spectrum: ``(min(rows, width),)``, eigenvalues with sum 1, on the CPU; NaN if there are none.
        rows: n, of all ranks if they are taken together.
        width: d.
        problem: ``""``, ``"zero"`` or what is not finite.
    """

    values: dict[str, float]
    rank: float
    spectrum: Tensor
    rows: int
    width: int
    problem: str


def measure(Z: Tensor, quantities: list[Quantity], **preparation: Any) -> Measured:
    """Measure rows ``(n, d)`` without a graph, in float64; what is wrong with them is a result and no error."""
    Z = Z.cpu() if Z.device.type == "mps" else Z  # which has no float64
    with torch.no_grad(), without_autocast(Z.device):
        gram = prepared(Z, **preparation)
        try:
            s = Spectrum.of(gram)
        except RuntimeError as error:  # the solver, or memory: a monitor does not end a training
            return _without_spectrum(gram.shape[-1], Z.shape[1], quantities, f"no spectrum ({error})")
        ends = s.eigenvalues[[0, -1]].tolist()
        if not all(map(math.isfinite, ends)):
            return _without_spectrum(s.rows, s.width, quantities, _what_is_not_finite(Z))
        zero = ends[0] == 0
        missing = s.eigenvalues.new_tensor(math.nan)
        columns = [
            missing if zero and not quantity.defined_at_zero else quantity.value(s, gram)
            for quantity in quantities
        ]
        *values, rank = torch.stack([*columns, effective_rank(s)]).tolist()  # one transfer
        named = {quantity.name: value for quantity, value in zip(quantities, values, strict=True)}
        return Measured(named, rank, s.normalized.cpu(), s.rows, s.width, "zero" if zero else "")


def _without_spectrum(rows: int, width: int, quantities: list[Quantity], problem: str) -> Measured:
    nothing = torch.full((min(rows, width),), math.nan, dtype=torch.float64)
    return Measured({q.name: math.nan for q in quantities}, math.nan, nothing, rows, width, problem)


def _what_is_not_finite(Z: Tensor) -> str:
    bad = int((~Z.isfinite().all(-1)).sum())
    return f"NaN or infinity in {bad} of {Z.shape[0]} rows" if bad else "features too large to square"
