"""Every fast route against its slow twin, on matrices that are not normalised, in value and in gradient."""

from __future__ import annotations

import math

import matrices
import numpy as np
import pytest
import torch
from helpers import grad, sym, t
from hypothesis import given
from hypothesis import strategies as st
from tolerances import close, relative_error

import matinfo
from matinfo import Gram, explain, joint_entropy, mutual_information, renyi_entropy
from matinfo.spectral import khatri_rao
from matinfo.spectral.lanczos import top_pair

UNNORMALISED = 7.3


def matrix(n=64, seed=0, dtype=torch.float64):
    return (UNNORMALISED * t(matrices.rbf_gram(n, d=4, bandwidth=1.5, seed=seed))).to(dtype)


def route_of(log) -> str:
    return log.steps[-1].route


# ---------------------------------------------------------------- integer orders


@pytest.mark.parametrize("alpha", [3, 4, 5, 6, 7, 8, 9, 16, 33])
def test_power_route_equals_the_eigenvalue_route(alpha):
    K = matrix()
    fast, slow = (lambda K, m=m: renyi_entropy(K, alpha, method=m) for m in ("power", "eigh"))
    close(fast(K), slow(K), 1e-13)
    assert relative_error(grad(fast, K), grad(slow, K)) < 1e-12


@given(alpha=st.integers(3, 12), scale=st.floats(1e-6, 1e6), seed=st.integers(0, 10**6))
def test_power_route_equals_the_eigenvalue_route_at_every_scale(alpha, scale, seed):
    K = scale * t(matrices.random_correlation(7, seed))
    close(renyi_entropy(K, alpha, method="power"), renyi_entropy(K, alpha, method="eigh"), 1e-12)


@pytest.mark.parametrize("alpha", [3, 4, 5, 6, 8])
def test_power_route_has_exact_first_and_second_derivatives(alpha):
    K = matrix(4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda K: renyi_entropy(sym(K), alpha, method="power"), K, check_forward_ad=True
    )
    assert torch.autograd.gradgradcheck(lambda K: renyi_entropy(sym(K), alpha, method="power"), K)


@pytest.mark.parametrize("alpha", [3, 4])
def test_power_route_gradient_vanishes_at_the_identity(alpha):
    assert (
        grad(lambda K: renyi_entropy(K, alpha, method="power"), 5 * torch.eye(6).double()).abs().max() < 1e-15
    )


@pytest.mark.parametrize("alpha", [3, 4])
def test_power_route_is_taken_from_order_48_on(alpha):
    for n, expected in ((47, "eigvalsh"), (48, "power")):
        with explain() as log:
            renyi_entropy(matrix(n), alpha)
        assert route_of(log) == expected


@pytest.mark.parametrize("alpha", [3, 4])
def test_power_route_turns_a_non_finite_element_into_nan(alpha):
    K = torch.stack([matrix(6), matrix(6)])
    K[1, 0, 1] = K[1, 1, 0] = math.nan
    value = renyi_entropy(K, alpha, method="power")
    assert value[0].isfinite()
    assert value[1].isnan()


# ---------------------------------------------------------------- the largest eigenvalue


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_lanczos_route_equals_the_eigenvalue_route(dtype, tolerance):
    K = matrix(320, dtype=dtype)
    fast, slow = (lambda K, m=m: renyi_entropy(K, math.inf, method=m) for m in ("lanczos", "eigh"))
    with explain() as log:
        value = fast(K)
    assert route_of(log) == "lanczos"
    close(value, slow(K), tolerance)
    assert relative_error(grad(fast, K), grad(slow, K)) < 300 * tolerance


@pytest.mark.parametrize("multiplicity", [2, 3, 5, 300])
def test_lanczos_route_leaves_a_multiple_eigenvalue_to_the_projector(multiplicity):
    lam = np.r_[np.linspace(0.1, 0.5, 300 - multiplicity), np.full(multiplicity, 2.0)]
    K = t(matrices.from_spectrum(lam))
    assert top_pair(K) is None or multiplicity > 4
    gradient = grad(lambda K: renyi_entropy(K, math.inf, method="lanczos"), K)
    w, _V = np.linalg.eigh(gradient.numpy())
    trace = lam.sum()
    expected = 1 / trace - 1 / (2.0 * multiplicity)
    assert abs(w[0] - expected) < 1e-12
    assert abs(w[multiplicity - 1] - expected) < 1e-12
    if multiplicity < 300:
        assert abs(w[multiplicity] - 1 / trace) < 1e-12


def test_lanczos_route_gives_up_on_a_cluster():
    assert top_pair(t(matrices.from_spectrum(np.r_[np.linspace(0, 1, 298), 1.9999, 2.0]))) is None


def test_lanczos_route_gives_nan_for_nan():
    K = matrix(300)
    K[3, 3] = math.nan
    assert renyi_entropy(K, math.inf, method="lanczos").isnan()


# ---------------------------------------------------------------- factors


@pytest.mark.parametrize(
    "shapes", [[(7, 3)], [(7, 2), (7, 3)], [(7, 2), (7, 3), (7, 2)], [(2, 7, 2), (7, 3)]], ids=str
)
def test_row_blocks_change_nothing(shapes, monkeypatch):
    monkeypatch.setattr(khatri_rao, "_BLOCK_ENTRIES", 6)
    factors = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    R = khatri_rao.khatri_rao(factors)
    blocked, plain = khatri_rao.khatri_rao_moment(tuple(factors), torch.float64), R.mT @ R
    assert torch.allclose(blocked, plain, rtol=1e-13)
    weight = torch.randn_like(plain)
    gradients = [
        torch.autograd.grad((M * weight).sum(), factors, retain_graph=True) for M in (blocked, plain)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12)


def test_row_blocks_have_exact_derivatives(monkeypatch):
    monkeypatch.setattr(khatri_rao, "_BLOCK_ENTRIES", 6)
    factors = [torch.randn(5, d, dtype=torch.float64, requires_grad=True) for d in (2, 3)]
    f = lambda *Z: khatri_rao.khatri_rao_moment(Z, torch.float64)  # noqa: E731
    assert torch.autograd.gradcheck(f, factors, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, factors)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0, math.inf])
def test_joint_entropy_of_factors_equals_that_of_matrices(alpha):
    Z1, Z2 = (t(matrices.features(60, d, seed=d)) for d in (3, 5))
    with explain() as log:
        factored = joint_entropy(Gram(Z1), Gram(Z2), alpha=alpha)
    assert log.steps[0].side == "features"
    assert log.steps[0].size == 15
    close(factored, joint_entropy(Z1 @ Z1.mT, Z2 @ Z2.mT, alpha=alpha), 1e-6 if alpha < 1 else 1e-12)


def test_mutual_information_of_wide_factors_takes_the_sample_side():
    Z1, Z2 = (t(matrices.features(20, d, seed=d)) for d in (8, 6))
    with explain() as log:
        mutual_information(Gram(Z1), Gram(Z2))
    assert [(step.side, step.size) for step in log.steps] == [
        ("features", 8),
        ("features", 6),
        ("samples", 20),
    ]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("method", "alpha"),
    [("frobenius", 1.0), ("power", 2.5), ("power", 2), ("lanczos", 2.0), ("quadrature", 3.0)],
)
def test_method_that_does_not_apply_is_refused(method, alpha):
    with pytest.raises(ValueError, match=f"method='{method}' applies to"):
        renyi_entropy(matrix(8), alpha, method=method)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    ("function", "operands"),
    [
        *((function, 1) for function in (renyi_entropy, matinfo.von_neumann_entropy, matinfo.effective_rank)),
        *(
            (function, 1)
            for function in (matinfo.vendi_score, matinfo.tcr, matinfo.matrix_tcr, matinfo.coding_rate)
        ),
        *((function, 2) for function in (matinfo.joint_entropy, matinfo.conditional_entropy, matinfo.dime)),
        *((function, 2) for function in (matinfo.mutual_information, matinfo.normalized_mutual_information)),
        (matinfo.conditional_mutual_information, 3),
        *((function, 3) for function in (matinfo.total_correlation, matinfo.normalized_total_correlation)),
        *(
            (function, 3)
            for function in (matinfo.dual_total_correlation, matinfo.normalized_dual_total_correlation)
        ),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_precision_is_that_of_every_step(function, operands, precision):
    Ks = [t(matrices.random_correlation(5, seed)) for seed in range(operands)]
    with explain() as log:
        function(*Ks, precision=precision)
    assert {step.dtype for step in log.steps} == {precision}


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1], [[0.2, 0.8]] * 6], ids=["classes", "memberships"])
def test_precision_of_rate_reduction_is_that_of_every_step(labels, precision):
    labels = torch.tensor(labels, dtype=None if isinstance(labels[0], int) else torch.float64)
    with explain() as log:
        matinfo.rate_reduction(t(matrices.features(6, 4, 1)), labels, precision=precision)
    assert len(log.steps) == 3
    assert {step.dtype for step in log.steps} == {precision}
