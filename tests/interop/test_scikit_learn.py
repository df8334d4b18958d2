"""Kernels, pipelines and nested cross-checks with scikit-learn itself."""

import math

import numpy as np
import pytest

from matinfo import (
    Gram,
    effective_rank,
    kernels,
    mutual_information,
    participation_ratio,
    renyi_entropy,
    vendi_score,
)

pytest.importorskip("sklearn")

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, KernelPCA
from sklearn.gaussian_process.kernels import RBF, Matern
from sklearn.metrics import mutual_info_score, pairwise
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

X = load_digits().data[:80]
LABELS = load_digits().target[:80]


@pytest.mark.parametrize("metric", ["rbf", "laplacian", "cosine", "polynomial", "linear", "chi2"])
def test_kernel_by_name_gives_the_entropy_of_its_spectrum(metric):
    K = pairwise.pairwise_kernels(X, metric=metric)
    p = np.linalg.eigvalsh(K).clip(1e-300) / K.trace()
    entropy = -(p * np.log(p)).sum()
    assert renyi_entropy(K) == pytest.approx(entropy, abs=1e-9)
    assert vendi_score(K) == pytest.approx(math.exp(entropy), rel=1e-9)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda: pairwise.rbf_kernel(X, gamma=1 / (2 * 30**2)), lambda: kernels.rbf(X, bandwidth=30.0)),
        (lambda: pairwise.laplacian_kernel(X, gamma=1 / 200), lambda: kernels.laplacian(X, bandwidth=200.0)),
        (lambda: pairwise.cosine_similarity(X), lambda: kernels.cosine(X)),
        (lambda: pairwise.linear_kernel(X), lambda: kernels.linear(X)),
        (lambda: RBF(30.0)(X), lambda: kernels.rbf(X, bandwidth=30.0)),
    ],
    ids=["rbf", "laplacian", "cosine", "linear", "gaussian process"],
)
def test_kernels_of_both_packages_are_equal(theirs, ours):
    np.testing.assert_allclose(ours(), theirs(), rtol=1e-12, atol=1e-12)


def test_kernel_of_a_gaussian_process_without_a_counterpart():
    K = Matern(length_scale=20.0, nu=1.5)(X)
    assert 0 < renyi_entropy(K, 2) < renyi_entropy(K, 1) < math.log(len(X))


def test_sigmoid_kernel_is_refused_because_it_is_indefinite():
    with pytest.raises(ValueError, match="positive semi-definite"):
        vendi_score(pairwise.sigmoid_kernel(X / 16))


def test_features_of_a_pipeline_are_taken_in_any_memory_order():
    features = make_pipeline(StandardScaler(), PCA(10)).fit_transform(X)
    assert not features.flags.c_contiguous  # what PCA returns
    K = features @ features.T
    assert effective_rank(Gram(features)) == pytest.approx(effective_rank(K), rel=1e-10)


def test_participation_ratio_of_centred_features_is_that_of_the_explained_variance():
    variance = PCA().fit(X).explained_variance_
    expected = variance.sum() ** 2 / (variance**2).sum()
    centred = StandardScaler(with_std=False).fit_transform(X)
    assert participation_ratio(Gram(centred)) == pytest.approx(expected, rel=1e-10)


def test_normalizer_is_gram_with_normalize():
    unit = make_pipeline(Normalizer()).fit_transform(X)
    assert renyi_entropy(Gram(X, normalize=True)) == pytest.approx(renyi_entropy(Gram(unit)), rel=1e-12)


def test_spectrum_of_kernel_pca_has_the_entropy_of_the_centred_kernel():
    model = KernelPCA(kernel="rbf", gamma=1e-3).fit(X)
    H = np.eye(len(X)) - 1 / len(X)
    p = model.eigenvalues_ / model.eigenvalues_.sum()
    centred = H @ pairwise.rbf_kernel(X, gamma=1e-3) @ H
    assert renyi_entropy(centred, 2) == pytest.approx(-math.log((p**2).sum()), rel=1e-9)


def test_information_of_label_kernels_is_the_mutual_information_of_the_labels():
    other = LABELS % 3
    first = (LABELS[:, None] == LABELS).astype(float)
    second = (other[:, None] == other).astype(float)
    assert mutual_information(first, second) == pytest.approx(mutual_info_score(LABELS, other), rel=1e-9)


def test_function_transformer_puts_a_kernel_into_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), FunctionTransformer(kernels.rbf, kw_args={"bandwidth": 10.0}))
    K = pipeline.fit_transform(X)
    assert K.shape == (80, 80)
    assert 1 < vendi_score(K) <= 80


def test_data_frames_go_in_as_arrays():
    pandas = pytest.importorskip("pandas")
    frame = StandardScaler().set_output(transform="pandas").fit_transform(pandas.DataFrame(X))
    assert effective_rank(Gram(frame.to_numpy())) == pytest.approx(
        effective_rank(Gram(StandardScaler().fit_transform(X))), rel=1e-12
    )
    with pytest.raises(TypeError, match=r"got DataFrame\. Use features\.to_numpy\(\)"):
        Gram(frame)
