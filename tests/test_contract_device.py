"""What every public function promises on every device: on the CPU by default, with ``-m gpu`` on CUDA.

``MATINFO_TEST_DEVICE=cpu python -m pytest -m gpu`` rehearses the tests of the card without one. The yardstick is the
float64 value on the CPU, which the other files hold against naive definitions.
"""

from __future__ import annotations

import math
from functools import partial

import matrices
import numpy as np
import pytest
import torch
from contract_cases import (
    ALL_CASES,
    ARRAY_CASES,
    FEATURE_CASES,
    LOSSES,
    MATRIX_CASES,
    SCALAR_CASES,
    VIEW_CASES,
    all_functions,
    batch,
    batched_functions,
    differentiable_functions,
    inputs,
    matrix_functions,
    seeded,
    tensors,
)
from tolerances import EPS32, EPS64, approx, relative_error

import matinfo
from matinfo import Gram
from matinfo.estimate import estimate_entropy, estimate_tcr, estimate_trace_power, stochastic_entropy
from matinfo.losses import DINOCenter, dime_loss
from matinfo.streaming import CovarianceAccumulator, JointAccumulator, PairAccumulator

halves = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def gradients(name, arguments):
    """Derivatives, in every argument, of the sum of a function's values, weighted where that would be a constant."""
    leaves = [x.detach().clone().requires_grad_() for x in arguments]
    values = ALL_CASES[name](*leaves)
    weights = (
        torch.arange(1.0, values.numel() + 1).reshape(values.shape).sin() if name in ARRAY_CASES else 1.0
    )
    return torch.autograd.grad((values * torch.as_tensor(weights).to(values)).sum(), leaves)


def deviation(found, expected):
    """Largest difference of two arrays on any devices, as a share of the largest entry of the second or of 1."""
    found, expected = (x.detach().cpu().double() for x in (found, expected))
    return float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))


def is_on(x, device):
    return x.device.type == torch.device(device).type


# --- values, dtypes ------------------------------------------------------------------------------------------


@all_functions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_function_keeps_dtype_and_device_and_has_the_value_of_float64_on_the_cpu(name, dtype, device):
    arguments = tensors(name, dtype, device=device)
    result = ALL_CASES[name](*arguments)
    assert result.dtype == dtype
    assert is_on(result, device)
    expected = ALL_CASES[name](*(x.cpu().double() for x in arguments))
    error = (result.cpu().double() - expected).abs().max()
    # Differences of entropies (information, divergences) are rounded relative to the entropies, which are < 2 here.
    rounding = 4 * EPS32 if dtype == torch.float32 else 256 * EPS64
    assert error < rounding * (2 + expected.abs().max())
    if dtype == torch.float32 and device == "cpu" and name not in VIEW_CASES:
        # Small matrices are solved in float64: nothing is rounded but the result.
        assert error <= EPS32 * expected.abs().max()


@all_functions
@halves
def test_function_of_half_precision_is_that_of_the_values_in_float32(name, dtype, device):
    # Promotion must come before any product: a bfloat16 Gram matrix is off by 1e-2.
    arguments = tensors(name, dtype, device=device)
    result = ALL_CASES[name](*arguments)
    assert result.dtype == torch.float32
    expected = ALL_CASES[name](*(x.float() for x in arguments))
    assert (result - expected).abs().max() <= 4 * EPS32 * (1 + expected.abs().max())


@all_functions
def test_function_is_not_touched_by_autocast(name, device):
    arguments = tensors(name, torch.float32, device=device)
    outside = ALL_CASES[name](*arguments)
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        inside = ALL_CASES[name](*arguments)
    assert inside.dtype == torch.float32
    assert deviation(inside, outside) < 4 * EPS32  # the same kernels, which CUDA may sum in another order


@matrix_functions
def test_gram_is_not_touched_by_autocast(name, device):
    count = MATRIX_CASES[name].arguments
    features = [torch.as_tensor(matrices.features(6, 9, i)).float().to(device) for i in range(count)]
    outside = MATRIX_CASES[name](*map(Gram, features))
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        inside = MATRIX_CASES[name](*map(Gram, features))
    assert deviation(inside, outside) < 4 * EPS32


# --- shapes --------------------------------------------------------------------------------------------------


@batched_functions
def test_function_keeps_batch_dimensions(name, device):
    # repitl returns one wrong scalar for a batch.
    stacked, elements = batch(name)
    values = SCALAR_CASES[name](*(x.to(device) for x in stacked))
    assert values.shape == (2, 3)
    singles = [SCALAR_CASES[name](*map(torch.as_tensor, element)).item() for element in elements]
    assert relative_error(values.flatten().cpu(), singles) < 1e-12


@all_functions
def test_function_accepts_tensors_that_are_not_contiguous(name, device):
    arguments = tensors(name, device=device)
    expected = ALL_CASES[name](*arguments)
    spread = [torch.stack([x, -x], dim=-1)[..., 0] for x in arguments]
    transposed = [x.mT.contiguous().mT for x in arguments]
    assert not spread[0].is_contiguous()
    for variant in (spread, transposed):
        assert (ALL_CASES[name](*variant) - expected).abs().max() <= 1e-13


@batched_functions
def test_function_accepts_expanded_tensors_and_their_gradient(name, device):
    case = SCALAR_CASES[name]
    arguments = [x.requires_grad_(case.differentiable) for x in tensors(name, device=device)]
    values = case(*(x.expand(3, *x.shape) for x in arguments))
    single = case(*arguments)
    assert (values - single).abs().max() < 1e-13
    if case.differentiable:
        summed = torch.autograd.grad(values.sum(), arguments)
        for one, other in zip(summed, torch.autograd.grad(single, arguments), strict=True):
            assert (one - 3 * other).abs().max() < 1e-12


@batched_functions
def test_batch_of_more_matrices_than_a_grid_has_blocks_is_that_of_each(name, device):
    # CUDA grids have 65,535 blocks along two of their axes; solvers of batches fail above, or before.
    count, distinct = (70_001 if torch.device(device).type == "cuda" else 71), 7
    case = SCALAR_CASES[name]
    elements = [inputs(name, n=3, seed=seed) for seed in range(distinct)]
    columns = [torch.as_tensor(np.stack(column)) for column in zip(*elements, strict=True)]
    which = torch.arange(count) % distinct
    arguments = [x.to(device)[which.to(device)].requires_grad_(case.differentiable) for x in columns]
    values = case(*arguments)
    expected = case(*columns)[which]
    assert deviation(values, expected) < 1e-11
    if case.differentiable:
        found = torch.autograd.grad(values.sum(), arguments)
        for gradient, reference in zip(found, gradients(name, columns), strict=True):
            assert deviation(gradient, reference[which]) < 1e-10


# --- derivatives ---------------------------------------------------------------------------------------------


@differentiable_functions
@pytest.mark.parametrize(
    ("dtype", "rounding"),
    [(torch.float64, 1e-11), (torch.float32, 1e-4), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
def test_gradient_is_that_of_float64_on_the_cpu(name, dtype, rounding, device):
    arguments = tensors(name, dtype, device=device)
    expected = gradients(name, [x.cpu().double() for x in arguments])
    for gradient, reference in zip(gradients(name, arguments), expected, strict=True):
        assert gradient.dtype == dtype
        assert is_on(gradient, device)
        assert relative_error(gradient.cpu().double(), reference) < rounding


@differentiable_functions
def test_gradient_under_autocast_is_that_outside(name, device):
    arguments = [x.requires_grad_() for x in tensors(name, torch.float32, device=device)]
    outside = torch.autograd.grad(ALL_CASES[name](*arguments).sum(), arguments)
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        value = ALL_CASES[name](*arguments).sum()
    for one, other in zip(torch.autograd.grad(value, arguments), outside, strict=True):
        assert deviation(one, other) < 1e-5


# --- what training throws at it ------------------------------------------------------------------------------


def poisoned(x, value, entries):
    """The second of three elements with entries that are not a number."""
    x = x.clone()
    for entry in entries:
        x[(1, *entry)] = value
    return x


def check_that_the_others_of_a_batch_are_left_alone(name, clean, device, spoil, of=None):
    """Each argument is spoilt in turn; gradients of what is spoilt are NaN and no silent zero."""
    case = SCALAR_CASES[name]
    function = case if of is None else lambda *Zs: case(*map(of, Zs))
    leaves = [x.clone().requires_grad_(case.differentiable) for x in clean]
    expected = function(*leaves)
    for index in range(case.arguments):
        arguments = [x.detach().to(device) for x in clean]
        arguments[index] = spoil(arguments[index])
        arguments = [x.requires_grad_(case.differentiable) for x in arguments]
        values = function(*arguments)
        assert values[1].isnan()
        assert deviation(values[[0, 2]], expected[[0, 2]]) < 1e-12
        if case.differentiable:
            found = torch.autograd.grad(values.sum(), arguments)
            assert any(gradient[1].isnan().any() for gradient in found)
            references = torch.autograd.grad(expected.sum(), leaves, retain_graph=True)
            for gradient, reference in zip(found, references, strict=True):
                assert deviation(gradient[[0, 2]], reference[[0, 2]]) < 1e-10


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@batched_functions
def test_function_keeps_what_is_not_finite_in_its_element_of_the_batch(name, value, device):
    entries = [(2, 1), (1, 2)] if name in MATRIX_CASES else [(2, 1)]
    spoil = partial(poisoned, value=value, entries=entries)
    check_that_the_others_of_a_batch_are_left_alone(name, batch(name, (3,))[0], device, spoil)


@pytest.mark.parametrize("entry", [(0, 0), (5, 5), (0, 5), (5, 0)])
@matrix_functions
def test_function_sees_a_nan_wherever_it_is(name, entry, device):
    # eigh reads one triangle only: a NaN in the other would go unseen.
    spoil = partial(poisoned, value=math.nan, entries=[entry])
    check_that_the_others_of_a_batch_are_left_alone(name, batch(name, (3,))[0], device, spoil)


# Between different ranges matrix_kl is infinite.
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "width"), [(n, d) for n in MATRIX_CASES for d in (3, 9) if (n, d) != ("matrix_kl", 3)]
)
def test_gram_keeps_what_is_not_finite_in_its_element_of_the_batch(name, width, value, device):
    count = MATRIX_CASES[name].arguments
    clean = [
        torch.as_tensor(np.stack([matrices.features(6, width, 10 * i + s) for s in range(3)]))
        for i in range(count)
    ]
    spoil = partial(poisoned, value=value, entries=[(2, 1)])
    check_that_the_others_of_a_batch_are_left_alone(name, clean, device, spoil, of=Gram)


@matrix_functions
def test_function_of_nothing_but_nan_is_nan_without_an_exception(name, device):
    case = MATRIX_CASES[name]
    arguments = [torch.full((5, 5), math.nan, device=device) for _ in range(case.arguments)]
    assert case(*arguments).isnan()
    assert not case.differentiable or gradients(name, arguments)[0].isnan().any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_what_is_not_finite_is_not_a_number_either(name, value, device):
    for index in range(ALL_CASES[name].arguments):
        arguments = tensors(name, torch.float32, device=device)
        arguments[index][2, 1] = value
        result = ALL_CASES[name](*arguments)
        hidden = name == "masked_reconstruction_loss" and not result.isnan()  # the patch is visible
        assert hidden or not result.isfinite()


# Round-off in the eigenvalues of a singular matrix shows at once in these: powers below 1, quotients of entropies of 0.
READING_NOISE = {
    "renyi_entropy_half",
    "renyi_entropy_zero",
    "sandwiched_mutual_information_two",
    *(name for name in MATRIX_CASES if name.startswith("normalized")),
}


OF_FEATURES = [name for name in FEATURE_CASES if name not in LOSSES]


@pytest.mark.parametrize("family", matrices.HARD_FAMILIES)
def test_functions_survive_the_hard_float32_families(family, device):
    # Covariances on which float32 eigensolvers fail, next to each other in one batch too.
    n = 64
    Z = torch.as_tensor(matrices.hard_features(family, n, seed=1)).float()
    K = (Z.mT @ Z).to(device)
    noise = 20 * math.sqrt(n) * EPS32
    for name, case in MATRIX_CASES.items():
        if name == "dime":  # of unit diagonals: another order of these samples may have a product of zero
            continue
        arguments = [K.clone().requires_grad_(case.differentiable) for _ in range(case.arguments)]
        value = case(*arguments)
        assert value.isfinite(), name
        if name not in READING_NOISE:
            expected = case(*[Gram(Z.double().mT)] * case.arguments).item()
            assert value.item() == approx(expected, abs=noise * (1 + abs(expected))), name
        if case.differentiable:
            assert all(g.isfinite().all() for g in torch.autograd.grad(value, arguments)), name
    for name in OF_FEATURES:
        value, expected = FEATURE_CASES[name](Z.to(device)), FEATURE_CASES[name](Z.double()).item()
        assert value.item() == approx(expected, rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_finite_on_hard_features(name, dtype, device):
    count = ALL_CASES[name].arguments
    for family in matrices.HARD_FAMILIES:
        Z = torch.as_tensor(matrices.hard_features(family, 16, seed=1), dtype=dtype, device=device)
        Z = Z.expand(2, -1) if len(Z) == 1 else Z
        value = ALL_CASES[name](*[Z.clone() for _ in range(count)])
        assert value.isfinite(), family
        assert all(g.isfinite().all() for g in gradients(name, [Z] * count)), family


# --- operands and what is not a plain function -----------------------------------------------------------------


def test_dime_loss_is_minus_dime(device):
    K, L = (torch.as_tensor(matrices.random_correlation(6, seed), device=device) for seed in range(2))
    assert seeded(dime_loss)(K, L) == -seeded(matinfo.dime)(K, L)
    assert is_on(seeded(dime_loss)(K, L), device)


def test_spectrum_answers_as_its_matrix(device):
    K = torch.as_tensor(matrices.named("random", 8)).to(device).requires_grad_()
    S = matinfo.spectrum(K)
    for function in (matinfo.renyi_entropy, matinfo.effective_rank, matinfo.participation_ratio):
        assert is_on(function(S), device)
        assert function(S).item() == approx(function(K.detach().cpu()).item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(matinfo.renyi_entropy(S), K)
    assert deviation(gradient, gradients("renyi_entropy", [K.detach().cpu()])[0]) < 1e-12


def test_dino_center_moves_with_its_module(device):
    center = DINOCenter(3).to(device)
    center.update(torch.ones(2, 4, 3, device=device))
    assert is_on(center.center, device)
    assert center.center.tolist() == [approx(0.1, rel=1e-6)] * 3


@pytest.mark.parametrize("kind", ["matrix", "gram"])
def test_estimates_cover_the_exact_value(kind, device):
    Z = torch.as_tensor(matrices.features(200, 300), device=device)
    K = Gram(Z) if kind == "gram" else Z @ Z.mT
    generator = torch.Generator(device).manual_seed(0)
    estimates = {
        "entropy": (estimate_entropy(K, 1.5, generator=generator), matinfo.renyi_entropy(K, 1.5)),
        "tcr": (estimate_tcr(K, 1.0, generator=generator), matinfo.matrix_tcr(K)),
        "power": (
            estimate_trace_power(K, 3, generator=generator),
            torch.linalg.matrix_power(Z @ Z.mT / (Z @ Z.mT).trace(), 3).trace(),
        ),
    }
    for name, (found, exact) in estimates.items():
        wide = 8 * float(found.standard_error) + 1e-6 * abs(float(exact))
        assert abs(float(found.value) - float(exact)) < wide, name
    leaf = Z.clone().requires_grad_()
    estimate = stochastic_entropy(Gram(leaf), generator=torch.Generator(device).manual_seed(0))
    (gradient,) = torch.autograd.grad(estimate.value, leaf)
    assert is_on(gradient, device)
    assert gradient.isfinite().all()


def test_accumulators_of_batches_give_the_quantities_of_all_rows(device):
    Z, W = (torch.as_tensor(matrices.features(40, d, d), device=device) for d in (5, 3))
    covariance, pair, joint = (
        kind(*widths, normalize=False)
        for kind, widths in (
            (CovarianceAccumulator, [5]),
            (PairAccumulator, [5, 3]),
            (JointAccumulator, [5, 3]),
        )
    )
    for rows in torch.arange(40, device=device).split(7):
        covariance.update(Z[rows])
        pair.update(Z[rows], W[rows])
        joint.update(Z[rows], W[rows])
    expected = matinfo.effective_rank(Gram(Z)).item()
    assert float(matinfo.effective_rank(covariance.gram())) == approx(expected, rel=1e-11)
    expected = matinfo.joint_entropy(Gram(Z), Gram(W)).item()
    assert float(matinfo.renyi_entropy(joint.gram())) == approx(expected, rel=1e-10)
    expected = matinfo.matrix_js(Gram(Z), Gram(W)).item()
    assert float(pair.matrix_js()) == approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", OF_FEATURES)
def test_function_of_features_has_its_value_on_either_side(name, device):
    for n, d in ((30, 3), (3, 30)):
        Z = torch.as_tensor(matrices.features(n, d))
        found = FEATURE_CASES[name](Z.to(device))
        assert found.item() == approx(FEATURE_CASES[name](Z).item(), rel=1e-11)
