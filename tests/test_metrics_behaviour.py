"""What torchmetrics promises of every metric: life cycle, states, arithmetic, wrappers, plots."""

import copy
import math
import pickle

import pytest
import torch

torchmetrics = pytest.importorskip("torchmetrics")

from test_metrics import CASES, PAIRS, ROUNDING, SINGLE, Y, Z, batches  # noqa: E402

import matinfo  # noqa: E402
from matinfo import Gram, metrics  # noqa: E402

ONE_EACH = [
    (metrics.MatrixEntropy, {"width": 4}),
    (metrics.EffectiveRank, {"width": 4, "center": True}),
    (metrics.RankMe, {"width": 4}),
    (metrics.TotalCodingRate, {"width": 4}),
    (metrics.VendiScore, {"width": 4}),
    (metrics.SpectralMeasure, {"width": 4, "name": "stable_rank"}),
    (metrics.MatrixMutualInformation, {"width1": 4, "width2": 3}),
    (metrics.JointEntropy, {"width1": 4, "width2": 3}),
    (metrics.MatrixJensenShannon, {"width1": 4, "width2": 3}),
]
every_metric = pytest.mark.parametrize(("make", "expected", "streams"), CASES, ids=[*SINGLE, *PAIRS])
every_class = pytest.mark.parametrize(
    ("kind", "options"), ONE_EACH, ids=[kind.__name__ for kind, _ in ONE_EACH]
)


def streams_of(options):
    return (Z, Y) if "width2" in options else (Z,)


def named(streams):
    return {"features": streams[0]} if len(streams) == 1 else {"features1": Z, "features2": Y}


@pytest.fixture
def agg():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    yield pyplot
    pyplot.close("all")


def test_every_public_metric_is_here():
    assert {kind.__name__ for kind, _ in ONE_EACH} == set(metrics.__all__)


@every_metric
def test_clones_and_copies_go_their_own_way(make, expected, streams):
    metric = make()
    first, second = batches(streams, (20, 30))
    metric.update(*first)
    for other in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert type(other) is type(metric)
        assert other.count == 20
        other.update(*second)
        torch.testing.assert_close(other.compute(), expected, **ROUNDING)
    assert metric.count == 20


@every_metric
def test_keyword_arguments_and_caching(make, expected, streams):
    metric = make()
    metric.update(**named(streams))
    value = metric.compute()
    assert metric.compute() is value
    metric.update(**named(streams))
    assert metric.compute() is not value
    assert metric.update_count == 2
    metric.reset()
    assert metric.update_count == 0
    assert metric._computed is None


@every_metric
def test_forward_is_the_same_with_and_without_the_full_state(make, expected, streams):
    fast, full = make(), make()
    assert fast.full_state_update is False
    full.__class__ = type("Full", (type(full),), {"full_state_update": True})
    for batch in batches(streams):
        torch.testing.assert_close(fast(*batch), full(*batch), equal_nan=True, **ROUNDING)
    torch.testing.assert_close(fast.compute(), full.compute(), **ROUNDING)


@every_class
def test_class_facts_are_set_and_constant(kind, options):
    metric = kind(**options)
    for name in ("is_differentiable", "higher_is_better", "full_state_update"):
        assert getattr(kind, name) in (True, False, None)
        with pytest.raises(RuntimeError, match="const"):
            setattr(metric, name, True)
    with pytest.raises(ValueError, match="keyword arguments"):
        kind(**options, weight=1)


@every_class
def test_hash_differs_between_metrics_and_follows_the_state(kind, options):
    metric = kind(**options)
    before = hash(metric)
    assert before != hash(kind(**options))
    metric.update(*streams_of(options))
    assert hash(metric) != before
    assert len({metric, metric.clone()}) == 2


@every_metric
def test_states_are_checkpointed_on_request_only(make, expected, streams):
    metric = make()
    metric.update(*streams)
    assert metric.state_dict() == {}
    metric.persistent(True)
    states = metric.state_dict()
    assert set(states) == set(metric._defaults)
    module = torch.nn.ModuleDict({"metric": make()})
    module["metric"].persistent(True)
    module.load_state_dict({f"metric.{name}": state for name, state in states.items()})
    restored = module["metric"]
    assert restored.count == 50
    restored._update_count = 1  # not part of a checkpoint; without it torchmetrics warns
    torch.testing.assert_close(restored.compute(), expected, **ROUNDING)


@every_metric
def test_devices_and_dtypes(make, expected, streams):
    metric = make().to("cpu").float().half().double()  # torchmetrics keeps the dtype of states through these
    metric.update(*streams)
    assert metric.device == torch.device("cpu")
    torch.testing.assert_close(metric.compute(), expected, **ROUNDING)
    metric = make()
    metric.update(*[X[:30] for X in streams])
    metric.set_dtype(torch.float32)  # the explicit way: what was summed is rounded, what comes is not
    metric.update(*[X[30:] for X in streams])
    rounded = metric.compute()
    assert rounded.dtype == torch.float64
    torch.testing.assert_close(rounded, expected, rtol=1e-5, atol=1e-5)
    meta = make().to("meta")
    assert all(getattr(meta, name).is_meta for name in meta._defaults)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@every_class
def test_features_of_any_precision_are_summed_in_float64(kind, options, dtype):
    low, double = kind(**options), kind(**options)
    streams = [X.to(dtype) for X in streams_of(options)]
    low.update(*streams)
    double.update(*[X.double() for X in streams])
    assert torch.equal(low.compute(), double.compute())
    assert low.compute().dtype == torch.float64


@every_class
def test_arithmetic_with_metrics(kind, options):
    streams = streams_of(options)
    metric, other = kind(**options), kind(**options)
    total, scaled = metric + other, 2 * metric
    total.update(*streams)
    value = metric.compute()
    torch.testing.assert_close(total.compute(), 2 * value, **ROUNDING)
    torch.testing.assert_close(scaled.compute(), 2 * value, **ROUNDING)
    assert (abs(metric - other)).compute() == 0
    total.reset()
    assert metric.count == 0


@every_metric
def test_merge_state_adds_the_rows_of_another_metric(make, expected, streams):
    first, second = batches(streams, (20, 30))
    metric, other = make(), make()
    metric.update(*first)
    other.update(*second)
    metric.merge_state(other)
    assert (metric.count, other.count) == (50, 30)
    torch.testing.assert_close(metric.compute(), expected, **ROUNDING)


def test_collection_updates_shared_sums_once_and_in_one_place(monkeypatch):
    collection = torchmetrics.MetricCollection(
        [
            metrics.EffectiveRank(4, normalize=False),
            metrics.RankMe(4, normalize=False),
            metrics.TotalCodingRate(4, normalize=False),
        ]
    )
    collection.update(Z[:10])
    calls = []
    original = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda A, B: calls.append(A.shape) or original(A, B))
    collection.update(Z[10:])
    monkeypatch.undo()
    assert calls == [(4, 40)]  # one product for three metrics
    values = collection.compute()
    assert len({member._state("moments").data_ptr() for member in collection.values(copy_state=False)}) == 1
    members = [collection[name] for name in ("EffectiveRank", "RankMe", "TotalCodingRate")]
    assert [member.count for member in members] == [50, 50, 50]
    torch.testing.assert_close(values["RankMe"], matinfo.rankme(Z), **ROUNDING)
    collection.reset()
    assert collection["RankMe"].count == 0
    prefixed = collection.clone(prefix="val/")
    assert set(prefixed(Z)) == {"val/EffectiveRank", "val/RankMe", "val/TotalCodingRate"}


def test_collection_forward_gives_batches_and_keeps_sums():
    collection = torchmetrics.MetricCollection(
        [metrics.EffectiveRank(4, normalize=False), metrics.RankMe(4, normalize=False)]
    )
    for batch in Z.split(25):
        values = collection(batch)
        torch.testing.assert_close(values["RankMe"], matinfo.rankme(batch), **ROUNDING)
        torch.testing.assert_close(values["EffectiveRank"], matinfo.effective_rank(Gram(batch)), **ROUNDING)
    torch.testing.assert_close(collection.compute()["RankMe"], matinfo.rankme(Z), **ROUNDING)


def test_tracker_follows_epochs():
    tracker = torchmetrics.wrappers.MetricTracker(metrics.EffectiveRank(4, normalize=False), maximize=True)
    epochs = [Z, Z[:, [0, 0, 0, 0]], Z * torch.tensor([1, 0.1, 0.1, 0.1])]
    for features in epochs:
        tracker.increment()
        for batch in features.split(20):
            tracker.update(batch)
    expected = torch.stack([matinfo.effective_rank(Gram(features)) for features in epochs])
    torch.testing.assert_close(tracker.compute_all(), expected, **ROUNDING)
    best, step = tracker.best_metric(return_step=True)
    assert step == 0
    assert best == pytest.approx(expected[0].item())


def test_running_window_keeps_the_last_batches():
    running = torchmetrics.wrappers.Running(metrics.RankMe(4, normalize=False), window=2)
    for batch in Z.split(10):
        running(batch)
    torch.testing.assert_close(running.compute(), matinfo.rankme(Z[-20:]), **ROUNDING)


@every_class
def test_plot_returns_a_figure(kind, options, agg):
    metric = kind(**options)
    value = metric(*streams_of(options))
    for drawn in (metric.plot(), metric.plot(value), metric.plot([value, value + 1])):
        assert isinstance(drawn[0], agg.Figure)
    axis = agg.figure().gca()
    assert metric.plot(value, ax=axis)[1] is axis
    assert kind.__name__ in axis.get_title() + axis.get_ylabel()


def test_collection_plots_each_metric(agg):
    collection = torchmetrics.MetricCollection(
        [metrics.EffectiveRank(4, normalize=False), metrics.TotalCodingRate(4, normalize=False)]
    )
    collection.update(Z)
    assert [isinstance(figure, agg.Figure) for figure, _ in collection.plot()] == [True, True]


@pytest.mark.parametrize("copies", [1, 3, 1000])
@pytest.mark.parametrize("name", ["MatrixEntropy", "EffectiveRank", "RankMe"])
def test_equal_rows_have_no_centred_spectrum(name, copies):
    metric = getattr(metrics, name)(4, center=True)
    metric.update(Z)
    assert metric(Z[:1].repeat(copies, 1)).isnan()  # the last batch of an epoch may be one row
    assert metric.count == 50 + copies
    assert metric.compute().isfinite()
    rate = metrics.TotalCodingRate(4, center=True, mu=2, normalize=False)
    assert rate(Z[:1].repeat(copies, 1)).item() == pytest.approx(4 * math.log(2))


@pytest.mark.parametrize(("kind", "options"), [case for case in ONE_EACH if "width2" in case[1]])
def test_zero_streams_have_no_spectrum(kind, options):
    metric = kind(**options)
    assert metric(Z, 0 * Y).isnan()
    metric.update(Z, Y)
    assert metric.compute().isfinite()
