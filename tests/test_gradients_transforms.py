"""Derivatives of the entropies by every way that torch offers to ask for them."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import torch
from contract_cases import ALL_CASES, tensors
from helpers import grad, sym, t
from tolerances import EPS32, close, relative_error

from matinfo import Gram, mutual_information, renyi_entropy

INF = math.inf


# --- every way to ask ----------------------------------------------------------------------------------------

FUNC_ALPHAS = (1.0, 1.5, 2.0, 3.0)


@pytest.mark.parametrize("alpha", (*FUNC_ALPHAS, INF))
def test_torch_func_grad_equals_autograd(alpha):
    K = t(matrices.named("random", 4))
    by_func = torch.func.grad(lambda A: renyi_entropy(A, alpha))(K)
    # One algorithm, but wrapped tensors may take another memory layout: a few eps of difference.
    assert relative_error(by_func, grad(lambda A: renyi_entropy(A, alpha), K)) < 1e-14


@pytest.mark.parametrize("alpha", (*FUNC_ALPHAS, INF))
def test_torch_func_vmap_equals_a_loop(alpha):
    K = t(np.stack([matrices.named(name, 4, s) for s, name in enumerate(("random", "flat", "triple"))]))
    function = lambda A: renyi_entropy(A, alpha)  # noqa: E731
    values = torch.func.vmap(function)(K)
    gradients = torch.func.vmap(torch.func.grad(function))(K)
    for i in range(3):
        close(values[i], function(K[i]), 1e-14)
        assert (gradients[i] - grad(function, K[i])).abs().max() < 1e-14
    moved = torch.func.vmap(function, in_dims=2)(K.permute(1, 2, 0))
    assert (moved - values).abs().max() < 1e-14


@pytest.mark.parametrize("alpha", FUNC_ALPHAS)
def test_torch_func_hessian_and_jacrev_twice_agree_with_the_formula(alpha):
    lam = np.array([0.5, 1.1, 1.1])
    Q = matrices.orthogonal(3, 1)
    K = t(matrices.symmetric((Q * lam) @ Q.T))
    E = matrices.symmetric(matrices.features(3, 3, 2))
    function = lambda A: renyi_entropy(sym(A), alpha)  # noqa: E731
    expected = oracles.entropy_hessian_product(lam, Q, alpha, E)
    for hessian in (torch.func.hessian(function), torch.func.jacrev(torch.func.jacrev(function))):
        product = torch.einsum("ijkl,kl->ij", hessian(K), t(E))
        assert relative_error(product, expected) < 1e-12


@pytest.mark.parametrize("alpha", FUNC_ALPHAS)
def test_torch_func_works_through_gram_features(alpha):
    Z = t(np.stack([matrices.features(6, 3, s) for s in range(3)]))
    function = lambda Z: renyi_entropy(Gram(Z), alpha)  # noqa: E731
    gradients = torch.func.vmap(torch.func.grad(function))(Z)
    hessians = torch.func.vmap(torch.func.hessian(function))(Z)
    assert hessians.shape == (3, 6, 3, 6, 3)
    assert hessians.abs().amax() > 1e-2
    for i in range(3):
        assert (gradients[i] - grad(function, Z[i])).abs().max() < 1e-14


def test_upstream_gradients_weigh_each_batch_element():
    K = t(np.stack([matrices.named("random", 4, s) for s in range(3)]))
    weights = t([2.0, 0.0, -3.0])
    weighted = grad(lambda A: (weights * renyi_entropy(A)).sum(), K)
    for i in range(3):
        assert (weighted[i] - weights[i] * grad(renyi_entropy, K[i])).abs().max() < 1e-14


def test_third_derivative_is_refused_and_not_wrong():
    K = t(matrices.named("random", 4)).requires_grad_()
    (first,) = torch.autograd.grad(renyi_entropy(K, 1.5), K, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), K, create_graph=True)
    with pytest.raises(RuntimeError, match="third"):
        torch.autograd.grad(second.square().sum(), K)


def test_gradient_may_be_taken_twice_with_retained_graph_and_inputs_are_not_modified():
    K = t(matrices.named("random", 4)).requires_grad_()
    before = K.detach().clone()
    value = renyi_entropy(K, 1.5)
    (one,) = torch.autograd.grad(value, K, retain_graph=True)
    (two,) = torch.autograd.grad(value, K)
    assert torch.equal(one, two)
    assert torch.equal(K.detach(), before)


def test_only_the_argument_that_requires_it_gets_a_gradient():
    K, L = t(matrices.named("random", 4)).requires_grad_(), t(matrices.named("triple", 4))
    value = mutual_information(K, L)
    value.backward()
    assert K.grad is not None
    assert L.grad is None


def test_no_graph_is_built_under_no_grad():
    K = t(matrices.named("random", 4)).requires_grad_()
    with torch.no_grad():
        assert not renyi_entropy(K).requires_grad
    with torch.inference_mode():
        assert renyi_entropy(K).isfinite()


# Of the others those that draw at random or count labels break the graph, and so does the constant of er_loss.
IN_TRAINING_STEPS = (
    "joint_entropy", "mutual_information", "total_correlation", "matrix_kl", "matrix_js", "effective_rank",
    "matrix_tcr", "tcr", "cka", "hsic", "mmae_tcr_loss", "umae_uniformity_loss", "vne_loss",
    "matrix_ssl_loss", "barlow_twins_loss", "vicreg_loss", "ntxent_loss", "byol_loss", "dino_loss",
    "swav_loss", "er_loss", "rankme", "mmcr_loss",
)  # fmt: skip

# Inductor calls functions of torch that torch itself deprecates: its warnings are not ours.
quiet_compiler = pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore:Skipping serialization of skipfiles:UserWarning",  # torch 2.6, of its own configuration
)


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@quiet_compiler
@pytest.mark.usefixtures("fresh_compiler")
# Inductor takes its time and adds no derivative rules of ours: two orders are enough.
@pytest.mark.parametrize(
    ("alpha", "backend"),
    [*((alpha, "aot_eager") for alpha in (0.5, *FUNC_ALPHAS, INF)), (1.0, "inductor"), (2.0, "inductor")],
)
@pytest.mark.parametrize("operand", ["matrix", "gram"])
def test_torch_compile_fullgraph_agrees_with_eager(operand, alpha, backend):
    def function(A):
        return renyi_entropy(A if operand == "matrix" else Gram(A), alpha)

    K = t(matrices.named("random", 6))
    x = K.clone().requires_grad_()
    value = torch.compile(function, fullgraph=True, backend=backend)(x)
    close(value, function(K), 1e-13)
    (gradient,) = torch.autograd.grad(value, x)
    assert relative_error(gradient, grad(function, K)) < 1e-12


@pytest.mark.slow
@quiet_compiler
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", IN_TRAINING_STEPS)
def test_torch_compile_of_main_quantities_and_losses_agrees_with_eager(name):
    case, inputs = ALL_CASES[name], [x.requires_grad_() for x in tensors(name)]
    expected = case(*inputs)
    value = torch.compile(lambda *xs: case(*xs), fullgraph=name != "er_loss", backend="aot_eager")(*inputs)
    close(value, expected, 1e-12)
    for got, wanted in zip(
        torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        assert relative_error(got, wanted) < 1e-10


@pytest.mark.slow
@quiet_compiler
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("alpha", (0.0, 0.5, *FUNC_ALPHAS, INF))
def test_torch_compile_fullgraph_works_without_gradients(alpha):
    K = t(matrices.named("random", 6))
    for operand in (torch.clone, Gram):

        def function(A, operand=operand):
            return renyi_entropy(operand(A), alpha)

        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        close(compiled(K), function(K), 1e-13)
        with torch.no_grad():
            close(compiled(K), function(K), 1e-13)


@pytest.mark.slow
@quiet_compiler
@pytest.mark.usefixtures("fresh_compiler")
def test_torch_compile_is_not_touched_by_autocast():
    Z = t(matrices.features(6, 9), torch.float32).requires_grad_()
    compiled = torch.compile(lambda Z: renyi_entropy(Gram(Z)), fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = compiled(Z)
    close(value, renyi_entropy(Gram(Z)), 4 * EPS32)


@pytest.mark.slow
@quiet_compiler
@pytest.mark.usefixtures("fresh_compiler")
def test_torch_compile_accepts_a_changing_order():
    # From the second value on, the compiler treats a Python float as symbolic.
    compiled = torch.compile(renyi_entropy, fullgraph=True, backend="aot_eager")
    K = t(matrices.named("random", 6))
    for alpha in (1.5, 1.25, 2.5, 2.0, 1.0):
        close(compiled(K, alpha), renyi_entropy(K, alpha), 1e-13)
