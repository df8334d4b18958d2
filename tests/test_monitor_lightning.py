"""The Lightning callback, in real trainings: what is logged when, across accumulation, validation and checkpoints."""

import csv

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

lightning = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from matinfo.monitor import CollapseWarning, CSVWriter, LightningMonitor, Monitor  # noqa: E402

pytestmark = [
    # Of lightning 2.6 with torch 2.13 and newer, about itself and about this machine.
    pytest.mark.filterwarnings("ignore:.*does not have many workers which may be a bottleneck"),
    pytest.mark.filterwarnings(
        "ignore:The number of training batches .* is smaller than the logging interval"
    ),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"),
]


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
        self.head = nn.Linear(5, 1)

    def training_step(self, batch, batch_idx):
        return self.head(self.encoder(batch[0])).square().mean()

    def validation_step(self, batch, batch_idx):
        self.head(self.encoder(batch[0]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def loader(rows=32):
    data = torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(data), batch_size=4)


def fit(tmp_path, callbacks, *, validate=False, checkpoint=None, module=None, **options):
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False} | options
    trainer = lightning.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=None if validate else 0,
        **options,
    )
    trainer.fit(module or Module(), loader(), loader(8), ckpt_path=checkpoint)
    return trainer


def test_callback_observes_every_kth_step_and_takes_its_hooks_off(tmp_path):
    module = Module()
    callback = LightningMonitor(["encoder", "head"], every=3)
    trainer = fit(tmp_path, [callback], module=module)
    assert [(r["step"], r["layer"]) for r in callback.monitor.history] == [
        (step, layer) for step in (0, 3, 6) for layer in ("encoder", "head")
    ]
    assert not module.encoder._forward_hooks
    last = callback.monitor.history[-2]
    assert float(trainer.callback_metrics["matinfo/encoder/rankme"]) == pytest.approx(
        last["rankme"], rel=1e-6
    )


def test_loggers_get_every_observation_at_its_step(tmp_path):
    callback = LightningMonitor("encoder", every=3, quantities=["effective_rank"], prefix="rank")
    logger = CSVLogger(tmp_path, name="log", version="0")
    fit(tmp_path, [callback], logger=logger, log_every_n_steps=50)
    with (tmp_path / "log" / "0" / "metrics.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["rank/encoder/effective_rank"]]
    assert [int(line["step"]) for line in lines] == [0, 3, 6]
    values = [float(line["rank/encoder/effective_rank"]) for line in lines]
    assert values == pytest.approx([r["effective_rank"] for r in callback.monitor.history], rel=1e-6)


def test_accumulated_batches_are_one_step_and_validation_is_none(tmp_path):
    callback = LightningMonitor("encoder", every=1)
    fit(tmp_path, [callback], validate=True, accumulate_grad_batches=4, val_check_interval=0.5)
    assert [(r["step"], r["rows"]) for r in callback.monitor.history] == [(0, 16), (1, 16)]


def test_resumed_training_goes_on_from_the_checkpoint(tmp_path):
    options = {"every": 3, "quantities": ["effective_rank"]}
    whole = LightningMonitor("encoder", **options)
    lightning.seed_everything(0, verbose=False)
    fit(tmp_path, [whole], max_epochs=2)
    first, second = (LightningMonitor("encoder", **options) for _ in range(2))
    lightning.seed_everything(0, verbose=False)
    trainer = fit(tmp_path, [first])
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    fit(tmp_path, [second], max_epochs=2, checkpoint=tmp_path / "half.ckpt")
    assert [r["step"] for r in second.monitor.history] == [0, 3, 6, 9, 12, 15]
    assert second.monitor.history == whole.monitor.history


def test_collapse_is_a_warning_and_failure_takes_the_hooks_off(tmp_path):
    module = Module()
    callback = LightningMonitor("encoder", every=1, collapse_below=20)
    with pytest.raises(CollapseWarning, match="Layer 'encoder', step 0"):  # warnings are errors here
        fit(tmp_path, [callback], module=module)
    assert not module.encoder._forward_hooks
    assert callback.monitor.events[0]["reason"] == "below"


def test_two_callbacks_keep_their_own_state():
    callbacks = [LightningMonitor("encoder"), LightningMonitor("head")]
    assert len({callback.state_key for callback in callbacks}) == 2
    assert callbacks[0].state_dict() == {}


def test_the_same_callback_goes_on_from_a_checkpoint(tmp_path):
    callback = LightningMonitor("encoder", every=3)
    fit(tmp_path, [callback]).save_checkpoint(tmp_path / "half.ckpt")
    trainer = fit(tmp_path, [callback], max_epochs=2, checkpoint=tmp_path / "half.ckpt")
    assert callback.monitor._step == trainer.global_step == 16
    assert [r["step"] for r in callback.monitor.history] == [0, 3, 6, 9, 12, 15]


def test_the_same_trainer_goes_on_with_the_record(tmp_path):
    callback, module = LightningMonitor("encoder", every=3), Module()
    trainer = fit(tmp_path, [callback], module=module)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, loader(), loader(8))
    assert [r["step"] for r in callback.history] == [0, 3, 6, 9, 12, 15]


def test_monitor_that_comes_late_counts_as_the_trainer_does(tmp_path):
    trainer = fit(tmp_path, [])
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    callback = LightningMonitor("encoder", every=3)
    fit(tmp_path, [callback], max_epochs=2, checkpoint=tmp_path / "half.ckpt")
    assert [r["step"] for r in callback.history] == [9, 12, 15]


def test_new_training_keeps_the_lines_of_an_earlier_one(tmp_path):
    for _ in range(2):
        fit(tmp_path, [LightningMonitor("encoder", every=3, writers=[CSVWriter(tmp_path / "ranks.csv")])])
    lines = (tmp_path / "ranks.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["0", "3", "6"] * 2


def test_state_that_comes_with_a_validation_is_not_gone_on_with(tmp_path):
    callback = LightningMonitor("encoder", every=3)
    trainer = fit(tmp_path, [callback], validate=True)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    trainer.validate(Module(), loader(8), ckpt_path=tmp_path / "half.ckpt", verbose=False)
    fit(tmp_path, [callback])
    assert [r["step"] for r in callback.monitor.history] == [0, 3, 6]


def test_callback_has_the_surface_of_the_monitor(tmp_path):
    own = {name for name in dir(Monitor) if not name.startswith("_")} - {
        "step",
        "remove",
    }  # which it calls itself
    assert own <= set(dir(LightningMonitor))
    callback = LightningMonitor("encoder", every=3)
    assert (callback.history, callback.events, callback.spectra) == ([], [], {})
    with pytest.raises(ValueError, match="Fit first"):
        callback.plot()
    fit(tmp_path, [callback])
    assert callback.history == callback.monitor.history
    assert callback.description == callback.monitor.description
    assert callback.spectra["encoder"].steps.tolist() == [0, 3, 6]
    assert callback.plot().axes


def test_masks_and_pauses_reach_the_monitor(tmp_path):
    class Tokens(Module):
        def training_step(self, batch, batch_idx):
            tokens = batch[0][:, None].expand(-1, 3, -1)
            callback.mask(torch.tensor([[1, 0, 0]]).expand(4, -1))
            with callback.paused():
                self.encoder(tokens)
            return self.head(self.encoder(tokens)).square().mean()

    callback = LightningMonitor("encoder", every=5, pool="tokens")
    fit(tmp_path, [callback], module=Tokens())
    assert [record["rows"] for record in callback.history] == [4, 4]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layers": "encodr", "module": Module()}, "Near it: 'encoder'"),
        ({"every": 0}, "every >= 1"),
        ({"quantities": ["erank"]}, "quantity to be one of"),
        ({"collapse_fall": 2}, "collapse_fall in"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(options, match):
    with pytest.raises(ValueError, match=match):
        LightningMonitor(**{"layers": "encoder"} | options)


def test_logged_names_are_the_documented_ones(tmp_path):
    trainer = fit(tmp_path, [LightningMonitor("encoder", every=3)])
    names = {
        f"matinfo/encoder/{name}"
        for name in ("effective_rank", "effective_rank_centered", "rankme", "participation_ratio")
    }
    assert names == set(trainer.callback_metrics)
