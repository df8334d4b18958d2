"""Streaming accumulators: any split, any order of merging, the value of all rows at once."""

import pickle
from functools import reduce

import numpy as np
import pytest
import torch
from helpers import t
from hypothesis import given
from hypothesis import strategies as st

import matinfo
from matinfo import Gram
from matinfo.streaming import CovarianceAccumulator, JointAccumulator

WELL_CONDITIONED = 1e-12
"""Relative; the sums differ in order only, and the matrices below have condition numbers under 1e3."""

ORDERS = [0, 0.5, 1, 2, 3, float("inf")]


def rows(n=60, d=5, seed=0, offset=0.5):
    Z = np.random.default_rng(seed).standard_normal((n, d)) * np.geomspace(1, 0.2, d) + offset
    return torch.from_numpy(Z)


@st.composite
def splits(draw, n=60):
    """Row counts of batches (some may be empty) and an order in which to merge their accumulators."""
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=6)))
    sizes = np.diff([0, *cuts, n]).tolist()
    return sizes, draw(st.permutations(range(len(sizes))))


def merged(make, streams, sizes, order):
    """One accumulator a batch, merged in the given order, half of them by a tree of two."""
    parts = []
    for batch in zip(*[Z.split(sizes) for Z in streams], strict=True):
        part = make()
        part.update(*batch)
        parts.append(part)
    parts = [parts[i] for i in order]
    half = len(parts) // 2
    if half == 0:
        return parts[0]
    return reduce(lambda a, b: a + b, parts[:half]) + reduce(lambda a, b: a + b, parts[half:])


def prepared(Z, *, center, normalize):
    Z = Z.numpy().astype(np.float64)
    if normalize:
        Z = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    return Z - Z.mean(0) if center else Z


def naive_moment(Z, **options):
    return sum(np.outer(z, z) for z in prepared(Z, **options))


@given(splits(), st.booleans(), st.booleans())
def test_second_moment_is_the_naive_sum_for_any_split_and_merge_order(split, center, normalize):
    Z = rows()
    options = {"center": center, "normalize": normalize}
    stream = merged(lambda: CovarianceAccumulator(5, **options), [Z], *split)
    expected = naive_moment(Z, **options)
    assert stream.count == 60
    np.testing.assert_allclose(
        stream.second_moment(), expected, rtol=0, atol=WELL_CONDITIONED * np.trace(expected)
    )


@given(splits(), st.booleans(), st.booleans())
def test_gram_gives_the_quantities_of_all_rows(split, center, normalize):
    Z = rows()
    options = {"center": center, "normalize": normalize}
    K = merged(lambda: CovarianceAccumulator(5, **options), [Z], *split).gram()
    whole = Gram(t(prepared(Z, **options)))
    assert K.shape == whole.shape == (60, 60)
    for function in (
        matinfo.von_neumann_entropy,
        matinfo.effective_rank,
        matinfo.participation_ratio,
        matinfo.vendi_score,
        matinfo.matrix_tcr,
        *[lambda K, alpha=alpha: matinfo.renyi_entropy(K, alpha) for alpha in ORDERS],
    ):
        torch.testing.assert_close(function(K), function(whole), rtol=WELL_CONDITIONED, atol=WELL_CONDITIONED)


@given(splits())
def test_rates_and_rankme_are_those_of_all_rows(split):
    Z = rows()
    stream = merged(lambda: CovarianceAccumulator(5, normalize=False), [Z], *split)
    pairs = [
        (stream.tcr(0.3), matinfo.tcr(Z, 0.3)),
        (stream.coding_rate(eps=0.7), matinfo.coding_rate(Z, eps=0.7)),
        (stream.rankme(offset=1e-7), matinfo.rankme(Z, offset=1e-7)),
    ]
    for streamed, whole in pairs:
        torch.testing.assert_close(streamed, whole, rtol=WELL_CONDITIONED, atol=0)


@given(splits())
def test_correlation_is_that_of_all_rows(split):
    Z = rows()
    Z[:, 2] = 0.1  # constant: its own direction once centred, up to the rounding of 0.1
    for center in (False, True):
        stream = merged(
            lambda center=center: CovarianceAccumulator(5, center=center, normalize=False), [Z], *split
        )
        expected = matinfo.correlation(Z, center=center)
        torch.testing.assert_close(stream.correlation(), expected, rtol=0, atol=WELL_CONDITIONED)


def test_correlation_of_a_zero_column_is_its_own_direction():
    stream = CovarianceAccumulator(2, normalize=False)
    stream.update(t([[1.0, 0.0], [2.0, 0.0]]))
    torch.testing.assert_close(stream.correlation(), torch.eye(2, dtype=torch.float64))


@given(splits(n=40), st.booleans())
def test_joint_quantities_are_those_of_all_rows(split, normalize):
    Z1, Z2 = rows(40, 3), rows(40, 4, seed=1)
    stream = merged(lambda: JointAccumulator(3, 4, normalize=normalize), [Z1, Z2], *split)
    K1, K2 = stream.grams()
    A, B = Gram(Z1, normalize=normalize), Gram(Z2, normalize=normalize)
    for alpha in ORDERS:
        for function in (matinfo.mutual_information, matinfo.conditional_entropy):
            torch.testing.assert_close(
                function(K1, K2, alpha), function(A, B, alpha), rtol=0, atol=WELL_CONDITIONED * 10
            )
        joint = matinfo.joint_entropy(A, B, alpha=alpha)
        torch.testing.assert_close(
            matinfo.joint_entropy(K2, K1, alpha=alpha), joint, rtol=WELL_CONDITIONED, atol=0
        )
        torch.testing.assert_close(
            matinfo.renyi_entropy(stream.gram(), alpha), joint, rtol=WELL_CONDITIONED, atol=0
        )


def test_joint_second_moment_is_the_naive_sum():
    Z1, Z2 = rows(7, 2), rows(7, 3, seed=1)
    stream = JointAccumulator(2, 3, normalize=False)
    stream.update(Z1, Z2)
    products = [np.kron(a, b) for a, b in zip(Z1.numpy(), Z2.numpy(), strict=True)]
    np.testing.assert_allclose(stream.second_moment(), sum(np.outer(r, r) for r in products), rtol=1e-13)


def test_fewer_rows_than_columns_give_the_values_of_the_small_side():
    Z = rows(3, 8)
    stream = CovarianceAccumulator(8, normalize=False)
    stream.update(Z)
    pairs = [
        (matinfo.renyi_entropy(stream.gram(), 0), matinfo.renyi_entropy(Gram(Z), 0)),
        (matinfo.matrix_tcr(stream.gram(), 0.2), matinfo.matrix_tcr(Gram(Z), 0.2)),
        (stream.tcr(0.2), matinfo.tcr(Z, 0.2)),
        (stream.rankme(offset=1e-3), matinfo.rankme(Z, offset=1e-3)),
    ]
    for streamed, whole in pairs:
        torch.testing.assert_close(streamed, whole, rtol=1e-11, atol=0)


def test_rankme_counts_singular_values_in_the_round_off_as_zero():
    Z = rows()
    Z = torch.cat([Z, Z @ rows(5, 3, seed=1)], -1)  # 8 columns of rank 5
    stream = CovarianceAccumulator(8, normalize=False)
    for batch in Z.split(7):
        stream.update(batch)
    # The three zeros would come back as roots of 1e-16, each 1e-8 of the sum.
    torch.testing.assert_close(stream.rankme(), matinfo.rankme(Z), rtol=WELL_CONDITIONED, atol=0)


def test_rows_in_several_blocks_give_the_same_sums(monkeypatch):
    Z1, Z2 = rows(), rows(seed=1)
    expected = JointAccumulator(5, 5, normalize=False)
    expected.update(Z1, Z2)
    centred = Z1 - Z1.mean(0)
    for module in ("covariance", "pair"):
        monkeypatch.setattr(f"matinfo.streaming.{module}.block_rows", lambda width, dtype: 7)
    monkeypatch.setattr("matinfo.spectral.khatri_rao._BLOCK_ENTRIES", 25 * 7)
    single, joint = (
        CovarianceAccumulator(5, center=True, normalize=False),
        JointAccumulator(5, 5, normalize=False),
    )
    single.update(Z1)
    joint.update(Z1, Z2)
    torch.testing.assert_close(single.second_moment(), centred.T @ centred, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(joint.second_moment(), expected.second_moment(), rtol=1e-12, atol=1e-12)


def test_centring_survives_a_mean_a_thousand_deviations_away():
    Z = torch.randn(100_000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 1e3
    stream, other = (
        CovarianceAccumulator(6, center=True, normalize=False),
        CovarianceAccumulator(6, center=True, normalize=False),
    )
    for i, batch in enumerate(Z.split(997)):
        (other if i % 3 == 0 else stream).update(batch)
    centred = Z - Z.mean(0)
    expected = centred.T @ centred
    error = (stream + other).second_moment() - expected
    # Sums of 1e5 products round to about 1e-15 of the trace; the uncentred sum would lose 1e6 times as much.
    assert error.abs().max() < 2e-14 * expected.trace() / 6


def test_half_precision_is_summed_in_float64():
    Z = torch.ones(300_000, 1, dtype=torch.float16)
    stream = CovarianceAccumulator(1, normalize=False)
    for batch in Z.split(50_000):
        stream.update(batch)
    assert stream.second_moment().item() == 300_000  # beyond the largest float16
    assert stream.second_moment().dtype == torch.float64


@pytest.mark.parametrize("center", [False, True])
def test_gram_is_a_snapshot(center):
    stream = CovarianceAccumulator(5, center=center, normalize=False)
    stream.update(rows())
    K = stream.gram()
    before = matinfo.effective_rank(K)
    stream.update(rows(seed=3))
    assert matinfo.effective_rank(K) == before
    assert K.shape == (60, 60)


def test_merge_leaves_the_other_as_it_was():
    a, b = CovarianceAccumulator(5, normalize=False), CovarianceAccumulator(5, normalize=False)
    b.update(rows())
    before = b.second_moment()
    a.merge(b)
    a.update(rows(seed=1))
    assert torch.equal(b.second_moment(), before)
    assert (a.count, b.count) == (120, 60)


def test_numpy_in_numpy_out():
    stream, joint = CovarianceAccumulator(5, normalize=False), JointAccumulator(5, 5, normalize=False)
    Z = rows().numpy()
    stream.update(Z)
    joint.update(Z, Z)
    for value in (stream.second_moment(), stream.correlation(), joint.second_moment()):
        assert isinstance(value, np.ndarray)
    for value in (
        matinfo.effective_rank(stream.gram()),
        matinfo.mutual_information(*joint.grams()),
        stream.tcr(),
        stream.coding_rate(),
        stream.rankme(),
    ):
        assert isinstance(value, np.floating)


def test_batches_of_a_training_step_leave_no_graph():
    stream = CovarianceAccumulator(5, normalize=False)
    stream.update(rows().requires_grad_())
    assert not stream.second_moment().requires_grad


def test_pickle_keeps_the_stream():
    stream = JointAccumulator(5, 5, nan="skip", normalize=False)
    stream.update(rows(), rows(seed=1))
    copy = pickle.loads(pickle.dumps(stream))
    copy.update(rows(seed=2), rows(seed=3))
    stream.update(rows(seed=2), rows(seed=3))
    assert torch.equal(copy.second_moment(), stream.second_moment())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_error_policy_refuses_the_batch_and_keeps_the_state(bad):
    stream, Z = CovarianceAccumulator(5, normalize=False), rows()
    stream.update(Z)
    before = stream.second_moment()
    Z[3, 1] = bad
    with pytest.raises(ValueError, match="1 of 60 rows with NaN or infinity"):
        stream.update(Z)
    assert torch.equal(stream.second_moment(), before)
    assert stream.count == 60


def test_skip_policy_leaves_rows_out_and_counts_them():
    Z = rows()
    Z[3, 1], Z[7, 0] = float("nan"), float("inf")
    good = torch.cat([Z[:3], Z[4:7], Z[8:]])
    stream, clean = (CovarianceAccumulator(5, center=True, normalize=True, nan="skip") for _ in range(2))
    stream.update(Z)
    clean.update(good)
    assert (stream.count, stream.skipped, (stream + stream).skipped) == (58, 2, 4)
    torch.testing.assert_close(stream.second_moment(), clean.second_moment(), rtol=1e-14, atol=1e-14)


def test_skip_policy_drops_a_sample_from_both_streams():
    Z1, Z2 = rows(), rows(seed=1)
    Z1[3, 1], Z2[7, 0] = float("nan"), float("inf")
    keep = [i for i in range(60) if i not in (3, 7)]
    stream, clean = (
        JointAccumulator(5, 5, nan="skip", normalize=False),
        JointAccumulator(5, 5, normalize=False),
    )
    stream.update(Z1, Z2)
    clean.update(Z1[keep], Z2[keep])
    assert (stream.count, stream.skipped) == (58, 2)
    torch.testing.assert_close(stream.second_moment(), clean.second_moment(), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_propagate_policy_makes_results_nan(center, normalize):
    Z = rows()
    Z[3, 1] = float("nan")
    stream = CovarianceAccumulator(5, center=center, normalize=normalize, nan="propagate")
    stream.update(Z)
    assert matinfo.effective_rank(stream.gram()).isnan()
    assert stream.tcr().isnan()
    assert stream.correlation()[1].isnan().any()


@pytest.mark.parametrize("result", ["second_moment", "correlation", "gram", "tcr", "coding_rate", "rankme"])
def test_empty_stream_has_no_result(result):
    stream = CovarianceAccumulator(5, nan="skip", normalize=False)
    stream.update(torch.full((2, 5), float("nan")))
    with pytest.raises(ValueError, match=r"at least one row before a result, got none \(2 skipped\)"):
        getattr(stream, result)()


def test_zero_rows_have_no_rankme():
    stream, Z = CovarianceAccumulator(5, normalize=False), torch.zeros(4, 5)
    stream.update(Z)
    for result in (stream.rankme, lambda: matinfo.rankme(Z)):
        with pytest.raises(ValueError, match="Expected features to have a positive trace"):
            result()


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_rows_of_one_direction_have_no_centred_spectrum(precision):
    stream = CovarianceAccumulator(5, center=True, normalize=True, precision=precision)
    for batch in (torch.arange(1.0, 22.0)[:, None] / 3 * rows(1)).split([3, 7, 11]):
        stream.update(batch)
    assert not stream.second_moment().any()
    with pytest.raises(ValueError, match="positive trace"):
        matinfo.effective_rank(stream.gram())


def test_constant_column_of_any_size_leaves_the_others_as_they_are():
    Z = rows()
    Z[:, 2] = 1e15 / 3
    stream = CovarianceAccumulator(5, center=True, normalize=False)
    for batch in Z.split(7):
        stream.update(batch)
    expected = naive_moment(Z[:, [0, 1, 3, 4]], center=True, normalize=False)
    found = stream.second_moment()
    assert not found[2].any()
    keep = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(found[keep][:, keep], torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("result", ["second_moment", "gram", "grams"])
def test_empty_joint_stream_has_no_result(result):
    with pytest.raises(ValueError, match="at least one row before a result"):
        getattr(JointAccumulator(2, 2, normalize=False), result)()


@pytest.mark.parametrize("shape", [(4, 3), (5,), (2, 4, 5)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"Expected features of shape \(n, 5\)"):
        CovarianceAccumulator(5, normalize=False).update(torch.ones(shape))


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="floating point"):
        CovarianceAccumulator(5, normalize=False).update(torch.ones(4, 5, dtype=torch.int64))


def test_joint_streams_must_be_aligned():
    with pytest.raises(ValueError, match="as many rows in both streams"):
        JointAccumulator(2, 3, normalize=False).update(torch.ones(4, 2), torch.ones(5, 3))


def test_joint_moment_beyond_the_memory_limit_is_refused():
    JointAccumulator(4, 4, max_memory=8 * 16**2)
    with pytest.raises(ValueError, match="16 x 16 in float64 takes"):
        JointAccumulator(4, 4, max_memory=8 * 16**2 - 1)
    with pytest.raises(ValueError, match="65536 x 65536 in float64 takes 32,768 MiB"):
        JointAccumulator(256, 256, normalize=False)


def test_settings_must_agree_to_merge():
    with pytest.raises(ValueError, match="same settings"):
        CovarianceAccumulator(5, normalize=False).merge(
            CovarianceAccumulator(5, center=True, normalize=False)
        )
    with pytest.raises(ValueError, match="same settings"):
        _ = JointAccumulator(2, 3, normalize=False) + JointAccumulator(3, 2, normalize=False)
    with pytest.raises(TypeError, match="another CovarianceAccumulator, got JointAccumulator"):
        CovarianceAccumulator(5, normalize=False).merge(JointAccumulator(5, 5, normalize=False))
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = CovarianceAccumulator(5, normalize=False) + 1


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"width": 0}, ValueError, "width >= 1"),
        ({"width": 2.0}, TypeError, "width to be an integer"),
        ({"width": 2, "nan": "drop"}, ValueError, "nan to be one of"),
    ],
)
def test_arguments_outside_their_domain_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        CovarianceAccumulator(**arguments)


def test_quantities_that_need_rows_are_refused_instead_of_wrong():
    Z = rows()
    stream, joint = CovarianceAccumulator(5, normalize=False), JointAccumulator(5, 5, normalize=False)
    stream.update(Z)
    joint.update(Z, Z)
    K, (K1, K2) = stream.gram(), joint.grams()
    calls = [
        lambda: matinfo.joint_entropy(K, K),
        lambda: matinfo.joint_entropy(K1, K1),
        lambda: matinfo.joint_entropy(K, Gram(Z)),
        lambda: matinfo.joint_entropy(Gram(Z), K),
        lambda: matinfo.joint_entropy(K1, K2, K1),
        lambda: matinfo.matrix_kl(K1, K2),
        lambda: matinfo.matrix_js(K1, K2),
        lambda: matinfo.sandwiched_mutual_information(K1, K2, 2),
        lambda: Gram(Z) + K,
        lambda: Gram(Z) * K,
        lambda: K.reordered(torch.arange(60)),
        lambda: matinfo.estimate.KernelOperator(Z) * K,
        lambda: K * matinfo.estimate.KernelOperator(Z),
        lambda: matinfo.estimate.estimate_information(matinfo.mutual_information, K1, K1),
        lambda: matinfo.hsic(K1, K2),
        lambda: matinfo.independence_test(K, Gram(Z), alpha=2),
    ]
    for call in calls:
        with pytest.raises(
            (TypeError, AttributeError), match="the rows were not kept.*JointAccumulator.*Gram"
        ):
            call()


def test_gram_tells_its_trace_norm_and_tail_without_the_rows():
    Z = rows()
    stream = CovarianceAccumulator(5, normalize=False)
    stream.update(Z)
    streamed, whole = stream.gram(), Gram(Z)
    for answer in (
        lambda K: K.trace(),
        lambda K: K.frobenius_squared(),
        lambda K: matinfo.estimate.tail_corrected_entropy(K, trace=1e4),
        lambda K: matinfo.tcr(K, 1e-14),  # drowns in the round-off of the sum
    ):
        torch.testing.assert_close(
            answer(streamed).double(), answer(whole).double(), rtol=WELL_CONDITIONED, atol=0
        )


def test_gram_can_be_scaled():
    stream = CovarianceAccumulator(5, normalize=False)
    stream.update(rows())
    streamed, whole = stream.gram() / 60, Gram(rows()) / 60
    torch.testing.assert_close(
        matinfo.matrix_tcr(streamed), matinfo.matrix_tcr(whole), rtol=WELL_CONDITIONED, atol=0
    )


def test_rank_without_rows_answers_in_arrays_as_the_others():
    rank, empty, sent = CovarianceAccumulator(3), CovarianceAccumulator(3), []
    rank.update(np.eye(3))
    rank.summed(lambda x: sent.append(x.clone()) or x)
    replies = iter(sent)
    together = empty.summed(lambda x: x + next(replies))
    assert isinstance(together.second_moment(), np.ndarray)
    assert together.count == 3
