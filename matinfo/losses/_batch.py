"""What every loss takes: the rows of one batch, aligned where there are several tensors, in one precision."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._validation import check_features, check_same_shape
from matinfo.operands import normalize_rows
from matinfo.spectral.normalize import widened
from matinfo.spectral.precision import at_least_float32


def one_batch(x: Tensor, name: str, shape: str = "(B, d)") -> Tensor:
    """Accept a tensor of one batch, and return it in float32 at least."""
    check_features(x, name)
    # Tokens (B, T, d) in the place of features would be B batches of T samples, and train something else.
    if x.ndim != shape.count(",") + 1:
        one = (
            f"Take one vector a sample, such as {name}[:, 0] or {name}.mean(1). " if shape == "(B, d)" else ""
        )
        raise ValueError(
            f"Expected {name} of shape {shape}, one batch, got {tuple(x.shape)}. {one}For several batches use "
            "torch.func.vmap."
        )
    return x.to(at_least_float32(x.dtype))


def aligned(shape: str = "(B, d)", **tensors: Tensor) -> tuple[Tensor, ...]:
    """Accept tensors of one batch and one shape, row by row the same samples; all in the widest of their dtypes."""
    batches = [one_batch(x, name, shape) for name, x in tensors.items()]
    names = list(tensors)
    for x, name in zip(batches[1:], names[1:], strict=True):
        check_same_shape(batches[0], x, (names[0], name))
    wide = any([x.dtype == torch.float64 for x in batches])
    return tuple([widened(x) for x in batches]) if wide else tuple(batches)


def unit_rows(**tensors: Tensor) -> tuple[Tensor, ...]:
    """The same, each row divided by its l2 norm; zero rows stay zero."""
    return tuple([normalize_rows(x) for x in aligned("(B, d)", **tensors)])
