"""cuSOLVER's batched symmetric eigensolver, which PyTorch uses up to order 32 only, by its C interface.

For larger orders ``torch.linalg.eigh`` loops over a batch, and float32 matrices of order 33 to 512 go to a Jacobi
driver that stops early: on an H200 with PyTorch 2.11, 1,000 float32 matrices of order 64 take 800 ms and are right to
1e-5, one of order 512 to 2e-4. ``cusolverDnXsyevBatched`` takes 2.3 ms and 4.7 ms and is right to 1e-6; in float64 3.7
and 4.7 ms. It never waits for the device, so that it can be captured in a CUDA graph.

The library is the one that PyTorch itself has loaded. Where it is missing or too old :func:`is_available` is False.
"""

from __future__ import annotations

import ctypes
import functools
import threading

import torch
from torch import Tensor

_NAMES = ("libcusolver.so.12", "libcusolver.so.11", "cusolver64_12.dll", "cusolver64_11.dll")
_LOWER_OF_COLUMNS = 1  # the upper triangle of rows in memory; the matrices are symmetric
_TYPES = {torch.float32: 0, torch.float64: 1}  # CUDA_R_32F, CUDA_R_64F

_LARGEST_BATCH = 32_768
"""Status 7 (an internal error) comes from 65,536 matrices on."""

_MOST_ENTRIES = 2**31 - 1
"""The routine indexes a whole batch with 32 bits."""

_WORKSPACE = 2**31
"""Bytes of workspace of a call whose batch can be cut: it asks for about half a MiB a matrix, even of order 16."""


@functools.cache
def _library() -> ctypes.CDLL | None:
    torch.linalg.eigvalsh(torch.eye(2, device="cuda"))  # PyTorch loads the library with its first use
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return library if hasattr(library, "cusolverDnXsyevBatched") else None
    return None


def is_available() -> bool:
    """Whether the routine can be called."""
    return torch.version.cuda is not None and torch.cuda.is_available() and _library() is not None


_local = threading.local()


def _handles(device: torch.device) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
    """Handle and parameters of this thread for the device; they must not be shared between threads."""
    handles = _local.__dict__.setdefault("handles", {})
    if device not in handles:
        library = _library()
        assert library is not None
        handle, parameters = ctypes.c_void_p(), ctypes.c_void_p()
        _check(library.cusolverDnCreate(ctypes.byref(handle)))
        _check(library.cusolverDnCreateParams(ctypes.byref(parameters)))
        handles[device] = handle, parameters
    return handles[device]


def _check(status: int) -> None:
    if status:
        raise torch.linalg.LinAlgError(f"cuSOLVER status {status}")


def batched_eigh(A: Tensor, *, vectors: bool) -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending) and eigenvectors of symmetric ``(..., n, n)`` on a CUDA device.

    A matrix on which the iteration does not converge gets NaN eigenvalues. Batches of any size: they are cut so that
    the workspace stays below two GiB.

    Raises:
        torch.linalg.LinAlgError: If the library refuses the call.
    """
    n = A.shape[-1]
    Q = A.reshape(-1, n, n).clone(memory_format=torch.contiguous_format)
    eigenvalues = A.new_empty(Q.shape[:-1])
    failed = torch.empty(len(Q), dtype=torch.int32, device=A.device)
    with torch.cuda.device(A.device):
        size = min(len(Q), _LARGEST_BATCH, max(1, _MOST_ENTRIES // (n * n)))
        while size > 1 and _workspace(Q[:size], eigenvalues, vectors)[0] > _WORKSPACE:
            size = -(-size // 2)
        for start in range(0, len(Q), max(size, 1)):
            part = slice(start, start + size)
            _solve(Q[part], eigenvalues[part], failed[part], vectors)
    eigenvalues = torch.where(failed[:, None] == 0, eigenvalues, torch.nan).reshape(A.shape[:-1])
    return eigenvalues, Q.mT.reshape(A.shape) if vectors else A.new_empty(0)


def _workspace(Q: Tensor, eigenvalues: Tensor, vectors: bool) -> tuple[int, int]:
    """Bytes on the device and on the host."""
    library = _library()
    assert library is not None
    device, host = ctypes.c_size_t(), ctypes.c_size_t()
    sizes = ctypes.byref(device), ctypes.byref(host), ctypes.c_int64(len(Q))
    _check(library.cusolverDnXsyevBatched_bufferSize(*_arguments(Q, eigenvalues, vectors), *sizes))
    return device.value, host.value


def _solve(Q: Tensor, eigenvalues: Tensor, failed: Tensor, vectors: bool) -> None:
    """In place: the columns of the matrices, which are rows in memory, become eigenvectors."""
    library = _library()
    assert library is not None
    on_device, on_host = _workspace(Q, eigenvalues, vectors)
    workspace = torch.empty(on_device, dtype=torch.uint8, device=Q.device)
    host = ctypes.create_string_buffer(max(on_host, 1))
    _check(
        library.cusolverDnXsyevBatched(
            *_arguments(Q, eigenvalues, vectors),
            ctypes.c_void_p(workspace.data_ptr()),
            ctypes.c_size_t(on_device),
            host,
            ctypes.c_size_t(on_host),
            ctypes.c_void_p(failed.data_ptr()),
            ctypes.c_int64(len(Q)),
        )
    )


def _arguments(Q: Tensor, eigenvalues: Tensor, vectors: bool) -> tuple[object, ...]:
    """What the routine and the question for its workspace have in common."""
    library = _library()
    assert library is not None
    handle, parameters = _handles(Q.device)
    stream = torch.cuda.current_stream(Q.device).cuda_stream
    _check(library.cusolverDnSetStream(handle, ctypes.c_void_p(stream)))
    kind = ctypes.c_int(_TYPES[Q.dtype])
    n = ctypes.c_int64(Q.shape[-1])
    matrix, values = ctypes.c_void_p(Q.data_ptr()), ctypes.c_void_p(eigenvalues.data_ptr())
    mode = ctypes.c_int(int(vectors)), ctypes.c_int(_LOWER_OF_COLUMNS)
    return handle, parameters, *mode, n, kind, matrix, n, kind, values, kind
