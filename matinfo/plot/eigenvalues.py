"""The one decomposition behind a picture or a report: eigenvalues, and every entropy of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matinfo._validation import (
    check_floating,
    check_matrix,
    check_order,
    check_positive_semidefinite,
    check_trace,
)
from matinfo.operands import Gram, as_tensor, smaller_side
from matinfo.spectral.eigensystem import Noise
from matinfo.spectral.entropy_function import entropy_of_eigenvalues
from matinfo.spectral.traces import spectrum

_OF_EIGENVALUES = Noise(16 * torch.finfo(torch.float64).eps, 0.0, 1e-6)
"""Of eigenvalues whose matrix is not known."""


@dataclass(frozen=True)
class Eigenvalues:
    """Descending, non-negative eigenvalues ``(m,)``, and what is known of their errors."""

    values: Tensor
    noise: Noise

    @property
    def shares(self) -> np.ndarray:
        """Eigenvalues divided by their sum."""
        return (self.values / self.values.sum()).numpy()

    @property
    def above_noise(self) -> int:
        """How many are not round-off."""
        return int((self.values > self.noise.cut(self.values.flip(-1))).sum())

    def entropy(self, alpha: float) -> float:
        """Rényi entropy in nats, as :func:`matinfo.renyi_entropy` of the matrix they come from."""
        return float(entropy_of_eigenvalues(self.values, check_order(alpha), self.noise))

    @property
    def effective_rank(self) -> float:
        """``exp(H_1)``, as :func:`matinfo.effective_rank`."""
        return math.exp(self.entropy(1.0))


def eigenvalues_of(K: Tensor | np.ndarray | Gram, function: str) -> Eigenvalues:
    """Eigenvalues of a matrix ``(n, n)`` or a Gram, or eigenvalues ``(n,)`` themselves in any order."""
    if isinstance(K, Gram):
        operand: Tensor | Gram = K
    else:
        tensor = as_tensor(K) if isinstance(K, np.ndarray) else check_floating(K, "K")
        tensor = tensor.detach().cpu()
        if tensor.ndim == 1:
            return _given(tensor.double())
        operand = check_matrix(tensor, "K", function)
    if len(operand.shape) != 2:
        raise ValueError(
            f"Expected one matrix (n, n), got a batch of shape {tuple(operand.shape)}. "
            f"Pass them by name: {function}({{'first': K[0], 'second': K[1]}})."
        )
    with torch.no_grad():
        side = smaller_side(operand, sensitive=True)
        matrix = side.matrix
        _check_finite(matrix)
        check_trace(matrix.diagonal().double().sum().cpu())
        values = spectrum(matrix, side.noise, side=side.name).cpu()
    return Eigenvalues(values, side.noise)


def _given(values: Tensor) -> Eigenvalues:
    if len(values) == 0:
        raise ValueError("Expected at least one eigenvalue, got none.")
    _check_finite(values)
    ascending = values.sort().values
    check_positive_semidefinite(ascending, _OF_EIGENVALUES.indefinite)
    check_trace(ascending.sum(), "the eigenvalues")
    return Eigenvalues(ascending.flip(-1).clamp_min(0.0), _OF_EIGENVALUES)


def _check_finite(x: Tensor) -> None:
    if not bool(x.isfinite().all()):
        raise ValueError(
            "Expected finite numbers, got NaN or infinity. Leave such rows out: Z[Z.isfinite().all(-1)]."
        )
