"""Logarithms of softmax probabilities that stay finite for finite scores of any size."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo.spectral.precision import at_least_float32


def log_probabilities(scores: Tensor, temperature: float) -> Tensor:
    """``log softmax(scores / temperature)`` over the last dimension, in float32 at least."""
    return scaled(scores, temperature, (-1,)).log_softmax(-1)


def scaled(scores: Tensor, temperature: float, dims: tuple[int, ...]) -> Tensor:
    """``(scores - max) / temperature``, the maximum over ``dims``; what would overflow becomes very negative."""
    s = scores.to(at_least_float32(scores.dtype))
    smallest = torch.finfo(s.dtype).tiny  # zero divided by less would be NaN
    s = (s - s.detach().amax(dims, keepdim=True)) / max(temperature, smallest)
    # A probability of exactly zero times a logarithm of -inf would be NaN.
    return s.clamp(min=torch.finfo(s.dtype).min / 4)
