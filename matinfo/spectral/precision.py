"""In which precision the spectral work is done: the one place for this decision.

The eigensolver's error is that of a matrix perturbed by a few roundoffs of its largest eigenvalue. A matrix that was
given in float32 has been perturbed as much already, so float32 is good enough for it unless the quantity listens to
small eigenvalues (orders below 1, divergences) or float64 costs next to nothing: small matrices, and GPUs made for it.
A matrix that is formed here from features is another matter: its float64 product keeps digits that a float32 one has
lost, at little cost on a small side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from matinfo._validation import check_choice

PRECISIONS = ("auto", "float32", "float64")

_SMALL_DUAL = 512
"""Up to this order a product of features is formed and solved in float64."""

_TINY = 32
"""Up to this order every matrix is: calls cost more than their arithmetic."""

_FAST_FLOAT64 = ((6, 0), (7, 0), (8, 0), (9, 0), (10, 0))
"""Compute capabilities of data-centre GPUs, whose float64 runs at half the rate of float32 or, with tensor cores, as
fast (H200: 58 and 50 TFLOPS). Decompositions take 1.0 to 1.6 times as long there as in float32, and keep nine digits
more."""


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Half precision has no factorisations and rounds a Gram matrix beyond use; everything else stays."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


# PyTorch 2.9 has another name for the switch, and refuses to read one after the other was set.
_IS_RENAMED = hasattr(torch.backends.cuda.matmul, "fp32_precision")
TF32_SWITCH, TF32_ON, TF32_OFF = (
    ("fp32_precision", "tf32", "ieee") if _IS_RENAMED else ("allow_tf32", True, False)
)


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """No TF32 in products of float32, for what is promised to its rounding: TF32 keeps three digits of seven."""
    if device.type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = getattr(matmul, TF32_SWITCH)
    setattr(matmul, TF32_SWITCH, TF32_OFF)
    try:
        yield
    finally:
        setattr(matmul, TF32_SWITCH, before)


def full_product(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """``A B`` to the rounding of its dtype."""
    with full_float32(A.device):
        return A @ B


_SAFE_NORMS = {torch.float32: (1e-15, 1e15), torch.float64: (1e-140, 1e140)}
"""Squares of such norms are far from where the dtype ends (1e-38 and 1e38, 1e-308 and 1e308)."""


def norms_are_safe(norms: torch.Tensor) -> bool:
    """Whether norms, of one matrix or many, have squares that neither over- nor underflow; not so NaN and infinity."""
    smallest, largest = _SAFE_NORMS[norms.dtype]
    if norms.ndim == 0:  # the common case, one look at the value
        return smallest < norms.item() < largest
    if norms.numel() == 0:
        return False
    low, high = norms.aminmax()
    return smallest < low.item() and high.item() < largest


_SAFE_TRACES = {torch.float32: (1e-12, 1e12), torch.float64: (1e-60, 1e130)}
"""No entry of a positive semi-definite matrix exceeds the trace, and of up to 32,000 diagonal entries the largest is at
least the trace over 32,000: inside this range squares of entries that matter, and sums of them, exist. The lower limit
for float64 is that of products of float32 features, whose gradients have to exist in float32."""


def trace_is_safe(total: torch.Tensor | float, dtype: torch.dtype, factors: int = 1) -> bool:
    """Whether traces allow products of so many matrices of a dtype without over- or underflow; not so 0 and NaN."""
    smallest, largest = _SAFE_TRACES[dtype]
    if factors > 1:
        smallest, largest = smallest ** (1 / factors), largest ** (1 / factors)
    if isinstance(total, float):  # of one matrix
        return smallest < total < largest
    if total.numel() == 0:
        return True
    low, high = total.aminmax()
    return smallest < low.item() and high.item() < largest


def working_dtype(
    given: torch.dtype,
    size: int,
    *,
    precision: str,
    sensitive: bool,
    dual: bool,
    device: torch.device | None = None,
) -> torch.dtype:
    """Precision of the Gram product and the factorisation.

    Args:
        given: dtype of the user's tensor.
        size: Order of the matrix to be factored.
        precision: ``"float32"`` and ``"float64"`` decide; ``"auto"`` applies the rule.
        sensitive: Whether small eigenvalues matter (orders below 1, divergences).
        dual: Whether the matrix is formed here from features, so that float64 keeps digits a float32 Gram has lost.
        device: Where the work is done.
    """
    if precision != "auto":
        check_choice(precision, "precision", PRECISIONS)
        return torch.float64 if precision == "float64" else torch.float32
    if (
        given == torch.float64
        or sensitive
        or size <= _TINY
        or (device is not None and device.type == "cuda" and float64_is_fast(device))
    ):
        return torch.float64
    return torch.float64 if dual and size <= _SMALL_DUAL else torch.float32


def float64_is_fast(device: torch.device) -> bool:
    """Whether the device computes in float64 about as fast as in float32."""
    if device.type != "cuda":
        return False
    properties = torch.cuda.get_device_properties(device)
    return (properties.major, properties.minor) in _FAST_FLOAT64


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Autocast switched off, at no cost where it is not on."""
    if device.type == "meta":
        return _NOTHING
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return _NOTHING


_NOTHING = contextlib.nullcontext()
