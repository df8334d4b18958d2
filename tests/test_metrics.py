"""Metrics for torchmetrics: the value of all rows, whatever the batches, ranks and collections."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import matinfo
from matinfo import Gram

torchmetrics = pytest.importorskip("torchmetrics")

from matinfo import metrics  # noqa: E402

ROUNDING = {"rtol": 1e-11, "atol": 1e-11}
"""Sums in another order, of float64 matrices with condition numbers under 1e4."""


def rows(n=50, d=4, seed=0):
    Z = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.3
    return Z * torch.linspace(1, 0.3, d, dtype=torch.float64)


def unit(Z):
    return Z / Z.norm(dim=1, keepdim=True)


def centred(Z):
    return Z - Z.mean(0)


Z, Y = rows(), rows(d=3, seed=1)
KZ, KY = Gram(Z, normalize=True), Gram(Y, normalize=True)

SINGLE = {
    "entropy": (lambda **k: metrics.MatrixEntropy(4, normalize=False, **k), matinfo.renyi_entropy(Gram(Z))),
    "entropy, bits, order 2, centred": (
        lambda **k: metrics.MatrixEntropy(4, alpha=2, base=2, center=True, normalize=False, **k),
        matinfo.renyi_entropy(Gram(centred(Z)), 2, base=2),
    ),
    "rank": (lambda **k: metrics.EffectiveRank(4, normalize=False, **k), matinfo.effective_rank(Gram(Z))),
    "rank, normalised and centred": (
        lambda **k: metrics.EffectiveRank(4, normalize=True, center=True, alpha=0.5, **k),
        matinfo.effective_rank(Gram(centred(unit(Z))), 0.5),
    ),
    "rankme": (
        lambda **k: metrics.RankMe(4, offset=1e-7, normalize=False, **k),
        matinfo.rankme(Z, offset=1e-7),
    ),
    "rankme, centred": (
        lambda **k: metrics.RankMe(4, center=True, normalize=False, **k),
        matinfo.rankme(centred(Z)),
    ),
    "stable rank, by name": (
        lambda **k: metrics.SpectralMeasure(4, "stable_rank", **k),
        matinfo.measures.stable_rank(KZ),
    ),
    "isoscore, by name": (
        lambda **k: metrics.SpectralMeasure(4, "isoscore", center=True, normalize=False, **k),
        matinfo.measures.isoscore(Z),
    ),
    "coding rate": (
        lambda **k: metrics.TotalCodingRate(4, mu=0.3, normalize=False, **k),
        matinfo.tcr(Z, 0.3),
    ),
    "vendi": (lambda **k: metrics.VendiScore(4, q=2, **k), matinfo.vendi_score(KZ, 2)),
}
PAIRS = {
    "information": (
        lambda **k: metrics.MatrixMutualInformation(4, 3, alpha=2, base=2, **k),
        matinfo.mutual_information(KZ, KY, 2, base=2),
    ),
    "information, not normalised": (
        lambda **k: metrics.MatrixMutualInformation(4, 3, normalize=False, **k),
        matinfo.mutual_information(Gram(Z), Gram(Y)),
    ),
    "joint entropy": (lambda **k: metrics.JointEntropy(4, 3, **k), matinfo.joint_entropy(KZ, KY)),
    "divergence": (lambda **k: metrics.MatrixJensenShannon(4, 3, **k), matinfo.matrix_js(KZ, KY)),
    "divergence, not normalised": (
        lambda **k: metrics.MatrixJensenShannon(4, 3, normalize=False, **k),
        matinfo.matrix_js(Gram(Z), Gram(Y)),
    ),
}
CASES = [(make, value, (Z,)) for make, value in SINGLE.values()]
CASES += [(make, value, (Z, Y)) for make, value in PAIRS.values()]
every_metric = pytest.mark.parametrize(("make", "expected", "streams"), CASES, ids=[*SINGLE, *PAIRS])


def batches(streams, sizes=(7, 20, 1, 22)):
    return list(zip(*[X.split(list(sizes)) for X in streams], strict=True))


@every_metric
def test_compute_is_the_value_of_all_rows(make, expected, streams):
    metric = make()
    for batch in batches(streams):
        metric.update(*batch)
    torch.testing.assert_close(metric.compute(), expected, **ROUNDING)
    assert (metric.count, metric.skipped) == (50, 0)


@given(st.lists(st.integers(0, 50), max_size=5))
def test_compute_does_not_depend_on_the_batches(cuts):
    ends = [*sorted(cuts), 50]
    sizes = [b - a for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    for name in ("rank, normalised and centred", "divergence"):
        make, expected = {**SINGLE, **PAIRS}[name]
        metric = make()
        for batch in batches((Z, Y) if name in PAIRS else (Z,), sizes):
            metric.update(*batch)
        torch.testing.assert_close(metric.compute(), expected, **ROUNDING)


@every_metric
def test_forward_gives_the_batch_and_keeps_the_sum(make, expected, streams):
    metric, alone = make(), make()
    first, second = batches(streams, (20, 30))
    metric(*first)
    alone.update(*second)
    torch.testing.assert_close(metric(*second), alone.compute(), **ROUNDING)
    torch.testing.assert_close(metric.compute(), expected, **ROUNDING)


@every_metric
def test_reset_forgets(make, expected, streams):
    metric = make()
    metric.update(*[X + 1 for X in streams])
    metric.reset()
    assert metric.count == 0
    metric.update(*streams)
    torch.testing.assert_close(metric.compute(), expected, **ROUNDING)


@every_metric
def test_synchronised_ranks_have_the_value_of_all_rows(make, expected, streams):
    gathered = {}
    ranks = [
        make(
            dist_sync_fn=lambda state, group=None: gathered[id(state)], distributed_available_fn=lambda: True
        )
        for _ in range(3)
    ]
    for rank, batch in zip(ranks, batches(streams, (30, 15, 5)), strict=True):
        rank.update(*batch)
    for name in ranks[0]._defaults:
        states = [getattr(rank, name) for rank in ranks]
        gathered.update({id(state): states for state in states})
    values = [rank.compute() for rank in ranks]
    assert values[0] == values[1] == values[2]
    torch.testing.assert_close(values[0], expected, **ROUNDING)
    assert [rank.count for rank in ranks] == [30, 15, 5]  # unsynchronised again: accumulation goes on


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8])
@pytest.mark.parametrize("normalize", [False, True])
def test_centred_metrics_lose_no_digit_to_a_large_mean(offset, normalize):
    # Three directions of four: what the mean leaves of the fourth is not one, nor a negative eigenvalue.
    X = offset + Z[:, :3] @ rows(3, 4, seed=2)
    exact = Gram(X, normalize, center=True)
    for make, expected in (
        (metrics.EffectiveRank, matinfo.effective_rank(exact)),
        (metrics.RankMe, matinfo.rankme(matinfo.spectrum(exact))),
    ):
        metric = make(4, center=True, normalize=normalize)
        for (batch,) in batches((X,)):
            metric.update(batch)
        torch.testing.assert_close(metric.compute(), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("spread", [0, 1e-8, 1e-7])
def test_collapsed_features_have_no_centred_rank(spread):
    c = torch.linspace(-2, 2, 8)
    X = c + spread * torch.randn(200, 8, generator=torch.Generator().manual_seed(0))  # float32: round-off
    metric = metrics.EffectiveRank(8, center=True)
    for batch in X.split(50):
        metric.update(batch)
    assert metric.compute().isnan()


def test_collection_shares_the_sums_of_metrics_with_the_same_rows():
    names = ["entropy", "entropy, bits, order 2, centred", "rankme", "rankme, centred", "coding rate"]
    parts = {str(i): SINGLE[name][0]() for i, name in enumerate(names)}
    collection = torchmetrics.MetricCollection({**parts, "vendi": SINGLE["vendi"][0]()})
    for batch in batches((Z,)):
        collection.update(*batch)
    assert sorted(map(sorted, collection.compute_groups.values())) == [["0", "1", "2", "3", "4"], ["vendi"]]
    values = collection.compute()
    for i, name in enumerate(names):
        torch.testing.assert_close(values[str(i)], SINGLE[name][1], **ROUNDING)
    torch.testing.assert_close(values["vendi"], SINGLE["vendi"][1], **ROUNDING)


def test_collection_of_pairs_shares_the_joint_sums():
    makes = {"a": PAIRS["information"], "b": PAIRS["joint entropy"], "c": PAIRS["divergence"]}
    collection = torchmetrics.MetricCollection({name: make() for name, (make, _) in makes.items()})
    for batch in batches((Z, Y)):
        collection.update(*batch)
    assert sorted(map(sorted, collection.compute_groups.values())) == [["a", "b"], ["c"]]
    for name, value in collection.compute().items():
        torch.testing.assert_close(value, makes[name][1], **ROUNDING)


def test_collection_tells_rules_apart_that_agree_on_the_first_batch():
    collection = torchmetrics.MetricCollection(
        {
            "raw": metrics.EffectiveRank(4, normalize=False),
            "unit": metrics.EffectiveRank(4, normalize=True),
            "skip": metrics.EffectiveRank(4, nan="skip", normalize=False),
        }
    )
    collection.update(unit(Z)[:10])  # unit rows, all finite: every sum is the same
    collection.update(Z[10:])
    together = torch.cat([unit(Z)[:10], Z[10:]])
    values = collection.compute()
    assert len(collection.compute_groups) == 3
    torch.testing.assert_close(values["raw"], matinfo.effective_rank(Gram(together)), **ROUNDING)
    torch.testing.assert_close(values["unit"], matinfo.effective_rank(KZ), **ROUNDING)


def test_nan_policies():
    bad = Z.clone()
    bad[3, 1] = float("nan")
    metric = metrics.EffectiveRank(4, normalize=False)
    metric.update(Z)
    with pytest.raises(ValueError, match="1 of 50 rows with NaN"):
        metric.update(bad)
    torch.testing.assert_close(metric.compute(), matinfo.effective_rank(Gram(Z)), **ROUNDING)
    skip = metrics.MatrixMutualInformation(4, 3, nan="skip")
    skip.update(bad, Y)
    keep = [i for i in range(50) if i != 3]
    expected = matinfo.mutual_information(Gram(Z[keep], normalize=True), Gram(Y[keep], normalize=True))
    torch.testing.assert_close(skip.compute(), expected, **ROUNDING)
    assert (skip.count, skip.skipped) == (49, 1)
    through = metrics.EffectiveRank(4, nan="propagate", normalize=False)
    through.update(bad)
    assert through.compute().isnan()


def test_no_rows_give_nan_and_the_warning_of_torchmetrics():
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metrics.EffectiveRank(4, normalize=False).compute().isnan()
    metric = metrics.RankMe(4, nan="skip", normalize=False)
    assert metric(torch.full((3, 4), float("nan"))).isnan()
    metric.update(Z)
    torch.testing.assert_close(metric.compute(), matinfo.rankme(Z), **ROUNDING)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.EffectiveRank(5, normalize=False).update(Z), r"shape \(n, 5\)"),
        (lambda: metrics.JointEntropy(4, 3).update(Z, Y[:5]), "as many rows"),
        (lambda: metrics.EffectiveRank(4, alpha=-1, normalize=False), r"alpha in \[0, inf\]"),
        (lambda: metrics.MatrixEntropy(4, base=1, normalize=False), r"base in \(1, inf\)"),
        (lambda: metrics.RankMe(4, offset=-1.0, normalize=False), r"offset in \[0, inf\)"),
        (lambda: metrics.TotalCodingRate(4, mu=0, normalize=False), r"mu in \(0, inf\)"),
        (lambda: metrics.VendiScore(4, q=-1), r"q in \[0, inf\]"),
        (lambda: metrics.VendiScore(4, nan="drop"), "nan to be one of"),
        (lambda: metrics.MatrixMutualInformation(256, 256), "takes 32,768 MiB"),
    ],
)
def test_arguments_outside_their_domain_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_plot_draws_the_value():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    metric = metrics.EffectiveRank(4, normalize=False)
    metric.update(Z)
    figure, axis = metric.plot()
    assert axis.get_ylim()[0] <= metric.compute() <= axis.get_ylim()[1]
    matplotlib.pyplot.close(figure)


def test_update_refuses_what_is_no_tensor():
    with pytest.raises(
        TypeError, match=r"Expected features to be a torch.Tensor, got ndarray. Use torch.as_tensor"
    ):
        metrics.EffectiveRank(3, normalize=False).update(torch.eye(3).numpy())


def test_a_measure_by_name_has_to_be_one_of_a_spectrum():
    with pytest.raises(ValueError, match="Expected name to be one of .*got 'two_nn'"):
        metrics.SpectralMeasure(4, "two_nn")
