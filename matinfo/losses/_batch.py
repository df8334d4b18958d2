"""What losses share: one batch, aligned where there are several tensors, in one precision; softmax; pairs of views."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._validation import check_features, check_same_shape, check_views
from matinfo.operands import Operand, normalize_rows
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


def check_single(remedy: str, **operands: Operand) -> None:
    """Accept operands of which each is one matrix."""
    for name, K in operands.items():
        if len(getattr(K, "shape", ())) > 2:
            raise ValueError(f"Expected {name} to be one matrix, got {tuple(K.shape)}. Use {remedy}.")


def students_and_teachers(students: Tensor, teachers: Tensor) -> tuple[Tensor, Tensor]:
    """Accept ``(V, B, d)`` and ``(T, B, d)``, T <= V, of which the first T students have the views of the teachers."""
    S = one_batch(check_views(students, "students", least=2), "students", "(V, B, d)")
    T = one_batch(check_views(teachers, "teachers"), "teachers", "(T, B, d)")
    if S.shape[1:] != T.shape[1:]:
        raise ValueError(
            "Expected students and teachers of the same samples and dimensions, and no fewer views of the students, "
            f"got {tuple(S.shape)} and {tuple(T.shape)}."
        )
    if len(S) < len(T):
        raise ValueError(
            f"Expected at least as many views of the students as of the teachers, got {len(S)} and {len(T)}."
        )
    return S, T.detach()


def mean_over_other_views(values: Tensor) -> Tensor:
    """The mean of ``(T, V)`` over the T V - T pairs of a teacher and a student that see different views."""
    T, V = values.shape
    same_view = torch.eye(T, V, dtype=torch.bool, device=values.device)
    return values.masked_fill(same_view, 0.0).sum() / (T * (V - 1))


def off_diagonal_squares(C: Tensor) -> Tensor:
    """``sum_{i != j} C_ij^2``."""
    others = 1 - torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
    return (C * others).square().sum((-2, -1))


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
