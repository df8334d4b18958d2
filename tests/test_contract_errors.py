"""What every public function refuses, and in which words: the error names what came and the remedy."""

from __future__ import annotations

import matrices
import numpy as np
import pytest
import torch
from contract_cases import (
    ALL_CASES,
    FEATURE_CASES,
    MATRIX_CASES,
    all_functions,
    functions_of_several,
    matrix_functions,
    public_name,
    tensors,
)
from tolerances import EPS32, approx

import matinfo
from matinfo import Gram

# --- errors --------------------------------------------------------------------------------------------------


@all_functions
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64])
def test_function_rejects_dtypes_that_are_not_real_floating_point(name, dtype):
    arguments = [torch.eye(4).to(dtype), *[torch.eye(4) for _ in range(ALL_CASES[name].arguments - 1)]]
    with pytest.raises(TypeError, match=str(dtype).removeprefix("torch.")):
        ALL_CASES[name](*arguments)


@all_functions
@pytest.mark.parametrize("dtype", [np.int64, bool, np.complex128])
def test_function_rejects_numpy_dtypes_that_are_not_real_floating_point(name, dtype):
    with pytest.raises(TypeError, match=r"int64|bool|complex128"):
        ALL_CASES[name](*[np.eye(4).astype(dtype) for _ in range(ALL_CASES[name].arguments)])


@all_functions
@pytest.mark.parametrize("argument", [None, 1.0, "K", [[1.0, 0.0], [0.0, 1.0]]])
def test_function_rejects_what_is_neither_tensor_nor_array(name, argument):
    with pytest.raises(TypeError, match=type(argument).__name__):
        ALL_CASES[name](*[argument] * ALL_CASES[name].arguments)


@matrix_functions
def test_function_rejects_features_passed_as_a_matrix_and_says_what_to_call(name):
    call = public_name(name)
    message = (
        rf"^Expected K1? to be square in its last two dimensions, got \(8, 5\)\. "
        rf"For features use {call}\(Gram\(features\)"
    )
    with pytest.raises(ValueError, match=message):
        MATRIX_CASES[name](*[torch.randn(8, 5)] * MATRIX_CASES[name].arguments)


@pytest.mark.parametrize("name", ["rankme", "tcr", "coding_rate", "rate_reduction"])
def test_function_of_features_names_the_argument_at_fault(name):
    with pytest.raises(ValueError, match=r"^Expected features of shape .*got \(5,\).*features\.unsqueeze"):
        FEATURE_CASES[name](torch.ones(5))


@matrix_functions
def test_function_rejects_a_vector_and_a_scalar(name):
    for x, shape in ((torch.ones(5), r"\(5,\)"), (torch.tensor(1.0), r"\(\)")):
        with pytest.raises(ValueError, match=shape):
            MATRIX_CASES[name](*[x] * MATRIX_CASES[name].arguments)


@matrix_functions
def test_function_rejects_an_empty_matrix(name):
    with pytest.raises(ValueError, match=r"\(0, 0\)"):
        MATRIX_CASES[name](*[torch.ones(0, 0)] * MATRIX_CASES[name].arguments)


@pytest.mark.parametrize("name", [name for name in ALL_CASES if name not in MATRIX_CASES])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_function_rejects_empty_features(name, shape):
    with pytest.raises(ValueError, match=r"\(.*\b0\b.*\)"):
        ALL_CASES[name](*[torch.ones(shape)] * ALL_CASES[name].arguments)


@matrix_functions
def test_function_rejects_a_matrix_that_is_not_symmetric_and_says_how_to_symmetrise(name):
    K = torch.eye(4)
    K[0, 1] = 0.5
    arguments = [K, *[torch.eye(4) for _ in range(MATRIX_CASES[name].arguments - 1)]]
    with pytest.raises(ValueError, match=r"symmetric.*0\.5.*(\+|mean|symmetri)"):
        MATRIX_CASES[name](*arguments)


@matrix_functions
def test_function_accepts_round_off_asymmetry(name):
    arguments = tensors(name, torch.float32)
    expected = MATRIX_CASES[name](*arguments)
    noisy = [x * (1 + 2 * EPS32 * torch.randn(6, 6)) for x in arguments]
    assert MATRIX_CASES[name](*noisy).item() == approx(expected.item(), rel=1e-4, abs=1e-5)


INDEFINITE = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -0.5]])


@pytest.mark.parametrize("name", [name for name in MATRIX_CASES if name not in ("hsic", "cka")])
def test_function_rejects_an_indefinite_matrix_and_gives_the_size_of_its_eigenvalue(name):
    """Minus a distance is a kernel of HSIC, though not positive semi-definite before it is centred."""
    identities = [torch.eye(3) for _ in range(MATRIX_CASES[name].arguments - 1)]
    # matrix_js divides by the trace 1.5 first.
    with pytest.raises(
        ValueError, match=r"positive semi-?definite.*" + (r"-0\.333" if name == "matrix_js" else r"-0\.5")
    ):
        MATRIX_CASES[name](INDEFINITE, *identities)


def test_matrix_tcr_rejects_a_matrix_whose_shifted_form_is_indefinite():
    with pytest.raises(ValueError, match=r"positive (semi-?)?definite"):
        matinfo.matrix_tcr(INDEFINITE, 0.1)


@matrix_functions
def test_function_accepts_round_off_negative_eigenvalues(name):
    # A float32 RBF Gram matrix with a wide kernel has many, of size 1e-7 relative.
    K = torch.as_tensor(matrices.rbf_gram(40, d=2, bandwidth=4.0), dtype=torch.float32)
    assert torch.linalg.eigvalsh(K.double())[0] < 0
    result = MATRIX_CASES[name](*[K] * MATRIX_CASES[name].arguments)
    assert not result.isnan()


@functions_of_several
def test_function_of_several_matrices_names_orders_and_batches_that_do_not_fit(name):
    K = torch.eye(3)
    call, rest = MATRIX_CASES[name], [K] * (MATRIX_CASES[name].arguments - 1)
    for other in (
        (torch.eye(4), Gram(torch.ones(4, 2))) if name != "spectrum_js" else ()
    ):  # that pads with zeros
        with pytest.raises(ValueError, match=r"3.*4"):
            call(*rest, other)
    with pytest.raises(ValueError, match="Expected batch shapes that broadcast"):
        call(K.expand(2, 3, 3), *rest[1:], K.expand(5, 3, 3))


@functions_of_several
def test_function_of_several_matrices_names_the_argument_at_fault(name):
    arguments = [torch.eye(4) for _ in range(MATRIX_CASES[name].arguments)]
    arguments[1] = torch.randn(4, 7)
    with pytest.raises(ValueError, match=r"K2.*\(4, 7\)"):
        MATRIX_CASES[name](*arguments)


@functions_of_several
def test_function_rejects_a_mix_of_numpy_and_torch(name):
    arguments = [np.eye(4), *[torch.eye(4) for _ in range(MATRIX_CASES[name].arguments - 1)]]
    with pytest.raises(TypeError, match=r"(?i)numpy"):
        MATRIX_CASES[name](*arguments)


def test_a_number_in_a_tensor_is_told_how_to_become_one():
    for K, alpha in (
        (np.eye(4), torch.tensor(2.0)),
        (torch.eye(4), np.array(2.0)),
        (torch.eye(4), torch.tensor(2.0)),
    ):
        with pytest.raises(TypeError, match=r"alpha\.item\(\)"):
            matinfo.renyi_entropy(K, alpha)


@matrix_functions
def test_function_rejects_sparse_tensors(name):
    with pytest.raises(TypeError, match=r"dense"):
        MATRIX_CASES[name](*[torch.eye(4).to_sparse()] * MATRIX_CASES[name].arguments)


# --- no spectrum to normalise ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, case in MATRIX_CASES.items() if case.normalised])
def test_normalised_function_rejects_a_zero_matrix(name):
    # K / tr K does not exist; a silent 0 or NaN would hide features that are all dead.
    identities = [torch.eye(4) for _ in range(MATRIX_CASES[name].arguments - 1)]
    for zero in (torch.zeros(4, 4), Gram(torch.zeros(4, 3))):
        with pytest.raises(ValueError, match=r"positive trace, got 0|not constant"):
            MATRIX_CASES[name](zero, *identities)


def test_normalised_function_rejects_a_zero_matrix_within_a_batch():
    with pytest.raises(ValueError, match=r"positive trace"):
        matinfo.renyi_entropy(torch.stack([torch.eye(3), torch.zeros(3, 3)]))


def test_rankme_rejects_features_that_are_all_zero():
    with pytest.raises(ValueError, match=r"zero"):
        matinfo.rankme(torch.zeros(4, 3))


def test_functions_that_are_not_normalised_accept_zero_matrices_and_features():
    assert matinfo.matrix_tcr(torch.zeros(4, 4), 2.0).item() == approx(4 * np.log(2), rel=1e-6)
    assert matinfo.matrix_kl(torch.zeros(4, 4), torch.eye(4)).item() == approx(4.0, rel=1e-6)
    assert matinfo.matrix_kl(torch.zeros(4, 4), torch.zeros(4, 4)).item() == 0.0
    assert matinfo.matrix_kl(torch.eye(4), torch.zeros(4, 4)).item() == np.inf
    assert matinfo.coding_rate(torch.zeros(4, 3)).item() == 0.0
    assert matinfo.losses.mmae_tcr_loss(torch.zeros(4, 3)).item() == approx(0.0, abs=1e-15)
    assert matinfo.losses.umae_uniformity_loss(torch.zeros(4, 3)).item() == 0.0


def test_numbers_in_the_place_of_operands_are_told_their_names():
    K = torch.eye(3)
    with pytest.raises(TypeError, match=r"got int. A number goes in by its name, such as alpha=2"):
        matinfo.joint_entropy(K, K, 2)
    with pytest.raises(TypeError, match=r"got float. A number goes in by its name, .* bandwidth=1.0"):
        matinfo.kernels.rbf(K, 1.0)


def test_remedies_fit_what_was_passed():
    with pytest.raises(ValueError, match=r"For features use mutual_information\(Gram\(features\), \.\.\.\)"):
        matinfo.mutual_information(torch.ones(4, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"positive trace, got -3. It is not positive semi-definite"):
        matinfo.renyi_entropy(-torch.eye(3))
    with pytest.raises(ValueError, match="for distances where similarities belong"):
        matinfo.vendi_score(1 - torch.eye(3))
    with pytest.raises(ValueError, match="read as a batch of 4 x 4 matrices"):
        matinfo.vendi_score(torch.arange(32.0).reshape(2, 4, 4))
    with pytest.raises(TypeError, match=r"got list. Use torch.tensor\(labels\)"):
        matinfo.rate_reduction(torch.eye(3), ["a", "b", "a"])
    with pytest.raises(TypeError, match=r"Use Gram\(features\).dense\(\)"):
        np.asarray(Gram(torch.eye(3)))


def test_rooms_with_extras_are_attributes_of_the_package_too():
    assert matinfo.metrics.EffectiveRank.__module__.startswith("matinfo.metrics")
    assert callable(matinfo.plot.spectrum)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = matinfo.nothing
