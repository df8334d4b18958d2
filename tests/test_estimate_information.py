"""Information of matrices that are never formed: products and sums of operands, and the error bars of differences."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from helpers import seeded
from matrices import features, rbf_gram

import matinfo
from matinfo import Gram, kernels
from matinfo.estimate import KernelOperator, estimate_entropy, estimate_information
from matinfo.operands.operator import GramOperator, HadamardOperator, as_operator

N = 150
X, Y, Z = (torch.from_numpy(features(N, 2, seed=s)) for s in range(3))
Y = X + 0.5 * Y
Z = Y + 0.5 * Z
SPARSE = scipy.sparse.csr_array(np.kron(np.eye(N // 2), np.ones((2, 2))))

# name: what is handed in, and the matrix that it stands for
OPERANDS = {
    "rbf": (KernelOperator(X, bandwidth=1.0, tile=40), kernels.rbf(X, bandwidth=1.0)),
    "rbf of other columns": (KernelOperator(Y, bandwidth=2.0), kernels.rbf(Y, bandwidth=2.0)),
    "laplacian": (
        KernelOperator(Z, kernel="laplacian", bandwidth=1.5),
        kernels.laplacian(Z, bandwidth=1.5),
    ),
    "own kernel": (KernelOperator(X, kernel=lambda A, B: (A @ B.mT + 1) ** 2), (X @ X.mT + 1) ** 2),
    "gram": (Gram(Y), Y @ Y.mT),
    "wide gram": (Gram(features(N, 40)), torch.from_numpy(features(N, 40) @ features(N, 40).T)),
    "tensor": (torch.from_numpy(rbf_gram(N)), torch.from_numpy(rbf_gram(N))),
    "array": (rbf_gram(N, d=3), torch.from_numpy(rbf_gram(N, d=3))),
    "sparse": (SPARSE, torch.from_numpy(SPARSE.toarray())),
}


def is_the_operator_of(found, dense):
    operator = as_operator(found)
    V = torch.randn(N, 3, dtype=torch.float64, generator=seeded(0))
    torch.testing.assert_close(operator.matmat(V), dense @ V, rtol=1e-9, atol=1e-9)
    assert operator.trace() == pytest.approx(float(dense.trace()), rel=1e-11)
    assert operator.frobenius_squared() == pytest.approx(float(dense.square().sum()), rel=1e-11)


@pytest.mark.parametrize("second", OPERANDS)
@pytest.mark.parametrize("first", ["rbf", "laplacian"])
def test_operators_multiply_add_and_scale_like_their_matrices(first, second):
    (A, a), (B, b) = OPERANDS[first], OPERANDS[second]
    is_the_operator_of(A * B, a * b)
    is_the_operator_of(A + B, a + b)
    is_the_operator_of(
        2.0 * A + (B * A if first != second and second != "sparse" else A * B) / 4, 2 * a + a * b / 4
    )
    order = torch.randperm(N, generator=seeded(1))
    is_the_operator_of((A * B).reordered(order), (a * b)[order][:, order])
    is_the_operator_of((A + B).reordered(order), (a + b)[order][:, order])


@pytest.mark.parametrize("kernel", ["rbf", "laplacian"])
def test_kernels_of_one_kind_become_one_kernel_of_the_joined_columns(kernel):
    A, B = (KernelOperator(v, kernel=kernel, bandwidth=s) for v, s in ((X, 0.7), (Y, 2.0)))
    product = A * SPARSE * B
    assert isinstance(A * B, KernelOperator)
    assert len(product.factors) == 2
    assert (A * B).X.shape[1] == 4


@pytest.mark.parametrize("width", [3, 10, 40])
def test_products_of_grams_are_features_by_rows_or_tiles(width, monkeypatch):
    """Up to n/2 columns as Khatri-Rao features, in blocks of rows if they are many; else as a matrix in tiles."""
    monkeypatch.setattr("matinfo.operands.operator._CHUNK", 500)
    F = features(N, width)
    operator = as_operator(Gram(F) * Gram(X))
    assert isinstance(operator, GramOperator)
    assert operator.is_factor == (2 * width <= N / 2)
    is_the_operator_of(operator, torch.from_numpy(F @ F.T) * (X @ X.mT))


def test_single_precision_factors_give_their_rounding_to_the_product():
    A, B = KernelOperator(X, precision="float32"), KernelOperator(Y, kernel="laplacian", precision="float32")
    assert (A * B).noise == pytest.approx(A.noise + B.noise)
    assert (A * KernelOperator(Y)).precision == "float64"


# --- estimates ---------------------------------------------------------------------------------------------------

K = {name: OPERANDS[name] for name in ("rbf", "rbf of other columns", "laplacian")}
SMOOTH = {
    s: (KernelOperator(v, bandwidth=s), kernels.rbf(v, bandwidth=s))
    for v, s in ((X, 2.0), (Y, 2.5), (Z, 3.0))
}
QUANTITIES = [
    (matinfo.joint_entropy, 2),
    (matinfo.conditional_entropy, 2),
    (matinfo.mutual_information, 2),
    (matinfo.conditional_mutual_information, 3),
    (matinfo.total_correlation, 3),
    (matinfo.dual_total_correlation, 3),
    (matinfo.dime, 2),
]


@pytest.mark.parametrize("runs", [6, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sketch", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_interval_of_information_covers_the_truth_as_often_as_stated(alpha, sketch, runs):
    """All quantities together: fewer than 95 of 100, beyond chance (three standard errors), is a broken promise."""
    hits = total = 0
    for quantity, count in QUANTITIES[:-1]:
        operators, dense = zip(*list((SMOOTH if sketch else K).values())[:count], strict=True)
        truth = float(quantity(*dense, alpha=alpha))
        for seed in range(runs):
            options = {"probes": 24} if sketch else {"probes": 11}
            found = estimate_information(quantity, *operators, alpha=alpha, generator=seeded(seed), **options)
            assert (found.probes == 12) == sketch
            hits += abs(found.value - truth) <= found.error()
            total += 1
    assert hits >= 0.95 * total - 3 * math.sqrt(0.95 * 0.05 * total)


@pytest.mark.parametrize(("quantity", "count"), QUANTITIES)
@pytest.mark.parametrize("alpha", [0.7, 1.0, 2.0])
def test_information_of_operators_is_that_of_their_matrices(quantity, count, alpha):
    operators, dense = zip(*list(K.values())[:count], strict=True)
    options = [
        {"generator": seeded(0)} | ({"permutations": 2} if quantity is matinfo.dime else {}) for _ in range(2)
    ]
    found = estimate_information(quantity, *operators, alpha=alpha, probes=64, **options[0])
    exact = options[1] if quantity is matinfo.dime else {}
    truth = float(quantity(*dense, alpha=alpha, **exact))
    assert abs(found.value - truth) <= 2 * found.error()
    assert found.error() <= (0.2 if alpha < 1 else 0.05)
    if alpha == 2:
        assert (found.probes, found.standard_error) == (0, 0.0)


def test_operands_of_every_kind_may_be_mixed():
    given, dense = zip(*[OPERANDS[name] for name in ("rbf", "gram", "array")], strict=True)
    found = estimate_information(matinfo.total_correlation, *given, generator=seeded(0))
    assert abs(found.value - float(matinfo.total_correlation(*dense))) <= 2 * found.error()


def test_narrow_grams_are_exact():
    grams = Gram(X), Gram(Y)
    found = estimate_information(matinfo.mutual_information, *grams)
    assert found.probes == 0
    assert found.value == pytest.approx(float(matinfo.mutual_information(*grams)), abs=1e-10)


def test_errors_that_terms_have_in_common_cancel():
    """The same matrix on both sides of the difference: nothing is left of errors of 1 % each."""
    constant = Gram(torch.ones(N, 1, dtype=torch.float64))
    A = torch.from_numpy(rbf_gram(N, d=5, bandwidth=1.5))
    found = estimate_information(matinfo.conditional_entropy, constant, A, probes=11, generator=seeded(0))
    single = estimate_entropy(A, probes=11, generator=seeded(0))
    assert found.standard_error < 1e-9 < 1e-3 < single.standard_error


def test_tolerance_is_met_or_the_estimate_says_so():
    A, B = (KernelOperator(v, bandwidth=0.5) for v in (X, Y))
    truth = float(matinfo.mutual_information(*(kernels.rbf(v, bandwidth=0.5) for v in (X, Y))))
    found = estimate_information(matinfo.mutual_information, A, B, atol=0.05, probes=140, generator=seeded(0))
    assert found.converged
    assert found.error() <= 0.05
    assert abs(found.value - truth) <= 0.1
    with pytest.warns(RuntimeWarning, match=r"Expected atol=1e-06, reached .* Allow more probes") as warned:
        missed = estimate_information(
            matinfo.mutual_information, A, B, atol=1e-6, probes=20, generator=seeded(0)
        )
    assert not missed.converged
    assert warned[0].filename == __file__


# --- errors ------------------------------------------------------------------------------------------------------


def test_quantities_that_are_no_sums_of_entropies_are_refused():
    A, B = (KernelOperator(v, bandwidth=1.0) for v in (X, Y))
    with pytest.raises(
        TypeError, match="Expected a quantity that is a sum of entropies, one of joint_entropy"
    ):
        estimate_information(matinfo.normalized_mutual_information, A, B)


def test_linear_operators_are_refused_in_products():
    operator = scipy.sparse.linalg.aslinearoperator(np.eye(N))
    A = KernelOperator(X, bandwidth=1.0)
    with pytest.raises(TypeError, match="entries are known, got a LinearOperator"):
        A * operator
    with pytest.raises(TypeError, match="entries are known, got a LinearOperator"):
        estimate_information(matinfo.mutual_information, A, operator)


def test_unequal_samples_are_refused():
    A, B = KernelOperator(X, bandwidth=1.0), KernelOperator(Y[:-1], bandwidth=1.0)
    for call in (
        lambda: A * B,
        lambda: A + B,
        lambda: estimate_information(matinfo.mutual_information, A, B),
    ):
        with pytest.raises(ValueError, match="the same samples"):
            call()


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_indefinite_factors_are_refused(alpha):
    K = np.eye(N)
    K[0, 1] = K[1, 0] = -4.0
    with pytest.raises(ValueError, match="positive semi-definite"):
        estimate_information(matinfo.mutual_information, K, KernelOperator(X, bandwidth=9.0), alpha=alpha)


def test_hadamard_operator_is_not_trusted_more_than_its_factors():
    own, _ = OPERANDS["own kernel"]
    assert not HadamardOperator([own, OPERANDS["rbf"][0]]).is_trusted


# --- memory ------------------------------------------------------------------------------------------------------


def test_matrices_that_do_not_fit_are_refused_before_they_are_formed(monkeypatch):
    """Two Grams of 256 columns over 100,000 samples would take 74 GiB, on either side 32."""
    wide = [Gram(torch.ones(1, 256).expand(100_000, 256)) for _ in range(2)]
    monkeypatch.setattr("matinfo._memory.free_memory", lambda: 2.0**35)
    with pytest.raises(ValueError, match=r"at most 8.0 GiB .*, got .* GiB. Use matinfo.estimate"):
        matinfo.mutual_information(*wide)
    monkeypatch.setenv("MATINFO_MAX_MATRIX_GIB", "0.25")
    with pytest.raises(ValueError, match=r"at most 0.2 GiB .*6000 x 6000 entries, 0.3 GiB"):
        Gram(torch.zeros(6000, 1)).dense(torch.float64)
    with pytest.raises(ValueError, match=r"6000 x 6000 entries, 0.3 GiB"):
        kernels.rbf(torch.zeros(6000, 1))


def test_quantities_of_operators_name_the_estimate():
    A = KernelOperator(X, bandwidth=1.0)
    with pytest.raises(TypeError, match=r"estimate_information\(mutual_information, K1, K2\)"):
        matinfo.mutual_information(A, A)
