"""XTrace and Hutch++ against loops that follow their definitions, seed by seed."""

import numpy as np
import pytest
import torch
from helpers import seeded
from matrices import from_spectrum
from tolerances import relative_error

from matinfo.operands.operator import as_operator
from matinfo.spectral.functions import Power
from matinfo.spectral.hutchpp import SketchedTrace, standard_error
from matinfo.spectral.operator import gaussian, rademacher
from matinfo.spectral.xtrace import exchangeable_trace, leave_one_out, power_images

N, K = 40, 9


SPECTRA = {
    "power law": np.arange(1.0, N + 1) ** -1.5,
    "flat": 1 + 0.05 * np.random.default_rng(3).standard_normal(N),
    "low rank": np.r_[np.random.default_rng(4).uniform(0.5, 2.0, 12), np.zeros(N - 12)],
}


def block(seed, count=K):
    return torch.randn(N, count, dtype=torch.float64, generator=seeded(seed))


# --- XTrace ------------------------------------------------------------------------------------------------------


def naive_estimates(A, Omega):
    """For every column the Nyström approximation from the others, and the column as a probe of the rest."""
    n, k = Omega.shape
    estimates = []
    for i in range(k):
        others = np.delete(Omega, i, 1)
        image = A @ others
        approximation = image @ np.linalg.solve(others.T @ image, image.T)
        probe = Omega[:, i] - others @ np.linalg.lstsq(others, Omega[:, i], rcond=None)[0]
        probe *= np.sqrt((n - k + 1) / (probe @ probe))
        estimates.append(np.trace(approximation) + probe @ (A - approximation) @ probe)
    return np.array(estimates)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", SPECTRA)
def test_leave_one_out_is_the_loop_over_nystrom_approximations(name, seed):
    A = from_spectrum(SPECTRA[name], seed=1)
    Omega = block(seed)
    Y = torch.from_numpy(A) @ Omega
    fast = leave_one_out(Omega, Y, Omega.mT @ Y, N)
    assert relative_error(fast, naive_estimates(A, Omega.numpy())) < 1e-10


@pytest.mark.parametrize("name", ["power law", "flat"])
def test_exchangeable_trace_is_the_mean_and_the_jackknife_of_the_loop(name):
    A = from_spectrum(SPECTRA[name], seed=1)
    Omega = block(0)
    found = exchangeable_trace(Omega, torch.from_numpy(A) @ Omega)
    deleted = [naive_estimates(A, np.delete(Omega.numpy(), j, 1)).mean() for j in range(K)]
    assert found.value == pytest.approx(naive_estimates(A, Omega.numpy()).mean(), rel=1e-9)
    assert found.standard_error == pytest.approx(np.std(deleted) * np.sqrt(K), rel=1e-6)


def test_exchangeable_trace_is_unbiased_and_its_error_not_too_small():
    """The squared standard error is at least the variance on the mean (Efron and Stein)."""
    A = torch.from_numpy(from_spectrum(SPECTRA["power law"], seed=1))
    found = [exchangeable_trace(block(seed, 6), A @ block(seed, 6)) for seed in range(200)]
    values = np.array([f.value for f in found])
    truth = SPECTRA["power law"].sum()
    assert abs(values.mean() - truth) <= 4 * values.std() / np.sqrt(len(values))
    assert values.var() <= np.mean([f.standard_error**2 for f in found]) <= 20 * values.var()


def test_exchangeable_trace_is_exact_beyond_the_rank_and_for_the_identity():
    low_rank = from_spectrum(SPECTRA["low rank"], seed=1)
    for A, rank in ((low_rank, 12), (3.0 * np.eye(N), 0)):
        Omega = block(0, rank + 4)
        found = exchangeable_trace(Omega, torch.from_numpy(A) @ Omega)
        assert found.value == pytest.approx(np.trace(A), rel=1e-12)
        assert found.standard_error <= 1e-11 * np.trace(A)


def test_exchangeable_trace_scales_with_the_matrix():
    A, Omega = torch.from_numpy(from_spectrum(SPECTRA["power law"], seed=1)), block(0)
    one, other = exchangeable_trace(Omega, A @ Omega), exchangeable_trace(Omega, 1e-9 * A @ Omega)
    assert other.value == pytest.approx(1e-9 * one.value, rel=1e-9)
    assert other.standard_error == pytest.approx(1e-9 * one.standard_error, rel=1e-6)


def test_exchangeable_trace_is_homogeneous_where_squares_underflow():
    A, Omega = torch.from_numpy(from_spectrum(SPECTRA["power law"], seed=1)), block(0)
    one, tiny = exchangeable_trace(Omega, A @ Omega), exchangeable_trace(Omega, 1e-200 * A @ Omega)
    assert tiny.value * 1e200 == pytest.approx(one.value, rel=1e-9)
    assert tiny.standard_error * 1e200 == pytest.approx(one.standard_error, rel=1e-6)


def test_exchangeable_trace_of_zero_is_zero_and_of_nan_nan():
    assert exchangeable_trace(block(0), torch.zeros(N, K, dtype=torch.float64)) == (0.0, 0.0)
    assert np.isnan(exchangeable_trace(block(0), torch.full((N, K), torch.nan, dtype=torch.float64)).value)


def test_exchangeable_trace_refuses_an_indefinite_matrix():
    A = torch.from_numpy(from_spectrum(np.linspace(-1, 1, N)))
    with pytest.raises(
        ValueError, match="Expected a positive semi-definite matrix, got a negative quadratic"
    ):
        exchangeable_trace(block(0), A @ block(0))


def test_power_images_are_those_of_the_matrix_over_its_trace():
    A = from_spectrum(SPECTRA["flat"], seed=1)
    P = A / np.trace(A)
    expected = np.linalg.matrix_power(P, 3) @ block(0).numpy()
    assert relative_error(power_images(as_operator(A), block(0), 3), expected) < 1e-12


# --- Hutch++ -----------------------------------------------------------------------------------------------------


def naive_hutchpp(P, f, Q, probes, exact):
    """The formulas with dense functions of the matrix; the fit of each probe is that of the others."""
    lam, V = np.linalg.eigh(P)
    lam = np.maximum(lam, 0)
    function = (V * f(lam)) @ V.T
    weights = (V.T @ probes) ** 2  # spectral measure of every probe
    powers = np.stack([lam**j for j in range(3)])
    samples = []
    for i in range(probes.shape[1]):
        w = np.delete(weights, i, 1).sum(1)
        scale = np.sqrt((powers**2 * w).sum(1))
        normal = (powers * w) @ powers.T / np.outer(scale, scale)
        fit = np.linalg.solve(normal, (powers * w) @ f(lam) / scale) / scale
        samples.append(probes[:, i] @ function @ probes[:, i] + fit @ (exact - powers @ weights[:, i]))
    return np.trace(Q.T @ function @ Q) + np.mean(samples), np.array(samples)


@pytest.mark.parametrize("width", [0, 5])
@pytest.mark.parametrize("f", [Power(3).value, lambda x: torch.log1p(50 * x)], ids=["power", "log"])
def test_sketched_trace_is_the_formula_with_dense_matrix_functions(f, width):
    A = from_spectrum(SPECTRA["flat"] * np.linspace(0.5, 1.5, N), seed=1)
    P = A / np.trace(A)
    trace = SketchedTrace(as_operator(A))
    if width:
        trace.widen(gaussian(trace.operator, width, seeded(3)))
        trace.capture(f, N, 1e-14)
    Q = trace.basis.numpy()
    start = rademacher(trace.operator, 7, seeded(4))
    start -= trace.basis @ (trace.basis.mT @ start)
    lanczos, sizes = trace.begin(start)
    lanczos.advance(12)
    trace.add(lanczos, sizes)
    exact = [N - width, 1 - np.trace(Q.T @ P @ Q), np.trace(P @ P) - np.trace(Q.T @ P @ P @ Q)]
    value, samples = naive_hutchpp(P, lambda x: f(torch.from_numpy(x)).numpy(), Q, start.numpy(), exact)
    found = trace.estimate(f)
    assert np.allclose(Q.T @ Q, np.eye(width), atol=1e-12)
    assert found.value == pytest.approx(value, rel=1e-9)
    spread = ((samples - samples.mean()) ** 2).sum() / (len(samples) - 3) / len(samples)
    assert standard_error(found.samples) == pytest.approx(np.sqrt(spread), rel=1e-4)


def test_radau_rule_is_exact_for_powers_up_to_twice_the_degree():
    A = from_spectrum(SPECTRA["power law"], seed=1)
    P = A / np.trace(A)
    for power in (3, 4):
        trace = SketchedTrace(as_operator(A), is_power=True)
        start = rademacher(trace.operator, 6, seeded(0))
        lanczos, sizes = trace.begin(start)
        lanczos.advance(2)
        radau = sizes * trace._forms(lanczos.rules(trace.total), Power(power).value)[1]
        expected = np.einsum("ns,nm,ms->s", start, np.linalg.matrix_power(P, power), start)
        assert relative_error(radau, expected) < 1e-12


def test_a_sketch_lowers_the_standard_error_of_a_decaying_spectrum():
    operator = as_operator(from_spectrum(SPECTRA["power law"], seed=1))

    def error(width, seed):
        trace = SketchedTrace(operator, iterations=2, is_power=True)
        if width:
            trace.widen(gaussian(operator, width, seeded(seed)))
            trace.capture(Power(3).value, 2, 0.0)
        lanczos, sizes = trace.begin(rademacher(operator, 12, seeded(100 + seed)))
        lanczos.advance(2)
        trace.add(lanczos, sizes)
        return standard_error(trace.estimate(Power(3).value).samples)

    none, four, twelve = (np.median([error(width, seed) for seed in range(9)]) for width in (0, 4, 12))
    assert none > 10 * four
    assert four > 10 * twelve


def test_a_sketch_that_grows_keeps_its_span():
    operator = as_operator(from_spectrum(SPECTRA["power law"], seed=1))
    trace = SketchedTrace(operator)
    trace.widen(gaussian(operator, 4, seeded(0)))
    before = trace.basis
    trace.widen(gaussian(operator, 5, seeded(1)))
    assert trace.width == 9
    assert torch.allclose(trace.basis @ (trace.basis.mT @ before), before, atol=1e-12)
