"""Features that approximate kernels: Nyström and random Fourier features, and the tail that they miss."""

import math

import matrices
import numpy as np
import pytest
import torch
from helpers import seeded, t
from tolerances import relative_error
from torch.autograd import gradcheck

from matinfo import Gram, renyi_entropy
from matinfo.estimate import tail_corrected_entropy
from matinfo.kernels import laplacian, median_bandwidth, nystrom, random_features, rbf
from matinfo.spectral.frequencies import cauchy_frequencies, normal_frequencies, orthogonal_frequencies
from matinfo.spectral.pivoted_cholesky import select_pivots

SAMPLING = ("random", "greedy", "uniform")
KERNELS = {"rbf": rbf, "laplacian": laplacian}


def samples(n=60, d=3, seed=0):
    return t(matrices.features(n, d, seed))


# --- Nyström -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_nystrom_equals_its_definition(kernel):
    X, landmarks = samples(), torch.tensor([3, 50, 7, 21])
    C = KERNELS[kernel](X, X[landmarks], bandwidth=2.0)
    expected = C @ torch.linalg.inv(C[landmarks]) @ C.mT
    K = nystrom(X, landmarks=landmarks, kernel=kernel, bandwidth=2.0)
    assert K.width == 4
    assert relative_error(K.dense(), expected) < 1e-12


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("kernel", KERNELS)
def test_nystrom_with_every_sample_is_the_kernel(kernel, sampling):
    X = samples()
    K = nystrom(X, landmarks=60, kernel=kernel, bandwidth=1.5, sampling=sampling, generator=seeded())
    assert relative_error(K.dense(), KERNELS[kernel](X, bandwidth=1.5)) < 1e-8


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("count", [64, 100, 300])
def test_nystrom_of_a_kernel_in_single_precision_stops_at_its_rounding(count, sampling):
    """A kernel of some sixteen features, as of a network: pivots beyond its rank are rounding."""
    weights = torch.randn(2, 16, generator=seeded())

    def kernel(A, B):
        return (A.float() @ weights).tanh() @ (B.float() @ weights).tanh().mT

    X = samples(300, 2)
    K = nystrom(X, landmarks=count, kernel=kernel, sampling=sampling, generator=seeded())
    assert 8 <= K.width <= 16
    # of sixteen on the diagonal; uniform landmarks stop short of the rank
    assert (K.dense() - kernel(X, X)).abs().max() < (0.1 if sampling == "uniform" else 0.01)


def test_landmarks_are_indices_of_any_kind():
    X = samples()
    expected = nystrom(X, landmarks=torch.tensor([3, 7, 50])).features()
    for landmarks in (np.array([3, 7, 50]), torch.tensor([3, 7, 50], dtype=torch.uint8)):
        assert torch.equal(nystrom(X, landmarks=landmarks).features(), expected)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_nystrom_is_exact_when_the_rank_is_reached_and_stops_there(sampling):
    X = samples(12).repeat(5, 1)  # twelve points, five times each
    K = nystrom(X, landmarks=60, bandwidth=1.0, sampling=sampling, generator=seeded())
    assert K.width == 12
    assert relative_error(K.dense(), rbf(X, bandwidth=1.0)) < 1e-8
    repeated = nystrom(X, landmarks=torch.tensor([0, 12, 24, 1]), bandwidth=1.0)
    assert repeated.width == 2


@pytest.mark.parametrize("sampling", SAMPLING)
def test_nystrom_entropy_converges_to_that_of_the_kernel(sampling):
    X = samples(200, 2)
    truth = float(renyi_entropy(rbf(X)))
    errors = [
        abs(float(renyi_entropy(nystrom(X, landmarks=m, sampling=sampling, generator=seeded()))) - truth)
        for m in (5, 20, 80)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    assert errors[2] < 1e-4


def test_nystrom_is_at_most_the_kernel():
    X = samples()
    rest = rbf(X, bandwidth=1.0) - nystrom(X, landmarks=10, bandwidth=1.0, generator=seeded()).dense()
    assert torch.linalg.eigvalsh(rest)[0] > -1e-12
    assert rest.diagonal().min() > -1e-12


def test_nystrom_evaluates_each_kernel_column_once():
    X, asked = samples(), []

    def counted(A, B):
        if len(A) == len(X):
            asked.append(len(B))
        return rbf(A, B, bandwidth=1.0)

    for sampling in SAMPLING:
        asked.clear()
        K = nystrom(X, landmarks=15, kernel=counted, sampling=sampling, generator=seeded(1))
        assert sum(asked) == 15
        named = nystrom(X, landmarks=15, bandwidth=1.0, sampling=sampling, generator=seeded(1))
        assert relative_error(K.dense(), named.dense()) < 1e-12


def test_nystrom_of_a_kernel_that_is_not_normalised_uses_its_diagonal():
    X = samples(40, 2)
    K = nystrom(X, landmarks=10, kernel=lambda A, B: (A @ B.mT + 1) ** 2, sampling="greedy")
    assert K.width == 6  # 1, two linear and three quadratic monomials
    assert relative_error(K.dense(), (X @ X.mT + 1) ** 2) < 1e-8


def test_greedy_pivots_are_those_of_the_largest_remaining_diagonal():
    A = t(matrices.from_spectrum(np.arange(1.0, 9.0)))
    chosen = select_pivots(lambda i: A[:, i], A.diagonal(), 4)
    rest, expected = A.clone(), []
    for _ in range(4):
        i = int(rest.diagonal().argmax())
        expected.append(i)
        rest = rest - torch.outer(rest[:, i], rest[i]) / rest[i, i]
    assert chosen == expected


def test_random_pivots_follow_the_remaining_diagonal():
    A = torch.diag(t([1.0, 3.0, 6.0]))
    first = [
        select_pivots(lambda i: A[:, i], A.diagonal(), 1, at_random=True, generator=seeded(s))[0]
        for s in range(600)
    ]
    shares = np.bincount(first, minlength=3) / 600
    assert np.abs(shares - [0.1, 0.3, 0.6]).max() < 0.08  # four standard errors


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("kernel", KERNELS)
def test_nystrom_entropy_has_the_right_gradient(kernel, sampling):
    X = samples(9, 2).requires_grad_()

    def entropy(X):
        return renyi_entropy(
            nystrom(X, landmarks=4, kernel=kernel, bandwidth=1.0, sampling=sampling, generator=seeded())
        )

    assert gradcheck(entropy, X)


def test_nystrom_gradient_is_finite_where_samples_coincide():
    X = samples(12, 2).repeat(3, 1).requires_grad_()
    renyi_entropy(nystrom(X, landmarks=36, bandwidth=1.0, generator=seeded())).backward()
    assert X.grad.isfinite().all()


# --- random features ---------------------------------------------------------------------------------------------


def test_random_features_equal_their_definition():
    X = samples(7)
    w = normal_frequencies(3, 5, seeded(), X.device) / 2.0
    expected = torch.cos((X[:, None] - X[None]) @ w).mean(-1)
    K = random_features(X, n_features=10, bandwidth=2.0, generator=seeded())
    assert K.width == 10
    assert relative_error(K.dense(), expected) < 1e-13
    assert (K.dense().diagonal() - 1).abs().max() < 1e-14


@pytest.mark.parametrize(("kernel", "orthogonal"), [("rbf", False), ("rbf", True), ("laplacian", False)])
def test_random_features_converge_to_the_kernel_at_their_rate(kernel, orthogonal):
    X = samples(40)
    exact = KERNELS[kernel](X, bandwidth=2.0)
    for n_features in (64, 1024, 16384):
        K = random_features(
            X, n_features=n_features, kernel=kernel, bandwidth=2.0, orthogonal=orthogonal, generator=seeded(1)
        )
        rms = (K.dense() - exact).square().mean().sqrt()
        assert rms < 1.5 / math.sqrt(n_features)


@pytest.mark.parametrize("kernel", KERNELS)
def test_random_feature_entropy_converges_to_that_of_the_kernel(kernel):
    X = samples(100, 2)
    truth = float(renyi_entropy(KERNELS[kernel](X, bandwidth=1.0)))
    errors = [
        abs(
            float(
                renyi_entropy(
                    random_features(X, n_features=D, kernel=kernel, bandwidth=1.0, generator=seeded())
                )
            )
            - truth
        )
        for D in (32, 512, 8192)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


def test_random_feature_entropy_is_too_small_on_the_mean():
    X = samples(60, 2)
    truth = float(renyi_entropy(rbf(X)))
    found = [float(renyi_entropy(random_features(X, n_features=40, generator=seeded(s)))) for s in range(20)]
    assert np.mean(found) + 4 * np.std(found) / np.sqrt(20) < truth


def test_orthogonal_frequencies_are_orthogonal_in_blocks_and_lower_the_error():
    w = orthogonal_frequencies(5, 12, seeded(), torch.device("cpu"))
    assert w.shape == (5, 12)
    for block in w.split(5, 1):
        products = block.mT @ block
        assert (products - torch.diag(products.diagonal())).abs().max() < 1e-13
    assert float(orthogonal_frequencies(5, 20000, seeded(), w.device).square().mean()) == pytest.approx(
        1, rel=0.05
    )
    X = samples(40, 16)
    exact = rbf(X, bandwidth=4.0)

    def error(orthogonal):
        return np.mean(
            [
                float(
                    (
                        random_features(
                            X, n_features=32, bandwidth=4.0, orthogonal=orthogonal, generator=seeded(s)
                        ).dense()
                        - exact
                    ).norm()
                )
                for s in range(20)
            ]
        )

    assert error(True) < 0.85 * error(False)


def test_cauchy_frequencies_have_the_quartiles_of_their_distribution():
    w = cauchy_frequencies(4, 10000, seeded(), torch.device("cpu")).flatten()
    close = torch.quantile(w, t([0.25, 0.5, 0.75]))
    assert (close - t([-1.0, 0.0, 1.0])).abs().max() < 0.05


def test_random_features_keep_batch_dimensions_and_their_bandwidths():
    X = torch.stack([samples(20), 3 * samples(20)])
    K = random_features(X, n_features=16, generator=seeded())
    assert tuple(K.shape) == (2, 20, 20)
    assert relative_error(K.dense()[1], K.dense()[0]) < 1e-12  # the median rule takes the scale out


@pytest.mark.parametrize("kernel", KERNELS)
def test_random_feature_entropy_has_the_right_gradient(kernel):
    X = samples(8, 2).requires_grad_()
    assert gradcheck(
        lambda X: renyi_entropy(
            random_features(X, n_features=6, kernel=kernel, bandwidth=1.0, generator=seeded())
        ),
        X,
    )


# --- both --------------------------------------------------------------------------------------------------------

MAPS = {
    "nystrom": lambda X: nystrom(X, landmarks=10, generator=seeded()),
    "random": lambda X: random_features(X, n_features=10, generator=seeded()),
}
maps = pytest.mark.parametrize("name", MAPS)


@maps
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_features_of_lower_precision_are_those_of_float64_rounded(name, dtype):
    X = samples(30).to(dtype)
    K, exact = MAPS[name](X), MAPS[name](X.double())
    assert K.features().dtype == torch.float32
    assert relative_error(K.features(), exact.features()) < 1e-6


@maps
def test_arrays_give_array_results(name):
    X = samples(30)
    value = renyi_entropy(MAPS[name](X.numpy()))
    assert isinstance(value, np.float64)
    assert value == pytest.approx(float(renyi_entropy(MAPS[name](X))), rel=1e-12)


@maps
def test_one_generator_state_gives_one_result_and_leaves_the_global_one_alone(name):
    before = torch.get_rng_state()
    X = samples(30)
    assert torch.equal(MAPS[name](X).features(), MAPS[name](X).features())
    assert torch.equal(torch.get_rng_state(), before)


@maps
def test_median_bandwidth_of_many_samples_is_that_of_some(name):
    X = samples(4100, 2)
    sigma = float(median_bandwidth(X[::3]))
    make = {
        "nystrom": lambda rule: nystrom(X, landmarks=torch.tensor([0, 9]), bandwidth=rule),
        "random": lambda rule: random_features(X, n_features=4, bandwidth=rule, generator=seeded()),
    }[name]
    assert relative_error(make("median").features(), make(sigma).features()) < 1e-12


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda X: nystrom(X, landmarks=0), ValueError, "Expected landmarks >= 1"),
        (lambda X: nystrom(X, landmarks=31), ValueError, "Expected at most 30 landmarks"),
        (lambda X: nystrom(X, landmarks=2.0), TypeError, "Expected landmarks to be an integer"),
        (lambda X: nystrom(X, landmarks=torch.tensor([0, 30])), ValueError, "Expected landmarks in 0 .. 29"),
        (lambda X: nystrom(X, landmarks=torch.rand(3)), ValueError, "indices (m,) of integers"),
        (lambda X: nystrom(X, landmarks=torch.ones(30) > 0), ValueError, "integers, got torch.bool"),
        (lambda X: nystrom(X, landmarks=np.ones(30) > 0), ValueError, "integers, got torch.bool"),
        (
            lambda X: nystrom(X, landmarks=3, kernel=lambda A, B: torch.zeros(len(A), len(B))),
            ValueError,
            "Expected a kernel of positive diagonal",
        ),
        (
            lambda X: nystrom(X, landmarks=20, kernel=lambda A, B: (A @ B.mT).bfloat16()),
            ValueError,
            "in at least single precision",
        ),
        (
            lambda X: nystrom(X, landmarks=3, kernel=lambda A, B: torch.ones(2, 2)),
            ValueError,
            "Expected the kernel",
        ),
        (lambda X: nystrom(X[None], landmarks=3), ValueError, "Expected X of shape (n, d)"),
        (lambda X: nystrom(X * math.nan, landmarks=3), ValueError, "Expected X to be finite"),
        (lambda X: random_features(X, n_features=5), ValueError, "Expected n_features to be even"),
        (
            lambda X: random_features(X, n_features=4, kernel="laplacian", orthogonal=True),
            ValueError,
            "Expected kernel 'rbf' for orthogonal",
        ),
        (lambda X: random_features(X.long(), n_features=4), TypeError, "to be floating point"),
        (lambda X: tail_corrected_entropy(X @ X.mT), TypeError, "Expected K to be a Gram"),
        (lambda X: tail_corrected_entropy(Gram(X), trace=0.0), ValueError, "Expected trace in (0, inf)"),
    ],
)
def test_bad_input_is_refused(call, error, match):
    with pytest.raises(error, match=match.replace("(", r"\(").replace(")", r"\)")):
        call(samples(30))


# --- the tail ----------------------------------------------------------------------------------------------------


def entropy_of(p, alpha):
    p = np.asarray(p, dtype=float)
    p = p[p > 0]
    if alpha == 0:
        return math.log(len(p))
    if alpha == 1:
        return float(-(p * np.log(p)).sum())
    return float(-np.log(p.max())) if alpha == math.inf else float(np.log((p**alpha).sum()) / (1 - alpha))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1 - 1e-9, 1.0, 1 + 1e-6, 2.0, 5.0, math.inf])
def test_tail_corrected_entropy_is_that_of_the_joined_spectrum(alpha):
    Z = samples(20, 4)
    lam = np.linalg.eigvalsh((Z.mT @ Z).numpy())
    whole = 1.3 * lam.sum()
    joined = np.r_[lam / whole, np.full(16, 0.3 * lam.sum() / whole / 16)]
    found = tail_corrected_entropy(Gram(Z), alpha, trace=whole)
    assert float(found) == pytest.approx(
        entropy_of(joined, 1.0 if abs(alpha - 1) < 1e-5 else alpha), rel=1e-5
    )
    if alpha not in (1 - 1e-9, 1 + 1e-6):
        assert float(found) == pytest.approx(entropy_of(joined, alpha), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_tail_correction_vanishes_where_no_trace_is_missing(alpha):
    K = random_features(samples(30), n_features=10, generator=seeded())
    assert float(tail_corrected_entropy(K, alpha)) == pytest.approx(float(renyi_entropy(K, alpha)), rel=1e-9)
    wide = Gram(samples(5, 9))
    assert float(tail_corrected_entropy(wide, alpha, trace=1e6)) == float(renyi_entropy(wide, alpha))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_of_the_features_is_no_missing_trace(dtype):
    """At order 0.25 a share of 1e-8 of the trace over a thousand eigenvalues would add half a nat."""
    Z = torch.nn.functional.normalize(samples(1000, 5), dim=-1).to(dtype)
    K = Gram(torch.where(Z.abs() > 0, Z * (1 - torch.finfo(dtype).eps), Z))  # rounded towards zero
    assert float(K.features().double().square().sum()) < 1000
    for alpha in (0.0, 0.25, 1.0):
        assert float(tail_corrected_entropy(K, alpha)) == float(renyi_entropy(K, alpha))


def test_missing_trace_above_rounding_is_still_seen():
    Z = torch.nn.functional.normalize(samples(1000, 5), dim=-1).float()
    assert float(tail_corrected_entropy(Gram(Z), 0.25, trace=1000.01)) > 1 + float(
        renyi_entropy(Gram(Z), 0.25)
    )


@pytest.mark.parametrize(("alpha", "factor"), [(1.0, 0.6), (2.0, 0.1)])
def test_tail_correction_brings_nystrom_nearer_to_the_kernel(alpha, factor):
    X = samples(200, 16)
    truth = float(renyi_entropy(rbf(X), alpha))
    K = nystrom(X, landmarks=40, generator=seeded())
    plain, corrected = float(renyi_entropy(K, alpha)), float(tail_corrected_entropy(K, alpha))
    assert abs(corrected - truth) < factor * abs(plain - truth)


def test_tail_corrected_entropy_has_the_right_gradient():
    X = samples(9, 2).requires_grad_()
    for alpha in (0.5, 1.0, 2.0):
        assert gradcheck(
            lambda X, alpha=alpha: tail_corrected_entropy(
                nystrom(X, landmarks=torch.tensor([0, 4, 7]), bandwidth=1.0), alpha
            ),
            X,
        )
