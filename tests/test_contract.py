"""What every public function promises: shapes, dtypes, frameworks, operands, invariances."""

from __future__ import annotations

import matrices
import numpy as np
import pytest
import torch
from contract_cases import (
    ALL_CASES,
    FEATURE_CASES,
    LOSSES,
    MATRIX_CASES,
    SCALAR_CASES,
    all_functions,
    batch,
    batched_functions,
    functions_of_several,
    inputs,
    loss_functions,
    matrix_functions,
    public_name,
    scalar_functions,
    tensors,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import EPS32, approx, relative_error

import matinfo
from matinfo import Gram, losses

# --- completeness --------------------------------------------------------------------------------------------


def test_every_public_function_is_in_this_contract():
    public = [getattr(matinfo, name) for name in matinfo.__all__]
    public += [getattr(matinfo.kernels, name) for name in matinfo.kernels.__all__]
    public += [getattr(losses, name) for name in losses.__all__]
    functions = {f.__name__ for f in public if callable(f) and not isinstance(f, type)}
    covered = {public_name(name) for name in ALL_CASES}
    returning_an_operand = {
        "nystrom",
        "random_features",
        "spectrum",
    }  # test_feature_maps.py, test_spectrum.py
    returning_a_result = {"independence_test", "conditional_independence_test"}  # test_independence.py
    others = {"explain", "dime_loss", "dib_loss", "hsic_bottleneck_loss", "vmf_log_normalizer"}
    assert functions - covered == others | returning_an_operand | returning_a_result


def test_every_public_name_exists_and_every_agreed_name_is_public():
    agreed = {public_name(name) for name in SCALAR_CASES if "loss" not in name}
    agreed |= {"Gram", "correlation", "kernels", "losses", "explain"}
    assert len(agreed) >= 22
    assert agreed <= set(matinfo.__all__)
    assert all(hasattr(matinfo, name) for name in matinfo.__all__)


# --- shapes --------------------------------------------------------------------------------------------------


@scalar_functions
def test_function_returns_a_scalar_for_one_matrix(name):
    assert SCALAR_CASES[name](*tensors(name)).shape == ()


@batched_functions
def test_function_accepts_an_empty_batch(name):
    stacked = [x.expand(0, *x.shape) for x in tensors(name)]
    assert SCALAR_CASES[name](*stacked).shape == (0,)


@functions_of_several
def test_function_broadcasts_batch_dimensions_between_arguments(name):
    case = MATRIX_CASES[name]
    stacked, _ = batch(name, (3, 1))
    single = [
        torch.stack([torch.as_tensor(x) for x in column])
        for column in zip(*(inputs(name, seed=s) for s in (7, 8)), strict=True)
    ]
    values = case(stacked[0], *single[1:])
    assert values.shape == (3, 2)
    expected = case(stacked[0][2, 0], *(x[1] for x in single[1:]))
    assert values[2, 1].item() == approx(expected.item(), rel=1e-12, abs=1e-13)


# --- frameworks, dtypes, devices -----------------------------------------------------------------------------


@all_functions
def test_function_of_numpy_arrays_returns_numpy_float64(name):
    expected = ALL_CASES[name](*tensors(name))
    result = ALL_CASES[name](*inputs(name))
    assert isinstance(result, np.ndarray | np.float64)
    assert result.dtype == np.float64
    assert relative_error(np.atleast_1d(result), np.atleast_1d(expected.numpy())) < 1e-15 or np.array_equal(
        result, expected
    )


@all_functions
def test_function_of_float32_numpy_arrays_returns_float64(name):
    result = ALL_CASES[name](*(x.astype(np.float32) for x in inputs(name)))
    assert result.dtype == np.float64
    # The result must not have been rounded to float32 on the way: it equals that of the same values in float64.
    expected = ALL_CASES[name](*(x.astype(np.float32).astype(np.float64) for x in inputs(name)))
    assert relative_error(np.atleast_1d(result), np.atleast_1d(expected)) < 1e-12


@all_functions
def test_function_accepts_any_numpy_layout(name):
    arrays = inputs(name)
    expected = np.atleast_1d(ALL_CASES[name](*arrays))
    fortran = [np.asfortranarray(x) for x in arrays]
    reversed_twice = [x[::-1, ::-1][::-1, ::-1] for x in arrays]
    negative_strides = [np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1] for x in arrays]
    swapped = [x.astype(x.dtype.newbyteorder()) for x in arrays]
    read_only = [x.copy() for x in arrays]
    for x in read_only:
        x.flags.writeable = False
    for variant in (fortran, reversed_twice, negative_strides, swapped, read_only):
        assert relative_error(np.atleast_1d(ALL_CASES[name](*variant)), expected) < 1e-14


@functions_of_several
def test_arguments_of_two_dtypes_give_the_wider_one(name):
    arguments = tensors(name)
    assert MATRIX_CASES[name](arguments[0].float(), *arguments[1:]).dtype == torch.float64


@all_functions
def test_function_is_deterministic_and_leaves_its_arguments_alone(name):
    arguments = tensors(name)
    before = [x.clone() for x in arguments]
    assert torch.equal(ALL_CASES[name](*arguments), ALL_CASES[name](*arguments))
    assert all(torch.equal(x, y) for x, y in zip(arguments, before, strict=True))


# --- strided, expanded and tracked inputs --------------------------------------------------------------------


@all_functions
def test_function_is_differentiable_exactly_when_it_says_so(name):
    case = ALL_CASES[name]
    arguments = [x.requires_grad_() for x in tensors(name)]
    result = case(*arguments)
    if not case.differentiable:
        assert not result.requires_grad
        return
    weights = torch.randn(result.shape, dtype=result.dtype)
    for x, gradient in zip(arguments, torch.autograd.grad((weights * result).sum(), arguments), strict=True):
        assert gradient.shape == x.shape
        assert gradient.dtype == x.dtype
        assert gradient.isfinite().all()
        assert gradient.norm() > 1e-6


# --- operands ------------------------------------------------------------------------------------------------


@matrix_functions
@pytest.mark.parametrize(("n", "d"), [(5, 9), (5, 40)])
def test_gram_is_accepted_wherever_a_matrix_is_and_is_equal_to_it(name, n, d, device):
    case = MATRIX_CASES[name]
    features = [torch.as_tensor(matrices.features(n, d, i), device=device) for i in range(case.arguments)]
    expected = case(*(Z @ Z.mT for Z in features))
    found = case(*map(Gram, features))
    assert found.device == expected.device
    assert found.item() == approx(expected.item(), rel=1e-10, abs=1e-12)
    # One Gram among matrices.
    mixed = [Gram(features[0]), *(Z @ Z.mT for Z in features[1:])]
    assert case(*mixed).item() == approx(expected.item(), rel=1e-10, abs=1e-12)


# matrix_kl is infinite between different ranges: see test_divergence.py.
@pytest.mark.parametrize("name", [name for name in MATRIX_CASES if name != "matrix_kl"])
@pytest.mark.parametrize(("n", "d"), [(30, 3), (12, 5)])
def test_low_rank_gram_is_equal_to_its_matrix(name, n, d):
    case = MATRIX_CASES[name]
    features = [torch.as_tensor(matrices.features(n, d, i)) for i in range(case.arguments)]
    expected = case(*(Z @ Z.mT for Z in features)).item()
    # The dense side sees n - d zero eigenvalues as round-off: sqrt(1e-16) each at order 1/2.
    tolerance = 1e-6 if name.endswith("half") else 1e-11
    assert case(*map(Gram, features)).item() == approx(expected, rel=tolerance, abs=tolerance)


@matrix_functions
def test_batched_gram_keeps_batch_dimensions(name):
    case = MATRIX_CASES[name]
    features = [
        torch.as_tensor(np.stack([matrices.features(4, 7, 10 * i + s) for s in range(3)]))
        for i in range(case.arguments)
    ]
    values = case(*map(Gram, features))
    assert values.shape == (3,)
    single = case(*(Gram(Z[1]) for Z in features))
    assert values[1].item() == approx(single.item(), rel=1e-12, abs=1e-13)


@matrix_functions
def test_gram_of_numpy_features_returns_numpy(name):
    features = [matrices.features(5, 8, i) for i in range(MATRIX_CASES[name].arguments)]
    result = MATRIX_CASES[name](*map(Gram, features))
    assert isinstance(result, np.ndarray | np.float64)
    expected = MATRIX_CASES[name](*(Z @ Z.T for Z in features))
    assert result == approx(float(expected), rel=1e-10, abs=1e-12)


# matrix_kl is infinite between the ranges of narrow features.
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (n, s)
        for n, c in MATRIX_CASES.items()
        for s in ((4, 9), (9, 4))
        if c.differentiable and (n, s) != ("matrix_kl", (9, 4))
    ],
)
def test_gram_gradient_equals_the_dense_one(name, shape):
    case = MATRIX_CASES[name]
    features = [torch.as_tensor(matrices.features(*shape, i)).requires_grad_() for i in range(case.arguments)]
    dense = torch.autograd.grad(case(*(Z @ Z.mT for Z in features)), features)
    for one, other in zip(torch.autograd.grad(case(*map(Gram, features)), features), dense, strict=True):
        assert relative_error(one, other) < 1e-10


# --- invariances ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, case in SCALAR_CASES.items() if case.normalised])
@pytest.mark.parametrize("scale", [1e-12, 0.37, 1e12])
def test_normalised_function_does_not_depend_on_scale(name, scale):
    expected = SCALAR_CASES[name](*tensors(name)).item()
    for index in range(SCALAR_CASES[name].arguments):
        arguments = tensors(name)
        arguments[index] = scale * arguments[index]
        assert SCALAR_CASES[name](*arguments).item() == approx(expected, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("name", [name for name, case in SCALAR_CASES.items() if not case.normalised])
def test_function_that_is_not_normalised_depends_on_scale(name):
    arguments = tensors(name)
    doubled = [2.0 * arguments[0], *arguments[1:]]
    assert (SCALAR_CASES[name](*doubled) - SCALAR_CASES[name](*arguments)).abs() > 1e-2


# dime draws permutations of its own: only its mean over all of them does not change.
@pytest.mark.parametrize("name", [n for n in MATRIX_CASES if n != "dime"])
@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_matrix_function_does_not_change_when_samples_are_permuted(name, seed):
    order = np.random.default_rng(seed).permutation(6)
    permuted = [torch.as_tensor(x[np.ix_(order, order)]) for x in inputs(name)]
    expected = MATRIX_CASES[name](*tensors(name)).item()
    assert MATRIX_CASES[name](*permuted).item() == approx(expected, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("name", [n for n, case in MATRIX_CASES.items() if not case.hadamard])
@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_matrix_function_does_not_change_in_a_common_rotated_basis(name, seed):
    # Hadamard products are the exception: they belong to the basis of the samples.
    Q = matrices.orthogonal(6, seed)
    rotated = [torch.as_tensor(matrices.symmetric(Q @ x @ Q.T)) for x in inputs(name)]
    expected = MATRIX_CASES[name](*tensors(name)).item()
    assert MATRIX_CASES[name](*rotated).item() == approx(expected, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("name", FEATURE_CASES)
@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_feature_function_does_not_depend_on_sample_order_or_feature_basis(name, seed):
    (Z,) = inputs(name)
    labelled = name == "rate_reduction"  # the labels of this case have an order of their own
    order = slice(None) if labelled else np.random.default_rng(seed).permutation(len(Z))
    moved = Z[order] @ matrices.orthogonal(4, seed)
    expected = FEATURE_CASES[name](torch.as_tensor(Z)).item()
    assert FEATURE_CASES[name](torch.as_tensor(moved)).item() == approx(expected, rel=1e-12, abs=1e-13)


# --- losses ----------------------------------------------------------------------------------------------------


@loss_functions
def test_loss_is_a_scalar_of_one_batch_and_refuses_more(name):
    # Of tokens (B, T, d) every sample would be a batch of its own: another loss, trained without a word.
    assert ALL_CASES[name](*tensors(name)).shape == ()
    tokens, _ = batch(name, (2, 3) if name == "deepcluster_loss" else (3,))  # it has heads
    with pytest.raises(ValueError, match=r"^Expected .* of shape .*, got \(.*6(, 4)?\)"):
        ALL_CASES[name](*tokens)


@loss_functions
def test_loss_refuses_a_vector(name):
    with pytest.raises(ValueError, match=r"\((5,|1, 5)\)"):
        ALL_CASES[name](*[torch.ones(5)] * ALL_CASES[name].arguments)


# mcr2_loss: torch.unique has no rule for vmap, so that labels cannot be counted inside. sigreg_loss draws at random.
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("mcr2_loss", "sigreg_loss")])
def test_loss_of_several_batches_by_vmap_is_that_of_each(name):
    stacked, elements = batch(name, (3,))
    values = torch.func.vmap(ALL_CASES[name])(*stacked)
    singles = [ALL_CASES[name](*map(torch.as_tensor, element)).item() for element in elements]
    assert relative_error(values, singles) < 1e-12


@pytest.mark.parametrize("name", [name for name in LOSSES if ALL_CASES[name].arguments > 1])
@pytest.mark.parametrize("narrow", [torch.float32, torch.float16, torch.bfloat16])
def test_loss_of_two_dtypes_is_that_of_the_wider_one(name, narrow):
    count = ALL_CASES[name].arguments
    for index in range(count):
        mixed = tensors(name)
        mixed[index] = mixed[index].to(narrow)
        result = ALL_CASES[name](*mixed)
        assert result.dtype == torch.float64
        # The softmax in front of discrete_er_loss is rounded to float32.
        rounding = EPS32 if name == "discrete_er_loss" else 1e-14
        assert result.item() == approx(ALL_CASES[name](*(x.double() for x in mixed)).item(), rel=rounding)


def test_loss_takes_its_arguments_by_name_as_by_position():
    Z1, Z2 = (matrices.features(6, 4, seed) for seed in (1, 2))
    value = losses.vicreg_loss(Z1, Z2)
    assert losses.vicreg_loss(features1=Z1, features2=Z2) == value
    by_name = losses.vicreg_loss(features1=torch.as_tensor(Z1), features2=torch.as_tensor(Z2))
    assert by_name.dtype == torch.float64
    assert by_name.item() == value
    with pytest.raises(TypeError, match="NumPy arrays or tensors, got both"):
        losses.vicreg_loss(Z1, features2=torch.as_tensor(Z2))
