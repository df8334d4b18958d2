"""Sums of float32 products with carried rounding, and a million rows."""

from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import matinfo
from matinfo.streaming import CovarianceAccumulator
from matinfo.streaming._sums import RunningSum

EPS = torch.finfo(torch.float32).eps


def rows(n=60, d=5, seed=0, offset=0.5):
    Z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return Z * torch.linspace(1, 0.2, d) + offset


def exact(Z, center=False):
    Z = Z.double()
    Z = Z - Z.mean(0) if center else Z
    return Z.mT @ Z


def stream_of(batches, **options):
    stream = CovarianceAccumulator(
        batches[0].shape[1], **{"precision": "float32", "normalize": False} | options
    )
    for batch in batches:
        stream.update(batch)
    return stream


@given(st.lists(st.integers(0, 60), max_size=6), st.randoms(use_true_random=False), st.booleans())
def test_any_split_and_merge_order_is_within_a_few_roundings_of_float64(cuts, random, center):
    Z = rows()
    ends = sorted(cuts)
    parts = [stream_of([Z[a:b]], center=center) for a, b in zip([0, *ends], [*ends, 60], strict=True)]
    random.shuffle(parts)
    total = reduce(lambda a, b: a + b, parts)
    expected = exact(Z, center)
    # 60 products a sum: about sqrt(60) roundings of a half eps each, of what their absolute values add up to.
    scale = (Z - Z.mean(0) if center else Z).abs().double()
    assert ((total.second_moment() - expected).abs() <= 8 * EPS * (scale.mT @ scale + 1e-3)).all()
    rank = matinfo.effective_rank(total.gram())
    torch.testing.assert_close(rank, matinfo.effective_rank(expected), rtol=20 * EPS, atol=0)


def test_error_does_not_grow_with_the_number_of_batches():
    Z = torch.full((3000, 1), 0.1)
    stream, plain = stream_of(Z.split(1)), torch.zeros(())
    for z in Z[:, 0]:
        plain = plain + z * z
    expected = exact(Z).item()
    assert abs(stream.second_moment().item() / expected - 1) < EPS
    assert abs(plain.item() / expected - 1) > 10 * EPS  # what would happen without the carry


def test_running_sum_of_numbers_that_cancel_is_exact():
    total = RunningSum.zeros(1, dtype=torch.float32)
    for x in (1e8, 1.0, -1e8, 1e-6):
        total.add(torch.tensor([x]))
    assert total.double().item() == pytest.approx(1.000001, rel=1e-7)


def test_centring_survives_a_mean_a_thousand_deviations_away():
    Z = rows(50_000, 4, offset=1e3)
    stream = stream_of(Z.split(997), center=True) + stream_of(
        [rows(3_000, 4, seed=1, offset=1e3)], center=True
    )
    expected = exact(torch.cat([Z, rows(3_000, 4, seed=1, offset=1e3)]), center=True)
    # A mean in one float32 number would be off by up to 6e-5 deviations, and so would every entry be.
    assert ((stream.second_moment() - expected).abs() < 5 * EPS * expected.trace() / 4).all()


def test_update_makes_no_float64_numbers():
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for x in result if isinstance(result, (tuple, list)) else [result]:
                assert not isinstance(x, torch.Tensor) or x.dtype != torch.float64, function
            return result

    stream = CovarianceAccumulator(5, center=True, normalize=True, nan="skip", precision="float32")
    with Watch():
        stream.update(rows())
        stream.update(torch.full((2, 5), float("nan")))
        stream.merge(stream)
    assert (stream.count, stream.skipped) == (120, 4)
    assert stream.second_moment().dtype == torch.float64


def test_directions_in_the_round_off_of_float32_count_as_zero():
    factors = rows(500, 5), rows(5, 8, seed=1)
    Z = (factors[0].double() @ factors[1].double()).float()  # eight columns of rank five
    stream = stream_of(Z.split(100))
    assert matinfo.renyi_entropy(stream.gram(), 0).exp().item() == pytest.approx(5)
    expected = torch.linalg.svdvals(Z.double())[:5]
    p = expected / expected.sum()
    torch.testing.assert_close(stream.rankme(), torch.special.entr(p).sum().exp(), rtol=1e-5, atol=0)


def test_nan_goes_through_when_it_may():
    stream = stream_of([torch.full((2, 3), float("nan"))], nan="propagate")
    assert stream.second_moment().isnan().all()
    assert matinfo.effective_rank(stream.gram()).isnan()


def test_finite_rows_whose_sum_overflows_are_accepted():
    big = torch.full((4, 2), 3e38)
    stream = CovarianceAccumulator(2, normalize=False)
    stream.update(big)
    assert stream.second_moment()[0, 0].item() == pytest.approx(4 * 3e38**2)
    with pytest.raises(ValueError, match="1 of 5 rows with NaN or infinity"):
        stream.update(torch.cat([big, torch.tensor([[float("inf"), 0.0]])]))


def test_precisions_do_not_merge_and_unknown_ones_are_refused():
    with pytest.raises(ValueError, match="same settings"):
        CovarianceAccumulator(5, normalize=False).merge(
            CovarianceAccumulator(5, precision="float32", normalize=False)
        )
    with pytest.raises(ValueError, match="precision to be one of"):
        CovarianceAccumulator(5, precision="float16", normalize=False)


@pytest.mark.parametrize(
    ("precision", "center", "tolerance"),
    [
        ("float64", True, 1e-11),
        ("float32", False, 1e-6),
        pytest.param("float64", False, 1e-11, marks=pytest.mark.slow),
        pytest.param("float32", True, 1e-6, marks=pytest.mark.slow),
    ],
)
def test_a_million_rows_give_the_quantities_of_extended_precision(precision, center, tolerance):
    Z = rows(1_000_000, 6, offset=3.0)
    stream = CovarianceAccumulator(6, center=center, precision=precision, normalize=False)
    for batch in Z.split(16_384):
        stream.update(batch)
    whole = Z.double() - Z.double().mean(0) if center else Z.double()
    extended = whole.numpy().astype(np.longdouble)
    M = torch.from_numpy(
        (extended.T @ extended).astype(np.float64)
    )  # at once in float64, 1e-13 would be lost
    sigma = torch.linalg.eigvalsh(M).sqrt()
    pairs = [
        (stream.second_moment() / M.abs().max(), M / M.abs().max()),
        (stream.tcr(), matinfo.matrix_tcr(M)),
        (stream.coding_rate(), matinfo.matrix_tcr(M * (6 / (1e6 * 0.25))) / 2),
        (stream.rankme(), torch.special.entr(sigma / sigma.sum()).sum().exp()),
        *[(matinfo.renyi_entropy(stream.gram(), a), matinfo.renyi_entropy(M, a)) for a in (0, 0.5, 1, 2)],
    ]
    for streamed, expected in pairs:
        torch.testing.assert_close(streamed, expected, rtol=0, atol=tolerance * max(1, expected.abs().max()))
