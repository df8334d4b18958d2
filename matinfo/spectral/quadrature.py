"""Entropies from log-determinants alone: Cholesky factorisations in place of an eigendecomposition.

For a function with ``f(0) = 0`` the fit

    f(x)  ~  c x + sum_j v_j t_j log(1 + x/t_j),       |f(x) - fit(x)| <= delta (x + 1/n)  on [0, 1],

gives ``|tr f(P) - fit| <= 2 delta`` for every spectrum of trace one, and the fit of a matrix is
``c tr P + sum_j v_j t_j log det(I + P/t_j)``. The nodes t_j are geometric; the weights are the minimax ones, found
once for each order, size class and number of nodes by linear programming.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from matinfo._record import record
from matinfo.spectral.logdet import logdet_of_sum

NODES = (4, 6, 8, 12, 16)


class Rule(NamedTuple):
    """Nodes, weights ``v_j t_j``, the linear coefficient, and the bound on the trace's error."""

    nodes: np.ndarray
    weights: np.ndarray
    linear: float
    bound: float


def quadrature_entropy(
    K: Tensor, total: Tensor, alpha: float, rtol: float, *, side: str = "matrix"
) -> Tensor:
    """Entropy of order 0 < alpha <= 2 to a relative error of at most ``rtol``, float64.

    Args:
        K: Positive semi-definite, ``(..., n, n)``.
        total: Its trace ``(...)``, float64, differentiable.
        alpha: The order.
        rtol: Guaranteed relative error of every batch element.
        side: For the explanation.

    Raises:
        ValueError: If no rule reaches ``rtol``; the message says what was reached.
    """
    n = K.shape[-1]
    P = K / total[..., None, None].to(K.dtype)
    reached = math.inf
    for count in NODES:
        rule = fitted_rule(alpha, 2 ** max(4, math.ceil(math.log2(n))), count, _smallest_node(K.dtype))
        if count < NODES[-1] and _relative_error(torch.tensor(math.log(max(n, 2))), rule.bound, alpha) > rtol:
            continue  # not even for the largest possible entropy
        value = _evaluate(P, rule, alpha)
        relative = _relative_error(value.detach(), rule.bound, alpha)
        reached = float(relative.max()) if relative.numel() else 0.0
        if not reached > rtol:  # NaN passes: it is in the value
            record("quadrature", K, side=side, note=f"{count} nodes, relative error at most {reached:.1e}")
            return value
    raise ValueError(
        f"Expected rtol that the quadrature can guarantee here, got {rtol:g}; it reached {reached:.2g} with "
        f"{NODES[-1]} nodes in {K.dtype}. Use method='auto' for the exact value, or precision='float64'."
    )


def _smallest_node(dtype: torch.dtype) -> float:
    return 1e-6 if dtype == torch.float32 else 1e-9


def _evaluate(P: Tensor, rule: Rule, alpha: float) -> Tensor:
    n = P.shape[-1]
    trace = rule.linear * P.diagonal(dim1=-2, dim2=-1).double().sum(-1)
    for node, weight in zip(rule.nodes.tolist(), rule.weights.tolist(), strict=True):
        trace = trace + weight * (logdet_of_sum(P, node) - n * math.log(node))
    e = alpha - 1
    return -trace if e == 0 else -torch.log1p(e * trace) / e


def _relative_error(value: Tensor, bound: float, alpha: float) -> Tensor:
    """The relative error of an entropy that an error ``bound`` of its Tsallis trace can make."""
    e = alpha - 1
    mass = torch.exp(-e * value)  # sum p^alpha
    return bound / (mass - abs(e) * bound).clamp_min(1e-300) / value.abs().clamp_min(1e-300)


@functools.cache
def fitted_rule(alpha: float, n: int, count: int, smallest: float) -> Rule:
    """The minimax rule for ``f(x) = (x^alpha - x)/(alpha - 1)`` and matrices of order at most n."""
    candidates = {max(smallest, share / n) for share in (1e-1, 1e-3, 1e-5)}
    return min(
        (_fit(alpha, n, np.geomspace(low, 2.0, count)) for low in candidates), key=lambda rule: rule.bound
    )


def _fit(alpha: float, n: int, nodes: np.ndarray) -> Rule:
    matrix, target = _weighted_basis(np.geomspace(1e-12, 1.0, 300), nodes, alpha, n)
    width = matrix.shape[1]
    ones = np.ones((len(target), 1))
    result = linprog(
        np.r_[np.zeros(width), 1.0],
        A_ub=np.block([[matrix, -ones], [-matrix, -ones]]),
        b_ub=np.r_[target, -target],
        bounds=[(None, None)] * width + [(0, None)],
        method="highs",
    )
    coefficients = result.x[:width]
    fine, goal = _weighted_basis(np.geomspace(1e-14, 1.0, 6000), nodes, alpha, n)
    delta = float(np.abs(fine @ coefficients - goal).max())
    return Rule(nodes, coefficients[1:] * nodes, float(coefficients[0]), 2 * delta)


def _weighted_basis(x: np.ndarray, nodes: np.ndarray, alpha: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    weight = 1 / (x + 1 / n)
    e = alpha - 1
    f = x * np.log(x) if e == 0 else x * np.expm1(e * np.log(x)) / e
    basis = np.column_stack([x, nodes * np.log1p(x[:, None] / nodes)])
    return basis * weight[:, None], f * weight
