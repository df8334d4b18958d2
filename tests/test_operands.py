"""Gram operands: the same numbers as the dense matrix, on the smaller side."""

from __future__ import annotations

import math

import matrices
import numpy as np
import oracles
import pytest
import scipy.sparse
import torch
from contract_cases import ALL_CASES, tensors
from helpers import t
from hypothesis import given
from hypothesis import strategies as st
from tolerances import EPS32, approx, close, entropy_tolerance, relative_error
from torch.autograd import gradcheck, gradgradcheck

from matinfo import (
    Gram,
    correlation,
    effective_rank,
    explain,
    joint_entropy,
    kernels,
    matrix_js,
    renyi_entropy,
    spectrum,
)
from matinfo.estimate import tail_corrected_entropy
from matinfo.layers import layerwise
from matinfo.streaming import CovarianceAccumulator

ALPHAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)
SHAPES = ((20, 3), (3, 20), (8, 8), (1, 5), (5, 1))


def agrees_with_dense(gram, dense, alpha):
    """The entropy of `gram` equals that of the matrix `dense`."""
    lam = np.maximum(np.linalg.eigvalsh(dense), 0)
    lam[lam < 1e-12 * lam[-1]] = 0.0
    close(
        renyi_entropy(gram, alpha),
        oracles.entropy_of_spectrum_mp(lam, alpha),
        entropy_tolerance(lam, alpha, noise=64),
    )


# --- against the dense matrix --------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gram_equals_the_dense_matrix(shape, alpha):
    Z = matrices.features(*shape)
    agrees_with_dense(Gram(t(Z)), Z @ Z.T, alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("d1", "d2"), [(2, 3), (4, 5), (30, 2)])
def test_product_of_grams_is_the_hadamard_product(d1, d2, alpha):
    Z1, Z2 = matrices.features(12, d1, 1), matrices.features(12, d2, 2)
    product = Gram(t(Z1)) * Gram(t(Z2))
    assert relative_error(product.dense(), (Z1 @ Z1.T) * (Z2 @ Z2.T)) < 1e-14
    agrees_with_dense(product, (Z1 @ Z1.T) * (Z2 @ Z2.T), alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("d1", "d2"), [(2, 3), (9, 8)])
def test_sum_of_grams_is_the_sum_of_matrices(d1, d2, alpha):
    Z1, Z2 = matrices.features(12, d1, 1), matrices.features(12, d2, 2)
    agrees_with_dense(Gram(t(Z1)) + Gram(t(Z2)), Z1 @ Z1.T + Z2 @ Z2.T, alpha)


def test_scaled_sum_of_grams_weighs_its_terms():
    Z1, Z2 = matrices.features(12, 2, 1), matrices.features(12, 3, 2)
    expected = 0.25 * Z1 @ Z1.T + 3.0 * Z2 @ Z2.T
    for gram in (
        0.25 * Gram(t(Z1)) + Gram(t(Z2)) * 3,
        np.float64(0.25) * Gram(t(Z1)) + Gram(t(Z2)) * np.float32(3),
    ):
        assert relative_error(gram.dense(), expected) < 1e-14
        agrees_with_dense(gram, expected, 1.0)


def test_gram_algebra_distributes_over_sums_of_products():
    A, B, C = (matrices.features(15, 2, s) for s in (1, 2, 3))
    dense = (A @ A.T + 2 * B @ B.T) * (C @ C.T) * (A @ A.T) / 8
    gram = (Gram(t(A)) + 2.0 * Gram(t(B))) / 8.0 * Gram(t(C)) * Gram(t(A))
    assert relative_error(gram.dense(), dense) < 1e-14
    agrees_with_dense(gram, dense, 1.0)


def test_gram_features_and_dual_reproduce_the_matrix():
    A, B = matrices.features(10, 2, 1), matrices.features(10, 3, 2)
    gram = Gram(t(A)) * Gram(t(B)) + 2.0 * Gram(t(B))
    Z = gram.features()
    assert Z.shape == (10, gram.width) == (10, 2 * 3 + 3)
    assert relative_error(Z @ Z.mT, gram.dense()) < 1e-14
    assert relative_error(Z.mT @ Z, gram.dual()) < 1e-14


def test_gram_reports_the_shape_of_the_matrix_it_stands_for():
    gram = Gram(torch.randn(4, 2, 9, 3))
    assert tuple(gram.shape) == (4, 2, 9, 9)
    assert gram.device == torch.device("cpu")


# --- rows ----------------------------------------------------------------------------------------------------


def test_normalized_gram_has_unit_diagonal_and_ignores_row_scale():
    Z = matrices.features(9, 4)
    scales = np.logspace(-30, 30, 9)[:, None]
    for dtype, tolerance in ((torch.float64, 1e-15), (torch.float32, 4 * EPS32)):
        K = Gram(t(scales * Z, dtype), normalize=True).dense()
        assert (K.diagonal() - 1).abs().max() <= tolerance
        assert relative_error(K, Gram(t(Z), normalize=True).dense()) < 3 * tolerance


def test_normalized_gram_keeps_zero_rows_finite_in_value_and_gradient():
    Z = t(matrices.relu_features(8, 3, dead_rows=3)).requires_grad_()
    value = renyi_entropy(Gram(Z, normalize=True))
    (gradient,) = torch.autograd.grad(value, Z)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert (gradient[:3] == 0).all()
    close(value, renyi_entropy(Gram(Z.detach()[3:], normalize=True)), 1e-13)


def test_gram_of_zero_rows_has_the_entropy_of_the_others():
    Z = t(matrices.relu_features(8, 3, dead_rows=3))
    for alpha in ALPHAS:
        close(renyi_entropy(Gram(Z), alpha), renyi_entropy(Gram(Z[3:]), alpha), 1e-13)


def test_gram_methods_are_not_touched_by_autocast():
    Z = t(matrices.features(6, 9), torch.float32)
    outside = Gram(Z, normalize=True)
    product = outside * outside
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = Gram(Z, normalize=True)
        results = inside.dense(), inside.dual(), (inside * inside).dense(), (inside * inside).features()
    for one, other in zip(
        results, (outside.dense(), outside.dual(), product.dense(), product.features()), strict=True
    ):
        assert torch.equal(one, other)


# --- routes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "size"), [((30, 4), 4), ((4, 30), 4)])
def test_gram_is_solved_on_its_smaller_side(shape, size):
    with explain() as log:
        renyi_entropy(Gram(torch.randn(*shape)), 1.5)
    assert [step.size for step in log.steps] == [size]


def test_joint_entropy_of_narrow_features_never_forms_the_gram_matrix():
    with explain() as log:
        joint_entropy(Gram(torch.randn(60, 3)), Gram(torch.randn(60, 4)))
    assert [step.size for step in log.steps] == [12]
    with explain() as log:
        joint_entropy(Gram(torch.randn(10, 6)), Gram(torch.randn(10, 7)))
    assert [step.size for step in log.steps] == [10]


def test_gram_of_float32_features_is_formed_in_float64_where_small_eigenvalues_matter():
    # Rank 4 in 40 dimensions up to noise 1e-5: the noise directions carry a third of H_0.5 and a float32 Gram
    # matrix (round-off 1e-7) buries their squares (1e-10).
    rng = np.random.default_rng(0)
    Z = (
        rng.standard_normal((50, 4)) @ rng.standard_normal((4, 40)) + 1e-5 * rng.standard_normal((50, 40))
    ).astype(np.float32)
    lam = np.linalg.svd(Z.astype(np.float64), compute_uv=False) ** 2
    for features in (Z, Z.T.copy()):
        result = renyi_entropy(Gram(torch.as_tensor(features)), 0.5)
        assert result.dtype == torch.float32
        # float64 Gram: error 40 eps lambda_max = 1e-14 against noise eigenvalues 1e-10 of it.
        assert result.item() == approx(float(oracles.entropy_of_spectrum_mp(lam, 0.5)), rel=1e-5)


# --- identities ----------------------------------------------------------------------------------------------


@given(matrices.feature_matrices(), st.floats(1e-6, 1e6))
def test_gram_scale_does_not_change_the_entropy(Z, scale):
    close(renyi_entropy(scale * Gram(t(Z)), 1.5), renyi_entropy(Gram(t(Z)), 1.5), 1e-13)


# --- gradients -----------------------------------------------------------------------------------------------


def test_gradient_through_gram_algebra_is_exact():
    A, B = (t(matrices.features(7, 2, s)).requires_grad_() for s in (1, 2))

    def value(A, B):
        return renyi_entropy(Gram(A, normalize=True) * Gram(B) + 0.5 * Gram(A), 1.5)

    assert gradcheck(value, (A, B))
    assert gradgradcheck(value, (A, B))


# --- batches -------------------------------------------------------------------------------------------------


def test_batched_grams_broadcast_against_each_other():
    A, B = t(np.stack([matrices.features(9, 2, s) for s in range(4)])), t(matrices.features(9, 3, 9))
    values = joint_entropy(Gram(A), Gram(B))
    assert values.shape == (4,)
    for i in range(4):
        close(values[i], joint_entropy(Gram(A[i]), Gram(B)), 1e-13)
    assert matrix_js(Gram(A), Gram(B)).shape == (4,)


# --- correlation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
def test_correlation_equals_its_definition(center):
    Z = matrices.features(9, 4) + 1.0
    assert relative_error(correlation(t(Z), center=center), oracles.correlation(Z, center=center)) < 1e-14


@pytest.mark.parametrize("center", [False, True])
def test_correlation_of_a_dead_unit_has_unit_diagonal_and_zeros_beside_it(center):
    Z = matrices.relu_features(9, 5)
    K = correlation(t(Z), center=center)
    dead = np.flatnonzero(~Z.any(axis=0))
    assert len(dead) == 1
    assert torch.equal(K[dead[0]], torch.eye(5, dtype=torch.float64)[dead[0]])
    assert relative_error(K, oracles.correlation(Z, center=center)) < 1e-14


def test_correlation_of_a_constant_column_is_centred_away_without_noise():
    # 0.1 is not a float: its mean differs from it in the last bit, and that residue must not become a direction.
    Z = matrices.features(7, 3)
    Z[:, 1] = 0.1
    K = correlation(t(Z), center=True)
    close(K[1, 1], 1.0, 1e-14)
    assert K[1, [0, 2]].abs().max() < 1e-12


def test_correlation_has_exact_symmetry_and_a_unit_diagonal_in_float32():
    K = correlation(torch.randn(50, 12))
    assert torch.equal(K, K.mT)
    assert (K.diagonal() - 1).abs().max() <= 2 * EPS32
    assert K.dtype == torch.float32


def test_correlation_ignores_column_scale():
    Z = matrices.features(9, 4)
    scales = np.logspace(-30, 30, 4)
    assert relative_error(correlation(t(Z * scales)), correlation(t(Z))) < 1e-14


def test_correlation_gradient_is_exact_and_finite_at_dead_units():
    Z = t(matrices.features(5, 3)).requires_grad_()
    assert gradcheck(lambda Z: correlation(Z, center=True), (Z,))
    dead = t(matrices.relu_features(9, 5)).requires_grad_()
    (gradient,) = torch.autograd.grad(correlation(dead).square().sum(), dead)
    assert gradient.isfinite().all()


# --- errors --------------------------------------------------------------------------------------------------


def test_gram_rejects_a_vector():
    with pytest.raises(ValueError, match=r"\(5,\)"):
        Gram(torch.randn(5))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_gram_rejects_dtypes_that_are_not_real_floating_point(dtype):
    with pytest.raises(TypeError, match=str(dtype).removeprefix("torch.")):
        Gram(torch.ones(4, 3).to(dtype))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_gram_rejects_empty_features(shape):
    with pytest.raises(ValueError, match=r"at least one"):
        Gram(torch.ones(shape))


@pytest.mark.parametrize("operation", [lambda a, b: a * b, lambda a, b: a + b])
def test_gram_algebra_rejects_different_sample_counts(operation):
    with pytest.raises(ValueError, match=r"8.*9"):
        operation(Gram(torch.randn(8, 3)), Gram(torch.randn(9, 3)))


@pytest.mark.parametrize("factor", [-1.0, 0.0, math.nan, math.inf])
def test_gram_rejects_a_factor_that_is_not_positive(factor):
    with pytest.raises(ValueError, match=r"in \(0, inf\)"):
        factor * Gram(torch.randn(8, 3))


def test_gram_rejects_a_foreign_operand():
    with pytest.raises(TypeError):
        Gram(torch.randn(8, 3)) + 1.0
    with pytest.raises(TypeError):
        Gram(torch.randn(8, 3)) * "2"


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([[1.0, 2.0]], r"got list\. Use numpy\.asarray\(features\)"),
        (
            scipy.sparse.csr_array(np.eye(3)),
            r"got csr_array\. Use features\.toarray\(\), or .*estimate_entropy",
        ),
        (np.ma.masked_array(np.eye(3), mask=np.eye(3) == 0), r"got a masked array\. Use array\.filled"),
        (np.eye(3, dtype=int), r"features\.float\(\), or features\.astype\(float\)"),
    ],
    ids=["list", "sparse", "masked", "integers"],
)
def test_gram_says_how_to_convert_what_it_does_not_take(features, message):
    with pytest.raises(TypeError, match=message):
        Gram(features)


# --- arrays that were rounded more coarsely than they are computed in -------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_renyi_entropy_of_an_array_knows_the_rounding_of_its_dtype(dtype, alpha):
    """Taken for float64, its rounding would be negative eigenvalues, or 100 directions at order 0."""
    z = matrices.features(100, 1)
    K = (z @ z.T / (z * z).max()).astype(dtype)
    of_array = renyi_entropy(K, alpha)
    assert of_array.dtype == np.float64
    close(of_array, renyi_entropy(torch.as_tensor(K), alpha, precision="float64"), 1e-9)
    assert alpha > 0 or of_array == 0.0
    of_tensor = spectrum(torch.as_tensor(K), precision="float64")
    close(renyi_entropy(spectrum(K), alpha), renyi_entropy(of_tensor, alpha), 1e-9)  # in float32


def test_renyi_entropy_forgives_asymmetry_of_an_array_by_its_dtype():
    K = np.eye(4)
    K[0, 1] = 1e-3
    renyi_entropy(K.astype(np.float16))
    for dtype in (np.float32, np.float64):
        with pytest.raises(ValueError, match="symmetric"):
            renyi_entropy(K.astype(dtype))


def test_centring_knows_the_rounding_of_an_array():
    """A column that float32 arithmetic left constant but for its last digit is no direction."""
    Z = np.stack([np.linspace(0.0, 1e-3, 50), np.full(50, 0.3)], 1).astype(np.float32)
    Z[::2, 1] = np.nextafter(Z[0, 1], np.float32(1))
    stream = CovarianceAccumulator(2, center=True, normalize=False)
    stream.update(Z)
    for gram in (Gram(Z, center=True), stream.gram()):
        assert renyi_entropy(gram, 0) == 0.0
    assert correlation(Z, center=True)[0, 1] == 0.0
    assert renyi_entropy(Gram(Z.astype(np.float64), center=True), 0) == approx(math.log(2))  # there it is one


def test_tail_corrected_entropy_knows_the_rounding_of_an_array():
    """Rows of unit length in float16 miss half a thousandth of the trace: rounding, not a tail."""
    Z = np.tile(np.eye(3), (20, 1)) @ np.linalg.qr(matrices.features(3, 3))[0]
    Z = Z.astype(np.float16)
    assert (Z.astype(np.float64) ** 2).sum() < 60 - 1e-3
    assert tail_corrected_entropy(Gram(Z), 0) == approx(math.log(3))


@pytest.mark.parametrize("scale", [1e-300, 1e-165, 1e155, 1e300])
def test_centred_features_of_any_scale_have_one_entropy(scale):
    """Squares that under- or overflow made every column a constant one: refused, and of rank 0 for spectrum."""
    Z = 2 + torch.as_tensor(matrices.features(20, 4, 1))
    for options in ({"center": True}, {"center": "first"}, {"center": True, "normalize": True}):
        expected = effective_rank(Gram(Z, **options)).item()
        assert effective_rank(Gram(scale * Z, **options)).item() == pytest.approx(expected, rel=1e-12)
    for normalize in (False, True):
        options = {"center": True, "normalize": normalize}
        report, expected = (layerwise([x], **options).effective_rank.item() for x in (scale * Z, Z))
        assert report == pytest.approx(expected, rel=1e-12)


def test_kernels_of_features_of_any_scale_are_the_same():
    """A median distance that underflowed was 1, and every sample the same as every other."""
    Z = torch.as_tensor(matrices.features(8, 3, 1))
    for kernel in (kernels.rbf, kernels.laplacian):
        for rule in ("median", "scott"):
            expected = kernel(Z, bandwidth=rule)
            for scale in (1e-300, 1e-160, 1e160, 1e300):
                torch.testing.assert_close(
                    kernel(scale * Z, bandwidth=rule), expected, rtol=1e-10, atol=1e-12
                )
    assert torch.equal(kernels.rbf(1e300 * Z, bandwidth=1.0), torch.eye(8, dtype=torch.float64))
    assert kernels.rbf(1e-300 * Z, bandwidth=1.0).min() == 1


@pytest.mark.parametrize(
    "name",
    [
        "cosine",
        "correlation",
        "ntxent_loss",
        "mec_loss",
        "mmcr_loss",
        "gram_volume",
        "vne_loss",
        "barlow_twins_loss",
    ],
)
def test_gradients_of_subnormal_features_are_finite(name):
    """The derivative of a direction is one over the length, which float32 cannot hold of a subnormal one."""
    for scale in (1e-39, 1e-42, 1e-44):
        arguments = [(x / x.abs().max() * scale).float().requires_grad_() for x in tensors(name)]
        value = ALL_CASES[name](*arguments).sum()
        for gradient in torch.autograd.grad(value, arguments):
            assert gradient.isfinite().all()
