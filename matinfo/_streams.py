"""What streams of feature rows share: checks of a batch, and sums over it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from matinfo._validation import check_choice, check_floating, check_positive
from matinfo.operands import Gram, as_tensor, normalize_rows
from matinfo.spectral.eigensystem import Noise, eigensystem

S = TypeVar("S", bound="Stream")

NAN_POLICIES = ("error", "skip", "propagate")
PRECISIONS = ("float64", "float32")
MEMORY_LIMIT = 2**31
"""Bytes of a joint second moment that are allowed by default: widths of 128 and 128 just fit."""


def check_rows(features: Tensor | np.ndarray, width: int, name: str = "features") -> Tensor:
    """Accept ``(n, width)``, n = 0 included, and return it detached."""
    Z = check_floating(as_tensor(features), name)
    if Z.ndim != 2 or Z.shape[-1] != width:
        raise ValueError(
            f"Expected {name} of shape (n, {width}), one row a sample, got {tuple(Z.shape)}. "
            "The width of a stream is fixed when its accumulator is made."
        )
    return Z.detach() if Z.requires_grad else Z  # the same, which knows its dtype_given


def prepared_rows(streams: list[Tensor], *, normalize: bool, nan: str) -> tuple[list[Tensor], int]:
    """Aligned rows in float64 under the NaN policy, normalised if asked, and how many were left out."""
    streams, bad = good_rows(streams, nan)
    return [converted(Z, torch.float64, normalize=normalize) for Z in streams], bad


def good_rows(streams: list[Tensor], nan: str) -> tuple[list[Tensor], int]:
    """Aligned rows under the NaN policy, and how many were left out."""
    rows = streams[0].shape[0]
    if any([Z.shape[0] != rows for Z in streams]):
        raise ValueError(
            "Expected as many rows in both streams, row i of each the same sample, got "
            f"{' and '.join(str(Z.shape[0]) for Z in streams)}."
        )
    # A sum may overflow though no entry is infinite: it only says whether to look closer.
    if nan == "propagate" or all([bool(Z.sum().isfinite()) for Z in streams]):
        return streams, 0
    good = torch.stack([Z.isfinite().all(-1).to(streams[0].device) for Z in streams]).all(0)
    bad = rows - int(good.sum())
    if bad and nan == "error":
        raise ValueError(
            f"Expected finite features, got {bad} of {rows} rows with NaN or infinity; nothing was added. "
            'Use nan="skip" to leave such rows out, nan="propagate" to let them through.'
        )
    return ([Z[good.to(Z.device)] for Z in streams] if bad else streams), bad


def converted(Z: Tensor, dtype: torch.dtype, *, normalize: bool) -> Tensor:
    """Rows in the dtype of the sums, normalised if asked."""
    return normalize_rows(Z.to(dtype)) if normalize else Z.to(dtype)


def check_joint_memory(width1: int, width2: int, max_memory: float) -> None:
    """Refuse a joint second moment that is larger than the limit."""
    limit = check_positive(max_memory, "max_memory")
    needed = 8 * (width1 * width2) ** 2
    if needed > limit:
        order = width1 * width2
        raise ValueError(
            f"Expected a joint second moment of at most max_memory = {limit / 2**20:,.0f} MiB, got widths {width1} and "
            f"{width2}: {order} x {order} in float64 takes {needed / 2**20:,.0f} MiB. Project the features to fewer "
            "dimensions, or raise max_memory."
        )


def check_not_empty(count: int, skipped: int) -> None:
    """Refuse a stream without rows."""
    if count == 0:
        raise ValueError(
            f"Expected at least one row before a result, got none ({skipped} skipped). Call update(features) first."
        )


def without_roundoff(moment: Tensor, given: torch.dtype) -> Tensor:
    """A float64 second moment with the eigenvalues that its rounding to another dtype made set to zero."""
    root = root_of(moment, given)
    return moment if root is None else root.mT @ root


def root_of(moment: Tensor, given: torch.dtype = torch.float64) -> Tensor | None:
    """R with ``R^T R`` the moment and as few rows as its rank, at least one; None if it is not finite."""
    if not moment.isfinite().all():
        return None
    noise = Noise.of(moment.shape[-1], torch.float64, given)
    eigenvalues, Q = eigensystem(moment, noise, vectors=True, side="features")
    eigenvalues = eigenvalues.clamp_min(0)
    kept = eigenvalues > noise.cut(eigenvalues)
    kept[-1] = True
    return eigenvalues[kept].sqrt()[:, None] * Q[:, kept].mT


def compared(moment: Tensor, widths: tuple[int, int], divergence: Callable[[Gram, Gram], Tensor]) -> Tensor:
    """A divergence of two Gram matrices over the same rows, whose second moment side by side is known.

    It is that of the two in an orthonormal basis of all columns, where they are small. NaN if the moment is not finite.
    """
    root = root_of(moment)
    if root is None:
        return torch.full((), torch.nan, dtype=moment.dtype, device=moment.device)
    first, second = root.split(list(widths), -1)
    return divergence(Gram(first), Gram(second))


class Stream:
    """What all accumulators do alike."""

    streams = 1
    """Number of arguments of an update."""

    def __init__(self, normalize: bool, nan: str) -> None:
        self._normalize = bool(normalize)
        self._nan = check_choice(nan, "nan", NAN_POLICIES)
        self._skipped = 0
        self._numpy: bool | None = None

    @property
    def skipped(self) -> int:
        """Number of rows left out under ``nan="skip"``."""
        return self._skipped

    def _settings(self) -> dict[str, object]:
        return {"normalize": self._normalize, "nan": self._nan}

    def update(self, *features: Any) -> None:
        """Add the rows of a batch."""
        raise NotImplementedError

    def merge(self, other: Any) -> None:
        """Add the rows of another accumulator made with the same arguments; ``a + b`` makes a new one.

        Args:
            other: Stays as it is.

        Raises:
            ValueError: If its arguments differ.
            TypeError: If it is not of the same class.
        """
        if type(other) is not type(self):
            raise TypeError(f"Expected another {type(self).__name__}, got {type(other).__name__}.")
        if self._settings() != other._settings():
            raise ValueError(
                f"Expected an accumulator with the same settings {self._settings()}, got {other._settings()}."
            )
        self._add(other)
        self._note(other._skipped, other._numpy)

    def _add(self, other: Any) -> None:
        """Add the sums of another accumulator of the same kind."""
        raise NotImplementedError

    def summed(self: S, total: Callable[[Tensor], Tensor]) -> S:
        """The accumulator of the rows of all ranks, given the function that sums a tensor over them."""
        result = copy.copy(self)
        result._skipped, arrays = total(torch.tensor([self._skipped, bool(self._numpy)])).tolist()
        result._numpy = arrays > 0 or self._numpy  # a rank without rows answers as the others
        result._sum(total)
        return result

    def _sum(self, total: Callable[[Tensor], Tensor]) -> None:
        """Put the sums over all ranks in the place of its own, which another accumulator shares."""
        raise NotImplementedError

    def __add__(self: S, other: Any) -> S:
        if not isinstance(other, type(self)):
            return NotImplemented
        total = copy.deepcopy(self)
        total.merge(other)
        return total

    def _note(self, skipped: int, numpy: bool | None) -> None:
        self._skipped += skipped
        self._numpy = numpy if self._numpy is None else self._numpy

    def _out(self, x: Tensor) -> Tensor:
        """NumPy if the first batch was."""
        return x.cpu().numpy()[()] if self._numpy else x  # type: ignore[return-value]
