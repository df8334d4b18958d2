"""In which precision the spectral work is done: the one place for this decision.

Eigenvalues come back with an absolute error of a few roundoffs of the largest one. What that does to a quantity
depends on how much the quantity listens to small eigenvalues, and what float64 costs depends on the size and on the
device; the rule below weighs the two.
"""

from __future__ import annotations

import torch

PRECISIONS = ("auto", "float32", "float64")

_SMALL_DENSE = 1024
_SMALL_DUAL = 512


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Half precision has no factorisations and rounds a Gram matrix beyond use; everything else stays."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def working_dtype(
    given: torch.dtype, size: int, device: torch.device, *, precision: str, sensitive: bool, dual: bool
) -> torch.dtype:
    """Precision of the Gram product and the factorisation.

    Args:
        given: dtype of the user's tensor.
        size: Order of the matrix to be factored.
        device: Where.
        precision: ``"float32"`` and ``"float64"`` decide; ``"auto"`` applies the rule.
        sensitive: Whether small eigenvalues matter (orders below 1, divergences).
        dual: Whether the matrix is formed here from features, so that float64 keeps digits a float32 Gram has lost.
    """
    if precision != "auto":
        return torch.float64 if precision == "float64" else torch.float32
    if given == torch.float64 or sensitive:
        return torch.float64
    if dual and size <= _SMALL_DUAL:
        return torch.float64
    if device.type == "cpu" and size <= _SMALL_DENSE:
        return torch.float64
    return torch.float32
