"""What may be drawn together: one operand, several with labels, or a mapping from labels to operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from torch import Tensor

from matinfo.operands import Gram
from matinfo.plot.eigenvalues import Eigenvalues, eigenvalues_of

Drawable: TypeAlias = Tensor | np.ndarray | Gram | Eigenvalues
Drawables: TypeAlias = Drawable | Sequence[Drawable] | Mapping[str, Drawable]


def labelled(
    K: Drawables, labels: str | Sequence[str] | None, function: str
) -> list[tuple[str, Eigenvalues]]:
    """Eigenvalues with their labels (empty for one operand without)."""
    if isinstance(K, Mapping):
        if labels is not None:
            raise ValueError("Expected labels=None with a mapping, whose keys are the labels, got both.")
        names, operands = [str(name) for name in K], list(K.values())
    elif isinstance(K, Tensor | np.ndarray | Gram | Eigenvalues):
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
    return [
        (name, K if isinstance(K, Eigenvalues) else eigenvalues_of(K, function))
        for name, K in zip(names, operands, strict=True)
    ]
