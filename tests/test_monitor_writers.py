"""Where records go: files that a killed and resumed run leaves whole, TensorBoard, callables, a picture."""

import csv
import math
import sys

import pytest
import torch
from torch import nn

from matinfo.monitor import CollapseWarning, CSVWriter, Monitor, TensorBoardWriter


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(writers, steps, *, state=None, rank=4, **options):
    """Train nothing for some steps, one observation each."""
    model = nn.Identity()
    monitor = Monitor(model, "", every=1, writers=writers, **options)
    if state is not None:
        monitor.load_state_dict(state)
    for _ in range(steps):
        model(torch.eye(8)[torch.arange(16) % rank])
        monitor.step()
    return monitor


def test_csv_has_a_line_for_each_record(tmp_path):
    path = tmp_path / "new folder" / "ranks.csv"
    monitor = run([CSVWriter(path)], 2, quantities=["effective_rank"])
    assert (
        path.read_text().splitlines()[0]
        == "step,layer,rows,width,effective_rank,effective_rank_centered,event"
    )
    assert [float(line["effective_rank"]) for line in lines(path)] == [
        r["effective_rank"] for r in monitor.history
    ]
    assert [line["step"] for line in lines(path)] == ["0", "1"]
    monitor.remove()


def test_csv_writes_nan_and_events(tmp_path):
    with pytest.warns(CollapseWarning):
        monitor = run([CSVWriter(tmp_path / "a.csv")], 1, collapse_below=5)
    model = nn.Identity()
    zero = Monitor(model, "", every=1, writers=monitor.writers)
    model(torch.zeros(2, 2))
    with pytest.warns(CollapseWarning):
        zero.step()
    first, second = lines(tmp_path / "a.csv")
    assert (first["event"], second["event"]) == ("below", "zero")
    assert math.isnan(float(second["effective_rank"]))
    zero.remove()


def test_resumed_csv_has_every_step_once(tmp_path):
    path = tmp_path / "ranks.csv"
    killed = run([CSVWriter(path)], 2)
    state = killed.state_dict()
    for _ in range(3):  # steps 2 to 4 are lost with the process
        killed._capture.layers[""](torch.eye(8))
        killed.step()
    killed.remove()
    resumed = run([CSVWriter(path)], 2, state=state)
    assert [line["step"] for line in lines(path)] == ["0", "1", "2", "3"]
    assert [line["rows"] for line in lines(path)] == ["16"] * 4
    resumed.remove()


def test_csv_that_ends_within_a_line_is_continued_on_the_next(tmp_path):
    path = tmp_path / "ranks.csv"
    path.write_text("step,layer,rank\n0,a,3.0\n5,a")
    writer = CSVWriter(path)
    writer({"step": 10, "layer": "a", "rank": 2.0})
    writer.close()
    assert path.read_text() == "step,layer,rank\n0,a,3.0\n5,a\n10,a,2.0\n"


def test_csv_of_other_quantities_is_refused_and_kept(tmp_path):
    path = tmp_path / "ranks.csv"
    run([CSVWriter(path)], 1, quantities=["effective_rank"]).remove()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="to have the columns .*'tcr'.* Use another path"):
        run([CSVWriter(path)], 1, quantities=["tcr"])
    assert path.read_bytes() == before


def test_rewinding_without_a_file_is_nothing(tmp_path):
    CSVWriter(tmp_path / "none.csv").rewind(3)
    assert list(tmp_path.iterdir()) == []


def test_callback_gets_records_it_may_change():
    got = []

    def callback(record):
        got.append(record.pop("step"))

    monitor = run([callback], 3)
    assert got == [record["step"] for record in monitor.history] == [0, 1, 2]


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_gets_scalars_and_a_resumed_run_hides_later_ones(tmp_path):
    pytest.importorskip("tensorboard")
    killed = run([TensorBoardWriter(tmp_path)], 4, quantities=["effective_rank"])
    killed.remove()
    assert scalars(tmp_path)["matinfo/model/effective_rank"] == [(s, pytest.approx(4)) for s in range(4)]
    state = killed.state_dict() | {"step": 2}
    run([TensorBoardWriter(tmp_path)], 1, state=state, rank=2, quantities=["effective_rank"]).remove()
    values = scalars(tmp_path)["matinfo/model/effective_rank"]
    assert values == [(0, pytest.approx(4)), (1, pytest.approx(4)), (2, pytest.approx(2))]


def test_tensorboard_writer_given_a_summary_writer_does_not_close_it(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    summary = tensorboard.SummaryWriter(tmp_path)
    with pytest.warns(CollapseWarning):
        run([TensorBoardWriter(summary, prefix="ranks")], 1, collapse_below=5).remove()
    summary.add_scalar("mine", 1.0, 0)
    summary.close()
    assert {"mine", "ranks/model/effective_rank", "ranks/model/rankme"} <= set(scalars(tmp_path))


def test_missing_tensorboard_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'matinfo\[monitor\]'"):
        TensorBoardWriter(tmp_path)


def test_missing_lightning_is_named_with_its_extra(monkeypatch):
    import matinfo.monitor

    monkeypatch.delitem(sys.modules, "matinfo.monitor.lightning", raising=False)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"LightningMonitor needs it. Run pip install 'matinfo\[monitor\]'"
    ):
        matinfo.monitor.LightningMonitor  # noqa: B018


def test_picture_has_a_panel_for_each_layer_and_the_events(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 3))
    monitor = Monitor(model, "*", every=1, collapse_below=1.5)
    for step in range(3):
        if step == 2:
            nn.init.ones_(model[1].weight)
            nn.init.zeros_(model[1].bias)
        model(torch.randn(32, 8))
        if step == 2:
            with pytest.warns(CollapseWarning):
                monitor.step()
        else:
            monitor.step()
    figure = monitor.plot(Figure(layout="constrained"))
    titles = [ax.get_title() for ax in figure.axes]
    assert {"0", "1"} <= set(titles)
    spectra = figure.axes[titles.index("0")]
    assert len(spectra.get_lines()) == 3
    marked = [line for ax in figure.axes for line in ax.get_lines() if list(line.get_xdata()) == [2, 2]]
    assert len(marked) == 1
    figure.savefig(tmp_path / "spectra.png")
    with pytest.raises(ValueError, match="at least one observed step"):
        Monitor(nn.Identity(), "").plot(Figure())
