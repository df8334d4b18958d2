"""The one door to the symmetric eigensolver.

LAPACK and cuSOLVER fail in ways that a training run must survive: float32 drivers stop with "failed to converge"
on sparse low-rank matrices (subnormal numbers in the tridiagonal form), non-finite input is undefined, and batched
GPU drivers have returned eigenvectors of another batch element. Everything in matinfo that needs eigenvalues comes
through :func:`eigh_psd`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._record import record
from matinfo.spectral.precision import norms_are_safe

_SHIFT = {torch.float32: 2.0**-27, torch.float64: 2.0**-60}
"""Relative shifts that keep tridiagonal forms out of the subnormal range, subtracted afterwards. Without it float32
fails on most sparse matrices of low rank, sometimes in silence; float64 fails about once in 600, with an error."""

_LARGEST_ORDER = {"cpu": 32_000, "cuda": 20_000}
"""Above these orders the solvers' 32-bit workspace sizes overflow."""

_LARGEST_ORDER_ANYWHERE = min(_LARGEST_ORDER.values())

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
    if n > _LARGEST_ORDER_ANYWHERE:
        _check_order(n, K.device.type)
    K = K.detach()
    if not _is_harmless(K):
        return _normalize_and_solve(K, vectors, side)
    eigenvalues, Q, note = _solve_with_fallbacks(K, vectors)
    if side:
        record("eigh" if vectors else "eigvalsh", K, side=side, note=note)
    return eigenvalues, Q


def _check_order(n: int, device: str) -> None:
    limit = _LARGEST_ORDER.get(device, 32_000)
    if n > limit:
        raise ValueError(
            f"Expected a matrix of order at most {limit} for eigenvalues on {device}, got {n}: the solver's "
            "workspace overflows 32-bit indices. Pass features as Gram(features) with fewer columns than rows, "
            "or use alpha=2 or a coding rate, which need no eigenvalues."
        )


def _is_harmless(K: Tensor) -> bool:
    """Whether every entry is finite and every matrix of a size whose squares neither over- nor underflow."""
    if K.ndim == 2:
        return norms_are_safe(torch.linalg.vector_norm(K))
    return K.numel() > 0 and norms_are_safe(torch.linalg.vector_norm(K, dim=(-2, -1)))


def _normalize_and_solve(K: Tensor, vectors: bool, side: str) -> tuple[Tensor, Tensor]:
    """The careful way: each matrix scaled to entries of size 1; one with a non-finite entry gives NaN."""
    n = K.shape[-1]
    magnitude = K.abs().amax((-2, -1)) if K.numel() else K.new_ones(K.shape[:-2])
    finite = magnitude.isfinite()
    K = torch.where(finite[..., None, None], K, torch.eye(n, dtype=K.dtype, device=K.device))
    scale = torch.where(finite & (magnitude > 0), magnitude, 1.0)
    eigenvalues, Q, note = _solve_with_fallbacks(K / scale[..., None, None], vectors)
    eigenvalues = eigenvalues * scale[..., None]
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
    """The solver, in float32 with a shift; after a failure the elements of a batch one by one through the rescues."""
    try:
        eigenvalues, Q = _solve_shifted(A, vectors) if A.dtype == torch.float32 else _solve(A, vectors)
        wrong = vectors and A.is_cuda and A.ndim > 2 and A.shape[-1] > 1 and _probe(A, eigenvalues, Q).any()
        if not wrong:
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


def _solve_shifted(A: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    """Away from subnormal numbers: the spectrum is moved up and back again."""
    shift = _SHIFT[A.dtype] * A.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)
    B = A.clone()
    B.diagonal(dim1=-2, dim2=-1).add_(shift)
    eigenvalues, Q = _solve(B, vectors)
    return eigenvalues - shift, Q


def _rescue(A: Tensor, vectors: bool, index: int | None) -> tuple[Tensor, Tensor, str]:
    """One matrix through the chain: as it is, shifted in float64, and the same on the CPU."""
    attempts = [
        (A.dtype, A.device, ""),
        (torch.float64, A.device, "fell back to shifted float64"),
        (torch.float64, torch.device("cpu"), "fell back to shifted float64 on the CPU"),
    ]
    for dtype, device, note in attempts:
        try:
            B = A.to(device=device, dtype=dtype)
            shifted = note or dtype == torch.float32
            eigenvalues, Q = _solve_shifted(B, vectors) if shifted else _solve(B, vectors)
            if vectors and bool(_probe(B, eigenvalues, Q).any()):
                continue
            return eigenvalues.to(A), Q.to(A), note
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
