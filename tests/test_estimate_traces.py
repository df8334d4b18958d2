"""Traces of powers and coding rates of large matrices: against eigenvalues, within their error bars."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from helpers import seeded
from matrices import features, from_spectrum, rbf_gram

from matinfo import Gram, matrix_tcr, renyi_entropy
from matinfo.estimate import estimate_tcr, estimate_trace_power
from matinfo.estimate.traces import _chosen
from matinfo.operands.operator import as_operator

N = 200
SPECTRA = {
    "rbf": np.linalg.eigvalsh(rbf_gram(N, d=3, bandwidth=1.5)).clip(0),
    "flat": 1 + 0.05 * np.random.default_rng(3).standard_normal(N),
    "power law": np.arange(1.0, N + 1) ** -1.0,
    "low rank": np.r_[np.random.default_rng(4).uniform(0.5, 2.0, 24), np.zeros(N - 24)],
}
MATRICES = {name: from_spectrum(lam, seed=1) for name, lam in SPECTRA.items()}
METHODS = ("hutchinson", "hutch++", "xtrace", "auto")
MU = 0.1


def power_of(lam, power):
    return float(((lam / lam.sum()) ** power).sum())


def rate_of(lam, mu):
    return float(np.log(mu + lam).sum())


# --- value and error bars ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("power", "runs"), [(3, 16), *[pytest.param(power, 200, marks=pytest.mark.slow) for power in (3, 4)]]
)
@pytest.mark.parametrize("method", METHODS)
def test_interval_of_a_power_covers_the_truth_in_93_of_100_runs(method, power, runs):
    """Nominal 95 %; the share of the 800 long runs has a standard error of 0.8 %."""
    hits = 0
    for name, lam in SPECTRA.items():
        for seed in range(runs):
            found = estimate_trace_power(
                MATRICES[name], power, probes=24, method=method, generator=seeded(seed)
            )
            hits += abs(found.value - power_of(lam, power)) <= found.error()
    assert hits >= 0.93 * runs * len(SPECTRA)


@pytest.mark.parametrize("runs", [16, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_interval_of_a_coding_rate_covers_the_truth_in_93_of_100_runs(method, runs):
    hits = 0
    for name, lam in SPECTRA.items():
        for seed in range(runs):
            found = estimate_tcr(
                MATRICES[name], MU, probes=24, degree=10, method=method, generator=seeded(seed)
            )
            hits += abs(found.value - rate_of(lam, MU)) <= found.error()
    assert hits >= 0.93 * runs * len(SPECTRA)


FAST = {"diagonal": np.diag(np.arange(1.0, 401) ** -2), "rotated": from_spectrum(np.arange(1.0, 401) ** -2)}


@pytest.mark.parametrize("runs", [40, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAST)
def test_interval_of_a_coding_rate_covers_on_a_spectrum_that_decays_fast(name, runs):
    """It held 137 of 150 times. Fewer than 95 of 100, beyond chance (three standard errors), breaks the promise."""
    truth = float(np.log1p(np.arange(1.0, 401) ** -2).sum())
    found = [estimate_tcr(FAST[name], 1.0, generator=seeded(seed)) for seed in range(runs)]
    hits = sum([abs(f.value - truth) <= f.error() for f in found])
    assert hits >= 0.95 * runs - 3 * np.sqrt(0.95 * 0.05 * runs)


@pytest.mark.parametrize(
    "call", [estimate_tcr, lambda K, **o: estimate_trace_power(K, 3, **o)], ids=["tcr", "power"]
)
def test_traces_of_narrow_features_are_taken_on_their_side(call):
    Z = features(600, 40)
    narrow, wide = call(Gram(Z), probes=64), call(Z @ Z.T, probes=64, generator=seeded(0))
    assert narrow.probes == 0  # exact: as many probes as columns
    assert abs(narrow.value - wide.value) <= 2 * wide.error() + 1e-9 * abs(wide.value)


@pytest.mark.parametrize(
    ("call", "name"),
    [(estimate_tcr, "estimate_tcr"), (lambda K: estimate_trace_power(K, 3), "estimate_trace_power")],
)
def test_refusals_name_the_function_that_was_called(call, name):
    with pytest.raises(ValueError, match=rf"use {name}\(Gram"):
        call(np.ones((3, 4)))
    with pytest.raises(ValueError, match=rf"Pass {name}\(K, trace"):
        call(scipy.sparse.linalg.aslinearoperator(np.eye(3)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("power", [3, 4, 5, 8])
def test_bars_of_a_power_are_useful(power, method):
    """The worst is Hutchinson on the decaying spectra, whose trace is in few eigenvalues."""
    for name, lam in SPECTRA.items():
        truth = power_of(lam, power)
        found = estimate_trace_power(MATRICES[name], power, probes=64, method=method, generator=seeded(0))
        assert abs(found.value - truth) <= 2 * found.error()
        assert found.error() <= (0.5 if method == "hutchinson" else 0.1) * truth


@pytest.mark.parametrize("degree", [2, 4, 8])
@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_bars_of_a_coding_rate_hold_at_low_degree(method, degree):
    """The bias of few Lanczos steps, which more probes do not remove, is in the bar."""
    for name, lam in SPECTRA.items():
        found = estimate_tcr(
            MATRICES[name], 0.01, probes=150, degree=degree, method=method, generator=seeded(1)
        )
        assert abs(found.value - rate_of(lam, 0.01)) <= 4 * found.standard_error + found.bias_bound


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_power_is_exact_when_the_rank_is_within_the_sketch(method):
    found = estimate_trace_power(MATRICES["low rank"], 5, probes=60, method=method, generator=seeded(0))
    assert found.value == pytest.approx(power_of(SPECTRA["low rank"], 5), rel=1e-11)
    assert found.error() <= 1e-9 * found.value


def test_coding_rate_is_exact_when_the_rank_is_within_the_sketch():
    found = estimate_tcr(MATRICES["low rank"], MU, probes=60, method="hutch++", generator=seeded(0))
    assert found.value == pytest.approx(rate_of(SPECTRA["low rank"], MU), rel=1e-8)
    assert found.error() <= 1e-5


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_as_many_probes_as_rows_are_exact(n):
    K = rbf_gram(n, d=3)
    found = estimate_trace_power(K, 3, probes=30)
    assert found.probes == 0
    assert found.value == pytest.approx(np.trace(np.linalg.matrix_power(K / n, 3)), rel=1e-12)
    assert estimate_tcr(K, 0.5, probes=30).value == pytest.approx(float(matrix_tcr(K, 0.5)), rel=1e-12)


def test_conventions_are_those_of_renyi_entropy_and_matrix_tcr():
    K = 7.0 * MATRICES["rbf"]
    found = estimate_trace_power(K, 3, probes=100, generator=seeded(0))
    assert np.log(found.value) / (1 - 3) == pytest.approx(float(renyi_entropy(K, 3.0)), rel=1e-3)
    rate = estimate_tcr(K, 2.0, probes=100, generator=seeded(0))
    assert abs(rate.value - float(matrix_tcr(K, 2.0))) <= rate.error() < 0.5


WIDE = features(300, 400)
WIDE_SPECTRUM = np.linalg.eigvalsh(WIDE @ WIDE.T)


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_bars_hold_where_squares_of_the_trace_underflow(method):
    truth = power_of(WIDE_SPECTRUM, 100)
    assert truth < 1e-170
    found = estimate_trace_power(Gram(WIDE), 100, probes=16, method=method, generator=seeded(0))
    assert abs(found.value - truth) <= 2 * found.error()
    assert 0 < found.standard_error < 0.5 * truth


# --- tolerance ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SPECTRA)
def test_rtol_of_a_power_is_met(name, method):
    truth = power_of(SPECTRA[name], 3)
    found = estimate_trace_power(MATRICES[name], 3, rtol=0.02, method=method, generator=seeded(0))
    assert found.converged
    assert found.error() <= 0.02 * found.value
    assert abs(found.value - truth) <= 0.04 * truth


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
@pytest.mark.parametrize("name", SPECTRA)
def test_rtol_of_a_coding_rate_is_met_relative_to_the_part_that_is_estimated(name, method):
    truth = rate_of(SPECTRA[name], MU)
    part = truth - N * np.log(MU)
    found = estimate_tcr(MATRICES[name], MU, rtol=0.02, method=method, generator=seeded(0))
    assert found.converged
    assert found.error() <= 0.02 * part * 1.05
    assert abs(found.value - truth) <= 0.04 * part


def test_rtol_out_of_reach_warns_and_says_what_was_reached():
    with pytest.warns(RuntimeWarning, match="Expected rtol=1e-09, reached .* with .* probes of degree"):
        found = estimate_trace_power(
            MATRICES["flat"], 3, rtol=1e-9, probes=40, method="hutch++", generator=seeded(0)
        )
    assert not found.converged
    assert found.probes <= 40
    with pytest.warns(RuntimeWarning, match="Expected rtol=1e-09, reached") as warned:
        assert not estimate_tcr(MATRICES["flat"], MU, rtol=1e-9, probes=40, degree=6).converged
    assert warned[0].filename == __file__  # of the caller, and not of the wrapper around the estimate


# --- the choice of the method ------------------------------------------------------------------------------------


def test_auto_goes_by_the_effective_number_of_eigenvalues():
    def chosen(name, power=3, probes=64):
        return _chosen(as_operator(MATRICES[name]), "auto", power, probes)

    assert chosen("low rank") == "xtrace"  # 24 eigenvalues of one size
    assert chosen("low rank", probes=24) == "hutch++"
    assert chosen("low rank", power=None) == "hutch++"
    assert chosen("flat") == "hutchinson"


def test_xtrace_beats_hutchinson_where_the_spectrum_decays_and_loses_where_it_is_flat():
    def error(name, method):
        truth = power_of(SPECTRA[name], 3)
        found = [
            estimate_trace_power(MATRICES[name], 3, probes=32, method=method, generator=seeded(s)).value
            for s in range(8)
        ]
        return np.sqrt(np.mean(np.square(np.array(found) / truth - 1)))

    assert error("power law", "xtrace") < 0.1 * error("power law", "hutchinson")
    assert error("flat", "hutchinson") < 0.1 * error("flat", "xtrace")


# --- inputs ------------------------------------------------------------------------------------------------------


def test_rounding_of_float32_entries_is_in_the_bias():
    K = torch.from_numpy(MATRICES["power law"]).float()
    found = estimate_trace_power(K, 3, probes=64, method="xtrace", generator=seeded(0))
    assert abs(found.value - power_of(SPECTRA["power law"], 3)) <= found.error()
    assert found.bias_bound > 1e-9 * found.value


BAD = np.triu(MATRICES["rbf"])
NAN = np.where(np.eye(N) > 0, np.nan, MATRICES["rbf"])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: estimate_trace_power(BAD, 3), ValueError, "to be symmetric"),
        (lambda: estimate_tcr(BAD), ValueError, "to be symmetric"),
        (lambda: estimate_trace_power(NAN, 3), ValueError, "to be finite"),
        (lambda: estimate_tcr(NAN), ValueError, "to be finite"),
        (lambda: estimate_tcr(MATRICES["rbf"], method="xtrace"), ValueError, "Expected method to be one of"),
        (lambda: estimate_trace_power(np.zeros((9, 9)), 3), ValueError, "positive trace"),
        (lambda: estimate_trace_power(np.ones((2, 9, 9)), 3), ValueError, "Expected one matrix"),
        (lambda: estimate_trace_power(np.eye(9, dtype=complex), 3), TypeError, "to be real"),
        (lambda: estimate_trace_power(MATRICES["flat"], 300, probes=8), ValueError, "trace float64 can hold"),
        # 1e-305 is a number, but the terms of its sum are not to full precision
        (lambda: estimate_trace_power(np.eye(N), 133, probes=8), ValueError, "trace float64 can hold"),
    ],
)
def test_bad_input_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("method", METHODS)
def test_indefinite_matrix_is_refused(method):
    lam = np.r_[np.full(20, -1.0), np.full(N - 20, 0.5)]
    with pytest.raises(ValueError, match="Expected a positive semi-definite matrix"):
        estimate_trace_power(from_spectrum(lam), 3, method=method, generator=seeded(0))
