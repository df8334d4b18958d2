"""Measures by name: which function, of what, in which unit, between which bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from matinfo import entropy, rank
from matinfo._keywords import answers_keywords
from matinfo.coding_rate import coding_rate, matrix_tcr, tcr
from matinfo.measures import decay, dimension, geometry, isotropy, spectra
from matinfo.operands import as_tensor
from matinfo.operands.gram import prepared_rows
from matinfo.spectrum import spectrum


@dataclass(frozen=True)
class Measure:
    """What is known of a measure that has a name.

    Attributes:
        function: Takes a :class:`~matinfo.Spectrum` of features, or features ``(..., n, d)``, as its first argument.
        of: ``"spectrum"`` or ``"features"``.
        unit: ``"nats"``, ``"dimensions"``, ``"radians"``, or ``""`` for a pure number.
        bounds: What the values lie between, n rows and d columns.
        rows: What the definition does with rows first: ``"centred"``, ``"unit length"``, ``"in order"`` or nothing.
        at_zero: Whether features that are all zero have a value.
    """

    function: Callable[..., Any]
    of: str
    unit: str
    bounds: str
    rows: str = ""
    at_zero: bool = False


_NATS, _DIMENSIONS = "nats", "dimensions"
_UP_TO_RANK = "1 to min(n, d)"

MEASURES: dict[str, Measure] = {
    m.function.__name__: m
    for m in (
        Measure(entropy.renyi_entropy, "spectrum", _NATS, "0 to log min(n, d)"),
        Measure(entropy.von_neumann_entropy, "spectrum", _NATS, "0 to log min(n, d)"),
        Measure(spectra.normalized_entropy, "spectrum", "", "0 to 1"),
        Measure(rank.effective_rank, "spectrum", _DIMENSIONS, _UP_TO_RANK),
        Measure(rank.participation_ratio, "spectrum", _DIMENSIONS, _UP_TO_RANK),
        Measure(rank.vendi_score, "spectrum", "kinds", _UP_TO_RANK, "unit length"),
        Measure(rank.rankme, "spectrum", _DIMENSIONS, _UP_TO_RANK),
        Measure(spectra.stable_rank, "spectrum", _DIMENSIONS, _UP_TO_RANK),
        Measure(isotropy.nesum, "spectrum", _DIMENSIONS, "1 to min(n - 1, d)", "centred"),
        Measure(spectra.numerical_rank, "spectrum", _DIMENSIONS, "0 to min(n, d)", at_zero=True),
        Measure(decay.alpha_req, "spectrum", "", "0 to infinity", "centred"),
        Measure(spectra.condition_number, "spectrum", "", "1 to infinity"),
        Measure(isotropy.isoscore, "spectrum", "", "0 to 1", "centred"),
        Measure(isotropy.self_clustering, "spectrum", "", "below 0 to 1", "unit length"),
        Measure(spectra.nuclear_norm, "spectrum", "", "0 to infinity", at_zero=True),
        Measure(tcr, "spectrum", _NATS, "d log mu to infinity", at_zero=True),
        Measure(matrix_tcr, "spectrum", _NATS, "n log mu to infinity", at_zero=True),
        Measure(coding_rate, "spectrum", _NATS, "0 to infinity", "unit length", at_zero=True),
        Measure(geometry.uniformity, "features", _NATS, "-4 t to 0", "unit length", at_zero=True),
        Measure(geometry.mean_cosine, "features", "", "-1/(n - 1) to 1", "unit length", at_zero=True),
        Measure(geometry.coherence, "features", "", "1 to n/rank"),
        Measure(
            geometry.matrix_nuclear_norm,
            "features",
            "",
            "0 to 1 for unit rows",
            "centred, unit length",
            at_zero=True,
        ),
        Measure(geometry.curvature, "features", "radians", "0 to pi", "in order"),
        Measure(dimension.two_nn, "features", _DIMENSIONS, "0 to infinity"),
        Measure(dimension.mle_dimension, "features", _DIMENSIONS, "0 to infinity"),
    )
}


def limit_of(name: str) -> str:
    """``"min(n, d)"`` or ``"log min(n, d)"`` where that bounds the measure of this name from above, else nothing."""
    upper = MEASURES[name].bounds.partition(" to ")[2] if name in MEASURES else ""
    return upper if upper in ("min(n, d)", "log min(n, d)") else ""


@answers_keywords
def measure(
    features: Tensor | np.ndarray,
    names: Iterable[str] | None = None,
    *,
    center: bool | str = False,
    normalize: bool = False,
) -> dict[str, Any]:
    """Measures of one set of features by name, all those of the spectrum from one decomposition.

    Args:
        features: ``(..., n, d)``, Tensor or NumPy array, one row a sample.
        names: Keys of :data:`MEASURES`; None for all that need nothing but the spectrum.
        center: Whether to subtract the mean row, after the following; ``"first"`` before it.
        normalize: Whether to divide each row by its l2 norm.

    Returns:
        Values by name, each ``(...)``, as its function gives them. Rows are prepared as said here, and further
        only where a function's own definition does: ``MEASURES[name].rows`` says what a definition assumes.

    Raises:
        ValueError: If a name is not known, or as the function of a name.
        TypeError: If ``features`` is not real floating point.

    Notes:
        One decomposition and O(m) for each spectral measure; the others as their functions.

    Example:
        >>> import numpy as np
        >>> from matinfo.measures import measure
        >>> Z = np.random.default_rng(0).normal(size=(200, 3))
        >>> values = measure(Z, ["effective_rank", "stable_rank"], center=True)
        >>> {name: round(float(value), 2) for name, value in values.items()}
        {'effective_rank': 2.99, 'stable_rank': 2.73}
    """
    chosen = [n for n, m in MEASURES.items() if m.of == "spectrum"] if names is None else list(names)
    if unknown := [name for name in chosen if name not in MEASURES]:
        raise ValueError(f"Expected names among {', '.join(MEASURES)}, got {', '.join(map(repr, unknown))}.")
    S = spectrum(features, center=center, normalize=normalize)
    rows: Any = None
    if any(MEASURES[name].of == "features" for name in chosen):
        Z = as_tensor(features)
        rows = prepared_rows(Z, center, normalize)
        rows = rows.numpy() if isinstance(features, np.ndarray) else rows
    return {name: MEASURES[name].function(S if MEASURES[name].of == "spectrum" else rows) for name in chosen}
