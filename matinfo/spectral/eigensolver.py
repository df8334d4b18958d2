"""The one door to the symmetric eigensolver.

LAPACK and cuSOLVER fail in ways that a training run must survive: float32 drivers stop with "failed to converge"
on sparse low-rank matrices (subnormal numbers in the tridiagonal form), non-finite input is undefined, and batched
GPU drivers have returned eigenvectors of another batch element. Everything in matinfo that needs eigenvalues comes
through :func:`eigh_psd`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._record import record

_SHIFT = 2.0**-27
"""Relative shift that keeps float32 tridiagonal forms out of the subnormal range; subtracted afterwards."""

_RESCUE_SHIFT = 2.0**-60
"""The same for float64, which fails far more rarely: only tried after a failure."""

_LARGEST_ORDER = {"cpu": 32_000, "cuda": 20_000}
"""Above these orders the solvers' 32-bit workspace sizes overflow."""

_PROBE_TOLERANCE = 1e3
"""Accepted residual of the probe in units of the roundoff; healthy results stay below 18."""


def eigh_psd(K: Tensor, *, vectors: bool = True, side: str = "") -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending) and eigenvectors of a batch of symmetric matrices, without derivatives.

    Args:
        K: Symmetric, ``(..., n, n)``, float32 or float64; the lower triangle is read.
        vectors: Whether the eigenvectors are wanted; otherwise an empty tensor comes in their place.
        side: For the explanation; nothing is recorded if empty (an inner step of another algorithm).

    Returns:
        ``(eigenvalues (..., n), eigenvectors (..., n, n))``. Batch elements with a non-finite entry are NaN.

    Raises:
        ValueError: If the order exceeds what the solver can index.
        RuntimeError: If every fallback fails; the message describes the matrix.
    """
    n = K.shape[-1]
    limit = _LARGEST_ORDER.get(K.device.type, 32_000)
    if n > limit:
        raise ValueError(
            f"Expected a matrix of order at most {limit} for eigenvalues on {K.device.type}, got {n}: the solver's "
            "workspace overflows 32-bit indices. Pass features as Gram(features) with fewer columns than rows, "
            "or use alpha=2 or a coding rate, which need no eigenvalues."
        )
    K = K.detach()
    diagonal = K.diagonal(dim1=-2, dim2=-1).amax(-1) if K.dtype == torch.float32 else None
    if not _is_harmless(K, diagonal):
        return _normalize_and_solve(K, vectors, side)
    A = K
    if diagonal is not None:
        diagonal = diagonal[..., None]
        A = K.clone()
        A.diagonal(dim1=-2, dim2=-1).add_(_SHIFT * diagonal)
    eigenvalues, Q, note = _solve_with_fallbacks(A, vectors)
    if diagonal is not None:
        eigenvalues = eigenvalues - _SHIFT * diagonal
    if side:
        record("eigh" if vectors else "eigvalsh", K, side=side, note=note)
    return eigenvalues, Q


def _is_harmless(K: Tensor, diagonal: Tensor | None) -> bool:
    """Whether every entry is finite and, in float32, every matrix of a size that squares without overflow."""
    if K.numel() == 0 or not math.isfinite(K.sum().item()):
        return False
    if diagonal is None:
        return True
    low, high = diagonal.aminmax()
    return low.item() > 1e-15 and high.item() < 1e15


def _normalize_and_solve(K: Tensor, vectors: bool, side: str) -> tuple[Tensor, Tensor]:
    """The careful way: each matrix scaled to entries of size 1; one with a non-finite entry gives NaN."""
    n = K.shape[-1]
    magnitude = K.abs().amax((-2, -1)) if K.numel() else K.new_ones(K.shape[:-2])
    finite = magnitude.isfinite()
    K = torch.where(finite[..., None, None], K, torch.eye(n, dtype=K.dtype, device=K.device))
    scale = torch.where(finite & (magnitude > 0), magnitude, 1.0)
    A = K / scale[..., None, None]
    A.diagonal(dim1=-2, dim2=-1).add_(_SHIFT)
    eigenvalues, Q, note = _solve_with_fallbacks(A, vectors)
    eigenvalues = (eigenvalues - _SHIFT) * scale[..., None]
    if not bool(finite.all()):
        eigenvalues = torch.where(finite[..., None], eigenvalues, torch.nan)
        if vectors:
            Q = torch.where(finite[..., None, None], Q, torch.nan)
        note = "; ".join(filter(None, [note, f"{int((~finite).sum())} non-finite batch elements"]))
    if side:
        record("eigh" if vectors else "eigvalsh", K, side=side, note=note)
    return eigenvalues, Q


def _solve(A: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    if vectors:
        eigenvalues, Q = torch.linalg.eigh(A)
        return eigenvalues, Q
    return torch.linalg.eigvalsh(A), A.new_empty(0)


def _solve_with_fallbacks(A: Tensor, vectors: bool) -> tuple[Tensor, Tensor, str]:
    try:
        eigenvalues, Q = _solve(A, vectors)
        wrong = (
            _probe(A, eigenvalues, Q) if vectors and A.is_cuda and A.ndim > 2 and A.shape[-1] > 1 else None
        )
        if wrong is None or not bool(wrong.any()):
            return eigenvalues, Q, ""
    except torch.linalg.LinAlgError:
        pass
    if A.ndim > 2:
        flat = A.reshape(-1, *A.shape[-2:])
        parts = [_rescue(element, vectors, index) for index, element in enumerate(flat)]
        eigenvalues = torch.stack([part[0] for part in parts]).reshape(A.shape[:-1])
        Q = torch.stack([part[1] for part in parts])
        Q = Q.reshape(A.shape) if vectors else A.new_empty(0)
        notes = sorted({part[2] for part in parts if part[2]})
        return eigenvalues, Q, "; ".join(notes)
    return _rescue(A, vectors, None)


def _rescue(A: Tensor, vectors: bool, index: int | None) -> tuple[Tensor, Tensor, str]:
    """One matrix through the chain: as it is, shifted in float64, and the same on the CPU."""
    attempts = [
        (A.dtype, A.device, 0.0, ""),
        (torch.float64, A.device, _RESCUE_SHIFT, "fell back to shifted float64"),
        (torch.float64, torch.device("cpu"), _RESCUE_SHIFT, "fell back to shifted float64 on the CPU"),
    ]
    for dtype, device, relative_shift, note in attempts:
        try:
            B = A.to(device=device, dtype=dtype)
            shift = relative_shift * B.diagonal().amax()
            if relative_shift:
                B = B + shift * torch.eye(B.shape[-1], dtype=dtype, device=device)
            eigenvalues, Q = _solve(B, vectors)
            if vectors and bool(_probe(B, eigenvalues, Q).any()):
                continue
            return (eigenvalues - shift).to(A), Q.to(A), note
        except torch.linalg.LinAlgError:
            continue
    diagonal = A.diagonal()
    where = "" if index is None else f" (batch element {index})"
    raise RuntimeError(
        f"The symmetric eigensolver failed in {A.dtype} and in float64{where}: order {A.shape[-1]}, device "
        f"{A.device}, diagonal in [{diagonal.min().item():.3g}, {diagonal.max().item():.3g}], "
        f"Frobenius norm {A.norm().item():.3g}. Please report the matrix."
    )


def _probe(A: Tensor, eigenvalues: Tensor, Q: Tensor) -> Tensor:
    """Which batch elements fail ``A Q = Q diag(eigenvalues)`` or ``Q^T Q = I`` on two random vectors."""
    generator = torch.Generator(device=A.device).manual_seed(0)
    v = torch.randn(A.shape[-1], 2, dtype=A.dtype, device=A.device, generator=generator)
    norm = v.norm()
    residual = (A @ (Q @ v) - Q @ (eigenvalues[..., None] * v)).norm(dim=(-2, -1))
    residual = residual / (eigenvalues.abs().amax(-1).clamp_min(torch.finfo(A.dtype).tiny) * norm)
    drift = (Q.mT @ (Q @ v) - v).norm(dim=(-2, -1)) / norm
    return ~(torch.maximum(residual, drift) <= _PROBE_TOLERANCE * torch.finfo(A.dtype).eps)
