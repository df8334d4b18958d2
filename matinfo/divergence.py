"""Divergences between positive semi-definite matrices."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_batches, check_same_samples, check_trace
from matinfo.entropy import entropy_of
from matinfo.operands import Gram, Matrix, Operand, as_operands, constant_trace, smaller_side
from matinfo.spectral.entropy_function import shannon_entropy
from matinfo.spectral.normalize import times_power_of_four, times_power_of_two
from matinfo.spectral.relative_entropy import relative_entropy
from matinfo.spectral.traces import spectrum, trace
from matinfo.spectrum import Spectrum, as_spectral


def _unit_trace(K: Gram | Matrix) -> Gram | Matrix:
    """K divided by its trace, in float64; a Gram stays a factor."""
    if isinstance(K, Matrix):
        check_trace(K.total)
        entries = K.entries.double()
        entries = entries / trace(entries)[..., None, None]
        # No power of two is taken out again, as Matrix.trusted would for a batch with a NaN: the entries are averaged.
        return replace(K, entries=entries, total=constant_trace(entries.detach()), exponent=None, image=None)
    K = K.without_scale()[0]
    total = K.trace()
    check_trace(total.detach())
    return K.times(1 / total)


@quantity
def matrix_kl(K1: Operand, K2: Operand) -> Tensor:
    """Matrix Kullback-Leibler divergence (quantum relative entropy, Bregman form).

    ``KL(K_1 || K_2) = tr[K_1 (log K_1 - log K_2)] - tr K_1 + tr K_2``. For equal traces, such as unit diagonals,
    the last two terms cancel. The matrices are *not* divided by their traces: ``H_1(K) = log n - KL(K || I)/n``.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, or :class:`Gram`.
        K2: The same, of the same order.

    Returns:
        ``(...)``, >= 0, zero only for equal matrices, in nats times the trace; ``inf`` where K1 has mass outside
        the range of K2 (more than 1.5e-8 of its trace), and where one trace is some 1e285 times the other.

    Raises:
        ValueError: If a matrix is not square, not symmetric or clearly indefinite, or the orders differ.
        TypeError: If a matrix is not real floating point.

    Notes:
        Two eigendecompositions in float64. Summed in a form whose terms are all non-negative, so that nearby
        matrices lose no digits. First and second derivatives in both arguments; eigenvalues below 3.6e-15 of the
        largest are floored there, so that the gradient stays finite at singular matrices and where the value is inf.

    References:
        Umegaki (1962); Bach (2022), Information theory with kernel methods; Tan et al. (2024), Definition 4.9.

    Example:
        >>> import torch
        >>> from matinfo import matrix_kl
        >>> K = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
        >>> round(float(matrix_kl(K, torch.eye(2))), 4)  # 2 (log 2 - H_1(K))
        0.2616
        >>> float(matrix_kl(torch.eye(2), torch.ones(2, 2)))
        inf
    """
    A, B = as_operands((K1, K2), "matrix_kl")
    check_same_samples([tuple(A.shape), tuple(B.shape)])
    first, second = A.matrix(torch.float64), B.matrix(torch.float64)
    entries = torch.broadcast_tensors(first.entries.double(), second.entries.double())
    noises = [K.side(precision="float64").noise for K in (first, second)]
    if first.exponent is None and second.exponent is None:
        return relative_entropy(entries[0], entries[1], *noises)
    # Of degree one: a power of two common to both matrices may be taken out.
    exponents = [torch.zeros(()) if K.exponent is None else K.exponent for K in (first, second)]
    common = torch.maximum(*exponents)
    halves = [(exponent - common) / 2 for exponent in exponents]
    scaled = [times_power_of_four(K, half, torch.float64) for K, half in zip(entries, halves, strict=True)]
    return times_power_of_two(relative_entropy(scaled[0], scaled[1], *noises), common)


@quantity
def matrix_js(K1: Operand, K2: Operand) -> Tensor:
    """Matrix Jensen-Shannon divergence.

    ``JS(K_1, K_2) = H_1((P_1 + P_2)/2) - (H_1(P_1) + H_1(P_2))/2`` with ``P_i = K_i/tr K_i``.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, or :class:`Gram`.
        K2: The same, of the same order.

    Returns:
        ``(...)``, between 0 and log 2, in nats.

    Raises:
        ValueError: As :func:`renyi_entropy`; also if the orders differ.
        TypeError: If a matrix is not real floating point.

    Notes:
        Three entropies, in float64; derivatives as theirs. Two Grams are averaged as factors (d_1 + d_2 columns).

    References:
        Majtey, Lamberti and Prato (2005); Tan et al. (2024), Definition C.2.

    Example:
        >>> import torch
        >>> from matinfo import matrix_js
        >>> A, B = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
        >>> round(float(matrix_js(A, B)), 4)  # log 2: disjoint supports
        0.6931
    """
    operands = as_operands((K1, K2), "matrix_js")
    check_same_samples([tuple(K.shape) for K in operands])
    A, B = (_unit_trace(K) for K in operands)
    if isinstance(A, Gram) and isinstance(B, Gram):
        mixture: Gram | Matrix = (A + B) / 2
    else:
        P, Q = A.matrix(torch.float64), B.matrix(torch.float64)
        given = torch.promote_types(P.given_dtype, Q.given_dtype)
        mixture = Matrix.trusted((P.entries + Q.entries) / 2, given, max(P.rounding, Q.rounding))
    joint, first, second = (entropy_of(K, 1.0, precision="float64") for K in (mixture, A, B))
    return joint - (first + second) / 2


@quantity
def spectrum_js(K1: Operand | Spectrum, K2: Operand | Spectrum) -> Tensor:
    """Jensen-Shannon divergence of two spectra (eigenspace JS).

    ``H((p_1 + p_2)/2) - (H(p_1) + H(p_2))/2`` with p_i the eigenvalues of ``K_i/tr K_i`` in descending order and H
    Shannon's entropy. Blind to eigenvectors, hence at most :func:`matrix_js`.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`Gram` or a
            :class:`Spectrum`.
        K2: The same; another order is padded with zeros.

    Returns:
        ``(...)``, between 0 and log 2, in nats.

    Raises:
        ValueError: As :func:`renyi_entropy`.
        TypeError: If a matrix is not real floating point.

    Notes:
        Two lists of eigenvalues, in float64. First derivative only; it is one-sided where eigenvalues repeat.

    References:
        Tan et al. (2024), Appendix C.3. The pairing by sorted order is our reading.

    Example:
        >>> import torch
        >>> from matinfo import spectrum_js
        >>> A, B = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
        >>> float(spectrum_js(A, B))  # the same spectrum
        0.0
    """
    operands = [as_spectral(K, name, "spectrum_js") for K, name in ((K1, "K1"), (K2, "K2"))]
    check_batches([tuple(K.shape) for K in operands])
    p1, p2 = (_shares(K) for K in operands)
    size = max(p1.shape[-1], p2.shape[-1])
    p1, p2 = (torch.nn.functional.pad(p, (0, size - p.shape[-1])) for p in (p1, p2))
    return shannon_entropy((p1 + p2) / 2) - (shannon_entropy(p1) + shannon_entropy(p2)) / 2


def _shares(K: Operand | Spectrum) -> Tensor:
    """Eigenvalues over their sum, which do not know the scale of K."""
    if isinstance(K, Spectrum):
        x = K.eigenvalues
    else:
        side = smaller_side(K, sensitive=True)
        x = spectrum(side.matrix, side.noise, side=side.name)
    check_trace(x.detach().sum(-1))
    return x / x.sum(-1, keepdim=True)
