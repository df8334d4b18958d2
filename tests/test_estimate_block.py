"""Block Lanczos: against eigenvalues and against one vector at a time."""

import numpy as np
import pytest
import torch
from helpers import seeded
from matrices import decays, from_spectrum

from matinfo.estimate import KernelOperator, estimate_entropy
from matinfo.operands.operator import as_operator
from matinfo.spectral.block_lanczos import BlockLanczos
from matinfo.spectral.operator import rademacher

N = 200
SPECTRA = decays(N)
MATRICES = {name: from_spectrum(lam, seed=1) for name, lam in SPECTRA.items()}


def advanced(K, start, degree):
    lanczos = BlockLanczos(as_operator(torch.from_numpy(K)).matmat, start)
    lanczos.advance(degree)
    return lanczos


def values(rules, f):
    gauss = (rules.weights * f(rules.nodes.clamp_min(1e-300))).sum(1)
    return gauss, (rules.radau_weights * f(rules.radau_nodes.clamp_min(1e-300))).sum(1)


def signs(count, n=N):
    return rademacher(as_operator(torch.eye(n, dtype=torch.float64)), count, seeded(0))


@pytest.mark.parametrize("degree", [1, 2, 7])
def test_a_block_of_one_vector_is_the_recurrence_of_the_textbook(degree):
    """Three terms, Gauss nodes by the tridiagonal matrix; at so few steps nothing loses its orthogonality."""
    K, start = torch.from_numpy(MATRICES["power law"]), signs(1)
    v, before, beta, a, b = start[:, 0] / start.norm(), torch.zeros(N), 0.0, [], []
    for _ in range(degree):
        w = K @ v - beta * before
        a.append(float(w @ v))
        w = w - a[-1] * v
        before, beta = v, float(w.norm())
        v = w / beta
        b.append(beta)
    nodes, vectors = np.linalg.eigh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
    found = advanced(MATRICES["power law"], start, degree).rules(3.0)
    np.testing.assert_allclose(found.nodes[0], nodes / 3, rtol=1e-8)
    np.testing.assert_allclose(found.weights[0], vectors[0] ** 2, rtol=1e-7)
    assert float(found.radau_nodes.min()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 2.5, 3.5])
@pytest.mark.parametrize("degree", [3, 6])
@pytest.mark.parametrize("name", ["power law", "exponential", "near identity"])
def test_block_rules_lie_on_either_side_of_every_quadratic_form(name, degree, alpha):
    lam, start = SPECTRA[name], signs(5)
    eigenvalues, Q = np.linalg.eigh(MATRICES[name])
    p = np.maximum(eigenvalues / lam.sum(), 1e-300)
    sign = 1.0 if alpha >= 1 else -1.0
    f = (lambda x: x * x.log()) if alpha == 1 else (lambda x: sign * x**alpha)
    truth = ((Q.T @ start.numpy()) ** 2 / N * f(torch.from_numpy(p)).numpy()[:, None]).sum(0)
    gauss, radau = values(advanced(MATRICES[name], start, degree).rules(lam.sum()), f)
    low, high = (gauss, radau) if alpha < 2 or 3 < alpha < 4 else (radau, gauss)
    slack = 1e-12 * abs(truth).max()
    assert (low.numpy() <= truth + slack).all()
    assert (truth <= high.numpy() + slack).all()


@pytest.mark.parametrize("name", SPECTRA)
def test_block_rules_are_closer_than_those_of_single_vectors(name):
    start = signs(8)
    widths = []
    for parts in (start.split(1, 1), [start]):
        rules = [advanced(MATRICES[name], part, 5).rules(SPECTRA[name].sum()) for part in parts]
        gauss, radau = (
            torch.cat(column) for column in zip(*[values(r, torch.sqrt) for r in rules], strict=True)
        )
        widths.append((radau - gauss).abs())
    assert (widths[1] <= widths[0] + 1e-12).all()


def test_blocks_that_lose_rank_end_in_exact_rules():
    """24 eigenvalues and zero: five vectors span everything that they can reach in five steps or six."""
    lam, start = SPECTRA["low rank"], signs(5)
    start[:, 4] = start[:, 3]  # already the first block is deficient
    lanczos = advanced(MATRICES["low rank"], start, 50)
    assert lanczos.is_exhausted
    assert lanczos.degree <= 8
    rules = lanczos.rules(lam.sum())
    eigenvalues, Q = np.linalg.eigh(MATRICES["low rank"])
    truth = ((Q.T @ start.numpy()) ** 2 / N * (eigenvalues / lam.sum())[:, None] ** 3).sum(0)
    np.testing.assert_allclose((rules.weights * rules.nodes**3).sum(1), truth, rtol=1e-9)
    torch.testing.assert_close(rules.weights.sum(1), torch.ones(5, dtype=torch.float64))


def test_functions_of_the_matrix_are_applied_to_every_vector():
    K, start = MATRICES["near identity"], signs(6)
    lanczos = advanced(K, start, 12)
    torch.testing.assert_close(lanczos.first_images(), torch.from_numpy(K) @ start, rtol=0, atol=1e-12)
    lam, Q = np.linalg.eigh(K)
    expected = torch.from_numpy((Q * np.log(lam)) @ Q.T) @ start
    torch.testing.assert_close(lanczos.applied(lambda x, _: x.log()), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("runs", [20, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_interval_covers_the_truth_in_93_of_100_runs(alpha, runs):
    hits = 0
    for name, lam in SPECTRA.items():
        p = lam[lam > 0] / lam.sum()
        truth = -(p * np.log(p)).sum() if alpha == 1 else np.log((p**alpha).sum()) / (1 - alpha)
        for seed in range(runs):
            found = estimate_entropy(MATRICES[name], alpha, probes=20, degree=3, generator=seeded(seed))
            low, high = found.interval()
            hits += low <= truth <= high
    assert hits >= 0.93 * runs * len(SPECTRA)


def test_directions_of_barely_more_than_round_off_stay_orthogonal():
    # With this seed the second block had one, and T an eigenvalue of -3e-5 that the matrix has not.
    start = rademacher(as_operator(torch.eye(N)), 20, seeded(97)).double()
    lanczos = advanced(MATRICES["low rank"], start, 3)
    basis = lanczos.basis
    assert (basis.mT @ basis - torch.eye(basis.shape[1])).abs().max() < 1e-13
    assert lanczos.rules(SPECTRA["low rank"].sum()).nodes.min() > -1e-14


def test_rtol_of_a_kernel_is_met_in_few_steps():
    """One vector at a time took twelve (measured on this matrix before blocks were the only recurrence)."""
    K = KernelOperator(torch.from_numpy(np.random.default_rng(0).standard_normal((500, 8))))
    found = estimate_entropy(K, rtol=0.02, generator=seeded(0))
    assert found.converged
    assert found.degree <= 5
    assert found.error() <= 0.02 * found.value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_residuals_of_ritz_pairs_are_those_of_the_matrix(dtype):
    K = torch.from_numpy(MATRICES["power law"]).to(dtype)
    lanczos = BlockLanczos(lambda V: K @ V, signs(4).to(dtype))
    lanczos.advance(4)
    ritz, Y = torch.linalg.eigh(lanczos.tridiagonal())
    vectors = lanczos.basis[:, : len(ritz)] @ Y
    direct = (K @ vectors - ritz * vectors).norm(dim=0)
    torch.testing.assert_close(lanczos.residuals(Y), direct, rtol=1e-4, atol=10 * torch.finfo(dtype).eps)
