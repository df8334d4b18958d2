"""Values and gradients against 50-digit arithmetic: hard families, features near collapse, half types, mixed batches.

A problem is features ``Z (b, n)`` rounded to a dtype and an order; the matrix is ``Z^T Z``. Contenders get the features
(float16, bfloat16: rounded there) on the device; the truth is that of the rounded features, from their eigenvalues in
50 digits, on the CPU. What counts as wrong is defined in :mod:`benchmarks.failures`.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np
import torch
from torch import Tensor

from benchmarks.case import OURS
from benchmarks.failures import TOLERANCES, errors
from benchmarks.families import NAMES, hard_features
from benchmarks.mmae_features import FILE
from benchmarks.peers import plain_entropy
from matinfo import Gram, renyi_entropy

ORDERS = (0.75, 1.0, 1.5, 2.0)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_DIGITS = 50


class Problem(NamedTuple):
    """Features as rounded, in float64, with their truths by order."""

    name: str
    Z: np.ndarray
    truths: dict[float, tuple[float, np.ndarray]]


def truths(Z: np.ndarray) -> dict[float, tuple[float, np.ndarray]]:
    """Entropy of ``Z^T Z`` and its gradient in Z for each order, in 50 digits, by way of ``Z Z^T``."""
    with mp.workdps(_DIGITS):
        F = mp.matrix(Z.tolist())
        K = F * F.T
        x, U = mp.eigsy(K)
        total = mp.fsum(K[i, i] for i in range(K.rows))
        p = [value / total if value > mp.mpf(10) ** -40 * total else mp.mpf(0) for value in x]
        found = {}
        for alpha in ORDERS:
            a = mp.mpf(alpha)
            if alpha == 1:
                value = -mp.fsum(q * mp.log(q) for q in p if q)
                h = [-(mp.log(q) + value) if q else mp.mpf(0) for q in p]
            else:
                S = mp.fsum(q**a for q in p if q)
                value = mp.log(S) / (1 - a)
                h = [a / (1 - a) * (q ** (a - 1) / S - 1) if q else mp.mpf(0) for q in p]
            gradient = U * mp.diag([2 * s / total for s in h]) * (U.T * F)
            found[alpha] = float(value), np.array(gradient.tolist(), dtype=np.float64)
    return found


def problems(*, quick: bool) -> dict[torch.dtype, list[Problem]]:
    """All of them by dtype; the truths are found on all cores."""
    n = 24 if quick else 48
    named = [
        (f"{name} {seed}", hard_features(name, n, seed))
        for name in NAMES
        for seed in range(1 if quick else 3)
    ]
    steps = np.load(FILE)["features"][:: 8 if quick else 1]
    named += [(f"M-MAE step {10 * i}", Z.astype(np.float64)) for i, Z in enumerate(steps)]
    rounded = {
        dtype: [(name, torch.from_numpy(Z).to(dtype).double().numpy()) for name, Z in named]
        for dtype in DTYPES
    }
    flat = [Z for members in rounded.values() for _, Z in members]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        found = iter(list(pool.map(truths, flat, chunksize=4)))
    return {
        dtype: [Problem(name, Z, next(found)) for name, Z in members] for dtype, members in rounded.items()
    }


def stability_table(device: str, *, quick: bool) -> dict[str, Any]:
    """Counts of wrong values and gradients and of exceptions, of ours and of PyTorch's, with examples of ours."""
    rows, examples = [], []
    for dtype, members in problems(quick=quick).items():
        tolerance = TOLERANCES[dtype if dtype == torch.float64 else torch.float32]
        for name, function in _contenders(dtype).items():
            row = {"dtype": str(dtype)[6:], "contender": name, "problems": 0, "failures": 0}
            rows.append(row)
            for problem, alpha in itertools.product(members, ORDERS):
                what = _failure(function, problem, alpha, dtype, device, tolerance)
                row["problems"] += 1
                row["failures"] += bool(what)
                if what and name.startswith(OURS):
                    examples.append(f"{name}, {row['dtype']}, {problem.name}, order {alpha:g}: {what}")
        row = {"dtype": str(dtype)[6:], "contender": f"{OURS}, one batch", "problems": 0, "failures": 0}
        rows.append(row)
        for alpha in ORDERS:
            wrong = _failures_of_batch(members, alpha, dtype, device, tolerance)
            row["problems"] += len(members)
            row["failures"] += len(wrong)
            examples += [f"batch, {row['dtype']}, order {alpha:g}: {what}" for what in wrong]
    return {"digits": _DIGITS, "rows": rows, "examples": examples[:20]}


def _contenders(dtype: torch.dtype) -> dict[str, Callable[[Tensor, float], Tensor]]:
    found = {
        f"{OURS}, features": lambda Z, alpha: renyi_entropy(Gram(Z.mT), alpha),
        "torch.linalg.eigh": lambda Z, alpha: plain_entropy(Z.mT @ Z, alpha),
    }
    if dtype.itemsize >= 4:
        found[f"{OURS}, matrix"] = lambda Z, alpha: renyi_entropy(Z.mT @ Z, alpha)
    else:
        found["torch.linalg.eigh"] = lambda Z, alpha: plain_entropy((Z.mT @ Z).float(), alpha)
    return found


def _failure(
    function: Callable[[Tensor, float], Tensor],
    problem: Problem,
    alpha: float,
    dtype: torch.dtype,
    device: str,
    tolerance: float,
) -> str:
    leaf = torch.from_numpy(problem.Z).to(device, dtype).requires_grad_()
    try:
        value = function(leaf, alpha)
        value.backward()
    except Exception as error:  # whatever a contender raises is what is counted
        return f"{type(error).__name__}: {error}".splitlines()[0][:120]
    assert leaf.grad is not None
    return _difference(value, leaf.grad, problem, alpha, tolerance, dtype)


def _difference(
    value: Tensor, gradient: Tensor, problem: Problem, alpha: float, tolerance: float, dtype: torch.dtype
) -> str:
    """Nothing if both are right. A gradient in half precision is rounded to it at the end."""
    found = float(value.detach()), gradient.double().cpu().numpy()
    value_error, gradient_error = errors(*found, problem.truths[alpha], float(np.linalg.norm(problem.Z)))
    allowed = tolerance if dtype.itemsize >= 4 else max(tolerance, torch.finfo(dtype).eps)
    if value_error <= tolerance and gradient_error <= allowed:
        return ""
    return f"{problem.name}: value {value_error:.0e}, gradient {gradient_error:.0e}"


def _failures_of_batch(
    members: list[Problem], alpha: float, dtype: torch.dtype, device: str, tolerance: float
) -> list[str]:
    """All problems of one width in one call, short ones with rows of zeros."""
    wrong = []
    for width in sorted({problem.Z.shape[1] for problem in members}):
        batch = [problem for problem in members if problem.Z.shape[1] == width]
        rows = max(len(problem.Z) for problem in batch)
        padded = [np.pad(problem.Z, ((0, rows - len(problem.Z)), (0, 0))) for problem in batch]
        leaf = torch.from_numpy(np.stack(padded)).to(device, dtype).requires_grad_()
        value = renyi_entropy(Gram(leaf.mT), alpha)
        value.sum().backward()
        assert leaf.grad is not None
        for i, problem in enumerate(batch):
            gradient = leaf.grad[i, : len(problem.Z)]
            what = _difference(value[i], gradient, problem, alpha, tolerance, dtype)
            wrong += [what] if what else []
    return wrong
