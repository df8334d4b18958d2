"""A mutual information of order alpha that is never negative: the sandwiched Rényi divergence from independence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_base, check_in, check_same_samples, check_trace
from matinfo.entropy import entropy_of, in_unit, joint_entropy_of
from matinfo.operands import Gram, Matrix, Operand, as_operands
from matinfo.spectral.fractional_power import fractional_power
from matinfo.spectral.traces import trace

_NEAR_ONE = 1e-8
"""Closer to alpha = 1 the quotient by alpha - 1 has lost more digits than the change of order matters."""


@quantity
def sandwiched_mutual_information(
    K1: Operand, K2: Operand, alpha: float = 1.0, *, base: float | None = None
) -> Tensor:
    """Sandwiched Rényi mutual information, non-negative at every order.

    ``log(tr[(n P_1^(1/alpha) o P_2^(1/alpha))^alpha]) / (alpha - 1)`` with ``P_i = K_i/tr K_i`` and the Hadamard
    product o; at alpha = 1 its limit, :func:`mutual_information`; at alpha = inf ``log lambda_max(n Q_1 o Q_2)`` with
    Q_i the projector on the range of K_i.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, or :class:`Gram`.
        K2: The same, over the same samples.
        alpha: Order in [1/2, inf].
        base: Base of the logarithm, > 1; None for nats.

    Returns:
        ``(...)``; nats (or the base asked for). For constant diagonals between 0 and log n, and never decreasing in
        alpha.

    Raises:
        ValueError: As :func:`joint_entropy`; also if alpha < 1/2, where the divergence obeys no data processing.
        TypeError: If a matrix is not real floating point.

    Notes:
        With ``K_1 = A A^T`` and ``K_2 = B B^T`` of unit diagonal, ``R = mean_i a_i a_i^T (x) b_i b_i^T`` is a density
        matrix with the marginals ``A^T A/n`` and ``B^T B/n``. This is ``D_alpha(R || R_A (x) R_B)``, D the sandwiched
        Rényi divergence; it needs no features because only their inner products survive. Hence it is zero exactly
        if R is the product of its marginals, and it can only fall when either side is processed further. For labels
        (partition matrices) it is the classical Rényi divergence of the joint from the independent distribution.
        Three eigendecompositions of n x n in float64, also for Grams. First derivative only, none at alpha = inf.
        Within about ``1e-15/|alpha - 1|`` of the exact value. Orders above 4 or so read the rank: they change quickly
        where small eigenvalues appear.

    References:
        Müller-Lennert et al. (2013), On quantum Rényi entropies; Wilde, Winter and Yang (2014); Beigi (2013) and
        Frank and Lieb (2013) for data processing. The Hadamard form is derived in the theory section of the
        documentation.

    Example:
        >>> import numpy as np
        >>> from matinfo import mutual_information, sandwiched_mutual_information
        >>> first, second = np.eye(2)[[0, 1, 1, 1]], np.eye(2)[[0, 0, 0, 1]]
        >>> K, L = first @ first.T, second @ second.T
        >>> [round(float(f(K, L, 2)), 4) for f in (mutual_information, sandwiched_mutual_information)]
        [-0.0408, 0.1054]
    """
    order = check_in(alpha, "alpha", "[0.5, inf]", "Data processing fails below 1/2.")
    unit = check_base(base)
    operands = as_operands((K1, K2), "sandwiched_mutual_information")
    check_same_samples([tuple(K.shape) for K in operands])
    if abs(order - 1) <= _NEAR_ONE:
        marginals = [entropy_of(K, 1.0, precision="float64") for K in operands]
        return in_unit(marginals[0] + marginals[1] - joint_entropy_of(operands, 1.0, "float64"), unit)
    first, second = (_root(K, 0.0 if order == math.inf else 1 / order) for K in operands)
    M = first.shape[-1] * first * second
    # log tr M^a = a log tr M - (a - 1) H_a(M)
    share = 1.0 if order == math.inf else order / (order - 1)
    return in_unit(share * trace(M).log() - entropy_of(M, order, precision="float64"), unit)


def _root(K: Gram | Matrix, s: float) -> Tensor:
    """``(K/tr K)^s``, float64."""
    side = K.matrix(torch.float64).side(precision="float64")
    check_trace(side.total)
    name = "samples" if isinstance(K, Gram) else side.name
    power = fractional_power(side.matrix, s, side.noise, side=name)
    return power / trace(side.matrix)[..., None, None] ** s
