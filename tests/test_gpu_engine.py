"""The engine on a CUDA device: errors, batches of any size, capture, transforms, TF32, the routes of ``explain``."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path

import matrices
import pytest
import torch
from helpers import seeded, tf32

from matinfo import Gram, effective_rank, explain, mutual_information, renyi_entropy, tcr
from matinfo.estimate import KernelOperator
from matinfo.losses import mmae_tcr_loss, umae_uniformity_loss
from matinfo.spectral import cusolver, eigensolver, triangular
from matinfo.spectral.precision import TF32_ON

sys.path.append(str(Path(__file__).resolve().parents[1]))
from benchmarks.machine import waiting_is_an_error

pytestmark = pytest.mark.gpu

DEVICE = "cuda"


def features(n, d, *, batch=(), dtype=torch.float32):
    Z = torch.randn(*batch, n, d, generator=seeded(n), dtype=torch.float64)
    Z = Z * torch.arange(1, d + 1, dtype=torch.float64).rsqrt()
    return torch.nn.functional.normalize(Z, dim=-1).to(DEVICE, dtype)


def kernel(n, dtype=torch.float32, batch=()):
    Z = features(n, n, batch=batch, dtype=torch.float64)
    return (Z @ Z.mT + 0.01 * torch.eye(n, device=DEVICE)).to(dtype)


def true_entropy(K, alpha):
    """On the device in float64 by PyTorch, which the tests of small orders compare with the CPU."""
    p = torch.linalg.eigvalsh(K.double()).clamp_min(0)
    p = p / p.sum(-1, keepdim=True)
    if alpha == 1:
        return torch.special.entr(p).sum(-1)
    return -p.amax(-1).log() if alpha == math.inf else (p**alpha).sum(-1).log() / (1 - alpha)


def value_and_gradient(function, x):
    leaf = x.detach().clone().requires_grad_()
    value = function(leaf)
    value.sum().backward()
    return value.detach(), leaf.grad


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("alpha", [0.75, 1.0, 1.5, math.inf])
@pytest.mark.parametrize("n", [1, 2, 8, 33, 64, 130, 256, 512, 700, 1024, 1500, 2048])
def test_float32_entropies_are_right_to_1e_5_at_every_order(n, alpha):
    K = kernel(n)
    assert abs(float(renyi_entropy(K, alpha)) - float(true_entropy(K.cpu(), alpha))) <= 1e-5


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize(("batch", "n"), [(1000, 64), (512, 256), (64, 768), (3, 1500), (40_000, 8)])
def test_float32_batches_are_right_to_1e_5_and_their_gradients_to_1e_4(batch, n, precision):
    K = kernel(n, batch=(min(batch, 50),)).repeat(-(-batch // min(batch, 50)), 1, 1)[:batch]
    value, gradient = value_and_gradient(partial(renyi_entropy, precision=precision), K)
    assert (value.double() - true_entropy(K, 1)).abs().max() <= 1e-5
    exact, exact_gradient = value_and_gradient(renyi_entropy, K[-3:].double().cpu())
    assert (value[-3:].cpu() - exact).abs().max() <= 1e-5
    error = (gradient[-3:].cpu().double() - exact_gradient).norm() / exact_gradient.norm()
    assert error <= (1e-4 if precision == "auto" else 1e-2)


@pytest.mark.parametrize(("batch", "n"), [(70_000, 4), (65_536, 1), (66_000, 33), (131_073, 2)])
def test_more_than_65535_matrices_are_solved(batch, n):
    K = kernel(n, batch=(1000,)).repeat(-(-batch // 1000), 1, 1)[:batch]
    value, gradient = value_and_gradient(renyi_entropy, K)
    assert (
        value - true_entropy(K[:1000].cpu(), 1).to(DEVICE).repeat(-(-batch // 1000))[:batch]
    ).abs().max() < 1e-5
    assert gradient.isfinite().all()


def test_without_the_batched_driver_float32_is_not_left_to_the_loose_one(monkeypatch):
    monkeypatch.setattr(cusolver, "is_available", lambda: False)
    K = kernel(256)
    value = float(renyi_entropy(K, precision="float32"))
    assert abs(value - float(true_entropy(K.cpu(), 1))) <= 1e-5
    monkeypatch.setattr(eigensolver, "_LARGEST_TORCH_BATCH", 7)
    K = kernel(16, batch=(30,))
    assert (renyi_entropy(K) - true_entropy(K, 1)).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vectors", [False, True])
def test_batched_eigh_solves_hard_families_mixed_in_one_batch(dtype, vectors):
    n = 96
    members = [matrices.hard_features(name, n, seed) for name in matrices.HARD_FAMILIES for seed in (0, 1)]
    K = torch.stack([torch.from_numpy(Z.T @ Z) for Z in members]).to(dtype)
    x, Q = cusolver.batched_eigh(K.to(DEVICE), vectors=vectors)
    top = torch.linalg.eigvalsh(K.double())
    assert ((x.double().cpu() - top).abs().amax(-1) / top[:, -1]).max() < 300 * torch.finfo(dtype).eps
    if vectors:
        assert (Q.mT @ Q - torch.eye(n, dtype=dtype, device=DEVICE)).abs().max() < 300 * torch.finfo(
            dtype
        ).eps
        rebuilt = (Q * x[:, None, :]) @ Q.mT
        assert ((rebuilt.cpu() - K).abs().amax((-2, -1)) / top[:, -1]).max() < 300 * torch.finfo(dtype).eps


def test_tf32_changes_no_result():
    with tf32(TF32_ON):
        Z = features(1024, 256)
        for function in (
            lambda Z: renyi_entropy(Gram(Z)),
            lambda Z: renyi_entropy(Z @ Z.mT if Z.dtype == torch.float64 else Gram(Z), 3),
            mmae_tcr_loss,
            tcr,
        ):
            exact = float(function(Z.double()))
            assert abs(float(function(Z)) - exact) <= 1e-5 * (1 + abs(exact))
        one, two = (KernelOperator(Z, bandwidth=1.0, precision=kind) for kind in ("float32", "float64"))
        V = torch.randn(1024, 8, generator=seeded(), dtype=torch.float64).to(DEVICE)
        assert (one.matmat(V) - two.matmat(V)).norm() <= 1e-5 * two.matmat(V).norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_and_autocast_are_computed_in_float32_at_least(dtype):
    Z = features(128, 32, dtype=dtype)
    exact = float(renyi_entropy(Gram(Z.double())))
    assert abs(float(renyi_entropy(Gram(Z))) - exact) < 1e-5
    with torch.autocast("cuda", dtype=dtype):
        assert abs(float(renyi_entropy(Gram(Z.float()))) - exact) < 1e-5


# ---------------------------------------------------------------- the quadrature


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [40, 256, 1500])
def test_quadrature_keeps_its_promise_on_the_device(n, dtype):
    Z = features(n, n // 2)
    few = torch.nn.functional.normalize(torch.randn(n, n // 2, generator=seeded()), dim=1).to(DEVICE)
    for K in (kernel(n, dtype), (Z @ Z.mT).to(dtype), (few @ few.mT).to(dtype)):
        for alpha, rtol in ((0.5, 1e-2), (1.0, 1e-3), (1.0, 1e-5), (1.5, 1e-3), (1.9, 1e-3), (2.0, 1e-4)):
            try:
                value = float(renyi_entropy(K, alpha, method="quadrature", rtol=rtol))
            except ValueError:
                continue
            truth = float(true_entropy(K, alpha))
            assert abs(value - truth) <= rtol * truth, (n, alpha, rtol)


def test_quadrature_gradient_of_large_matrices_is_that_of_float64():
    K = kernel(4096)
    fast = value_and_gradient(partial(renyi_entropy, method="quadrature", rtol=1e-3), K)[1]
    L = torch.linalg.cholesky(K.double() + 0.1 * torch.eye(4096, device=DEVICE))
    found = triangular.weighted_inverse_sum(torch.stack([L, L]).float(), [1.5, -0.5])
    exact = torch.cholesky_inverse(L)
    assert (found - exact).norm() / exact.norm() < 1e-4
    assert fast.isfinite().all()


def test_explain_names_the_route_on_the_device():
    K = kernel(1024)
    with explain() as log:
        renyi_entropy(K)
        renyi_entropy(K, rtol=1e-3)
        renyi_entropy(K, 0.05, rtol=1e-3)  # out of the quadrature's reach: eigenvalues
    assert [step.route for step in log.steps] == ["eigvalsh", "quadrature", "eigvalsh"]
    assert log.steps[0].note == "cuSOLVER batched"


# ---------------------------------------------------------------- capture, compilation, transforms

STEPS = {
    "mmae": (mmae_tcr_loss, lambda: features(64, 32)),
    "tcr": (tcr, lambda: features(64, 32)),
    "umae": (umae_uniformity_loss, lambda: features(64, 32)),
    "H_1": (renyi_entropy, lambda: kernel(96)),
    "H_1 of features": (lambda Z: renyi_entropy(Gram(Z)), lambda: features(256, 48)),
    "H_1 by quadrature": (partial(renyi_entropy, method="quadrature"), lambda: kernel(96)),
    "H_1 by quadrature, large": (partial(renyi_entropy, method="quadrature"), lambda: kernel(1100)),
    "H_2": (partial(renyi_entropy, alpha=2), lambda: kernel(96)),
    "H_3": (partial(renyi_entropy, alpha=3), lambda: kernel(96)),
    "effective rank": (effective_rank, lambda: kernel(64, batch=(5,))),
}


@pytest.mark.parametrize("name", STEPS)
def test_forward_and_backward_are_captured_in_a_cuda_graph(name):
    function, build = STEPS[name]
    x = build().requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            function(x).sum().backward()
    torch.cuda.current_stream().wait_stream(stream)
    x.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = function(x)
        value.sum().backward()
    with torch.no_grad():
        x.copy_(
            0.5 * (build() + build().flip(-2).flip(-1)) if x.shape[-1] == x.shape[-2] else build().flip(-2)
        )
    graph.replay()
    expected, gradient = value_and_gradient(function, x)
    tolerance = 2e-3 if "quadrature" in name else 1e-5
    assert torch.allclose(value.detach(), expected, rtol=tolerance, atol=1e-6)
    assert (x.grad - gradient).norm() <= 5 * max(tolerance, 2e-3 * ("quadrature" in name)) * gradient.norm()


@pytest.mark.parametrize("name", STEPS)
def test_nothing_waits_where_waiting_is_an_error(name):
    function, build = STEPS[name]
    x = build()
    value_and_gradient(function, x)  # libraries may wait while they are loaded
    with waiting_is_an_error():
        value_and_gradient(function, x)


def test_captured_entropy_of_an_indefinite_or_non_finite_matrix_is_nan():
    K = kernel(8, batch=(3,))
    K[1] -= 2 * torch.eye(8, device=DEVICE)
    K[2, 1, 1] = math.nan
    renyi_entropy(K[:1])
    with waiting_is_an_error():
        value = renyi_entropy(K)
    assert value.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["H_1 of features", "tcr", "H_2"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiled_in_one_graph_equals_eager(name):
    function, build = STEPS[name]
    x = build()
    compiled = value_and_gradient(torch.compile(function, fullgraph=True), x)
    for found, expected in zip(compiled, value_and_gradient(function, x), strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_hessian_and_vmap_on_the_device_equal_the_cpu():
    Z = features(8, 4, dtype=torch.float64)
    function = lambda Z: renyi_entropy(Gram(Z))  # noqa: E731
    on_device = torch.func.hessian(function)(Z).cpu()
    assert torch.allclose(on_device, torch.func.hessian(function)(Z.cpu()), atol=1e-9)
    batch = features(8, 4, batch=(5,), dtype=torch.float64)
    assert torch.allclose(torch.func.vmap(function)(batch).cpu(), function(batch.cpu()), atol=1e-12)


def test_mutual_information_on_the_device_equals_the_cpu():
    A, B = kernel(128), kernel(128).flip(0).flip(1)
    assert abs(float(mutual_information(A, B)) - float(mutual_information(A.cpu(), B.cpu()))) < 2e-5


def test_too_large_a_matrix_says_how_much_memory_it_needs(monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(eigensolver, "_torch_solve", exhausted)
    with pytest.raises(ValueError, match=r"GiB are needed.*Gram"):
        renyi_entropy(kernel(1200))
