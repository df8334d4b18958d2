"""Stochastic entropies: against eigenvalues, within their error bars, in bounded memory."""

import math
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from helpers import seeded, tf32
from matrices import decays, features, from_spectrum, low_rank_features, rbf_gram, symmetric

from matinfo import Gram, kernels, renyi_entropy
from matinfo.estimate import Estimate, KernelOperator, estimate_entropy, estimate_tcr, estimate_trace_power
from matinfo.operands.adjoints import Cotangent, pulled_back
from matinfo.operands.operator import as_operator
from matinfo.spectral import precision
from matinfo.spectral.block_lanczos import BlockLanczos, Rules
from matinfo.spectral.hutchpp import SketchedTrace
from matinfo.spectral.operator import rademacher

N = 240


def entropy_of_spectrum(lam, alpha):
    p = lam[lam > 0] / lam.sum()
    return float(-(p * np.log(p)).sum() if alpha == 1 else np.log((p**alpha).sum()) / (1 - alpha))


def power_of(lam, power):
    return float(((lam / lam.sum()) ** power).sum())


SPECTRA = decays(N)
MATRICES = {name: from_spectrum(lam, seed=1) for name, lam in SPECTRA.items()}


# --- value and error bars --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.5])
@pytest.mark.parametrize("name", SPECTRA)
def test_estimate_entropy_is_that_of_the_eigenvalues_within_five_standard_errors(name, alpha):
    truth = entropy_of_spectrum(SPECTRA[name], alpha)
    found = estimate_entropy(MATRICES[name], alpha, generator=seeded(0))
    assert abs(found.value - truth) <= 5 * found.standard_error + found.bias_bound
    # a useful bar: the hardest of these, order 0.3 of the exponential spectrum, is known to 5 %
    assert found.standard_error + found.bias_bound <= 0.05 * truth


RUNS = 100


@pytest.mark.parametrize("runs", [12, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0])
def test_interval_covers_the_truth_in_93_of_100_runs(alpha, runs):
    """Nominal 95 %; the share of the thousand long runs has a standard error of 0.7 %."""
    hits = 0
    for name, lam in SPECTRA.items():
        truth = entropy_of_spectrum(lam, alpha)
        for seed in range(runs):
            found = estimate_entropy(MATRICES[name], alpha, probes=20, degree=14, generator=seeded(seed))
            low, high = found.interval()
            hits += low <= truth <= high
    assert hits >= 0.93 * runs * len(SPECTRA)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 2.5, 3.5])
@pytest.mark.parametrize("degree", [3, 6, 12])
def test_gauss_and_radau_rules_lie_on_either_side_of_the_quadratic_form(alpha, degree):
    lam = SPECTRA["power law"]
    K = torch.from_numpy(MATRICES["power law"])
    eigenvalues, Q = np.linalg.eigh(MATRICES["power law"])
    operator = as_operator(K)
    z = rademacher(operator, 5, seeded(0))
    lanczos = BlockLanczos(operator.matmat, z[:, :1])
    lanczos.advance(degree)
    rules = lanczos.rules(lam.sum())
    p = eigenvalues / lam.sum()
    sign = 1.0 if alpha >= 1 else -1.0  # of (x^alpha - x)/(alpha - 1) against x^alpha
    f = (lambda x: x * np.log(x)) if alpha == 1 else (lambda x: sign * x**alpha)
    truth = ((Q.T @ z[:, :1].numpy()) ** 2 / N * f(np.maximum(p, 1e-300))[:, None]).sum(0)
    gauss = (rules.weights.numpy() * f(np.maximum(rules.nodes.numpy(), 1e-300))).sum(1)
    radau = (rules.radau_weights.numpy() * f(np.maximum(rules.radau_nodes.numpy(), 1e-300))).sum(1)
    low, high = (gauss, radau) if alpha < 2 or 3 < alpha < 4 else (radau, gauss)
    slack = 1e-13 * abs(truth).max()
    assert (low <= truth + slack).all()
    assert (truth <= high + slack).all()
    assert (high > low).all()


@pytest.mark.parametrize("degree", [2, 4, 8])
def test_interval_covers_at_low_degree_below_order_one(degree):
    """Few Lanczos steps bias the trace by more than the probes scatter: the bias bound has to cover it."""
    for name, lam in SPECTRA.items():
        found = estimate_entropy(MATRICES[name], 0.5, probes=200, degree=degree, generator=seeded(1))
        truth = entropy_of_spectrum(lam, 0.5)
        assert abs(found.value - truth) <= 4 * found.standard_error + found.bias_bound


def test_exact_moments_make_the_estimate_of_three_distinct_eigenvalues_exact():
    """Any function on three points is its fit by 1, x and x^2, so that nothing is left to estimate."""
    lam = np.repeat([0.0, 1.0, 3.0], [50, 60, 40])
    found = estimate_entropy(from_spectrum(lam), 1.0, probes=8, generator=seeded(0))
    assert found.value == pytest.approx(entropy_of_spectrum(lam, 1.0), rel=1e-10)
    assert found.standard_error < 1e-10


def test_roundoff_of_a_rule_that_ended_early_is_no_negative_eigenvalue():
    """Rules of several lengths are padded with zeros, which are not the largest nodes of the short ones."""
    nodes, weights = torch.tensor([[[-1e-18, 1.0]], [[0.5, 0.5]]], dtype=torch.float64)
    short = Rules(nodes, weights, nodes, weights)
    nodes, weights = torch.tensor([[[0.1, 0.2, 0.5]], [[0.3, 0.3, 0.4]]], dtype=torch.float64)
    long = Rules(nodes, weights, nodes, weights)
    trace = SketchedTrace(as_operator(np.diag([0.1, 0.2, 0.7])))
    trace.squared = None  # made up, like the rules
    trace.parts, trace.sizes = [short, long], [torch.full((1,), 3.0, dtype=torch.float64)] * 2
    assert trace.estimate(lambda x: x).value == pytest.approx(1.0)


WIDE = features(300, 400)
WIDE_SPECTRUM = np.linalg.eigvalsh(WIDE @ WIDE.T)
"""Its largest eigenvalue is below 1/80, so that a trace of order 180 is below what float64 can hold."""


@pytest.mark.parametrize("alpha", [100.0, 180.0])
def test_bars_hold_at_orders_whose_traces_underflow(alpha):
    p = WIDE_SPECTRUM / WIDE_SPECTRUM.sum()
    truth = float(np.logaddexp.reduce(alpha * np.log(p)) / (1 - alpha))
    for seed in range(3):
        found = estimate_entropy(Gram(WIDE), alpha, probes=12, generator=seeded(seed))
        assert abs(found.value - truth) <= 5 * found.standard_error
        assert 1e-6 * truth < found.standard_error < 1e-2 * truth


def test_rtol_is_not_met_by_underflow():
    with pytest.warns(RuntimeWarning, match="Expected rtol=1e-07, reached"):
        found = estimate_entropy(Gram(WIDE), 100.0, rtol=1e-7, probes=20, generator=seeded(0))
    assert not found.converged
    assert found.standard_error > 1e-7 * found.value


@pytest.mark.parametrize("alpha", [0.3, 3.0, 80.0])
def test_trace_in_any_unit_gives_one_estimate(alpha):
    """The scale that powers are taken over is arbitrary."""
    trace = SketchedTrace(as_operator(torch.from_numpy(MATRICES["power law"]).float()))
    lanczos, sizes = trace.begin(rademacher(trace.operator, 8, seeded(0)))
    lanczos.advance(45)
    trace.add(lanczos, sizes)
    for squared in (trace.squared, None):
        trace.squared = squared
        one, half = trace.estimate(lambda x: x**alpha), trace.estimate(lambda x: x**alpha, 0.5)
        for a, b in zip(one, half, strict=True):
            assert np.asarray(b).tolist() == pytest.approx((np.asarray(a) / 0.5**alpha).tolist(), rel=1e-6)


def test_orders_near_one_join_continuously():
    values = [
        estimate_entropy(MATRICES["power law"], alpha, generator=seeded(0)).value
        for alpha in (1 - 1e-9, 1.0, 1 + 1e-9)
    ]
    assert np.ptp(values) < 1e-6


def test_the_smallest_matrices_are_exact():
    assert estimate_entropy(np.array([[3.0]])).value == 0.0
    assert estimate_entropy(np.eye(2)).value == pytest.approx(math.log(2), rel=1e-12)


def test_scale_of_the_matrix_does_not_matter():
    K = MATRICES["exponential"]
    one, other = [estimate_entropy(c * K, 0.5, generator=seeded(0)) for c in (1.0, 1e-6)]
    assert other.value == pytest.approx(one.value, rel=1e-8)
    assert other.standard_error == pytest.approx(one.standard_error, rel=1e-6)


# --- tolerance -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_rtol_is_met_with_more_work_for_less_error(alpha):
    truth = entropy_of_spectrum(SPECTRA["power law"], alpha)
    work = []
    for rtol in (0.05, 0.01):
        found = estimate_entropy(MATRICES["power law"], alpha, rtol=rtol, generator=seeded(0))
        assert found.converged
        assert found.error() <= rtol * found.value
        assert abs(found.value - truth) <= 2 * rtol * truth
        work.append(found.probes * found.degree)
    assert work[0] < work[1]


def test_rtol_out_of_reach_warns_and_says_what_was_reached():
    with pytest.warns(RuntimeWarning, match="Expected rtol=1e-06, reached .* with 20 probes of degree"):
        found = estimate_entropy(MATRICES["power law"], rtol=1e-6, probes=20, degree=10, generator=seeded(0))
    assert not found.converged
    assert found.probes <= 20
    assert found.degree <= 10
    low, high = found.interval()
    assert low <= entropy_of_spectrum(SPECTRA["power law"], 1.0) <= high


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_rtol_is_met_where_the_entropy_is_zero(alpha):
    found = estimate_entropy(np.ones((64, 64)), alpha, rtol=0.01, generator=seeded(0))
    assert found.converged
    assert abs(found.value) <= found.error() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_stopping_at_a_tolerance_keeps_the_coverage(alpha):
    hits = 0
    for name, lam in SPECTRA.items():
        truth = entropy_of_spectrum(lam, alpha)
        for seed in range(RUNS):
            found = estimate_entropy(MATRICES[name], alpha, rtol=0.01, generator=seeded(seed))
            hits += abs(found.value - truth) <= found.error()
    assert hits >= 0.92 * RUNS * len(SPECTRA)  # stopping early favours small standard errors a little


# --- reproducibility -------------------------------------------------------------------------------------------


# --- operators -------------------------------------------------------------------------------------------------

Z = features(60, 7)
X64 = torch.from_numpy(features(60, 5, seed=2))
RBF60 = rbf_gram(60, d=3)


def in_parts(K):
    """A CSR matrix in which each entry is stored as two halves."""
    n = len(K)
    columns = np.tile(np.repeat(np.arange(n), 2), n)
    return scipy.sparse.csr_matrix(
        (np.repeat(K.ravel() / 2, 2), columns, np.arange(n + 1) * 2 * n), shape=(n, n)
    )


OPERATORS = {
    "tensor": lambda: (torch.from_numpy(rbf_gram(60)), rbf_gram(60)),
    "array": lambda: (rbf_gram(60), rbf_gram(60)),
    "gram": lambda: (Gram(Z), Z @ Z.T),
    "wide gram": lambda: (Gram(features(20, 90)), features(20, 90) @ features(20, 90).T),
    "gram sum": lambda: (Gram(Z) + 2.0 * Gram(Z[:, :3]), Z @ Z.T + 2 * Z[:, :3] @ Z[:, :3].T),
    "narrow product": lambda: (Gram(Z) * Gram(Z[:, :2]), (Z @ Z.T) * (Z[:, :2] @ Z[:, :2].T)),
    "wide product": lambda: (Gram(Z) * Gram(Z) * Gram(Z), (Z @ Z.T) ** 3),
    "rbf": lambda: (KernelOperator(X64, tile=7), kernels.rbf(X64).numpy()),
    "laplacian": lambda: (
        KernelOperator(X64, kernel="laplacian", bandwidth=2.0, tile=13),
        kernels.laplacian(X64, bandwidth=2.0).numpy(),
    ),
    "own kernel": lambda: (
        KernelOperator(X64, kernel=lambda A, B: (A @ B.T + 1) ** 2, tile=60),
        kernels.polynomial(X64, degree=2, gamma=1.0).numpy(),
    ),
    "sparse": lambda: (scipy.sparse.csr_array(np.diag(np.arange(60.0))), np.diag(np.arange(60.0))),
    "sparse with entries in parts": lambda: (in_parts(RBF60), RBF60),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_has_the_products_and_moments_of_its_matrix(name):
    given, dense = OPERATORS[name]()
    operator = as_operator(given)
    V = torch.randn(len(dense), 4, dtype=torch.float64, generator=seeded(0))
    assert operator.shape == dense.shape
    assert operator.dtype == torch.float64
    np.testing.assert_allclose(operator.matmat(V), dense @ V.numpy(), rtol=1e-10, atol=1e-10)
    assert operator.trace() == pytest.approx(np.trace(dense), rel=1e-12)
    assert operator.frobenius_squared() == pytest.approx((dense**2).sum(), rel=1e-12)


ESTIMATES = {
    **{
        f"H_{a:g}": (partial(estimate_entropy, alpha=a), partial(entropy_of_spectrum, alpha=a))
        for a in (0.5, 1.0, 2.0, 3.0)
    },
    **{f"tr P^{k}": (partial(estimate_trace_power, power=k), partial(power_of, power=k)) for k in (2, 3)},
    "coding rate": (estimate_tcr, lambda lam: float(np.log1p(lam).sum())),
}
every_estimate = pytest.mark.parametrize("name", ESTIMATES)


@every_estimate
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_estimate_takes_every_operator(name, operator):
    (estimate, truth), (given, dense) = ESTIMATES[name], OPERATORS[operator]()
    lam = np.linalg.eigvalsh(symmetric(dense))
    found, expected = estimate(given, generator=seeded(0)), truth(np.where(lam < 1e-12 * lam[-1], 0.0, lam))
    assert abs(found.value - expected) <= 2 * found.error() + 1e-9 * abs(expected)
    if name in ("H_2", "tr P^2"):
        assert (found.probes, found.standard_error) == (0, 0.0)
        assert found.value == pytest.approx(expected, rel=1e-9)


@every_estimate
def test_linear_operator_needs_only_its_products_and_its_trace(name):
    (estimate, truth), K = ESTIMATES[name], MATRICES["exponential"]
    operator = scipy.sparse.linalg.LinearOperator(K.shape, matvec=lambda v: K @ v, dtype=np.float64)
    found = estimate(operator, trace=float(np.trace(K)), generator=seeded(0))
    assert abs(found.value - truth(SPECTRA["exponential"])) <= 2 * found.error()


@pytest.mark.parametrize(
    "estimate",
    [
        estimate_entropy,
        estimate_tcr,
        *(
            partial(estimate_trace_power, power=3, method=method)
            for method in ("hutchinson", "hutch++", "xtrace")
        ),
    ],
)
def test_one_generator_state_gives_one_estimate_and_leaves_the_global_one_alone(estimate):
    before = torch.get_rng_state()
    first, again, other = [estimate(MATRICES["power law"], generator=seeded(s)) for s in (5, 5, 6)]
    assert first == again
    assert first.value != other.value
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_features_of_lower_precision_are_those_of_float64(dtype):
    Z = torch.from_numpy(low_rank_features(120, 30, 10)).to(dtype)
    low, high = [estimate_entropy(Gram(F), 0.5, generator=seeded(0)) for F in (Z, Z.double())]
    assert low == high


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_interval_covers_the_rounding_of_the_entries(dtype, alpha):
    """The zero eigenvalues of a rounded matrix are noise, and the bias bound has to know."""
    K = torch.from_numpy(MATRICES["low rank"])
    found = estimate_entropy(K.to(dtype), alpha, generator=seeded(0))
    truth = entropy_of_spectrum(SPECTRA["low rank"], alpha)
    assert abs(found.value - truth) <= 4 * found.standard_error + found.bias_bound


def test_split_entries_of_a_sparse_matrix_are_joined_in_a_copy():
    K = in_parts(RBF60)
    found = estimate_entropy(K, 2.0)
    assert found.value == pytest.approx(float(renyi_entropy(RBF60, 2.0)), rel=1e-12)
    assert K.nnz == 2 * 60**2


def test_single_precision_tiles_stay_single_and_rows_are_widened():
    K = KernelOperator(torch.zeros(5, 2), bandwidth=1.0, precision="float32")
    assert next(K.tiles())[2].dtype == torch.float32
    assert K.rows(0, 2).dtype == torch.float64


@pytest.mark.parametrize("setting", [precision.TF32_ON, precision.TF32_OFF])
def test_tf32_is_off_where_float32_is_promised_and_put_back(setting):
    with tf32(setting) as now:
        with precision.full_float32(torch.device("cpu")):
            assert now() == setting
        with precision.full_float32(torch.device("cuda")):
            assert now() == precision.TF32_OFF
        assert now() == setting


def test_every_product_of_float32_tiles_asks_for_full_precision(monkeypatch):
    asked = []
    monkeypatch.setattr(precision, "full_float32", lambda device: asked.append(device) or nullcontext())
    K = KernelOperator(X64, bandwidth=1.0, precision="float32", tile=20)
    tiles = len(list(K.tiles(half=True)))
    assert len(asked) == tiles  # exponents
    K.matmat(X64)
    assert len(asked) >= 3 * tiles  # and what the tiles are multiplied with
    tiles = len(list(K.tiles()))
    asked.clear()
    list(pulled_back(K, [Cotangent(X64, X64, 1.0, 1.0)]))
    assert len(asked) == 3 * tiles  # exponents, the cotangent, and what it is multiplied with


def test_kernel_operator_never_computes_more_than_a_tile():
    sizes = []

    def kernel(A, B):
        sizes.append((len(A), len(B)))
        return torch.exp(-torch.cdist(A, B).square() / 2)

    operator = KernelOperator(X64, kernel=kernel, tile=8)
    estimate_entropy(operator, probes=2, degree=3, generator=seeded(0))
    assert {m for m, _ in sizes} <= {8, 4}  # 60 = 7 * 8 + 4
    assert sizes.count((4, 60)) == 1 + 1 + 3  # one pass each: the moments, the symmetry, every Lanczos step


def test_default_tile_is_bounded_however_many_samples_there_are():
    operator = KernelOperator(torch.zeros(200_000, 1), bandwidth=1.0)
    assert next(operator.tiles())[2].numel() <= 2**23


def test_median_bandwidth_is_that_of_the_kernel():
    assert KernelOperator(X64).sigma == pytest.approx(float(kernels.median_bandwidth(X64)), rel=1e-12)
    many = torch.randn(5000, 2, generator=seeded(0))
    assert KernelOperator(many).sigma == pytest.approx(float(kernels.median_bandwidth(many[:1500])), rel=0.05)


# --- Estimate --------------------------------------------------------------------------------------------------


def test_estimate_interval_is_students_plus_the_bias():
    estimate = Estimate(value=1.0, standard_error=0.1, bias_bound=0.05, probes=11, degree=4)
    assert estimate.error() == pytest.approx(
        2.776445 * 0.1 + 0.05, rel=1e-6
    )  # Student's t, (11 - 3)/2 degrees of freedom
    assert estimate.interval(0.95) == pytest.approx((1 - estimate.error(), 1 + estimate.error()))
    with pytest.raises(ValueError, match=r"Expected confidence in \(0, 1\)"):
        estimate.interval(1.0)


# --- errors ----------------------------------------------------------------------------------------------------

LOPSIDED = np.triu(np.ones((40, 40)))


@pytest.mark.parametrize(
    "K",
    [
        LOPSIDED,
        scipy.sparse.csr_array(LOPSIDED),
        KernelOperator(X64, kernel=lambda A, B: A[:, :1] + 2 * B[:, :1].T),
    ],
)
def test_asymmetric_matrices_are_refused(K):
    with pytest.raises(ValueError, match="to be symmetric"):
        estimate_entropy(K)


def test_asymmetric_linear_operator_is_refused():
    operator = scipy.sparse.linalg.aslinearoperator(LOPSIDED)
    with pytest.raises(ValueError, match=r"Expected K to be symmetric, got \|K - K\^T\|"):
        estimate_entropy(operator, trace=40.0)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_wrong_trace_of_a_linear_operator_is_refused(factor):
    operator = scipy.sparse.linalg.aslinearoperator(MATRICES["near identity"])
    with pytest.raises(
        ValueError, match=r"exact trace of K, got [\d.]+; its diagonal adds up to .*, give or take"
    ):
        estimate_entropy(operator, trace=factor * SPECTRA["near identity"].sum())


def test_indefinite_matrices_are_refused_with_their_own_eigenvalues():
    K = from_spectrum(np.r_[-30.0, np.full(39, 100.0)])
    for alpha in (0.5, 1.0, 2.0, 3.0):
        with pytest.raises(
            ValueError, match=r"semi-definite matrix, got an eigenvalue -30 \(largest magnitude 100\)"
        ):
            estimate_entropy(K, alpha)


@pytest.mark.parametrize(
    ("K", "options", "message"),
    [
        (np.eye(3), {"trace": 3.0}, "Expected trace only with a LinearOperator"),
        (np.zeros((3, 3)), {}, "positive trace"),
        (np.full((3, 3), np.nan), {}, "Expected K to be finite"),
        (np.ones((2, 3, 3)), {}, r"Expected one matrix \(n, n\)"),
        (scipy.sparse.linalg.aslinearoperator(np.eye(3)), {}, "Expected trace to be given"),
        (scipy.sparse.csr_array(np.ones((2, 3))), {}, "Expected K to be square"),
    ],
)
def test_unusable_arguments_are_refused(K, options, message):
    with pytest.raises(ValueError, match=message):
        estimate_entropy(K, **options)


def test_unusable_kernels_are_refused():
    with pytest.raises(ValueError, match=r"Expected X of shape \(n, d\)"):
        KernelOperator(X64[None])
    with pytest.raises(ValueError, match="Expected the kernel to give"):
        KernelOperator(X64, kernel=lambda A, B: A).matmat(X64)


def test_complex_sparse_matrices_are_refused():
    with pytest.raises(TypeError, match="Expected K to be real"):
        estimate_entropy(scipy.sparse.csr_array(1j * np.eye(3)))


def test_an_exact_estimate_refuses_a_trace_that_is_not_the_diagonals():
    A = np.random.default_rng(0).normal(size=(30, 10))
    K = A @ A.T
    operator = scipy.sparse.linalg.aslinearoperator(K)
    exact = estimate_entropy(operator, probes=30, trace=np.trace(K))
    assert exact.value == pytest.approx(float(renyi_entropy(K)), rel=1e-9)
    with pytest.raises(
        ValueError, match=r"exact trace of K, got [\d.]+; its diagonal adds up to .*, give or take"
    ):
        estimate_entropy(operator, probes=30, trace=1.05 * np.trace(K))
