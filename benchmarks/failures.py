"""The failure table: hard matrices, each contender's exceptions, non-finite numbers, wrong values, wrong gradients.

A problem is a family, a seed, a dtype and a quantity. The contender gets ``K = Z^T Z``, formed in that dtype, and the
gradient is taken in Z, where it exists although K is singular. An answer is wrong when its error exceeds the tolerance:

    |value - true| / (1 + |true|),        |Z| |gradient - true| / (1 + |Z| |true|)

(Frobenius norms; |Z| makes it independent of scale). The truth is that of the Z that was given, after rounding to the
dtype. Tolerances are a thousand and more times the roundoff, so that only real failures count.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.case import OURS
from benchmarks.families import NAMES, hard_features
from benchmarks.oracle import coding_rate_and_gradient, entropy_and_gradient
from benchmarks.peers import Peers, cholesky_tcr, eigenvalue_tcr, slogdet_tcr
from matinfo import matrix_tcr, renyi_entropy

ORDERS = (0.75, 1.0, 2.0)
TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-6}
KINDS = ("exceptions", "non-finite", "wrong values", "wrong gradients")

Function = Callable[[Tensor], Any]


def failure_table(
    peers: Peers, *, quick: bool, device: str = "cpu", seeds: int | None = None
) -> dict[str, Any]:
    """Count the failures.

    Args:
        peers: Whom to try beside ours.
        quick: One seed and order 32 instead of ten and 128.
        device: Where the matrices live; NumPy peers are left out elsewhere than on the CPU.
        seeds: Another number of seeds.

    Returns:
        ``rows``: counts per dtype, quantity and contender; ``examples``: the first case of each kind of failure.
    """
    n = 32 if quick else 128
    seeds = seeds or (1 if quick else 10)
    rows: list[dict[str, Any]] = []
    examples: dict[str, str] = {}
    for dtype in TOLERANCES:
        for quantity, truth, with_gradient, value_only in _quantities(peers, n, device):
            for name, function in (with_gradient | value_only).items():
                differentiable = name in with_gradient
                row = {"dtype": str(dtype)[6:], "quantity": quantity, "contender": name, "problems": 0}
                row |= dict.fromkeys(KINDS, 0) | ({} if differentiable else {"wrong gradients": None})
                rows.append(row)
                for family, seed in itertools.product(NAMES, range(seeds)):
                    Z = torch.from_numpy(hard_features(family, n, seed)).to(dtype)
                    found = attempt(function, Z.to(device), truth(Z.double().numpy()), differentiable)
                    row["problems"] += 1
                    for kind, what in found.items():
                        row[kind] += 1
                        examples.setdefault(
                            f"{name}, {quantity}, {row['dtype']}: {kind}", f"{family}: {what}"
                        )
    return {"order": n, "families": len(NAMES), "seeds": seeds, "rows": rows, "examples": examples}


def _quantities(
    peers: Peers, n: int, device: str
) -> list[tuple[str, Callable[[np.ndarray], Any], dict[str, Function], dict[str, Function]]]:
    """Name, truth, differentiable contenders, contenders that only give a value."""
    found = []
    for alpha in ORDERS:
        with_gradient = peers.entropies(alpha, n, gradient=True)
        value_only = {
            name: function
            for name, function in peers.entropies(alpha, n, gradient=False).items()
            if name not in with_gradient and device == "cpu"
        }
        with_gradient = {OURS: lambda K, a=alpha: renyi_entropy(K, a)} | with_gradient
        truth = lambda Z, a=alpha: entropy_and_gradient(Z, a)  # noqa: E731
        found.append((f"H_{alpha:g}", truth, with_gradient, value_only))
    rates = {
        OURS: matrix_tcr,
        "torch eigvalsh": eigenvalue_tcr,
        "torch slogdet": slogdet_tcr,
        "torch Cholesky": cholesky_tcr,
    }
    found.append(("TCR", lambda Z: coding_rate_and_gradient(Z, 1.0), rates, {}))
    return found


def errors(
    value: float, gradient: np.ndarray, truth: tuple[float, np.ndarray], norm: float
) -> tuple[float, float]:
    """Of value and gradient, as defined above; ``norm`` is that of the features."""
    difference = norm * np.linalg.norm(gradient - truth[1]) / (1 + norm * np.linalg.norm(truth[1]))
    return abs(value - truth[0]) / (1 + abs(truth[0])), float(difference)


def attempt(
    function: Function, Z: Tensor, truth: tuple[float, np.ndarray], differentiable: bool = True
) -> dict[str, str]:
    """What goes wrong with ``function(Z^T Z)`` and its gradient in Z: the kinds of failure, each with a few words."""
    leaf = Z.clone().requires_grad_(differentiable)
    try:
        value = function(leaf.mT @ leaf)
        if differentiable:
            value.backward()
    except Exception as error:  # whatever a contender raises is what is counted
        return {"exceptions": f"{type(error).__name__}: {error}".splitlines()[0][:120]}
    value = float(value.detach() if isinstance(value, Tensor) else value)
    gradient = leaf.grad.double().cpu().numpy() if leaf.grad is not None else np.zeros(())
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        return {"non-finite": f"value {value}, {int((~np.isfinite(gradient)).sum())} entries of the gradient"}
    found = {}
    value_error, gradient_error = errors(value, gradient, truth, float(Z.norm()))
    if value_error > TOLERANCES[Z.dtype]:
        found["wrong values"] = f"{value:.6g}, true {truth[0]:.6g}"
    if differentiable and gradient_error > TOLERANCES[Z.dtype]:
        found["wrong gradients"] = f"error {gradient_error:.1e}"
    return found
