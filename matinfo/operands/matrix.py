"""A matrix that is given: the one place where its symmetry, its definiteness and its scale are looked at.

On the CPU what cannot be is refused. Where values cannot be read without waiting for a device, while compiling and
under ``vmap``, it becomes NaN: never a number without meaning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinfo._checking import checks_are_on
from matinfo._validation import check_floating
from matinfo.operands.side import SMALL, Side, constant_trace, is_readable
from matinfo.spectral.definite import cached_probe
from matinfo.spectral.eigensystem import HALF, Noise
from matinfo.spectral.normalize import times_power_of_four, without_scale
from matinfo.spectral.precision import at_least_float32, trace_is_safe, working_dtype
from matinfo.spectral.rows import row_products, rows_are_faster

SYMMETRY_TOLERANCE = 1e-4
"""Largest accepted ``max |K - K^T| / max |K|`` (float32 and float64; 1e-2 for half precision)."""


def as_tensor(array: Any) -> Any:
    """A tensor of an array, floating point in float64, over its memory where that may be; anything else as it is."""
    if not isinstance(array, np.ndarray):
        return array
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("Expected an array without a mask, got a masked array. Use array.filled(value).")
    if array.dtype.kind not in "fiubc" or array.dtype.itemsize > 16 or array.dtype == np.longdouble:
        raise TypeError(f"Expected a numeric array, at most double precision, got dtype {array.dtype}.")
    native = np.float64 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    contiguous = np.ascontiguousarray(array, dtype=native)
    if not contiguous.flags.writeable or min(contiguous.strides, default=0) < 0:
        contiguous = contiguous.copy()  # along a side of length 1 any stride counts as contiguous
    tensor = torch.from_numpy(contiguous)
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        return rounded_in(torch.float16 if array.dtype.itemsize == 2 else torch.float32, tensor)
    return tensor


def rounded_in(dtype: torch.dtype, x: Tensor) -> Tensor:
    """x, a tensor of ours whose entries were rounded in a dtype before they came to its own: no finer for that."""
    if dtype != x.dtype:
        x.dtype_given = dtype  # type: ignore[attr-defined]
    return x


def dtype_given(x: Tensor) -> torch.dtype:
    """In which its entries were rounded: as :func:`rounded_in` says, else its own dtype."""
    # Were it forgotten, the rounding of float16 would be negative eigenvalues, and that of float32 a rank.
    dtype: torch.dtype = x.dtype if torch.compiler.is_compiling() else getattr(x, "dtype_given", x.dtype)
    return dtype


@dataclass(slots=True)
class Matrix:
    """A symmetric matrix, ``entries`` times ``2^exponent``, and what is known of it.

    Attributes:
        entries: ``(..., n, n)``, float32 or float64, of a size whose squares exist.
        given_dtype: In which it was given, half precision too (float64 for all of NumPy); it decides the working
            precision.
        rounding: Relative rounding of the entries, the coarsest of all that went into them.
        total: Trace of the entries, see :func:`~matinfo.operands.side.constant_trace`.
        exponent: ``(...)``, or None for 0. Entropies do not see it.
        image: ``entries probe`` where symmetry was checked by that product.
        spread: How far roundings reach in half precision, see :meth:`Noise.of`; None where sqrt(n) will do.
    """

    entries: Tensor
    given_dtype: torch.dtype
    rounding: float
    total: Tensor | float
    exponent: Tensor | None = None
    image: Tensor | None = None
    spread: float | None = None

    @classmethod
    def trusted(cls, entries: Tensor, given_dtype: torch.dtype, rounding: float) -> Matrix:
        """A matrix that was made here, symmetric by construction."""
        total, exponent = constant_trace(entries.detach()), None
        if is_readable(entries) and not trace_is_safe(total, entries.dtype):
            entries, exponent = without_scale(entries, torch.float64)
            total = constant_trace(entries.detach())
        spread = _spread(entries, total) if rounding > HALF else None
        return cls(entries, given_dtype, rounding, total, exponent, None, spread)

    @property
    def shape(self) -> torch.Size:
        """Shape ``(..., n, n)``."""
        return self.entries.shape

    @property
    def device(self) -> torch.device:
        """Device of the entries."""
        return self.entries.device

    def side(self, *, precision: str = "auto", sensitive: bool = False) -> Side:
        """The matrix in the precision that a quantity needs."""
        order = self.entries.shape[-1]
        dtype = working_dtype(
            self.given_dtype,
            order,
            precision=precision,
            sensitive=sensitive,
            dual=False,
            device=self.entries.device,
        )
        # Only where small eigenvalues matter is it worth the time to look at the diagonal.
        peak = self._peak() if sensitive else 1.0
        noise = Noise.of(order, dtype, self.rounding, peak, self.spread)
        return Side(self.entries, dtype, "matrix", noise, order, self.total, self.exponent, self.image)

    def _peak(self) -> float | Tensor:
        """The largest diagonal entry over their mean: at least 1, and 1 of the zero matrix."""
        largest = self.entries.detach().diagonal(dim1=-2, dim2=-1).amax(-1).double()
        total = torch.as_tensor(self.total, dtype=torch.float64, device=largest.device)
        peak = torch.where(total > 0, self.entries.shape[-1] * largest / total, 1.0)
        return peak.item() if isinstance(self.total, float) else peak

    def is_finite(self) -> bool:
        """Whether all entries are numbers."""
        return bool(self.entries.isfinite().all())

    def matrix(self, dtype: torch.dtype) -> Matrix:
        """Itself, as other operands give theirs."""
        return self

    def reordered(self, order: Tensor) -> Matrix:
        """``P K P^T``: over the samples in another order, ``order`` holding ``(n,)`` indices."""
        entries = self.entries[..., order, :][..., order]
        return replace(self, entries=entries, image=None)


def as_matrix(K: object, name: str, function: str) -> Matrix:
    """Accept ``(..., n, n)``, n >= 1, symmetric and of any scale."""
    K = check_floating(K, name)
    if K.ndim < 2 or K.shape[-1] != K.shape[-2]:
        raise ValueError(
            f"Expected {name} to be square in its last two dimensions, got {tuple(K.shape)}. "
            f"For features use {function}(Gram(features){'' if name == 'K' else ', ...'})."
        )
    if K.shape[-1] == 0:
        raise ValueError(f"Expected {name} to have at least one row, got shape {tuple(K.shape)}.")
    given, coarse, exponent, image = K.dtype, dtype_given(K), None, None
    rounding = torch.finfo(coarse).eps
    if K.dtype.itemsize == 2:
        K = K.float()
    x = K.detach()
    total = constant_trace(x)
    readable = isinstance(total, float) or is_readable(K)
    if not (readable and trace_is_safe(total, K.dtype)):
        # In float64 where nothing but a rare case has to wait for it: no gradient overflows on the way to K.
        K, exponent = without_scale(K, torch.float64 if readable else K.dtype)
        x = K.detach()
        total = constant_trace(x)
    if not readable:
        K = _symmetric_or_nan(K, coarse)
    elif checks_are_on():
        K, image = _symmetric(K, x, name, coarse, total)
    spread = _spread(K, total) if rounding > HALF else None
    return Matrix(K, given, rounding, total, exponent, image, spread)


def _spread(entries: Tensor, total: Tensor | float) -> float | None:
    """How far coarse roundings reach, see :meth:`Noise.of`; the largest of a batch.

    Errors ``|E_ij| <= u/2 |K_ij|`` have a norm of at most u/2 times the Frobenius norm of K, and times its largest row
    sum; and ``|K|_F^2 <= lambda_max tr K`` where no eigenvalue is negative.

    Returns:
        A bound, or None where entries may not be looked at.
    """
    if not is_readable(entries):
        return None
    entries, total = entries.detach().double(), torch.as_tensor(total, dtype=torch.float64)
    norm = torch.linalg.vector_norm(entries, dim=(-2, -1))
    reach = torch.minimum(norm, entries.abs().sum(-1).amax(-1))
    of_each = (reach * total / norm**2).nan_to_num(1.0)  # 0/0: the zero matrix
    return max(of_each.flatten().tolist(), default=None)


def _symmetry_tolerance(given: torch.dtype) -> float:
    return 1e-2 if given in (torch.float16, torch.bfloat16) else SYMMETRY_TOLERANCE


def _symmetric(
    K: Tensor, x: Tensor, name: str, given: torch.dtype, total: Tensor | float
) -> tuple[Tensor, Tensor | None]:
    """K, symmetric beyond doubt; x is K without a graph.

    Beyond small orders ``K s`` is compared with ``K^T s`` for one vector s without a pattern: an asymmetric pair of
    entries shows in two rows, unless it is hidden by others of just the opposite sum.

    Returns:
        K, and its product with the probe if that was taken.

    Raises:
        ValueError: If K is not symmetric.
    """
    n = x.shape[-1]
    if n > SMALL:
        s = cached_probe(n, x.dtype, x.device)  # of entries of size 1/sqrt(n)
        image = row_products(x, s) if rows_are_faster(x) else x @ s
        difference = torch.addmv(image, x.mT, s, alpha=-1) if x.ndim == 2 else image - x.mT @ s
        # Rounding of a sum of n terms; matrices that are symmetric but for rounding stay as they are.
        # (Symmetric kernels of order 1024 to 4096: up to 18 eps.)
        bound = min(32 * torch.finfo(x.dtype).eps, SYMMETRY_TOLERANCE / math.sqrt(n))
        if isinstance(total, float):
            low, high = difference.aminmax()
            most = max(-low.item(), high.item())
            # The largest diagonal entry is no less than their mean, which is known.
            symmetric = most <= bound * total / n or most <= bound * x.diagonal().amax().item()
        else:
            largest = x.diagonal(dim1=-2, dim2=-1).amax(-1)
            symmetric = bool((torch.linalg.vector_norm(difference, math.inf, -1) <= bound * largest).all())
        if symmetric:
            return K, image
    elif torch.equal(x, x.mT):
        return K, None
    tolerance = _symmetry_tolerance(given)
    gap = (x - x.mT).abs().amax((-2, -1))
    asymmetric = gap > tolerance * x.abs().amax((-2, -1))
    if bool(asymmetric.any()):
        batch = f" (it was read as a batch of {n} x {n} matrices)" if x.ndim > 2 else ""
        raise ValueError(
            f"Expected {name} to be symmetric (to {tolerance:g} of its largest entry), "
            f"got max |{name} - {name}^T| = {gap[asymmetric].max().item():.3g}. "
            f"Symmetrise it with ({name} + {name}.mT) / 2, or use Gram(features) if these are features{batch}."
        )
    return K / 2 + K.mT / 2, None


def _symmetric_or_nan(K: Tensor, given: torch.dtype) -> Tensor:
    x, tolerance = K.detach(), _symmetry_tolerance(given)
    gap = (x - x.mT).abs().amax((-2, -1), keepdim=True)
    asymmetric = gap > tolerance * x.abs().amax((-2, -1), keepdim=True)
    return torch.where(asymmetric, torch.nan, K / 2 + K.mT / 2)


def check_matrix(K: Tensor, name: str, function: str) -> Tensor:
    """The same as a tensor, in the scale in which it was given."""
    checked = as_matrix(K, name, function)
    if checked.exponent is None:
        return checked.entries
    return times_power_of_four(checked.entries, checked.exponent / 2, at_least_float32(K.dtype))
