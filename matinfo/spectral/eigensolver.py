"""The one door to the symmetric eigensolver.

LAPACK and cuSOLVER fail in ways that a training run must survive: float32 drivers stop with "failed to converge"
on sparse low-rank matrices (subnormal numbers in the tridiagonal form), non-finite input is undefined, and batched
GPU drivers have returned eigenvectors of another batch element. Everything in matinfo that needs eigenvalues comes
through :func:`eigh_psd`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from matinfo._record import is_recording, record
from matinfo._validation import values_are_readable
from matinfo.spectral import cusolver
from matinfo.spectral.precision import norms_are_safe

_SHIFT = {torch.float32: 2.0**-27, torch.float64: 2.0**-60}
"""Relative shifts that keep tridiagonal forms out of the subnormal range, subtracted afterwards. Without it float32
fails on most sparse matrices of low rank, sometimes in silence; float64 fails about once in 600, with an error."""

_LARGEST_ORDER_ON_CPU = 32_763
"""Above it LAPACK's workspace 1 + 6n + 2n^2 overflows 32-bit integers. On a GPU memory alone is the limit."""

_WORDS_ON_DEVICE = 6
"""Peak memory of a decomposition on a GPU in matrices of the same size (seen: 12.9 GiB at 24,000, float32)."""

_LARGEST_ON_BATCHED_DRIVER = 1024
"""Above it PyTorch's loop over a batch is as fast as the batched routine (H200, order 1024: 10.5 and 10.6 ms)."""

_LOOSE_JACOBI = range(33, 513)
"""Orders at which PyTorch sends float32 to cuSOLVER's Jacobi driver, which is wrong by up to 3e-4."""

_WORTH_A_THREAD = 2**21
"""Batch size times order cubed from which a batch on the CPU is shared between threads: about a millisecond."""

_LARGEST_ON_A_THREAD = 512
"""Above this order LAPACK uses several cores for one matrix."""

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
    if K.requires_grad or torch.autograd.forward_ad._current_level >= 0:
        K = K.detach()  # else it would be an operation for nothing, and those are what a small matrix costs
    if K.device.type == "cpu" and K.shape[-1] > _LARGEST_ORDER_ON_CPU:
        raise ValueError(_too_large(K, f"LAPACK's 32-bit workspace ends at {_LARGEST_ORDER_ON_CPU}"))
    if not values_are_readable(K):
        return _solve_without_waiting(K, vectors, side)
    if not norms_are_safe(torch.linalg.vector_norm(K, dim=(-2, -1))):
        return _normalize_and_solve(K, vectors, side)
    eigenvalues, Q, note = _solve_with_fallbacks(K, vectors)
    if side and is_recording():
        if not note and _takes_batched_driver(K):
            note = "cuSOLVER batched"
        record("eigh" if vectors else "eigvalsh", K, side=side, note=note)
    return eigenvalues, Q


def _takes_batched_driver(K: Tensor) -> bool:
    return K.is_cuda and K.shape[-1] <= _LARGEST_ON_BATCHED_DRIVER and cusolver.is_available()


def _too_large(K: Tensor, why: str) -> str:
    return (
        f"Expected a matrix whose eigenvalues fit in memory on {K.device.type}, got order {K.shape[-1]} in {K.dtype}: "
        f"{why}. Pass features as Gram(features) with fewer columns than rows, use alpha=2 or a coding rate, which "
        "need no eigenvalues, or matinfo.estimate."
    )


def _solve_without_waiting(K: Tensor, vectors: bool, side: str) -> tuple[Tensor, Tensor]:
    """Where the host may not look at values (a captured CUDA graph): whatever goes wrong becomes NaN in its element."""
    largest = K.abs().amax((-2, -1))
    finite = largest.isfinite()
    scale = torch.where(finite & (largest > 0), largest, 1.0)
    identity = torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    A = torch.where(finite[..., None, None], K / scale[..., None, None], identity)
    eigenvalues, Q = cusolver.batched_eigh(A, vectors=vectors)
    if side:
        record("eigh" if vectors else "eigvalsh", K, side=side, note="cuSOLVER batched, without waiting")
    return torch.where(finite[..., None], eigenvalues * scale[..., None], torch.nan), Q


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
    """The driver that serves the place, the order and the batch best (measured: docs/how-to/gpu.md)."""
    n = A.shape[-1]
    if A.is_cuda:
        return _solve_on_device(A, vectors)
    workers = min(torch.get_num_threads(), A.numel() * n // _WORTH_A_THREAD) if A.ndim > 2 else 1
    if workers < 2 or n > _LARGEST_ON_A_THREAD:
        return _torch_solve(A, vectors)
    # PyTorch solves a batch on the CPU one matrix after the other; LAPACK runs without the interpreter's lock. Its own
    # threads, which small matrices only wait for, are switched off in the workers; the setting is shared, so it is
    # made again here, where it was.
    threads, parts = torch.get_num_threads(), A.reshape(-1, n, n).chunk(workers)
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            solved = list(pool.map(lambda part: _torch_solve(part, vectors), parts))
    finally:
        torch.set_num_threads(threads)
    eigenvalues = torch.cat([x for x, _ in solved]).reshape(A.shape[:-1])
    return eigenvalues, torch.cat([Q for _, Q in solved]).reshape(A.shape) if vectors else A.new_empty(0)


def _solve_on_device(A: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    n = A.shape[-1]
    if _takes_batched_driver(A):
        eigenvalues, Q = cusolver.batched_eigh(A, vectors=vectors)
        if bool(eigenvalues.isnan().any()):
            raise torch.linalg.LinAlgError("cuSOLVER's batched eigensolver did not converge")
        return eigenvalues, Q
    if A.dtype == torch.float32 and n in _LOOSE_JACOBI:
        eigenvalues, Q = _solve_on_device(A.double(), vectors)
        return eigenvalues.to(A), Q.to(A)
    try:
        parts = [_torch_solve(part, vectors) for part in A.reshape(-1, n, n).split(_LARGEST_TORCH_BATCH)]
    except torch.OutOfMemoryError as error:
        need = _WORDS_ON_DEVICE * A.numel() * A.element_size() / 2**30
        raise ValueError(
            _too_large(A, f"about {need:.3g} GiB are needed, and {_free(A.device):.3g} are free")
        ) from error
    eigenvalues = torch.cat([x for x, _ in parts]).reshape(A.shape[:-1])
    return eigenvalues, torch.cat([Q for _, Q in parts]).reshape(A.shape) if vectors else A.new_empty(0)


_LARGEST_TORCH_BATCH = 32_768
"""From 65,536 matrices on cuSOLVER ends in an internal error."""


def _free(device: torch.device) -> float:
    """GiB that the device has left."""
    return torch.cuda.mem_get_info(device)[0] / 2**30


def _torch_solve(A: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
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
