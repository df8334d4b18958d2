"""What may be drawn: the spectrum of one operand, of several with labels, or of a mapping from labels to operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from torch import Tensor

from matinfo._validation import check_trace
from matinfo.operands import AnyGram, as_tensor
from matinfo.spectrum import Spectrum, as_spectral, spectrum

Drawable: TypeAlias = Tensor | np.ndarray | AnyGram | Spectrum
Drawables: TypeAlias = Drawable | Sequence[Drawable] | Mapping[str, Drawable]


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
