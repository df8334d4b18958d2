"""One decomposition, many quantities: the carrier of eigenvalues against the functions of the matrix itself."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from helpers import seeded, sym, t
from matrices import SINGULAR_SPECTRA, SPECTRA, from_spectrum
from matrices import spectrum as eigenvalues
from oracles import entropy_gradient_of_spectrum_mp, entropy_of_spectrum_mp

import matinfo
from matinfo import (
    Gram,
    Spectrum,
    coding_rate,
    effective_rank,
    explain,
    joint_entropy,
    matrix_kl,
    matrix_tcr,
    participation_ratio,
    rankme,
    rate_reduction,
    renyi_entropy,
    spectrum,
    tcr,
    vendi_score,
    von_neumann_entropy,
)
from matinfo.estimate import KernelOperator
from matinfo.streaming import CovarianceAccumulator

ORDERS = (0, 0.3, 0.9, 1, 1 + 1e-9, 1.2, 1.3, 2, 3, 7.5, math.inf)
OF_A_MATRIX = {f"renyi_entropy, {a:g}": lambda K, a=a: renyi_entropy(K, a) for a in ORDERS} | {
    "von_neumann_entropy": von_neumann_entropy,
    "effective_rank": effective_rank,
    "participation_ratio": participation_ratio,
    "vendi_score": lambda K: vendi_score(K, 0.5),
    "matrix_tcr": lambda K: matrix_tcr(K, 0.3),
}
OF_FEATURES = {
    "tcr": lambda Z: tcr(Z, 0.3),
    "coding_rate": coding_rate,
    "rankme": rankme,
    "rankme with an offset": lambda Z: rankme(Z, offset=1e-7),
}


@pytest.fixture(params=[(30, 5), (5, 30), (8, 8), (10, 9)], ids=str)
def Z(request):
    return torch.randn(2, *request.param, dtype=torch.float64, generator=seeded())


@pytest.mark.parametrize("name", SPECTRA | SINGULAR_SPECTRA)
@pytest.mark.parametrize("alpha", ORDERS)
def test_entropy_of_eigenvalues_equals_the_oracle(name, alpha):
    lam = eigenvalues(name, 12)
    assert renyi_entropy(Spectrum(lam), alpha) == pytest.approx(
        float(entropy_of_spectrum_mp(lam, alpha)), abs=2e-15, rel=4e-15
    )


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("alpha", [a for a in ORDERS if 0 < a < math.inf])
def test_entropy_of_eigenvalues_has_the_gradient_of_the_oracle(name, alpha):
    lam = t(np.sort(eigenvalues(name, 8))[::-1].copy()).requires_grad_()
    renyi_entropy(Spectrum(lam), alpha).backward()
    expected = t([float(x) for x in entropy_gradient_of_spectrum_mp(lam.tolist(), alpha)])
    torch.testing.assert_close(
        lam.grad, expected, rtol=1e-12, atol=1e-13 * float(expected.abs().max()) + 1e-15
    )


@pytest.mark.parametrize("name", OF_A_MATRIX)
def test_quantities_of_a_spectrum_equal_those_of_the_matrix(name, Z):
    function = OF_A_MATRIX[name]
    for K in (Gram(Z), Z @ Z.mT, (Z @ Z.mT).numpy()):
        ours, direct = function(spectrum(K)), function(K)
        assert type(ours) is type(direct)
        assert ours.dtype == direct.dtype
        np.testing.assert_allclose(ours, direct, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", OF_FEATURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_quantities_of_a_spectrum_equal_those_of_the_features(name, dtype, Z):
    function, Z = OF_FEATURES[name], Z.to(dtype)
    ours, direct = function(spectrum(Gram(Z))), function(Z)
    assert ours.dtype == direct.dtype
    torch.testing.assert_close(
        ours, direct, rtol=1e-6, atol=0
    )  # roots of round-off, see Spectrum.singular_values
    torch.testing.assert_close(function(Gram(Z)), direct, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [*OF_A_MATRIX, *OF_FEATURES])
def test_gradients_through_a_spectrum_equal_the_direct_ones(name, Z):
    if name == "renyi_entropy, 0":
        assert not renyi_entropy(spectrum(Gram(Z.requires_grad_())), 0).requires_grad
        return
    function, gradients = (OF_A_MATRIX | OF_FEATURES)[name], []
    for make in (lambda Z: spectrum(Gram(Z)), Gram if name in OF_A_MATRIX else torch.clone):
        X = Z.clone().requires_grad_()
        function(make(X)).sum().backward()
        gradients.append(X.grad)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", SINGULAR_SPECTRA | SPECTRA)
@pytest.mark.parametrize("alpha", ORDERS[1:])
def test_gradients_at_repeated_and_zero_eigenvalues_equal_the_direct_ones(name, alpha):
    K = t(from_spectrum(eigenvalues(name, 9)))
    ours, direct = (
        torch.autograd.grad(renyi_entropy(f(X), alpha), X)[0]
        for f in (spectrum, lambda X: X)
        for X in [K.clone().requires_grad_()]
    )
    scale = float(direct.abs().max())
    torch.testing.assert_close(ours, direct, rtol=0, atol=1e-9 * scale + 1e-13)


def test_gradient_of_a_log_determinant_counts_eigenvalues_that_came_out_negative():
    K = t(from_spectrum(eigenvalues("half_zero", 10))).requires_grad_()
    assert torch.linalg.eigvalsh(K.detach()).min() < 0  # by round-off
    matrix_tcr(spectrum(K), 0.5).backward()
    torch.testing.assert_close(K.grad, torch.linalg.inv(K.detach() + 0.5 * torch.eye(10)))


def test_one_backward_through_one_decomposition_serves_two_entropies(Z):
    Z.requires_grad_()
    with explain() as log:
        S = spectrum(Gram(Z))
        (-renyi_entropy(S, 1) + 0.1 * renyi_entropy(S, 2)).sum().backward()
    assert [step.route for step in log.steps] == ["eigh"]
    assert log.steps[0].quantity == "spectrum"
    X = Z.detach().clone().requires_grad_()
    (-renyi_entropy(Gram(X), 1) + 0.1 * renyi_entropy(Gram(X), 2)).sum().backward()
    torch.testing.assert_close(Z.grad, X.grad)


@pytest.mark.parametrize(
    "function", [renyi_entropy, matrix_tcr, rankme], ids=["renyi_entropy", "matrix_tcr", "rankme"]
)
def test_second_derivatives_are_refused(function):
    K = t(from_spectrum(eigenvalues("random", 5)))
    X = K.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(spectrum(sym(X))), X, create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivative"):
        torch.autograd.grad(gradient.sum(), X)
    with pytest.raises(NotImplementedError, match="first derivative"):
        torch.func.hessian(lambda X: function(spectrum(sym(X))))(K)


def test_transforms_see_through_a_spectrum():
    K = torch.stack([t(from_spectrum(eigenvalues("random", 5, seed))) for seed in range(3)])

    def loss(X):
        S = spectrum(sym(X))
        return renyi_entropy(S, 1) + matrix_tcr(S)

    expected = torch.stack([torch.func.grad(lambda X: renyi_entropy(X, 1) + matrix_tcr(X))(X) for X in K])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(K), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.jacfwd(loss))(K), expected)


def test_a_compiled_loss_of_a_spectrum_has_the_same_gradient():
    K = t(from_spectrum(eigenvalues("random", 6)))

    def loss(X):
        S = spectrum(X)
        return renyi_entropy(S, 1) + 0.1 * renyi_entropy(S, 2) + matrix_tcr(S)

    gradients = []
    for f in (loss, torch.compile(loss, backend="eager", fullgraph=True)):
        X = K.clone().requires_grad_()
        f(X).backward()
        gradients.append(X.grad)
    torch.testing.assert_close(*gradients)


def test_spectrum_js_takes_spectra():
    A, B = (Gram(torch.randn(9, d, dtype=torch.float64, generator=seeded(d))) for d in (3, 5))
    expected = matinfo.spectrum_js(A, B)
    torch.testing.assert_close(matinfo.spectrum_js(spectrum(A), spectrum(B)), expected)
    torch.testing.assert_close(matinfo.spectrum_js(spectrum(A), B), expected)


def test_spectrum_takes_what_stands_for_one_matrix():
    Z = torch.randn(12, 4, dtype=torch.float64, generator=seeded())
    stream = CovarianceAccumulator(4, normalize=False)
    stream.update(Z)
    K = (Z @ Z.mT).numpy()
    expected = np.linalg.eigvalsh(K)[::-1][:4]
    operators = scipy.sparse.csr_array(K), scipy.sparse.linalg.aslinearoperator(K)
    for operand in (Gram(Z), stream.gram(), K, *operators):
        np.testing.assert_allclose(spectrum(operand).values[:4], expected, rtol=1e-12)
    kernel = KernelOperator(Z, bandwidth=1.0)
    np.testing.assert_allclose(
        spectrum(kernel).values,
        spectrum(matinfo.kernels.rbf(Z, bandwidth=1.0)).values,
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_spectrum_of_features_is_that_of_the_stream_with_the_same_preparation(center, normalize):
    Z = 3 + torch.randn(20, 4, dtype=torch.float64, generator=seeded())
    stream = CovarianceAccumulator(4, center=center, normalize=normalize)
    stream.update(Z)
    S = spectrum(Z, center=center, normalize=normalize)
    assert (S.rows, S.width) == (20, 4)
    torch.testing.assert_close(S.values, spectrum(stream.gram()).values)


def test_center_first_gives_the_matrix_of_diff_erank():
    Z = 3 + torch.randn(20, 4, dtype=torch.float64, generator=seeded())
    R = torch.nn.functional.normalize(Z - Z.mean(0), dim=-1)
    torch.testing.assert_close(spectrum(Z, center="first", normalize=True).values, spectrum(Gram(R)).values)
    report = matinfo.layers.layerwise([Z], center="first", pairs=False)
    torch.testing.assert_close(
        effective_rank(spectrum(Z, center="first", normalize=True)), report.effective_rank[0]
    )
    with pytest.raises(ValueError, match="Expected center to be one of"):
        spectrum(Z, center="last")


def test_a_constant_column_is_no_direction():
    Z = torch.cat([torch.randn(50, 2, generator=seeded()), torch.full((50, 3), 1000.1)], 1)
    assert spectrum(Z, center=True).rank == 2


def test_spectrum_knows_trace_rank_and_singular_values(Z):
    S = spectrum(Gram(Z))
    assert S.shape == (2, Z.shape[-2], Z.shape[-2])
    assert S.width == Z.shape[-1]
    torch.testing.assert_close(S.trace, Z.square().sum((-2, -1)))
    torch.testing.assert_close(S.singular_values, torch.linalg.svdvals(Z))
    assert S.rank.tolist() == [min(Z.shape[-2:])] * 2
    torch.testing.assert_close(S.probabilities.sum(-1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(S[1].values, spectrum(Gram(Z[1])).values)
    assert effective_rank(S[1]) == pytest.approx(float(effective_rank(S)[1]))
    assert not spectrum(Gram(Z.requires_grad_())).detach().values.requires_grad


def test_float32_solves_are_right_to_the_round_off_they_say():
    K = t(from_spectrum(eigenvalues("log_spaced_1e6", 40))).float()
    exact, coarse = spectrum(K), spectrum(K, precision="float32")
    assert (exact.values - coarse.values).abs().max() < 2e-6 * exact.values[0]
    assert coarse.rank <= exact.rank
    with pytest.raises(ValueError, match="Expected precision to be one of"):
        spectrum(K, precision="half")


def test_parts_of_a_batch_are_what_an_index_of_a_batch_says():
    S = Spectrum(torch.rand(2, 3, 4, dtype=torch.float64, generator=seeded()))
    assert S[1].shape == (3, 4, 4)
    assert S[:, 0].shape == (2, 4, 4)
    assert torch.equal(S[0, 2].values, S.values[0, 2])


def test_numpy_in_gives_numpy_out():
    S = spectrum(np.diag([3.0, 1.0]))
    assert isinstance(S.values, np.ndarray)
    assert isinstance(S.trace, np.float64)
    assert isinstance(renyi_entropy(S), np.float64)


def test_a_batch_element_that_is_not_finite_is_nan_and_leaves_the_others_alone():
    K = torch.stack([torch.eye(4), torch.full((4, 4), torch.nan)])
    S = spectrum(K)
    for alpha in ORDERS:
        value = renyi_entropy(S, alpha)
        assert value[0].item() == pytest.approx(math.log(4))
        assert value[1].isnan()
    assert tcr(S_of_features := spectrum(Gram(K)))[1].isnan()
    assert rankme(S_of_features)[1].isnan()


def test_an_empty_batch_stays_empty():
    S = spectrum(Gram(torch.ones(0, 5, 3)))
    for function in (OF_A_MATRIX | OF_FEATURES).values():
        assert function(S).shape == (0,)


def test_padding_adds_zero_eigenvalues():
    small, large = Spectrum(t([2.0, 1.0])), Spectrum(t([2.0, 1.0]), rows=5, width=3)
    assert renyi_entropy(small, 0.5) == renyi_entropy(large, 0.5)
    assert matrix_tcr(large, 2.0).item() == pytest.approx(matrix_tcr(small, 2.0).item() + 3 * math.log(2))
    assert tcr(large, 2.0).item() == pytest.approx(matrix_tcr(small, 2.0).item() + math.log(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda S: joint_entropy(S, S), "A Spectrum holds eigenvalues alone"),
        (lambda S: matrix_kl(S, S), "A Spectrum holds eigenvalues alone"),
        (lambda S: rate_reduction(S, torch.tensor([0, 1])), "A Spectrum holds eigenvalues alone"),
        (lambda S: tcr(S), "Use matrix_tcr"),
        (lambda S: coding_rate(S), "Use matrix_tcr"),
        (lambda S: tcr(spectrum(Gram(torch.eye(2))), normalize=True), "Gram.features, normalize=True"),
        (lambda S: renyi_entropy(S, 2, method="frobenius"), "it has been decomposed"),
        (lambda S: matrix_tcr(S, precision="float32"), "it has been decomposed"),
        (lambda S: renyi_entropy(Spectrum(t([0.0, 0.0]))), "positive trace"),
        (lambda S: Spectrum(t([1.0, -0.1])), "positive semi-definite"),
        (lambda S: Spectrum(t(1.0)), "at least one eigenvalue"),
        (lambda S: spectrum([[1.0]]), "numpy.asarray"),
        (lambda S: effective_rank(spectrum(Gram(1e160 * t([[1.0, 2.0], [3.0, 4.0]])))), "float64 can hold"),
        (lambda S: renyi_entropy(spectrum(1e308 * torch.ones(40, 40, dtype=torch.float64))), "float64 can hold"),
        (lambda S: spectrum(torch.ones(3, 2)), "square"),
        (lambda S: spectrum(Gram(torch.ones(3, 2)), center=True), "features themselves"),
    ],
)  # fmt: skip
def test_what_a_spectrum_cannot_answer_is_refused_with_the_remedy(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(Spectrum(t([2.0, 1.0])))


@pytest.mark.parametrize("size", [{"rows": 3}, {"rows": 9, "width": 2}])
def test_more_positive_eigenvalues_than_rows_or_columns_are_refused(size):
    with pytest.raises(ValueError, match="no more positive eigenvalues than rows and columns, got 4"):
        Spectrum(np.ones(4), **size)
    assert Spectrum(np.array([1.0, 1.0, 1e-17, 0.0]), rows=2).rank == 2


def test_eigenvalues_that_a_spectrum_leaves_out_are_zero():
    S = Spectrum(np.array([9.0, 1.0]), rows=5, width=3)
    assert matinfo.measures.condition_number(S) == math.inf
    assert matinfo.measures.condition_number(S, pseudo=True) == 9
    assert matinfo.measures.condition_number(Spectrum(np.array([9.0, 1.0]), rows=5, width=2)) == 9


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
def test_changing_the_values_of_a_spectrum_changes_no_quantity(kind):
    S = Spectrum(kind(np.array([3.0, 2.0, 1.0])))
    before = float(effective_rank(S))
    values = S.values
    values *= values
    assert float(effective_rank(S)) == before
