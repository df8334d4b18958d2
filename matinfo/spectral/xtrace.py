"""Traces of positive semi-definite matrices from one product with a random block: XTrace in its Nyström form.

Of ``Y = A Omega`` each column i in turn is the probe of what the others leave. With the Nyström approximation ``A_i``
of A from all columns but i,

    t_i = tr A_i + omega_i^T (A - A_i) omega_i,     estimate = mean_i t_i,

and all t_i come from one factorisation: with ``H = Omega^T Y`` and ``h = H^{-1} e_i``,

    tr A_i = tr Y H^{-1} Y^T - |Y h|^2 / h_i,       omega_i^T (A - A_i) omega_i = 1/h_i.

The second term sees of ``omega_i`` only the part orthogonal to the other columns, whose direction is uniform in
n - k + 1 dimensions; it is scaled to the length ``sqrt(n - k + 1)``, as lengths only add scatter.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from matinfo.spectral.operator import SymmetricOperator

_LARGEST_SHIFT = 1e-10
"""Size of a negative part that counts as round-off, relative to ``|A|_F`` or so."""

_DELETIONS = 64
"""Columns that the jackknife deletes, one at a time; of more columns it takes a strided sample."""


class ExchangeableTrace(NamedTuple):
    """An estimate of a trace and its standard error."""

    value: float
    standard_error: float


def exchangeable_trace(probes: Tensor, images: Tensor) -> ExchangeableTrace:
    """The trace of a positive semi-definite A.

    The standard error is the jackknife's: its square is ``sum_j (T_j - mean T)^2`` with the estimate ``T_j`` of all
    columns but j, on the mean at least the variance of ``T_j`` (Efron and Stein). The scatter of the ``t_i`` alone,
    which are correlated, is too small where the spectrum decays fast.

    Args:
        probes: Omega, ``(n, k)`` independent Gaussian, 3 <= k <= n.
        images: ``Y = A Omega``.

    Raises:
        ValueError: If A is clearly not positive semi-definite.
    """
    n, k = probes.shape
    size = float(images.abs().max())
    if size == 0 or not math.isfinite(size):
        return ExchangeableTrace(size, size)
    images = images / size  # of a high power they are so small that their squares would be zero
    scale = float(torch.linalg.matrix_norm(images)) / math.sqrt(n)
    lengths = torch.linalg.qr(probes, mode="r").R
    shift = (
        scale * torch.finfo(images.dtype).eps
    )  # A may be singular; the trace of the shift is subtracted in the end
    while shift <= _LARGEST_SHIFT * scale:
        shifted = images + shift * probes
        inner = probes.mT @ shifted
        if bool(torch.linalg.cholesky_ex(inner).info == 0):
            outer = torch.linalg.qr(shifted, mode="r").R
            value = leave_one_out(lengths, outer, inner, n).mean()
            deleted = _deleted(lengths, outer, inner, n)
            spread = (deleted - deleted.mean()).square().mean() * k
            return ExchangeableTrace(size * (float(value) - n * shift), size * math.sqrt(float(spread)))
        shift *= 10
    raise ValueError(
        "Expected a positive semi-definite matrix, got a negative quadratic form beyond round-off. Use "
        "Gram(features), or a positive definite kernel."
    )


def leave_one_out(lengths: Tensor, outer: Tensor, inner: Tensor, n: int) -> Tensor:
    """The estimates ``t_i``, ``(..., k)``.

    Args:
        lengths: Any ``(..., m, k)`` with the inner products of Omega.
        outer: The same of Y.
        inner: ``Omega^T Y``, ``(..., k, k)``.
        n: Order of A.
    """
    k = inner.shape[-1]
    identity = torch.eye(k).to(inner)
    lower = torch.linalg.cholesky_ex((inner + inner.mT) / 2).L
    root = torch.linalg.solve_triangular(lower, outer.mT, upper=False).mT  # root root^T = Y H^{-1} Y^T
    inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
    diagonal = inverse.square().sum(-2)  # of H^{-1}
    removed = (root @ inverse).square().sum(-2) / diagonal
    triangle = torch.linalg.qr(lengths, mode="r").R
    orthogonal = torch.linalg.solve_triangular(triangle, identity, upper=True).square().sum(-1)
    return root.square().sum((-2, -1))[..., None] - removed + (n - k + 1) * orthogonal / diagonal


def _deleted(lengths: Tensor, outer: Tensor, inner: Tensor, n: int) -> Tensor:
    """The estimates of all columns but one, for each or for evenly strided ones."""
    k = inner.shape[-1]
    estimates = []
    for j in range(0, k, -(-k // _DELETIONS)):
        kept = torch.tensor([i for i in range(k) if i != j], device=inner.device)
        estimates.append(leave_one_out(lengths[:, kept], outer[:, kept], inner[kept][:, kept], n).mean())
    return torch.stack(estimates)


def power_images(operator: SymmetricOperator, probes: Tensor, power: int) -> Tensor:
    """``P^power Omega`` for P = K over its trace."""
    total = operator.trace()
    for _ in range(power):
        probes = operator.matmat(probes) / total
    return probes


def power_roundoff(operator: SymmetricOperator, power: int, value: float) -> float:
    """What eigenvalues that are off by their rounding do to ``tr P^p``, by its derivative ``p tr P^(p-1)``."""
    squared = operator.frobenius_squared()
    size = 1.0 if squared is None else math.sqrt(squared) / operator.trace()
    delta = (operator.noise / math.sqrt(operator.shape[0]) + torch.finfo(torch.float64).eps) * size
    at_most = max(value, 0.0) ** (
        (power - 2) / (power - 1)
    )  # tr P^(p-1): log tr P^p is convex in p, 0 at p = 1
    return power * delta * at_most
