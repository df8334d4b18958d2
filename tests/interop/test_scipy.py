"""NumPy and SciPy arrays as other libraries hand them over: sparse, strided, read-only, subclassed."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.spatial.distance
import scipy.stats
import torch

from matinfo import Gram, effective_rank, kernels, renyi_entropy, spectrum_js, von_neumann_entropy
from matinfo.estimate import estimate_entropy

RANDOM = np.random.default_rng(0)
Z = RANDOM.normal(size=(60, 7))


def similarity_graph(n=400):
    """Points on a circle, each like its neighbours: a circulant matrix with a known spectrum."""
    row = np.zeros(n)
    row[[0, 1, 2, -1, -2]] = [1.0, 0.5, 0.2, 0.5, 0.2]
    offsets = np.concatenate([np.arange(-2, 3), [n - 2, n - 1, 2 - n, 1 - n]])
    values = [0.2, 0.5, 1.0, 0.5, 0.2, 0.2, 0.5, 0.2, 0.5]
    K = scipy.sparse.diags_array(values, offsets=offsets, shape=(n, n))
    return K, np.fft.fft(row).real


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_sparse_graph_gives_the_entropy_of_its_known_spectrum(form, alpha):
    K, eigenvalues = similarity_graph()
    p = eigenvalues / eigenvalues.sum()
    expected = -(p * np.log(p)).sum() if alpha == 1 else -math.log((p**2).sum())
    estimate = estimate_entropy(K.asformat(form), alpha, generator=torch.Generator().manual_seed(0))
    assert type(estimate.value) is float
    assert abs(estimate.value - expected) <= 2 * estimate.error()
    assert estimate.error() < 0.01 * expected


def test_sparse_features_through_their_product():
    features = scipy.sparse.random_array((300, 40), density=0.1, rng=0)
    exact = renyi_entropy(Gram(features.toarray()), 2)
    assert estimate_entropy(features @ features.T, 2).value == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("name", ["csr_array", "csr_matrix"])
def test_sparse_matrix_elsewhere_is_refused_by_name(name):
    with pytest.raises(TypeError, match=f"NumPy array.*got {name}"):
        renyi_entropy(getattr(scipy.sparse, name)(np.eye(3)))


def test_distances_of_scipy_make_the_kernel():
    squared = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(Z, "sqeuclidean"))
    np.testing.assert_allclose(kernels.rbf(Z, bandwidth=2.0), np.exp(-squared / 8), rtol=1e-12, atol=0)


def test_order_one_is_the_entropy_of_scipy_and_a_divergence_its_square():
    p, q = np.sort(RANDOM.dirichlet(np.ones(6), 2))[:, ::-1]
    assert von_neumann_entropy(np.diag(p)) == pytest.approx(scipy.stats.entropy(p), rel=1e-12)
    distance = scipy.spatial.distance.jensenshannon(p, q)
    assert spectrum_js(np.diag(p), np.diag(q)) == pytest.approx(distance**2, rel=1e-10)


@pytest.mark.parametrize(
    "view",
    [
        lambda A: A[::2, ::3],
        lambda A: np.asfortranarray(A),
        lambda A: A.T.copy().T,
        lambda A: A[::-1],
        lambda A: np.broadcast_to(A, (2, *A.shape)),
        lambda A: A.astype(">f8"),
    ],
    ids=["strided", "fortran", "transposed", "reversed", "read-only", "big-endian"],
)
def test_any_layout_of_an_array_is_read_right(view):
    array = view(Z)
    plain = np.array(array, dtype=float, order="C")
    result = effective_rank(Gram(array))
    assert isinstance(result, np.floating | np.ndarray)
    np.testing.assert_array_equal(result, effective_rank(Gram(plain)))


def test_result_is_a_numpy_number_that_json_and_formatting_take():
    value = effective_rank(Gram(Z))
    assert isinstance(value, float)
    assert f"{value:.2f}" == f"{float(value):.2f}"
    assert not np.may_share_memory(np.asarray(value), Z)
