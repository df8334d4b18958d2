"""The monitor: its numbers are those of the public functions, its warnings come once, training does not notice it."""

import copy
import functools
import math
import warnings

import pytest
import torch
from torch import nn

import matinfo
from matinfo import Gram
from matinfo.monitor import CollapseWarning, Monitor, MonitorWarning, NonFiniteWarning

FLOAT64 = 1e-10
"""Both sides are float64 decompositions of a matrix of order <= 20 with a condition number under 1e6."""
PUBLIC = {
    "renyi_entropy": lambda Z: matinfo.renyi_entropy(Gram(Z)),
    "von_neumann_entropy": lambda Z: matinfo.von_neumann_entropy(Gram(Z)),
    "effective_rank": lambda Z: matinfo.effective_rank(Gram(Z)),
    "participation_ratio": lambda Z: matinfo.participation_ratio(Gram(Z)),
    "vendi_score": lambda Z: matinfo.vendi_score(Gram(Z)),
    "rankme": matinfo.rankme,
    "tcr": matinfo.tcr,
    "matrix_tcr": lambda Z: matinfo.matrix_tcr(Gram(Z)),
    "coding_rate": matinfo.coding_rate,
}
entropy, erank, vendi = matinfo.renyi_entropy, matinfo.effective_rank, matinfo.vendi_score
WITH_ARGUMENTS = {
    "rank": (functools.partial(entropy, alpha=0), lambda Z: entropy(Gram(Z), 0)),
    "half": (functools.partial(erank, alpha=0.5), lambda Z: erank(Gram(Z), 0.5)),
    "two": (functools.partial(entropy, alpha=2, base=2), lambda Z: entropy(Gram(Z), 2, base=2)),
    "top": (functools.partial(entropy, alpha=math.inf), lambda Z: entropy(Gram(Z), math.inf)),
    "bits": (functools.partial(matinfo.von_neumann_entropy, base=2), lambda Z: entropy(Gram(Z), base=2)),
    "vendi": (functools.partial(vendi, q=3), lambda Z: vendi(Gram(Z), 3)),
    "offset": (functools.partial(matinfo.rankme, offset=1e-3), lambda Z: matinfo.rankme(Z, offset=1e-3)),
    "ridge": (functools.partial(matinfo.tcr, mu=0.1), lambda Z: matinfo.tcr(Z, 0.1)),
    "matrix ridge": (functools.partial(matinfo.matrix_tcr, mu=0.1), lambda Z: matinfo.matrix_tcr(Gram(Z), 0.1)),
    "distortion": (functools.partial(matinfo.coding_rate, eps=0.1), lambda Z: matinfo.coding_rate(Z, eps=0.1)),
    "plain function": (erank, lambda Z: erank(Gram(Z))),
}  # fmt: skip


def rows(n=12, d=5, dtype=torch.float64):
    """Of rank min(n, d), with a decaying spectrum and a mean."""
    Z = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(n * 100 + d)) + 0.2
    return (Z * torch.linspace(1, 0.2, d, dtype=torch.float64)).to(dtype)


class Same(nn.Module):
    """A layer that returns what it gets."""

    def forward(self, x):
        return x


def watch(**options):
    return Monitor(Same(), "", every=1, **{"normalize": False, **options})


def observe(monitor, *batches):
    """One step, with a forward for each batch."""
    with torch.no_grad():
        for Z in batches:
            monitor._capture.layers[""](Z)
    return monitor.step()


def measured(Z, quantities, **options):
    (record,) = observe(watch(quantities=quantities, **options), Z)
    return record


SHAPES = ((12, 5), (5, 12), (20, 18), (9, 9))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_quantities_by_name_equal_the_public_functions(shape):
    Z = rows(*shape)
    record = measured(Z, list(PUBLIC))
    for name, function in PUBLIC.items():
        assert record[name] == pytest.approx(float(function(Z)), rel=FLOAT64), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_partials_of_public_functions_equal_them_with_the_same_arguments(shape):
    Z = rows(*shape)
    record = measured(Z, {name: given for name, (given, _) in WITH_ARGUMENTS.items()})
    for name, (_, function) in WITH_ARGUMENTS.items():
        assert record[name] == pytest.approx(float(function(Z)), rel=FLOAT64), name


def test_quantities_of_rank_deficient_features_equal_the_public_functions():
    Z = rows(12, 3) @ torch.randn(3, 8, dtype=torch.float64)
    # RankMe of float64 features is a singular value decomposition: below 1e-8 of the largest it sees more.
    record = measured(Z, [name for name in PUBLIC if name != "rankme"])
    for name in set(PUBLIC) - {"rankme"}:
        assert record[name] == pytest.approx(float(PUBLIC[name](Z)), rel=1e-8), name
    assert measured(Z.float(), ["rankme"])["rankme"] == pytest.approx(
        float(matinfo.rankme(Z.float())), rel=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precisions_are_measured_in_float64(dtype):
    Z = rows(dtype=dtype)
    record = measured(Z, ["effective_rank", "rankme", "tcr"])
    for name in ("effective_rank", "rankme", "tcr"):
        assert record[name] == pytest.approx(float(PUBLIC[name](Z.double())), rel=1e-8), name


def test_all_named_quantities_come_out_of_one_decomposition_beside_the_centred_one():
    monitor = watch(quantities=list(PUBLIC))
    with matinfo.explain() as log:
        observe(monitor, rows())
    assert [step.route for step in log.steps] == ["eigvalsh"] * 2


def test_callables_get_the_gram_matrix_of_the_prepared_features():
    Z = rows()
    record = measured(
        Z, {"diagonal": lambda K: K.dense().diagonal().mean(), "n": lambda K: K.shape[-1]}, normalize=True
    )
    assert record["diagonal"] == pytest.approx(1.0, rel=1e-12)
    assert record["n"] == 12


def test_centring_and_normalisation_are_those_of_the_metrics():
    Z = rows()
    unit = Z / Z.norm(dim=1, keepdim=True)
    expected = matinfo.effective_rank(Gram(unit - unit.mean(0)))
    record = measured(Z, ["effective_rank"], center=True, normalize=True)
    assert record["effective_rank"] == pytest.approx(float(expected), rel=FLOAT64)


@pytest.mark.parametrize("center", [False, True])
def test_reduce_on_one_process_changes_nothing(center):
    Z = rows()
    expected = measured(Z, list(PUBLIC), center=center)
    assert measured(Z, list(PUBLIC), center=center, reduce=True) == expected


def test_spectra_are_eigenvalues_over_the_trace():
    Z, monitor = rows(), watch()
    observe(monitor, Z)
    observe(monitor, Z[:3])
    kept = monitor.spectra[""]
    expected = torch.linalg.svdvals(Z).square()
    assert kept.steps.tolist() == [0, 1]
    assert torch.from_numpy(kept.eigenvalues[0]).allclose(expected / expected.sum(), atol=1e-12)
    assert kept.eigenvalues.sum(1) == pytest.approx([1, 1])
    assert kept.eigenvalues[1, 3:].tolist() == [0, 0]


def test_history_has_a_record_for_each_layer_and_every_kth_step():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    with Monitor(model, ["2", "0"], every=3) as monitor:
        for step in range(7):
            model(torch.randn(8, 3))
            assert bool(monitor.step()) == (step % 3 == 0)
    assert [(r["step"], r["layer"]) for r in monitor.history] == [
        (s, n) for s in (0, 3, 6) for n in ("0", "2")
    ]
    assert list(monitor.history[0])[:4] == ["step", "layer", "rows", "width"]
    assert {r["rows"] for r in monitor.history} == {8}
    assert [r["width"] for r in monitor.history[:2]] == [4, 2]


def train(monitored):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, "*", every=2, max_rows=5) if monitored else None
    for _ in range(6):
        optimizer.zero_grad()
        model(torch.randn(9, 4)).square().mean().backward()
        optimizer.step()
        if monitor is not None:
            monitor.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]), torch.rand(3)


def test_training_is_the_same_to_the_last_bit_with_a_monitor():
    plain, watched = train(False), train(True)
    assert torch.equal(plain[0], watched[0])
    assert torch.equal(plain[1], watched[1]), "the random numbers of the training were used"


def test_records_hold_no_graph():
    Z = rows().requires_grad_()
    monitor = watch(quantities={"own": lambda K: K.dense().sum()})
    monitor._capture.layers[""](Z * 1.0)
    assert not monitor._capture.seen[""].parts[0].requires_grad
    (record,) = monitor.step()
    assert type(record["own"]) is float


def test_max_rows_draws_without_replacement_and_anew_at_every_step():
    Z = torch.eye(30, dtype=torch.float64)
    monitor = watch(quantities=["effective_rank"], max_rows=7)
    seen = []
    for _ in range(3):
        monitor._capture.layers[""](Z)
        seen.append(tuple(monitor._capture.seen[""].parts[0].argmax(1).tolist()))
        (record,) = monitor.step()
        assert record["rows"] == 7
        assert record["effective_rank"] == pytest.approx(7)
    assert len(set(seen)) == 3


# Collapse


def spread(rank):
    """32 rows of this effective rank."""
    Z = torch.eye(16, dtype=torch.float64)[torch.arange(32) % rank]
    return Z / Z.sum(0).clamp_min(1).sqrt()


def reasons(monitor, ranks):
    """Reasons of the warnings at each observation."""
    said = []
    for rank in ranks:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            observe(monitor, spread(rank))
        said.append([w.message.reason for w in caught])
    return said


def test_threshold_warns_once_until_the_layer_has_recovered():
    monitor = watch(collapse_below=4)
    # Armed again from 5 = 1.25 x 4 on; 4 itself is not below 4.
    assert reasons(monitor, [8, 4, 3, 2, 4, 3, 5, 3]) == [[], [], ["below"], [], [], [], [], ["below"]]
    assert [event["step"] for event in monitor.events] == [2, 7]


def test_fall_warns_relative_to_the_highest_value():
    monitor = watch(collapse_fall=0.5)
    # Threshold 4 of 8, armed again from 6; then 12 is the highest and the threshold 6.
    assert reasons(monitor, [2, 8, 4, 3, 5, 3, 6, 3, 12, 5]) == [
        [], [], [], ["fall"], [], [], [], ["fall"], [], ["fall"],
    ]  # fmt: skip


def test_warning_names_layer_step_value_and_threshold():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    nn.init.zeros_(model[1].weight)
    monitor = Monitor(model, "*", every=1, collapse_below=2.5)
    model(torch.randn(64, 4))
    with pytest.warns(
        CollapseWarning, match=r"Layer '1', step 0: collapsed, effective rank 1 is below 2.5"
    ) as caught:
        (first, second) = monitor.step()
    (warning,) = [w.message for w in caught]
    assert (warning.layer, warning.step, warning.reason, warning.threshold) == ("1", 0, "below", 2.5)
    assert warning.value == pytest.approx(1, abs=1e-6)
    assert (first["event"], second["event"]) == ("", "below")
    assert caught[0].filename == __file__


def test_both_thresholds_are_two_events():
    assert reasons(watch(collapse_fall=0.5, collapse_below=4), [8, 2]) == [[], ["below", "fall"]]


def test_warmup_is_recorded_but_neither_judged_nor_a_peak():
    monitor = watch(collapse_below=4, collapse_fall=0.5, warmup=2)
    assert reasons(monitor, [16, 2, 6, 5]) == [[], [], [], []]
    assert len(monitor.history) == 4


def test_short_last_batch_is_not_a_collapse():
    monitor = watch(collapse_below=4, collapse_fall=0.5)
    observe(monitor, spread(16))
    observe(monitor, spread(16)[:3])
    assert monitor.history[1]["effective_rank"] == pytest.approx(3)
    assert monitor.events == []


def test_one_sample_is_recorded_but_not_judged():
    (record,) = observe(watch(collapse_below=4), rows(1, 5))
    assert record["effective_rank"] == pytest.approx(1)
    assert record["rows"] == 1


def test_equal_rows_of_a_short_batch_are_recorded_but_not_judged_when_centred():
    monitor = watch(center=True)
    for batch in (rows(1, 5), rows(8, 5), rows(1, 5), torch.ones(3, 5)):
        observe(monitor, batch)
    assert monitor.events == []
    with pytest.warns(CollapseWarning, match="after centring, constant"):
        observe(monitor, torch.ones(8, 5))
    observe(monitor, rows(1, 5))  # nor is that a recovery
    observe(monitor, torch.ones(8, 5))
    with pytest.warns(CollapseWarning, match="all features are zero"):
        observe(watch(), torch.zeros(1, 5))


def test_zero_features_are_a_collapse_with_nothing_but_coding_rates():
    monitor = watch(quantities=["effective_rank", "tcr", "coding_rate"])
    with pytest.warns(CollapseWarning, match="all features are zero"):
        (record,) = observe(monitor, torch.zeros(6, 4))
    assert math.isnan(record["effective_rank"])
    assert record["tcr"] == float(matinfo.tcr(torch.zeros(6, 4)))
    assert record["coding_rate"] == 0
    assert bool(torch.from_numpy(monitor.spectra[""].eigenvalues).isnan().all())
    observe(monitor, torch.zeros(6, 4))  # said once


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # where arithmetic adds to rounding
def test_constant_features_are_zero_after_centring_and_not_noise_of_full_rank(dtype):
    Z = (torch.randn(1, 6).expand(50, 6) * 3).to(dtype)
    noisy = Z * (1 + torch.finfo(dtype).eps * torch.randint(-1, 2, (50, 6)).double()).to(dtype)
    assert noisy.unique().numel() > 6
    with pytest.warns(CollapseWarning, match="constant"):
        observe(watch(center=True), noisy)
    with pytest.warns(CollapseWarning, match="constant"):  # also where pooling has raised the precision
        observe(watch(center=True), noisy[:, None])
    assert measured(Z, ["effective_rank"])["effective_rank"] == pytest.approx(1)


# Features that are not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_features_are_recorded_and_named_once(bad):
    Z = rows()
    Z[3, 1] = bad
    calls = []
    monitor = watch(quantities={"rankme": "rankme", "own": calls.append}, collapse_below=3)
    with pytest.warns(NonFiniteWarning, match=r"Layer '', step 0: NaN or infinity in 1 of 12 rows"):
        (record,) = observe(monitor, Z)
    assert math.isnan(record["rankme"])
    assert math.isnan(record["own"])
    assert record["event"] == "nonfinite"
    assert calls == []
    assert observe(monitor, Z)[0]["event"] == ""
    assert bool(torch.from_numpy(monitor.spectra[""].eigenvalues).isnan().all())


def test_features_that_overflow_are_not_finite():
    with pytest.warns(NonFiniteWarning, match="beyond it. Scale"):
        observe(watch(), rows() * 1e200)


def test_on_nonfinite_raise_raises_after_the_record_is_written():
    written = []
    monitor = watch(on_nonfinite="raise", writers=[written.append])
    with pytest.raises(FloatingPointError, match="step 0: NaN"):
        observe(monitor, rows() * math.nan)
    assert len(written) == len(monitor.history) == 1
    observe(monitor, rows())
    assert [record["step"] for record in written] == [0, 1]


def test_failing_solver_is_a_warning(monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("did not converge")

    monkeypatch.setattr(matinfo.monitor.measurement, "spectrum", fails)
    with pytest.warns(NonFiniteWarning, match="did not converge"):
        observe(watch(), rows())


# State


def test_resumed_monitor_goes_on_as_if_nothing_had_happened(tmp_path):
    ranks = [8, 7, 3, 3, 6, 3]
    whole = watch(collapse_below=4, collapse_fall=0.6)
    first, second = (watch(collapse_below=4, collapse_fall=0.6) for _ in range(2))
    expected = reasons(whole, ranks)
    said = reasons(first, ranks[:3])
    torch.save(first.state_dict(), tmp_path / "monitor.pt")
    second.load_state_dict(torch.load(tmp_path / "monitor.pt", weights_only=True))
    assert said + reasons(second, ranks[3:]) == expected
    assert second.history == whole.history
    assert second.events == whole.events
    assert (second.spectra[""].eigenvalues == whole.spectra[""].eigenvalues).all()


def test_state_is_a_copy_and_belongs_to_its_layers():
    monitor = watch()
    observe(monitor, rows())
    state = monitor.state_dict()
    observe(monitor, rows())
    assert len(state["history"]) == 1
    other = Monitor(nn.Sequential(nn.Linear(2, 2)), "0")
    with pytest.raises(
        ValueError, match=r"Expected the state of a monitor of the layers \['0'\], got one of \[''\]"
    ):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match=r"state of a monitor .* got one of \['model'\]"):
        other.load_state_dict({"model": {}})


def test_paused_and_removed_monitors_see_nothing():
    monitor = watch()
    layer = monitor._capture.layers[""]
    with monitor.paused():
        layer(rows(4, 3))
        with monitor.paused():
            pass
        layer(rows(4, 3))
    layer(rows())
    assert monitor.step()[0]["rows"] == 12
    monitor.remove()
    layer(rows())
    assert monitor.step() == []
    assert not layer._forward_hooks


def test_layer_that_is_not_called_is_said_once():
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    monitor = Monitor(model, "*", every=1)
    model["used"](torch.randn(4, 2))
    with pytest.warns(MonitorWarning, match="Layer 'unused' showed no rows at step 0"):
        assert len(monitor.step()) == 1
    model["used"](torch.randn(4, 2))
    assert len(monitor.step()) == 1


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"every": 0}, ValueError, "every >= 1"),
        ({"max_rows": 1.5}, TypeError, "max_rows to be an integer"),
        ({"pool": "max"}, ValueError, "pool to be one of 'mean'"),
        ({"calls": "first"}, ValueError, "calls to be one of"),
        ({"on_nonfinite": "ignore"}, ValueError, "on_nonfinite to be one of"),
        ({"collapse_below": 0}, ValueError, r"collapse_below in \(0, inf\)"),
        ({"collapse_fall": 1.0}, ValueError, r"collapse_fall in \(0, 1\)"),
        ({"quantities": ["erank"]}, ValueError, "one of renyi_entropy, .* or a callable, got 'erank'"),
        ({"quantities": []}, ValueError, "at least one"),
        ({"quantities": {"step": "rankme"}}, ValueError, "not to be named 'step'"),
        ({"quantities": {"a": 3}}, TypeError, "'a' to be a name or a callable, got int"),
        (
            {"quantities": {"a": functools.partial(matinfo.tcr, normalize=True)}},
            ValueError,
            r"tcr\(features, normalize=True\) of features, got a Spectrum",
        ),
    ],
)  # fmt: skip
def test_arguments_outside_their_domain_are_refused_at_once(options, error, match):
    with pytest.raises(error, match=match):
        Monitor(Same(), "", **options)


def test_quantity_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="quantity 'own' to be one number, got shape \\(12,\\)"):
        observe(watch(quantities={"own": lambda K: K.dense().diagonal()}), rows())


def test_copies_of_the_model_are_not_observed():
    model = nn.Sequential(nn.Linear(3, 4))
    monitor = Monitor(model, "0", every=1)
    teacher = copy.deepcopy(model)
    teacher(torch.randn(5, 3))
    model(torch.randn(6, 3))
    assert monitor.step()[0]["rows"] == 6


# Errors within a step


def said_by(step):
    """Messages of the warnings of a step that may raise, and what it raised."""
    error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            step()
        except (OSError, ValueError) as raised:
            error = raised
    return [w.message for w in caught], error


@pytest.mark.parametrize("cause", ["widths", "quantity"])
def test_step_that_raises_has_ended_all_the_same(cause):
    quantity = {"widths": 0.0, "quantity": torch.ones(2)}[cause]
    monitor = watch(quantities={"own": lambda K: quantity})
    layer = monitor._capture.layers[""]
    layer(rows(4, 3))
    if cause == "widths":
        layer(rows(4, 5))
    assert isinstance(said_by(monitor.step)[1], ValueError)
    quantity = 2.0
    assert [(r["step"], r["rows"], r["own"]) for r in observe(monitor, rows())] == [(1, 12, 2.0)]


def test_layers_before_one_that_raises_are_recorded_and_warned_of():
    model = nn.ModuleDict({"first": Same(), "second": Same()})
    written = []
    monitor = Monitor(model, "*", every=1, collapse_below=3, writers=[written.append])
    for width in (4, 5):
        model["second"](rows(4, width))
    model["first"](torch.ones(8, 4))
    messages, error = said_by(monitor.step)
    assert isinstance(error, ValueError)
    assert [(m.layer, m.step) for m in messages] == [("first", 0)]
    assert [r["layer"] for r in written] == [r["layer"] for r in monitor.history] == ["first"]


def test_writer_that_raises_does_not_swallow_the_warning():
    def full(record):
        raise OSError("disk full")

    messages, error = said_by(
        functools.partial(observe, watch(collapse_below=3, writers=[full]), torch.ones(8, 4))
    )
    assert isinstance(error, OSError)
    assert [m.reason for m in messages] == ["below"]


# Columns that rounding has left


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [False, True], ids=["rows", "pooled"])
def test_centring_keeps_columns_whose_spread_is_above_rounding(dtype, tokens):
    generator = torch.Generator().manual_seed(0)
    Z = torch.randn(512, 16, dtype=torch.float64, generator=generator)
    # A standard deviation of 0.75 eps of the mean, where rounding makes 0.5 eps at most.
    Z[:, :4] = 100 * (1 + 0.75 * torch.finfo(dtype).eps * Z[:, :4])
    Z[:, 4:] *= 75 * torch.finfo(dtype).eps
    x = (Z[:, None].expand(512, 5, 16) if tokens else Z).to(dtype)
    pooled = x.double().mean(1) if tokens else x.double()
    expected = float(matinfo.effective_rank(Gram(pooled - pooled.mean(0))))
    assert expected > 14
    record = measured(x, ["effective_rank"], center=True)
    assert record["effective_rank"] == pytest.approx(expected, rel=1e-5)  # means over tokens are float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("normalize", [False, True])
def test_constants_rounded_either_way_are_zero_after_centring(dtype, normalize):
    eps, generator = torch.finfo(dtype).eps, torch.Generator().manual_seed(0)
    low = (1 + torch.rand(6, dtype=torch.float64, generator=generator)).to(dtype)
    low[0] = 1.0  # where the distance of neighbours is largest relative to them
    up = torch.rand(50, 6, generator=generator) < 0.5
    x = torch.where(up, (low.double() + eps).to(dtype), low)
    assert x.unique().numel() == 12
    for output in (x, x[:, None].expand(50, 3, 6), x.reshape(25, 2, 6)):
        with pytest.warns(CollapseWarning, match="constant"):
            observe(watch(center=True, normalize=normalize), output)


def test_state_on_another_device_is_loaded_to_the_cpu():
    from torch._subclasses.fake_tensor import FakeTensorMode

    monitor = watch()
    observe(monitor, rows())
    state = monitor.state_dict()
    with FakeTensorMode():
        state["spectra"] = {"": [(0, torch.empty(5, dtype=torch.float64, device="cuda"))]}
        monitor.load_state_dict(state)
    ((_, eigenvalues),) = monitor._spectra[""]
    assert eigenvalues.device.type == "cpu"
