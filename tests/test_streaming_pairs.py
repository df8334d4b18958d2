"""Two streams: divergences and single quantities of aligned ones, divergences of independent ones."""

import pickle
from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import matinfo
from matinfo import Gram
from matinfo.streaming import CovarianceAccumulator, JointAccumulator, PairAccumulator

ROUNDING = 1e-11
"""Absolute, on values of order one; the matrices have condition numbers under 1e3."""


def rows(n=40, d=3, seed=0):
    Z = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Z * torch.linspace(1, 0.3, d, dtype=torch.float64) + 0.4


def merged(make, Z, Y, cuts, random):
    ends = sorted(cuts)
    parts = []
    for a, b in zip([0, *ends], [*ends, len(Z)], strict=True):
        part = make()
        part.update(Z[a:b], Y[a:b])
        parts.append(part)
    random.shuffle(parts)
    return reduce(lambda a, b: a + b, parts)


def prepared(Z, center, normalize):
    Z = Z / Z.norm(dim=1, keepdim=True) if normalize else Z
    return Z - Z.mean(0) if center else Z


anything = st.lists(st.integers(0, 40), max_size=5), st.randoms(use_true_random=False)


@given(*anything, st.booleans(), st.booleans())
def test_divergences_are_those_of_all_rows_for_any_split_and_merge_order(cuts, random, center, normalize):
    Z, Y = rows(), rows(d=4, seed=1)
    options = {"center": center, "normalize": normalize}
    stream = merged(lambda: PairAccumulator(3, 4, **options), Z, Y, cuts, random)
    K1, K2 = (Gram(prepared(X, center, normalize)) for X in (Z, Y))
    for name in ("matrix_js", "spectrum_js"):
        expected = getattr(matinfo, name)(K1, K2)
        torch.testing.assert_close(getattr(stream, name)(), expected, rtol=0, atol=ROUNDING)
    for K, streamed in zip((K1, K2), stream.grams(), strict=True):
        torch.testing.assert_close(
            matinfo.effective_rank(streamed), matinfo.effective_rank(K), rtol=ROUNDING, atol=0
        )


@given(*anything)
def test_kl_is_that_of_all_rows_where_the_second_range_holds_the_first(cuts, random):
    Y = rows(d=4)
    Z = Y @ rows(4, 3, seed=2)
    stream = merged(lambda: PairAccumulator(3, 4, normalize=False), Z, Y, cuts, random)
    expected = matinfo.matrix_kl(Gram(Z), Gram(Y))
    assert expected.isfinite()
    torch.testing.assert_close(stream.matrix_kl(), expected, rtol=1e-10, atol=0)


def test_kl_is_infinite_in_general_position_and_zero_for_equal_streams():
    Z, Y = rows(), rows(d=4, seed=1)
    general, equal = PairAccumulator(3, 4, normalize=False), PairAccumulator(3, 3, normalize=False)
    general.update(Z, Y)
    equal.update(Z, Z)
    assert general.matrix_kl() == matinfo.matrix_kl(Gram(Z), Gram(Y)) == torch.inf
    assert 0 <= equal.matrix_kl() < 1e-12
    assert abs(equal.matrix_js()) < 1e-12


def test_fewer_rows_than_columns():
    Z, Y = rows(3, 5), rows(3, 6, seed=1)
    stream = PairAccumulator(5, 6, normalize=False)
    stream.update(Z, Y)
    for name in ("matrix_js", "matrix_kl"):  # three rows: both ranges are everything
        expected = getattr(matinfo, name)(Gram(Z), Gram(Y))
        torch.testing.assert_close(getattr(stream, name)(), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("center", [False, True])
def test_marginals_are_the_accumulators_of_the_single_streams(center):
    Z, Y = rows(), rows(d=4, seed=1)
    pair = PairAccumulator(3, 4, center=center, normalize=True)
    for batch in zip(Z.split(13), Y.split(13), strict=True):
        pair.update(*batch)
    for X, marginal in zip((Z, Y), pair.marginals(), strict=True):
        alone = CovarianceAccumulator(X.shape[1], center=center, normalize=True)
        alone.update(X)
        torch.testing.assert_close(marginal.correlation(), alone.correlation(), rtol=0, atol=ROUNDING)
        torch.testing.assert_close(marginal.rankme(), alone.rankme(), rtol=ROUNDING, atol=0)
        marginal.merge(alone)
        alone.merge(alone)
        torch.testing.assert_close(marginal.tcr(), alone.tcr(), rtol=ROUNDING, atol=0)
    assert pair.count == 40  # as it was


def test_joint_accumulator_gives_the_divergences_too():
    Z, Y = rows(), rows(d=4, seed=1)
    stream = JointAccumulator(3, 4, normalize=True)
    stream.update(Z, Y)
    K1, K2 = (Gram(X, normalize=True) for X in (Z, Y))
    torch.testing.assert_close(stream.matrix_js(), matinfo.matrix_js(K1, K2), rtol=0, atol=ROUNDING)
    assert stream.second_moment().shape == (12, 12)
    first, second = stream.marginals()
    assert (first.width, second.width, second.count) == (3, 4, 40)


@given(*anything)
def test_independent_streams_over_one_feature_space_compare_by_their_covariances(cuts, random):
    streams, covariances = [], []
    for Z in (rows(40), rows(25, seed=1) * 1.3):
        ends = [min(c, len(Z)) for c in sorted(cuts)]
        parts = []
        for a, b in zip([0, *ends], [*ends, len(Z)], strict=True):
            parts.append(CovarianceAccumulator(3, center=True, normalize=False))
            parts[-1].update(Z[a:b])
        random.shuffle(parts)
        streams.append(reduce(lambda a, b: a + b, parts))
        covariances.append(torch.cov(Z.mT, correction=0))
    for function in (matinfo.matrix_kl, matinfo.matrix_js, matinfo.spectrum_js):
        streamed = function(*[stream.covariance() for stream in streams])
        torch.testing.assert_close(streamed, function(*covariances), rtol=0, atol=ROUNDING)


def test_normalised_covariance_has_unit_trace():
    stream = CovarianceAccumulator(3, normalize=True)
    stream.update(rows())
    assert stream.covariance().trace().item() == pytest.approx(1, abs=1e-14)


def test_products_are_refused_and_point_to_the_joint_accumulator():
    stream = PairAccumulator(3, 3, normalize=False)
    stream.update(rows(), rows())
    with pytest.raises(TypeError, match="JointAccumulator"):
        matinfo.mutual_information(*stream.grams())


def test_nan_policies():
    Z, Y = rows(), rows(seed=1)
    Z[3, 1] = float("nan")
    with pytest.raises(ValueError, match="1 of 40 rows"):
        PairAccumulator(3, 3, normalize=False).update(Z, Y)
    through, skip = (
        PairAccumulator(3, 3, nan="propagate", normalize=False),
        PairAccumulator(3, 3, nan="skip", normalize=False),
    )
    for stream in (through, skip):
        stream.update(Z, Y)
    assert (skip.count, skip.skipped, skip.marginals()[0].skipped) == (39, 1, 1)
    for name in ("matrix_kl", "matrix_js", "spectrum_js"):
        assert getattr(through, name)().isnan()
    keep = [i for i in range(40) if i != 3]
    expected = matinfo.matrix_js(Gram(Z[keep]), Gram(Y[keep]))
    torch.testing.assert_close(skip.matrix_js(), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    "result", ["second_moment", "marginals", "grams", "matrix_kl", "matrix_js", "spectrum_js"]
)
def test_empty_stream_has_no_result(result):
    with pytest.raises(ValueError, match="at least one row before a result"):
        getattr(PairAccumulator(2, 2, normalize=False), result)()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"features2 of shape \(n, 4\)"):
        PairAccumulator(3, 4, normalize=False).update(rows(), rows())
    with pytest.raises(ValueError, match="as many rows in both"):
        PairAccumulator(3, 3, normalize=False).update(rows(), rows(5))
    with pytest.raises(ValueError, match="same settings"):
        PairAccumulator(3, 3, normalize=False).merge(PairAccumulator(3, 3, center=True, normalize=False))
    with pytest.raises(ValueError, match="width2 >= 1"):
        PairAccumulator(3, 0, normalize=False)
    stream = PairAccumulator(3, 3, normalize=False)
    stream.update(rows(), torch.zeros(40, 3))
    with pytest.raises(ValueError, match="trace"):
        stream.matrix_js()


def test_numpy_in_numpy_out_and_pickle():
    stream = PairAccumulator(3, 3, normalize=False)
    stream.update(rows().numpy(), rows(seed=1).numpy())
    copy = pickle.loads(pickle.dumps(stream))
    assert isinstance(copy.second_moment(), np.ndarray)
    assert isinstance(copy.marginals()[0].covariance(), np.ndarray)
    assert isinstance(copy.matrix_js(), np.floating)
    assert copy.matrix_js() == stream.matrix_js()
