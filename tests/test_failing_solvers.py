"""What happens when the eigensolver itself fails: retry in float64, only where needed, and a diagnosis at the end."""

from __future__ import annotations

import matrices
import numpy as np
import pytest
import torch
from helpers import t
from tolerances import EPS32, close

from matinfo import explain, renyi_entropy
from matinfo.spectral import eigensolver


def failing(original, should_fail, calls):
    def solver(A, *args, **kwargs):
        calls.append(A.dtype)
        if should_fail(A):
            raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")
        return original(A, *args, **kwargs)

    return solver


def break_solvers(monkeypatch, should_fail):
    calls = []
    for name in ("eigh", "eigvalsh"):
        monkeypatch.setattr(torch.linalg, name, failing(getattr(torch.linalg, name), should_fail, calls))
    return calls


@pytest.mark.parametrize("grad", [False, True])
def test_a_failing_float32_solver_is_retried_in_float64_and_reported(monkeypatch, grad):
    K = t(matrices.named("random", 6), torch.float32).requires_grad_(grad)
    expected = float(renyi_entropy(K.detach(), 1.5))
    calls = break_solvers(monkeypatch, lambda A: A.dtype == torch.float32)
    with explain() as log:
        value = renyi_entropy(K, 1.5, precision="float32")
    assert calls[0] == torch.float32
    assert calls[-1] == torch.float64
    close(value, expected, 16 * EPS32)
    assert "float64" in str(log)


def test_only_the_failing_batch_element_is_solved_again_in_float64(monkeypatch):
    K = t(np.stack([matrices.named("random", 6, s) for s in range(4)]), torch.float32)
    expected = renyi_entropy(K, 1.5)
    marked = float(K[2, 0, 0])

    def contains_the_marked_one(A):
        return A.dtype == torch.float32 and bool(((A[..., 0, 0] - marked).abs() < 1e-5).any())

    calls = break_solvers(monkeypatch, contains_the_marked_one)
    values = renyi_entropy(K, 1.5, precision="float32")
    assert calls.count(torch.float64) == 1
    assert (values - expected).abs().max() < 16 * EPS32


def test_a_solver_that_always_fails_gives_a_diagnosis(monkeypatch):
    break_solvers(monkeypatch, lambda A: True)
    with pytest.raises(RuntimeError, match=r"(?s)(?=.*6)(?=.*float32)(?=.*cpu)"):
        renyi_entropy(t(matrices.named("random", 6), torch.float32), 1.5, precision="float32")


@pytest.mark.parametrize("alpha", [1.0, 1.5])
@pytest.mark.parametrize("n", [80, pytest.param(40_000, marks=pytest.mark.slow)])
def test_a_matrix_beyond_the_integer_range_of_the_solver_is_refused_with_the_remedy(alpha, n, monkeypatch):
    # LAPACK's workspace 1 + 6n + 2n^2 overflows 32-bit integers from n = 32767 on. No memory is needed to refuse, but
    # the checks of the input read every entry: by default the range is made small instead of the matrix large.
    if n < 40_000:
        monkeypatch.setattr(eigensolver, "_LARGEST_ORDER_ON_CPU", n - 1)
    K = torch.ones(1, 1).expand(n, n)
    with pytest.raises(ValueError, match=rf"(?s){n}.*(Gram|alpha)"):
        renyi_entropy(K, alpha)
