"""What is looked at before a number is given: symmetry, definiteness, scale and dtype, the same for every route."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from tolerances import approx, close, relative_error
from torch.utils._python_dispatch import TorchDispatchMode

import matinfo
from matinfo import Gram, effective_rank, matrix_tcr, mutual_information, no_checks, renyi_entropy, tcr
from matinfo.operands import as_operand, side
from matinfo.operands import matrix as operands_matrix
from matinfo.spectral import definite, frobenius
from matinfo.spectral.definite import steps
from matinfo.spectral.rows import row_products, rows_are_faster

INF = math.inf
ORDERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, INF)


def neighbours(n):
    """Adjacency of a five-nearest-neighbour graph with self-loops: similarities, but not positive semi-definite."""
    X = np.random.default_rng(n).standard_normal((n, 3))
    order = ((X[:, None] - X[None]) ** 2).sum(-1).argsort(1)[:, :6]
    A = np.zeros((n, n))
    np.put_along_axis(A, order, 1.0, 1)
    return np.maximum(A, A.T)


def sparse_neighbours(n):
    """Adjacency, with self-loops, of a path of three and of points without neighbours: -0.17 of the largest."""
    A = np.eye(n)
    A[[0, 1, 1, 2], [1, 0, 2, 1]] = 1.0
    return A


def distances(n):
    """``1 - d/max d``: similarities of points of the plane, indefinite."""
    X = np.random.default_rng(n).uniform(size=(n, 2))
    D = np.sqrt(((X[:, None] - X[None]) ** 2).sum(-1))
    return np.sign(X[:, :1] - 0.5) * (1 - D / D.max()) * np.sign(X[:, 0] - 0.5) - 0.3 * np.eye(n)


def one_pair(n):
    """The identity, but for one pair of entries that no positive semi-definite matrix has."""
    K = np.eye(n)
    K[0, n - 1] = K[n - 1, 0] = 3.0
    return K


# --- definiteness --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [12, 47, 48, 64, 65, 130, 400])
@pytest.mark.parametrize("family", [neighbours, distances, one_pair])
def test_an_indefinite_matrix_is_refused_at_every_order_and_by_every_route(family, n, dtype):
    K = t(family(n), dtype)
    assert np.linalg.eigvalsh(family(n))[0] < -1e-2
    for alpha in ORDERS:
        with pytest.raises(ValueError, match="positive semi-definite"):
            renyi_entropy(K, alpha)
    routes = [("eigh", 2.0), ("frobenius", 2.0), ("power", 3.0), ("power", 6.0), ("lanczos", INF)]
    if n in (12, 130):  # each order has rules of its own to be fitted
        routes.append(("quadrature", 1.5))
    for method, alpha in routes:
        with pytest.raises(ValueError, match="positive semi-definite"):
            renyi_entropy(K, alpha, method=method)


@pytest.mark.parametrize("n", [20, 100])
def test_an_indefinite_matrix_is_refused_by_all_that_is_made_of_entropies(n):
    K, identity = t(neighbours(n)), torch.eye(n, dtype=torch.float64)
    ones = torch.ones_like(identity)
    for alpha in (2.0, 3.0):
        for call in (
            lambda a: matinfo.joint_entropy(K, ones, alpha=a),
            lambda a: matinfo.conditional_entropy(ones, K, a),
            lambda a: mutual_information(identity, K, a),
            lambda a: matinfo.conditional_mutual_information(ones, ones, K, a),
            lambda a: matinfo.total_correlation(identity, K, ones, alpha=a),
            lambda a: matinfo.vendi_score(K, a),
            lambda a: effective_rank(K, a),
            lambda a: matinfo.dime(ones, K, alpha=a, permutations=1),
        ):
            with pytest.raises(ValueError, match="positive semi-definite"):
                call(alpha)
    with pytest.raises(ValueError, match="positive semi-definite"):
        matinfo.participation_ratio(K)
    for mu in (1e-3, 1.0, 100.0):  # a large ridge hides it from Cholesky
        with pytest.raises(ValueError, match="positive semi-definite"):
            matrix_tcr(K, mu)


def semidefinite_matrices(n):
    """Semi-definite matrices on which a probe could be wrong: exhausted Krylov spaces, round-off of low rank."""
    rng = np.random.default_rng(n)
    thin = rng.standard_normal((n, 3))
    yield "identity", np.eye(n)
    yield "constant", np.ones((n, n))
    yield "one entry", np.diag(np.r_[1.0, np.zeros(n - 1)])
    yield "rank 3", thin @ thin.T
    yield "rank 3 with a mean", (thin + 100) @ (thin + 100).T
    yield "decaying", np.diag(np.exp(-np.arange(n, dtype=float)))
    blocks = np.kron(np.eye(n // 5), np.ones((5, 5)))
    yield "blocks", blocks
    X = np.linspace(0, 1, n)[:, None]
    yield "smooth kernel", np.exp(-((X - X.T) ** 2) * 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [30, 65, 200])
def test_a_semidefinite_matrix_is_never_refused(n, dtype):
    for name, K in semidefinite_matrices(n):
        for call in (
            lambda K: renyi_entropy(K, 2),
            lambda K: renyi_entropy(K, 3),
            lambda K: matrix_tcr(K, 1.0),
        ):
            assert call(t(K, dtype)).isfinite(), name


def incomplete_correlations(n):
    """Correlations of which each is of the samples that have both values, three in ten missing: slightly indefinite."""
    rng = np.random.default_rng(n)
    known = rng.random((2 * n, n)) > 0.3
    X = np.where(known, rng.standard_normal((2 * n, n)) @ np.diag(1 / np.sqrt(1 + np.arange(n) / 5)), 0.0)
    X = np.where(known, X @ np.linalg.qr(rng.standard_normal((n, n)))[0], 0.0)
    norms = (X**2).T @ known
    return X.T @ X / np.sqrt(norms * norms.T)


def chebyshev_kernel(n):
    """The RBF formula of a distance for which it is no kernel."""
    X = np.random.default_rng(n).standard_normal((n, 3))
    return np.exp(-(np.abs(X[:, None] - X).max(-1) ** 2))


@pytest.mark.parametrize("n", [65, 150, 300])
@pytest.mark.parametrize("family", [incomplete_correlations, chebyshev_kernel])
def test_order_two_sees_small_negative_eigenvalues_as_they_occur(family, n):
    K = family(n)
    lam = np.linalg.eigvalsh(K)
    assert -0.2 < lam[0] / lam[-1] < -0.01
    for alpha in (1.0, 2.0, 3.0):
        with pytest.raises(ValueError, match="positive semi-definite"):
            renyi_entropy(t(K), alpha)


class Calls(TorchDispatchMode):
    """Names of torch's operations that were called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("n", [100, 600])
def test_order_two_costs_the_same_few_products_however_large_the_matrix(n, monkeypatch):
    K = t(matrices.random_correlation(n, 0))
    by_rows = []

    def counted(A, B):
        by_rows.append(B.ndim)
        return row_products(A, B)

    for module in (definite, frobenius, operands_matrix):
        monkeypatch.setattr(module, "row_products", counted)
    with Calls() as calls:
        renyi_entropy(K, 2)
    assert by_rows.count(1) == (steps(n) if n >= 512 else 0)
    assert by_rows.count(2) == (n >= 512)  # the norm
    assert sum(name in ("mv", "addmv") for name in calls.names) + by_rows.count(1) == steps(n) + 1
    assert not {"mm", "bmm", "_linalg_eigh", "linalg_cholesky_ex"} & set(calls.names)
    with no_checks(), Calls() as calls:
        by_rows.clear()
        renyi_entropy(K, 2)
    assert not {"mv", "addmv"} & set(calls.names)
    assert 1 not in by_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [512, 777])
def test_products_by_rows_are_those_of_torch(n, dtype):
    K = torch.randn(n, n, dtype=dtype)
    v = torch.randn(n, dtype=dtype)
    assert rows_are_faster(K)
    assert not rows_are_faster(K.mT)
    assert relative_error(row_products(K, v).double(), K.double() @ v.double()) < 200 * torch.finfo(dtype).eps
    squares = K.double().square().sum(1)
    assert relative_error(row_products(K, K).double(), squares) < 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("n", [300, 600])
def test_order_two_of_a_large_float32_matrix_is_right_to_its_last_digits(n):
    # One sum over so many equal squares in float32 is off by 1e-4 and more.
    for K in (torch.full((n, n), 0.3), t(matrices.random_correlation(n, 3), torch.float32)):
        K = (K + K.mT) / 2
        expected = 2 * math.log(K.diagonal().double().sum()) - math.log(K.double().square().sum())
        assert renyi_entropy(K, 2).item() == approx(expected, abs=2e-6)
        for A in (K.double(), K.double().mT, K.double().repeat_interleave(2, 1)[:, ::2]):
            assert renyi_entropy(A, 2).item() == approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [300, 600])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_order_two_of_a_large_matrix_with_a_hole_is_nan_without_a_warning(n, wrong):
    K = torch.eye(n)
    K[3, 5] = K[5, 3] = wrong
    assert renyi_entropy(K, 2).isnan()


def test_order_two_of_what_nobody_looked_at_overflows_without_a_warning():
    K = 1e25 * (torch.ones(600, 600) - torch.eye(600)) + 1e-3 * torch.eye(600)
    with no_checks():
        assert not renyi_entropy(K, 2).isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1024, 2048])
def test_symmetric_matrix_is_not_taken_for_an_asymmetric_one_by_its_rounding(n, dtype):
    X = torch.randn(n, 16, dtype=dtype)
    K = matinfo.kernels.rbf(X, bandwidth=4.0)
    operand = as_operand((K + K.mT) / 2, "K", "")
    assert operand.image is not None  # the product with the probe was enough: no second copy, no second look


def test_order_two_reads_a_large_matrix_whose_sign_torch_keeps_apart():
    K = torch.complex(torch.zeros(600, 600), -torch.eye(600)).conj().imag
    assert K.is_neg()
    assert renyi_entropy(K, 2).item() == approx(math.log(600), rel=1e-6)


def own_calls(call):
    """Number of Python functions of the package that a call runs."""
    folder, count = str(Path(matinfo.__file__).parent), 0

    def watch(frame, event, _):
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(folder)

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    ("call", "operations", "functions"),
    [
        (lambda: renyi_entropy(torch.eye(64)), 34, 50),
        (lambda: renyi_entropy(torch.eye(64), 2), 20, 40),
        (lambda: tcr(torch.eye(8)), 20, 68),
    ],
    ids=["H_1", "H_2", "tcr"],
)
def test_a_small_matrix_costs_no_more_operations_than_it_did(call, operations, functions):
    # Their number is what a small matrix costs: these are one or two above what was counted when last reduced.
    call()
    with Calls() as calls:
        call()
    assert len(calls.names) <= operations
    assert own_calls(call) <= functions


@pytest.mark.parametrize("single", [True, False])
def test_the_check_by_products_sees_the_smallest_eigenvalue_of_the_krylov_space(single):
    n, count = 80, steps(80)
    v = definite.probe(n, torch.float64, torch.device("cpu")).numpy()
    for seed in range(5):
        A = np.random.default_rng(seed).standard_normal((n, n))
        K = A @ A.T / n - 0.3 * np.eye(n)
        V = np.linalg.qr(np.stack([np.linalg.matrix_power(K, k) @ v for k in range(count)], 1))[0]
        smallest = -np.linalg.eigvalsh(V.T @ K @ V)[0] / np.linalg.norm(K @ v)
        assert smallest > 0.01
        for tolerance, expected in ((smallest * 1.001, True), (smallest * 0.999, False)):
            x = t(K) if single else t(K)[None]
            fine = definite.krylov_is_semidefinite(x, x @ t(v), tolerance, single=single)
            assert bool(fine) is expected


# --- symmetry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [2, 64, 65, 129, 300])
def test_asymmetry_is_refused_at_every_size_wherever_it_is(n, dtype):
    K = t(matrices.random_correlation(n, 1), dtype)
    one, column = K.clone(), K.clone()
    one[n // 2, 0] += 3e-4  # three times what is accepted
    column[:, n // 2] = column[:, n // 2].flip(0) + 0.1
    for A in (one, column, one.mT, torch.stack([K, one])):
        for alpha in (0.5, 1.0, 2.0, 3.0, INF):
            with pytest.raises(ValueError, match="symmetric"):
                renyi_entropy(A, alpha)


def test_one_wrong_entry_among_a_million_is_seen():
    K = torch.eye(1024)
    K[1, 2] = 100
    with pytest.raises(ValueError, match=r"symmetric.*got max \|K - K\^T\| = 100"):
        effective_rank(K)


@pytest.mark.parametrize("n", [40, 100])
def test_small_asymmetry_is_averaged_so_that_a_matrix_and_its_transpose_agree(n):
    K = t(matrices.random_correlation(n, 2))
    K[0, n - 1] += 5e-5
    for alpha in (0.5, 1.0, 2.0, 3.0, INF):
        assert renyi_entropy(K, alpha).item() == approx(renyi_entropy(K.mT, alpha).item(), rel=1e-14)


# --- where values cannot be read: NaN, never a number ----------------------------------------------------------


@pytest.fixture
def nothing_is_readable(monkeypatch):
    """As on a device, where no branch may wait for a value."""
    for module in ("operands.matrix", "operands.gram", "operands.side", "operands.family", "coding_rate"):
        monkeypatch.setattr(sys.modules[f"matinfo.{module}"], "is_readable", lambda x: False)
    monkeypatch.setattr(matinfo._validation, "values_are_readable", lambda x: False)


@pytest.mark.usefixtures("nothing_is_readable")
@pytest.mark.parametrize("n", [20, 100])
def test_where_nothing_may_wait_a_wrong_matrix_gives_nan_and_leaves_the_batch_alone(n):
    good = t(matrices.random_correlation(n, 3))
    asymmetric = good.clone()
    asymmetric[3, 5] += 0.1
    batch = torch.stack([good, asymmetric, t(neighbours(n)), good])
    calls = [lambda K: renyi_entropy(K, 2), lambda K: renyi_entropy(K, 3), lambda K: matrix_tcr(K, 50.0)]
    for call in calls if n > 48 else calls[::2]:  # small matrices are decomposed at order 3, which waits
        values = call(batch)
        expected = call(good)
        assert values[1:3].isnan().all()
        assert relative_error(values[[0, 3]], expected.expand(2)) < 1e-12


@pytest.mark.usefixtures("nothing_is_readable")
def test_where_nothing_may_wait_a_semidefinite_matrix_keeps_its_value():
    for n in (30, 65):
        for name, K in semidefinite_matrices(n):
            for dtype in (torch.float32, torch.float64):
                for call in (lambda K: renyi_entropy(K, 2), lambda K: matrix_tcr(K, 1.0)):
                    assert call(t(K, dtype)).isfinite(), name


def test_under_vmap_a_wrong_matrix_gives_nan():
    good, bad = t(matrices.random_correlation(6, 3)), t(np.diag([1.0, 1, 1, 1, 1, -0.5]))
    values = torch.func.vmap(lambda K: renyi_entropy(K, 2))(torch.stack([good, bad]))
    assert values[0].item() == approx(renyi_entropy(good, 2).item(), rel=1e-14)
    assert values[1].isnan()


# --- the switch ------------------------------------------------------------------------------------------------


def test_no_checks_takes_matrices_on_trust_at_every_order_and_only_inside():
    K = t(neighbours(100))
    with no_checks():
        for alpha in ORDERS:
            renyi_entropy(K, alpha)
        matrix_tcr(K, 50.0)
        with no_checks():
            renyi_entropy(K, 2)
        renyi_entropy(K, 2)
    with pytest.raises(ValueError, match="positive semi-definite"):
        renyi_entropy(K, 2)

    @no_checks()
    def loss(K):
        return renyi_entropy(K, 2)

    assert loss(K).isfinite()
    assert loss(K).isfinite()


def test_no_checks_changes_no_value_and_no_gradient():
    for n in (20, 100):
        K = t(matrices.random_correlation(n, 4)).requires_grad_()
        for call in (renyi_entropy, lambda K: renyi_entropy(K, 2), lambda K: renyi_entropy(K, 3), matrix_tcr):
            value = call(K)
            with no_checks():
                trusted = call(K)
            assert torch.equal(value, trusted)
            assert torch.equal(*(torch.autograd.grad(v, K)[0] for v in (value, trusted)))


# --- scale -----------------------------------------------------------------------------------------------------

SCALES = {
    torch.float64: (5e-310, 1e-170, 1e160, 1e307),
    torch.float32: (1e-42, 1e-39, 1e-30, 8.5e37, 2.5e38),
}
SCALED = [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales]


@pytest.mark.parametrize(("dtype", "scale"), SCALED)
@pytest.mark.parametrize("n", [5, 40, 80])
def test_entropies_of_a_matrix_do_not_depend_on_its_scale(n, dtype, scale):
    K = matrices.random_correlation(n, 5)
    scaled = t(K * scale, dtype)
    exact = np.ldexp(scaled.double().numpy(), -int(np.log2(scale)))
    lam = np.linalg.eigvalsh(exact)
    for alpha in (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 64.0, 1000.0, INF):
        A = scaled.clone().requires_grad_()
        value = renyi_entropy(A, alpha)
        close(value, oracles.entropy_of_spectrum_mp(lam, alpha), 1e-4 if dtype == torch.float32 else 1e-12)
        (gradient,) = torch.autograd.grad(value, A)
        assert gradient.isfinite().all()
        if 1e-36 < scale < 1e36 or (dtype == torch.float64 and scale > 1e-300):
            B = t(exact).requires_grad_()
            (expected,) = torch.autograd.grad(renyi_entropy(B, alpha), B)
            found = gradient.double() * 2.0 ** int(np.log2(scale))
            assert relative_error(found, expected) < (1e-3 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize(("dtype", "scale"), SCALED)
@pytest.mark.parametrize("n", [5, 40, 80])
def test_joint_entropies_do_not_depend_on_scales(n, dtype, scale):
    Ks = [matrices.random_correlation(n, seed) for seed in (1, 2, 3)]
    scaled = [t(K * scale, dtype) for K in Ks]
    tolerance = 5e-3 if dtype == torch.float32 else 1e-9  # subnormal float32 numbers have few digits
    for count in (2, 3):
        lam = np.linalg.eigvalsh(np.prod(Ks[:count], 0))
        for alpha in (1.0, 2.0, 5.0, 64.0, 1000.0, INF):
            expected = oracles.entropy_of_spectrum_mp(lam, alpha)
            close(matinfo.joint_entropy(*scaled[:count], alpha=alpha), expected, tolerance)
            mixed = matinfo.joint_entropy(
                Gram(t(np.linalg.cholesky(Ks[0]), dtype)), *scaled[1:count], alpha=alpha
            )
            close(mixed, expected, tolerance)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float64, s) for s in (1e-300, 1e-170, 1e160, 1e300)]
    + [(torch.float32, s) for s in (1e-42, 1e-39, 1e25, 1e38)],
)
@pytest.mark.parametrize("shape", [(12, 4), (4, 12), (90, 60)])
def test_quantities_of_features_do_not_depend_on_their_scale(shape, dtype, scale):
    Z = matrices.features(*shape) / 8
    scaled = t(Z * scale, dtype)
    for function in (
        lambda F: effective_rank(Gram(F)),
        lambda F: matinfo.participation_ratio(Gram(F)),
        lambda F: renyi_entropy(Gram(F) * Gram(F), 3),
        lambda F: renyi_entropy(Gram(F) * Gram(F) + Gram(F) * Gram(F), 2),
        matinfo.rankme,
    ):
        F = scaled.clone().requires_grad_()
        value = function(F)
        assert value.item() == approx(
            function(t(Z)).item(), rel=5e-2 if scale < 1e-40 and scale > 1e-50 else 1e-5
        )
        assert torch.autograd.grad(value, F)[0].isfinite().all()
    other = Gram(scaled.flip(-1))
    for divergence in (matinfo.matrix_js, matinfo.spectrum_js):
        expected = divergence(Gram(t(Z)), Gram(t(Z).flip(-1))).item()
        close(divergence(Gram(scaled), other), expected, 2e-2 if 1e-50 < scale < 1e-40 else 1e-5)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e160, 1e300])
def test_coding_rates_of_features_of_any_scale_are_right(scale):
    Z = matrices.features(9, 4)
    sigma = np.linalg.svd(Z, compute_uv=False)
    expected = np.logaddexp(0.0, 2 * (np.log(sigma) + math.log(scale))).sum()
    F = t(Z * scale).requires_grad_()
    value = tcr(F)
    assert value.item() == approx(expected, rel=1e-12, abs=1e-300)
    assert torch.autograd.grad(value, F)[0].isfinite().all()


@pytest.mark.parametrize("scale", [1e-150, 1e-120, 1e120])
def test_quantities_of_streams_do_not_depend_on_the_scale_of_their_rows(scale):
    Z = matrices.features(20, 4)
    stream, scaled = (matinfo.streaming.CovarianceAccumulator(4) for _ in range(2))
    stream.update(t(Z))
    scaled.update(t(Z * scale))
    for alpha in (0.5, 1.0, 2.0, 3.0):
        expected = renyi_entropy(stream.gram(), alpha)
        assert renyi_entropy(scaled.gram(), alpha).item() == approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("scale", [1e-170, 1e160])
def test_a_spectrum_that_float64_cannot_hold_is_refused(scale):
    with pytest.raises(ValueError, match="Expected eigenvalues that float64 can hold"):
        matinfo.spectrum(Gram(t(matrices.features(6, 3) * scale)))
    assert float(matinfo.spectrum(Gram(t(matrices.features(6, 3) * 1e-100))).trace) > 0


def test_a_power_of_high_order_neither_overflows_nor_underflows():
    # X^32 of flat X of order 1000 has entries of 1e-96, which float32 does not have.
    assert renyi_entropy(torch.eye(1000), 64, method="power").item() == approx(math.log(1000), rel=1e-6)


@pytest.mark.parametrize("size", [1.0, 1e8, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coding_rates_of_collapsed_features_of_large_scale_do_not_count_round_off(dtype, size):
    # Every row is the same: one singular value, of sqrt(n d) size.
    n, d = 32, 16
    Z = torch.full((n, d), size, dtype=dtype)
    assert tcr(Z).item() == approx(math.log1p(n * d * size**2), rel=1e-6)
    assert tcr(Gram(Z)).item() == approx(math.log1p(n * d * size**2), rel=1e-6)
    ridge = n * 0.25 / d
    assert matinfo.coding_rate(Z).item() == approx(0.5 * math.log1p(n * d * size**2 / ridge), rel=1e-6)
    F = Z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(tcr(F), F)
    assert relative_error(gradient, (2 * Z / (1 + n * d * size**2)).numpy()) < 1e-5


# --- dtypes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n", [60, 130, 400, 1000])
@pytest.mark.parametrize("family", [neighbours, one_pair, sparse_neighbours])
def test_an_indefinite_matrix_of_half_precision_is_refused_whatever_its_order(family, n, dtype):
    """A tolerance of n roundings was all of the largest eigenvalue at n = 128 in bfloat16."""
    K = t(family(n), dtype)
    for alpha in ORDERS:
        with pytest.raises(ValueError, match="positive semi-definite"):
            renyi_entropy(K, alpha)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_rounding_to_half_precision_makes_a_matrix_indefinite(dtype):
    """Not where the errors are alike either, as those of matrices of few different numbers are."""
    rng = np.random.default_rng(0)
    for n in (3, 40, 200):
        few, many = rng.random((3, 1))[np.arange(n) % 3], np.exp(rng.standard_normal((n, 2)))
        for z in (few, many, rng.standard_normal((n, 1))):
            K = t(z @ z.T / (z * z).sum(1).max(), dtype)
            for alpha in (0.5, 1.0, 2.0, 3.0):
                assert matinfo.joint_entropy(K, K, K, alpha=alpha).isfinite()
                assert renyi_entropy(K, alpha).isfinite()


def low_rank_correlation(n, d, seed):
    Z = np.random.default_rng(seed).standard_normal((n, d))
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    return Z @ Z.T


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(5))
def test_joint_quantities_of_half_precision_matrices_have_its_tolerance(seed, dtype):
    Ks = [low_rank_correlation(48, 4, 3 * seed + i) for i in range(3)]
    halves = [t(K, dtype) for K in Ks]
    eps = torch.finfo(dtype).eps
    for alpha in (1.0, 2.0, 3.0, INF):
        expected = [
            oracles.entropy_of_spectrum_mp(np.linalg.eigvalsh(K), alpha) for K in (*Ks[:2], Ks[0] * Ks[1])
        ]
        found = matinfo.joint_entropy(*halves[:2], alpha=alpha)
        close(found, expected[2], 40 * eps)
        close(mutual_information(*halves[:2], alpha), expected[0] + expected[1] - expected[2], 120 * eps)
    assert matinfo.total_correlation(*halves).isfinite()
    for divergence in (matinfo.matrix_kl, matinfo.matrix_js, matinfo.spectrum_js):
        assert not divergence(*halves[:2]).isnan()
    close(matinfo.matrix_js(halves[0], halves[0]), 0.0, 1e-6)
    close(matinfo.matrix_kl(halves[0], halves[0]), 0.0, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5])
def test_what_a_constant_shares_with_a_low_rank_matrix_is_nothing_below_order_one(alpha, dtype):
    # Round-off of the given dtype is no eigenvalue of a product either.
    for seed in range(10):
        K = t(low_rank_correlation(60, 5, seed), dtype)
        assert abs(mutual_information(K, torch.ones_like(K), alpha).item()) < 1e-5


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_information_below_order_one_of_dense_float32_matrices_is_that_of_their_factors(alpha):
    Z = torch.as_tensor(np.random.default_rng(0).standard_normal((60, 4)))
    Z = torch.nn.functional.normalize(Z, dim=1)
    exact = mutual_information(Gram(Z), Gram(Z), alpha)
    K = (Z @ Z.mT).float()
    assert mutual_information(K, K, alpha).item() == approx(exact.item(), abs=1e-3)
    share = matinfo.normalized_mutual_information
    assert share(K, K, alpha).item() == approx(share(Gram(Z), Gram(Z), alpha).item(), abs=1e-3)


def test_a_product_is_as_coarse_as_its_coarsest_factor():
    fine, coarse = torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.bfloat16)
    product = matinfo.operands.hadamard([as_operand(K, "K", "f") for K in (fine, coarse)])
    assert product.rounding == torch.finfo(torch.bfloat16).eps
    assert product.given_dtype == torch.float64


def test_gradients_of_matrix_kl_at_zero_matrices_are_finite():
    zero = torch.zeros(3, 3, dtype=torch.float64)
    K = t(matrices.random_correlation(3, 1))
    for first, second, expected in ((zero, zero, 0.0), (zero, K, 3.0)):
        arguments = [first.clone().requires_grad_(), second.clone().requires_grad_()]
        value = matinfo.matrix_kl(*arguments)
        assert value.item() == approx(expected, rel=1e-14, abs=1e-140)
        for gradient in torch.autograd.grad(value, arguments):
            assert gradient.isfinite().all()
    assert matinfo.matrix_kl(K, zero).item() == INF


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e150])
def test_matrix_kl_is_of_degree_one_at_every_scale(scale):
    K, L = (t(matrices.random_correlation(5, s)).requires_grad_() for s in (1, 2))
    small = matinfo.matrix_kl(K * scale, L * scale)
    assert small.item() / scale == approx(matinfo.matrix_kl(K, L).item(), rel=1e-12)
    gradients = torch.autograd.grad(small, (K, L))
    for found, expected in zip(gradients, torch.autograd.grad(matinfo.matrix_kl(K, L), (K, L)), strict=True):
        assert relative_error(found / scale, expected) < 1e-10


# --- what holds no numbers ---------------------------------------------------------------------------------------


def test_a_tensor_on_the_meta_device_is_refused():
    for call in (renyi_entropy, matrix_tcr, tcr, matinfo.rankme, lambda K: effective_rank(Gram(K), 2)):
        with pytest.raises(TypeError, match="Expected .* to hold numbers, got a tensor on the meta device"):
            call(torch.eye(4, device="meta"))


def test_numpy_arrays_reversed_along_a_side_of_length_one_are_read():
    row = np.arange(1.0, 5.0)[None, :]
    for Z in (row[::-1], row.T[:, ::-1], row[::-1, ::-1]):
        assert tcr(Z) == approx(math.log1p(30), rel=1e-12)
    assert renyi_entropy(np.ones((1, 1))[::-1, ::-1]) == 0.0


def test_the_image_is_that_of_the_probe():
    K = t(matrices.random_correlation(100, 0))
    operand = as_operand(K, "K", "f")
    assert torch.equal(operand.image, K @ side.probe(100, K.dtype, K.device))


def test_infinity_on_a_diagonal_is_nan_in_its_own_element():
    K = torch.eye(3).repeat(2, 1, 1)
    K[0, 0, 0] = -math.inf
    assert renyi_entropy(K).isnan().tolist() == [True, False]
    assert renyi_entropy(K[0]).isnan()


def test_an_outer_explanation_has_the_steps_of_the_inner_one():
    with matinfo.explain() as outer:
        renyi_entropy(torch.eye(3))
        with matinfo.explain() as inner:
            renyi_entropy(torch.eye(4), 2)
    assert [step.size for step in inner.steps] == [4]
    assert [step.size for step in outer.steps] == [3, 4]


def test_no_checks_decorates_with_and_without_parentheses():
    indefinite = torch.diag(torch.tensor([1.0, -0.5]))
    for decorated in (no_checks(renyi_entropy), no_checks()(renyi_entropy)):
        assert decorated(indefinite, 2).isfinite()
    with pytest.raises(ValueError, match="positive semi-definite"):
        renyi_entropy(indefinite, 2)


def test_no_checks_refuses_what_runs_after_its_call_has_returned():
    def steps():
        yield 1

    async def later():
        return 1

    for function in (steps, later):
        with pytest.raises(TypeError, match="decorate a plain function"):
            no_checks()(function)
