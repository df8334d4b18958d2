"""Estimated entropies as losses: gradients against those of eigenvalues, their reported scatter, their memory."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers import seeded
from matrices import features, from_spectrum, rbf_gram

from matinfo import Gram, kernels, renyi_entropy
from matinfo.estimate import KernelOperator, estimate_entropy, stochastic_entropy

TALL, WIDE = torch.from_numpy(features(60, 7)), torch.from_numpy(features(40, 70))
X = torch.from_numpy(features(50, 3, seed=2))
SQUARE = torch.from_numpy(features(40, 50) @ features(40, 50).T)


def matrix(A):
    return (A + A.mT) / 2


def quadratic(A, B):
    return (A @ B.mT + 1) ** 2


# name: leaf, what the estimate takes, what the exact entropy takes
CASES = {
    "tall features": (TALL, Gram, Gram),
    "wide features": (WIDE, Gram, Gram),
    "sum": (WIDE, lambda Z: Gram(Z) + 2.0 * Gram(Z[:, :3]), lambda Z: Gram(Z) + 2.0 * Gram(Z[:, :3])),
    "wide product": (TALL[:40], lambda Z: Gram(Z) * Gram(Z) * Gram(Z), lambda Z: (Z @ Z.mT) ** 3),
    "dense": (SQUARE, matrix, matrix),
    "rbf": (
        X,
        lambda X: KernelOperator(X, bandwidth=0.7, tile=16),
        lambda X: kernels.rbf(X, bandwidth=0.7),
    ),
    "laplacian": (
        X,
        lambda X: KernelOperator(X, kernel="laplacian", bandwidth=1.0, tile=16),
        lambda X: kernels.laplacian(X, bandwidth=1.0),
    ),
    "own kernel": (
        torch.from_numpy(features(30, 9)),
        lambda X: KernelOperator(X, kernel=quadratic, tile=16),
        lambda X: (X @ X.mT + 1) ** 2,
    ),
}


def exact_gradient(name, alpha):
    leaf, _, build = CASES[name]
    leaf = leaf.clone().requires_grad_()
    renyi_entropy(build(leaf), alpha).backward()
    return leaf.grad


def estimated(name, alpha, seed, **options):
    leaf, build, _ = CASES[name]
    leaf = leaf.clone().requires_grad_()
    found = stochastic_entropy(build(leaf), alpha, generator=seeded(seed), **options)
    found.value.backward()
    return found, leaf.grad


# --- value -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_value_is_that_of_estimate_entropy(name):
    leaf, build, _ = CASES[name]
    found, _ = estimated(name, 1.0, 0, probes=6, degree=9)
    assert found.estimate == estimate_entropy(build(leaf), 1.0, probes=6, degree=9, generator=seeded(0))
    assert found.value.item() == found.estimate.value
    assert found.value.shape == ()


# --- gradient --------------------------------------------------------------------------------------------------

RUNS = 20


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("name", CASES)
def test_gradient_is_unbiased_and_its_scatter_is_the_reported_one(name, alpha):
    """Over many entries ``|mean - exact|`` is about one standard error of the mean, and four is far off.

    The RBF of order 1/2 is known less well than its gradient is long; the rest of the bound is still a real one.
    """
    exact = exact_gradient(name, alpha)
    runs = [estimated(name, alpha, seed, probes=12, degree=12) for seed in range(RUNS)]
    gradients = torch.stack([gradient for _, gradient in runs])
    observed = float((gradients - exact).square().sum() / RUNS)
    reported = sum([found.gradient_standard_error**2 for found, _ in runs]) / RUNS
    assert float((gradients.mean(0) - exact).norm()) <= 4 * math.sqrt(observed / RUNS)
    assert reported == pytest.approx(observed, rel=0.5)


@pytest.mark.parametrize("alpha", [150.0, 300.0])
def test_gradient_is_finite_and_within_its_scatter_where_the_trace_underflows(alpha):
    """Batches of 32 probes have scales of their own. Order 300 overflowed; the scatter of order 150 was zero."""
    Z = torch.randn(60, 80, dtype=torch.float64, generator=seeded(0)).requires_grad_()
    (truth,) = torch.autograd.grad(renyi_entropy(Gram(Z), alpha), Z)
    found = stochastic_entropy(Gram(Z), alpha, probes=256, degree=60, generator=seeded(0))
    (gradient,) = torch.autograd.grad(found.value, Z)
    assert float((gradient - truth).norm()) <= 2 * found.gradient_standard_error
    assert found.gradient_standard_error < 0.5 * float(truth.norm())
    assert found.estimate.standard_error > 1e-6


@pytest.mark.slow
def test_gradient_has_a_bias_below_one_percent_of_its_length():
    """400 runs of 48 probes leave a standard error of half a per cent."""
    exact = exact_gradient("tall features", 1.5)
    mean = sum([estimated("tall features", 1.5, seed, probes=48)[1] for seed in range(400)]) / 400
    assert float((mean - exact).norm()) < 0.01 * float(exact.norm())


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_order_two_is_exact(name):
    found, gradient = estimated(name, 2.0, 0)
    assert (found.estimate.probes, found.gradient_standard_error) == (0, 0.0)
    torch.testing.assert_close(gradient, exact_gradient(name, 2.0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", ["tall features", "wide features", "dense"])
def test_gradient_of_every_run_is_orthogonal_to_what_it_is_a_gradient_of(name, alpha):
    """The entropy does not see the scale of K."""
    leaf = CASES[name][0]
    _, gradient = estimated(name, alpha, 0)
    inner = float((gradient * leaf).sum())
    # for features one side only of the symmetric matrix is used: orthogonal on average over the two
    bound = 1e-10 if name == "dense" else 1e-8
    assert abs(inner) <= bound * float(gradient.norm() * leaf.norm())


def test_gradient_of_three_distinct_eigenvalues_is_exact():
    """On three points of which one is 0 the derivative is its fit by 1 and x."""
    Z = torch.from_numpy(np.linalg.cholesky(from_spectrum(np.repeat([1.0, 3.0], [60, 40]))))
    grads = []
    for function in (renyi_entropy, lambda K, a: stochastic_entropy(K, a, generator=seeded(0)).value):
        leaf = Z.clone().requires_grad_()
        function(Gram(leaf), 1.0).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[1], grads[0], rtol=0, atol=1e-9)


def test_gradient_of_a_singular_matrix_ignores_its_null_space():
    """As in renyi_entropy: the mean derivative takes the place of the infinite one."""
    lam = np.repeat([0.0, 1.0, 3.0], [50, 60, 40])
    K = torch.from_numpy(from_spectrum(lam)).requires_grad_()
    found = stochastic_entropy(K, 0.5, probes=200, generator=seeded(0))
    found.value.backward()
    exact = torch.from_numpy(from_spectrum(lam)).requires_grad_()
    renyi_entropy(exact, 0.5).backward()
    assert float((K.grad - exact.grad).norm()) <= 2 * found.gradient_standard_error
    assert found.gradient_standard_error < 2 * float(exact.grad.norm())  # else 1e8 of that


def test_scatter_falls_with_the_square_root_of_the_probes():
    few, many = [
        np.mean(
            [estimated("wide features", 1.0, s, probes=p)[0].gradient_standard_error ** 2 for s in range(8)]
        )
        for p in (4, 64)
    ]
    # the fit is better known from many probes
    assert 13 <= few / many <= 40


def test_gradient_flows_through_what_made_the_features():
    raw = TALL.clone().requires_grad_()
    stochastic_entropy(Gram(raw, normalize=True), generator=seeded(0)).value.backward()
    assert float((raw.grad * TALL).sum(1).abs().max()) < 1e-12  # lengths of rows do not matter
    assert float(raw.grad.norm()) > 1e-3


def test_gradient_descent_makes_features_alike_and_ascent_diverse():
    for sign, better in ((1.0, -1.0), (-1.0, 1.0)):
        Z = torch.from_numpy(features(40, 60, seed=5) * np.linspace(0.2, 2.0, 60)).requires_grad_()
        before = float(renyi_entropy(Gram(Z.detach())))
        optimizer = torch.optim.SGD([Z], lr=40.0)
        generator = seeded(0)
        for _ in range(8):
            optimizer.zero_grad()
            (sign * stochastic_entropy(Gram(Z), probes=8, degree=10, generator=generator).value).backward()
            optimizer.step()
        assert better * (float(renyi_entropy(Gram(Z.detach()))) - before) > 0.05


# --- dtypes and contexts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tall features", "dense", "rbf"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_keeps_its_dtype_and_is_computed_in_float64(name, dtype):
    leaf, build, _ = CASES[name]
    low = leaf.to(dtype).requires_grad_()
    found = stochastic_entropy(build(low), generator=seeded(0))
    found.value.backward()
    assert found.value.dtype == torch.float32
    assert low.grad.dtype == dtype
    high = low.detach().double().requires_grad_()
    stochastic_entropy(build(high), generator=seeded(0)).value.backward()
    scale = float(high.grad.abs().max())
    atol = 8 * torch.finfo(dtype).eps * scale + (6e-8 if dtype == torch.float16 else 0)  # subnormal numbers
    if name == "dense" and dtype != torch.float32:
        return  # rounding leaves an indefinite matrix, whose null directions are set aside
    torch.testing.assert_close(low.grad.double(), high.grad, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["tall features", "rbf", "own kernel"])
def test_autocast_changes_nothing(name):
    (plain, gradient), leaf = estimated(name, 1.0, 0), CASES[name]
    with torch.autocast("cpu", torch.bfloat16):
        inside, other = estimated(name, 1.0, 0)
    assert inside.estimate == plain.estimate
    assert torch.equal(gradient, other)
    assert leaf[0].dtype == torch.float64


def test_single_precision_kernels_are_those_of_double():
    many = torch.from_numpy(features(700, 3))
    one, other = [
        KernelOperator(many, bandwidth=1.0, precision=precision) for precision in ("float64", "float32")
    ]
    V = torch.from_numpy(features(700, 4))
    # entries of size 1 known to the operator's noise, 700 of them summed at random
    torch.testing.assert_close(other.matmat(V), one.matmat(V), rtol=0, atol=10 * other.noise * math.sqrt(700))
    assert other.frobenius_squared() == pytest.approx(one.frobenius_squared(), rel=1e-5)
    a, b = [estimate_entropy(K, generator=seeded(0)) for K in (one, other)]
    assert abs(a.value - b.value) <= b.bias_bound + a.bias_bound
    assert b.bias_bound < 0.01 * b.value


def test_nothing_is_differentiated_unless_asked():
    quiet = stochastic_entropy(Gram(TALL), generator=seeded(0))
    assert quiet.gradient_standard_error is None
    assert not quiet.value.requires_grad
    with torch.no_grad():
        assert not stochastic_entropy(
            Gram(TALL.clone().requires_grad_()), generator=seeded(0)
        ).value.requires_grad


# --- memory ----------------------------------------------------------------------------------------------------


def test_gradient_of_a_kernel_never_computes_more_than_a_tile():
    sizes = []

    def kernel(A, B):
        sizes.append((len(A), len(B)))
        return torch.exp(-torch.cdist(A, B).square() / 2)

    points = (X + 0.0).requires_grad_()
    operator = KernelOperator(points, kernel=kernel, tile=8)
    stochastic_entropy(operator, probes=2, degree=3, generator=seeded(0)).value.backward()
    assert {m for m, _ in sizes} == {8, 2}  # 50 = 6 * 8 + 2
    # one pass each: the moments, the symmetry, every Lanczos step; two for the gradient, block and graph
    assert sizes.count((2, 50)) == 1 + 1 + 3 + 2
    assert points.grad.shape == (50, 3)


def test_gradient_of_the_rbf_keeps_no_matrix(monkeypatch):
    """Every tensor of n rows that autograd could save is narrow, and blocks have at most 512 x 1024 entries."""
    seen = []
    original = KernelOperator.entries

    def entries(self, rows, columns):
        block = original(self, rows, columns)
        seen.append(block.numel())
        return block

    monkeypatch.setattr(KernelOperator, "entries", entries)
    points = torch.from_numpy(features(2000, 2)).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        found = stochastic_entropy(
            KernelOperator(points, bandwidth=0.5), probes=4, degree=3, generator=seeded(0)
        )
    found.value.backward()
    assert max(seen) <= 512 * 1024
    assert sum(saved) <= 10 * points.numel()


# --- errors ----------------------------------------------------------------------------------------------------


def test_second_derivatives_are_refused():
    Z = TALL.clone().requires_grad_()
    value = stochastic_entropy(Gram(Z), generator=seeded(0)).value
    (gradient,) = torch.autograd.grad(value, Z, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivative only"):
        (gradient.square().sum() + Z.sum()).backward()


@pytest.mark.parametrize("K", [np.eye(3), scipy.sparse.csr_array(np.eye(3))])
def test_matrices_without_a_graph_are_refused(K):
    with pytest.raises(TypeError, match="Expected K to be a Tensor, a Gram or a KernelOperator"):
        stochastic_entropy(K)


@pytest.mark.parametrize(
    ("K", "message"),
    [
        (torch.zeros(3, 3), "positive trace"),
        (torch.full((3, 3), torch.nan), "Expected K to be finite"),
        (torch.ones(2, 3, 3), r"Expected one matrix \(n, n\)"),
        (torch.triu(torch.ones(9, 9)), "to be symmetric"),
        (
            torch.from_numpy(from_spectrum(np.r_[-0.5, np.ones(39)])),
            "Expected a positive semi-definite matrix",
        ),
    ],
)
def test_unusable_matrices_are_refused(K, message):
    with pytest.raises(ValueError, match=message):
        stochastic_entropy(K.requires_grad_())


def test_kernels_that_autograd_cannot_follow_are_refused():
    def kernel(A, B):
        return torch.from_numpy(quadratic(A.detach(), B.detach()).numpy())

    with pytest.raises(ValueError, match="differentiable torch operations"):
        stochastic_entropy(KernelOperator((X + 0.0).requires_grad_(), kernel=kernel))


def test_transforms_are_refused():
    with pytest.raises(ValueError, match="Expected plain tensors"):
        torch.func.grad(lambda Z: stochastic_entropy(Gram(Z)).value)(TALL)


def test_precision_of_a_given_function_is_its_own():
    with pytest.raises(ValueError, match="Expected precision"):
        KernelOperator(X, kernel=quadratic, precision="float32")
    with pytest.raises(ValueError, match="Expected precision"):
        KernelOperator(X, precision="half")


def test_one_point_and_identical_points_have_entropy_and_gradient_zero():
    for points in (torch.zeros(1, 2), torch.ones(6, 2)):
        points = points.double().requires_grad_()
        found = stochastic_entropy(KernelOperator(points, bandwidth=1.0), generator=seeded(0))
        found.value.backward()
        assert abs(found.value.item()) < 1e-9
        assert float(points.grad.abs().max()) < 1e-12


def test_dense_gradient_is_symmetric():
    K = torch.from_numpy(rbf_gram(30)).requires_grad_()
    stochastic_entropy(K, 1.0, generator=seeded(0)).value.backward()
    torch.testing.assert_close(K.grad, K.grad.mT, rtol=1e-12, atol=1e-15)
