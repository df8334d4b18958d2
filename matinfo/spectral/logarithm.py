"""Logarithms of matrices that need not be positive definite: a continued log-determinant, and Taylor's series.

The symmetric part of a cross-product of two views has negative eigenvalues where the views disagree, and a ridge does
not lift them all. There ``log`` is continued by its tangent below a small floor: concave, increasing, once continuously
differentiable, and exactly the log-determinant as soon as every eigenvalue is above the floor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._validation import values_are_readable
from matinfo.spectral.eigensystem import Noise
from matinfo.spectral.functions import ContinuedLog
from matinfo.spectral.logdet import logdet_of_sum, logdet_shifted
from matinfo.spectral.trace_function import trace_function

FLOOR = 0.01
"""Share of the ridge below which the logarithm is continued by its tangent."""


def continued_logdet(S: Tensor, ridge: float, *, bound: float, side: str) -> Tensor:
    """``sum_i l(ridge + s_i)`` over the eigenvalues s of symmetric float64 S, l = log continued below ``FLOOR ridge``.

    Args:
        S: ``(..., n, n)``, exactly symmetric.
        ridge: Positive.
        bound: A number that no eigenvalue exceeds in magnitude.
        side: For the explanation.

    Returns:
        ``(...)``, float64.
    """
    floor = FLOOR * ridge
    if bound < ridge - floor or _all_above(S, ridge - floor):
        return logdet_shifted(S, ridge, side=side)
    # The solver expects a positive semi-definite matrix, beyond doubt even where all eigenvalues are -bound.
    n, shift = S.shape[-1], 2 * bound
    K = S + shift * torch.eye(n, dtype=S.dtype, device=S.device)
    noise = Noise.of(n, torch.float64, torch.float64)
    return trace_function(K, ContinuedLog(ridge - shift, floor), noise=noise, side=side)


def _all_above(S: Tensor, shift: float) -> bool:
    """Whether ``shift I + S`` is positive definite: two Cholesky factorisations cost less than one decomposition."""
    return values_are_readable(S) and not bool(logdet_of_sum(S.detach(), shift).isnan().any())


def taylor_log(X: Tensor, terms: int) -> Tensor:
    """The first terms ``X - X^2/2 + X^3/3 - ...`` of ``log(I + X)``, for any square ``(..., n, n)``."""
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    coefficients = [(1.0 if k % 2 else -1.0) / k for k in range(1, terms + 1)]
    total = coefficients[-1] * X
    for coefficient in reversed(coefficients[:-1]):
        total = X @ (coefficient * identity + total)
    return total
