"""What the monitor says without being asked, what it keeps apart, and what a copy of it is."""

import copy
import json
import pickle
import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import matinfo
from matinfo import Gram
from matinfo.monitor import CollapseWarning, CSVWriter, Monitor, MonitorWarning, TensorBoardWriter

ROOT = Path(__file__).resolve().parents[1]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "monitor_alarms.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "how-to" / "monitor-collapse.md").read_text(encoding="utf-8")


def around(mean, spread, n=64, d=16, directions=16, seed=0):
    """Rows around a mean of this length, with this spread in so many directions."""
    Z = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    Z[:, directions:] *= 1e-3
    return spread * Z + mean * torch.ones(d, dtype=torch.float64)


def judged(*batches):
    """Steps at which the default monitor warns of a collapse."""
    model = nn.Identity()
    steps = []
    with Monitor(model, "", every=1) as monitor:
        for Z in batches:
            model(Z)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                monitor.step()
            assert all(
                isinstance(w.message, CollapseWarning) and w.message.reason == "collapse" for w in said
            )
            steps += [w.message.step for w in said]
    return steps


HEALTHY, POINT, LINE = around(0, 1), around(1, 0.01), around(0, 1, directions=1)


@pytest.mark.parametrize("state", [POINT, LINE], ids=["one point", "one direction"])
def test_default_rule_warns_of_a_layer_that_stays_collapsed(state):
    assert judged(HEALTHY, *[state] * 8) == [5]
    assert judged(HEALTHY, *[state] * 4, HEALTHY, *[state] * 4) == []  # passed through
    assert judged(HEALTHY, *[state] * 6, HEALTHY, *[state] * 6) == [5, 12]  # twice


def test_default_rule_is_silent_about_a_strong_mean_from_the_start():
    relu = around(0.9, 0.2).relu()
    assert float(matinfo.effective_rank(Gram(relu, normalize=True))) < 1.5
    assert judged(*[relu] * 9) == []


def test_default_rule_is_silent_while_the_rank_rises():
    rising = [around(1, 0.03 * 1.3**i) for i in range(9)]
    ranks = [float(matinfo.effective_rank(Gram(Z, normalize=True))) for Z in rising]
    assert sum(rank < 1.1 for rank in ranks) > 5
    assert judged(HEALTHY, *rising) == []
    assert judged(HEALTHY, *rising[::-1]) == [8]


def test_default_rule_may_be_switched_off():
    model = nn.Identity()
    monitor = Monitor(model, "", every=1, collapse=False)
    for Z in (HEALTHY, *[POINT] * 8):
        model(Z)
        monitor.step()
    assert monitor.events == []


def test_page_has_the_counted_alarms():
    from benchmarks.monitor_alarms import RUNS, row

    assert [run["run"] for run in RESULT["runs"]] == list(RUNS)
    for run in RESULT["runs"]:
        assert row(run) in PAGE
    healthy = [run for run in RESULT["runs"] if not run["collapses"]]
    assert len(healthy) >= 3
    assert len(RESULT["runs"]) - len(healthy) >= 3
    assert RESULT["false_alarms"] == sum(bool(run["warned"]) for run in healthy)
    (told,) = re.findall(r"(\d+) false alarms among (\d+), (\d+) misses among (\d+)", PAGE)
    counts = [RESULT["false_alarms"], len(healthy), RESULT["misses"], len(RESULT["runs"]) - len(healthy)]
    assert [int(number) for number in told] == counts
    other = json.loads((ROOT / "benchmarks/results/monitor_alarms_seed1.json").read_text(encoding="utf-8"))
    assert f"{other['false_alarms']} false alarms, {other['misses']} miss" in PAGE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SimSiam", "SimSiam without stop-gradient and predictor"])
def test_counted_runs_are_what_they_were(name):
    from benchmarks.monitor_alarms import train

    (committed,) = [run for run in RESULT["runs"] if run["run"] == name]
    assert bool(train(name)["warned"]) == bool(committed["warned"])


@pytest.mark.parametrize("center", [False, True])
def test_both_effective_ranks_are_recorded(center):
    Z, model = around(1, 1), nn.Identity()
    unit = Z / Z.norm(dim=1, keepdim=True)
    ranks = [float(matinfo.effective_rank(Gram(X))) for X in (unit, unit - unit.mean(0))]
    with Monitor(model, "", every=1, center=center) as monitor:
        model(Z)
        (record,) = monitor.step()
    other = "effective_rank_uncentered" if center else "effective_rank_centered"
    assert record["effective_rank"] == pytest.approx(ranks[center], rel=1e-9)
    assert record[other] == pytest.approx(ranks[not center], rel=1e-9)
    assert ("less their mean" if center else "not centred") in repr(monitor)


# Training and validation


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("calls", ["all", "last"])
def test_validation_rows_are_not_mixed_with_those_of_training(before, calls):
    model = nn.Linear(4, 3)
    monitor = Monitor(model, "", every=1, calls=calls)

    def validate():
        model.eval()
        for _ in range(3):
            model(torch.randn(100, 4))
        model.train()

    if before:
        validate()
    model(torch.randn(32, 4))
    if not before:
        validate()
    assert monitor.step()[0]["rows"] == 32
    model.eval()
    model(torch.randn(7, 4))
    assert monitor.step()[0]["rows"] == 7  # a network that never trains is seen all the same


def test_layer_that_training_left_out_has_no_rows_of_a_validation():
    model = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])
    monitor = Monitor(model, "*", every=1)
    model.eval()
    for layer in model:
        layer(torch.randn(100, 4))
    model.train()
    model[0](torch.randn(32, 4))  # as layers are dropped at random
    with pytest.warns(MonitorWarning, match="Layer '1' showed no rows at step 0"):
        records = monitor.step()
    assert [(record["layer"], record["rows"]) for record in records] == [("0", 32)]


def test_frozen_part_of_a_training_model_is_seen():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model.train()
    model[0].eval()
    with Monitor(model, "*", every=1) as monitor:
        model(torch.randn(9, 4))
        assert [record["rows"] for record in monitor.step()] == [9, 9]


class Encoder(nn.Module):
    """Tokens, and one pooled row."""

    def __init__(self):
        super().__init__()
        self.embedding, self.pooler = nn.Embedding(9, 6), nn.Linear(6, 4)

    def forward(self, input_ids, attention_mask=None):
        return self.pooler(self.embedding(input_ids)[:, :2])


def test_attention_mask_of_the_model_is_found():
    ids, mask = torch.randint(0, 9, (3, 5)), torch.tensor([[1, 1, 0, 0, 0], [1] * 5, [1, 1, 1, 1, 0]])
    model = Encoder()
    monitor = Monitor(model, ["embedding", "pooler"], every=1, pool="tokens")
    model(ids, attention_mask=mask)
    assert [record["rows"] for record in monitor.step()] == [11, 6]  # what does not fit is taken whole
    model(ids)
    assert [record["rows"] for record in monitor.step()] == [15, 6]
    monitor.mask(mask[:, :2])
    with pytest.raises(ValueError, match=r"mask of shape \(3, 5\)"):  # one given by hand has to fit
        model(ids, attention_mask=mask)


class Translator(nn.Module):
    """An encoder and a decoder, each with a mask of its own, of which the second layer is in a list."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x, attention_mask=None, y=None, decoder_attention_mask=None):
        return self.encoder(x), self.decoder[0](y)


@pytest.mark.parametrize("given", [True, False])
def test_layers_of_a_decoder_have_its_own_mask(given):
    model, (x, y) = Translator(), torch.randn(2, 3, 5, 4)
    mask, other = (torch.arange(5) < torch.tensor(lengths)[:, None] for lengths in ([5, 2, 3], [1, 4, 4]))
    with Monitor(model, ["encoder", "decoder.0"], every=1, pool="tokens") as monitor:
        model(x, mask, y, other if given else None)
        assert [record["rows"] for record in monitor.step()] == [10, 9 if given else 15]


def test_layers_of_a_tower_for_images_have_no_mask_of_the_text():
    model = nn.ModuleDict({"text_model": nn.Linear(4, 4), "vision_model": nn.Linear(4, 4)})
    model.forward = lambda attention_mask: [layer(torch.randn(3, 5, 4)) for layer in model.values()]
    for mask, rows in ((None, [10, 15]), ("attention_mask", [10, 10])):  # unless it is asked for
        with Monitor(model, "*", every=1, pool="tokens", mask=mask) as monitor:
            model(attention_mask=torch.arange(5) < torch.tensor([[5], [2], [3]]))
            assert [record["rows"] for record in monitor.step()] == rows


def test_arguments_that_are_no_mask_are_taken_for_none():
    # Lightning on several processes calls the model with the arguments of training_step, (batch, batch_idx).
    model, ids = Encoder(), torch.randint(0, 9, (3, 5))
    with Monitor(model, "embedding", every=1, pool="tokens") as monitor:
        model.forward = lambda *training_step: model.embedding(ids)
        for arguments in ((ids, 3), (ids, 3, 4)):
            model(*arguments)
            assert monitor.step()[0]["rows"] == 15


def test_mask_that_is_no_tensor_is_refused():
    model, mask = nn.Identity(), [[1, 0], [1, 1]]
    with pytest.raises(TypeError, match="Expected a mask .* got list. Use torch.as_tensor"):
        Monitor(model, "").mask(mask)
    with Monitor(model, "", mask=lambda args, kwargs: mask), pytest.raises(TypeError, match="got list"):
        model(torch.randn(2, 2, 4))


# Copies


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda monitor: pickle.loads(pickle.dumps(monitor))])
def test_copies_keep_the_record_and_watch_nothing(duplicate, tmp_path):
    model = nn.Linear(4, 3)
    options = {"quantities": {"own": lambda K: K.shape[-1]}, "pool": lambda x: x, "mask": lambda a, k: None}
    writers = [CSVWriter(tmp_path / "a.csv"), TensorBoardWriter(tmp_path), lambda record: None]
    with Monitor(model, "", every=1, writers=writers, **options) as monitor:
        model(torch.randn(9, 4))
        monitor.step()
        other = duplicate(monitor)
        assert (other.history, other.events, other.layers) == (monitor.history, [], [""])
        assert (other.spectra[""].eigenvalues == monitor.spectra[""].eigenvalues).all()
        assert json.dumps(other.state_dict()["alarms"]) == json.dumps(monitor.state_dict()["alarms"])
        model(torch.randn(9, 4))
        assert other.step() == []
        assert len(monitor.step()) == 1
        other.plot()


@pytest.mark.parametrize("make", [lambda p: CSVWriter(p / "a.csv"), lambda p: TensorBoardWriter(p)])
def test_writers_survive_a_pickle_and_open_again(make, tmp_path):
    writer = make(tmp_path)
    record = {"step": 0, "layer": "head", "effective_rank": 3.5}
    writer(record)
    other = pickle.loads(pickle.dumps(writer))
    other({**record, "step": 1})
    writer.close()
    other.close()
    assert any(tmp_path.iterdir())
