"""The linear probe: what is trained and what is not, its optimiser, resuming, tables, errors."""

from __future__ import annotations

import json
import statistics

import linear_probe
import numpy as np
import pretrain_mmae
import pytest
import torch
from protocol_runs import (
    changed,
    done,
    equal_states,
    image_folder,
    interrupted,
    make_run,
    refused,
    rows_of,
    run_program,
    states,
)  # fmt: skip
from siamese_options import siamese_config
from torch import nn
from trainlib import checkpoint, protocol
from trainlib.backbone import load_backbone
from trainlib.config import resolve
from trainlib.evaluate import extract
from trainlib.logs import read_metrics
from trainlib.loop import TrainingLoop
from trainlib.probing import FrozenFeatures, LinearProbe
from trainlib.protocol import accuracies, best_and_last
from trainlib.protocol_config import ProbeRunConfig

SHORT = ["--epochs", "3", "--device", "cpu"]


@pytest.fixture
def run_dir(tmp_path, make_config):
    make_run(tmp_path / "run", make_config())
    return tmp_path / "run"


def probe(*options) -> str:
    """Run ``linear_probe.py``, which must succeed; gives its stdout."""
    return done(linear_probe.main, *options)[0]


def dataset_of(backbone, batch: int = 128):
    """The run's own data, as the programs load them."""
    config = resolve(changed(ProbeRunConfig().with_source(backbone.origin.config), batch=batch))
    return protocol.datasets()(config, backbone.origin)


def test_published_recipe_is_the_default_for_image_folders():
    config = resolve(changed(ProbeRunConfig(), data="imagefolder"))
    optim = config.optim
    assert (optim.epochs, optim.warmup_epochs, optim.lr, optim.trust) == (90, 10, 0.1, 0.001)
    assert (optim.momentum, optim.weight_decay) == (0.9, 0)
    assert (config.data.crop_min, config.data.flip, config.probe.cached) == (0.08, True, False)


def test_head_is_a_norm_without_affine_map_and_a_small_linear_layer():
    probe = LinearProbe({"cls": 512}, 100)
    norm, linear = probe.heads["cls"]
    assert isinstance(norm, nn.BatchNorm1d)
    assert (norm.eps, norm.affine) == (1e-6, False)
    assert float(linear.weight.detach().std()) == pytest.approx(0.01, rel=0.02)  # 51,200 draws
    assert float(linear.bias.detach().abs().max()) == 0


def test_lars_equals_its_formula():
    """Weights: rate x trust x |w| / |g| in place of the rate, also without decay. Biases: plain momentum."""
    torch.manual_seed(0)
    config = resolve(changed(ProbeRunConfig(), data="digits", trust=0.01, weight_decay=0.1))
    probe = LinearProbe({"cls": 6}, 3)
    optimizer = probe.make_optimizer(config)
    for group in optimizer.param_groups:
        group["lr"] = 0.7
    weight, bias = probe.heads["cls"][1].weight, probe.heads["cls"][1].bias
    expected = [p.detach().double().numpy() for p in (weight, bias)]
    moments = [np.zeros_like(e) for e in expected]
    for step in range(3):
        gradients = [np.sin(np.arange(p.numel()) + step).reshape(p.shape) for p in (weight, bias)]
        for parameter, gradient in zip((weight, bias), gradients, strict=True):
            parameter.grad = torch.from_numpy(gradient).float()
        optimizer.step()
        w, g = expected[0], gradients[0]
        share = 0.01 * np.linalg.norm(w) / (np.linalg.norm(g) + 0.1 * np.linalg.norm(w))
        for i, update in enumerate((share * (g + 0.1 * w), gradients[1])):
            moments[i] = 0.9 * moments[i] + update
            expected[i] = expected[i] - 0.7 * moments[i]
    np.testing.assert_allclose(weight.detach(), expected[0], rtol=1e-5)  # float32
    np.testing.assert_allclose(bias.detach(), expected[1], rtol=1e-5)


def test_encoder_stays_bit_equal_and_only_heads_are_saved(run_dir, monkeypatch):
    seen = []
    original = FrozenFeatures.__init__

    def spy(self, backbone, *arguments, **options):
        original(self, backbone, *arguments, **options)
        seen.append((backbone, backbone.fingerprint()))

    monkeypatch.setattr(FrozenFeatures, "__init__", spy)
    before = (run_dir / "checkpoint.pt").read_bytes()
    probe(run_dir, *SHORT)
    ((backbone, fingerprint),) = seen
    assert backbone.fingerprint() == fingerprint == load_backbone(run_dir).fingerprint()
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert not backbone.training
    assert (run_dir / "checkpoint.pt").read_bytes() == before
    weights = states(run_dir / "linear_probe" / "seed0")["model"]
    assert {name.split(".")[0] for name in weights} == {"heads"}
    assert float(weights["heads.cls.1.bias"].abs().max()) > 0


def test_running_statistics_of_a_convolutional_encoder_stay_bit_equal(tmp_path):
    make_run(tmp_path / "run", siamese_config())
    backbone = load_backbone(tmp_path / "run")
    before = {k: v.clone() for k, v in backbone.encoder.state_dict().items()}
    assert any(k.endswith("running_mean") for k in before)
    features = FrozenFeatures(backbone, dataset_of(backbone), ["backbone"], torch.no_grad, cached=False)
    for _ in features.train_batches(0, 0):
        pass
    assert all(torch.equal(before[k], v) for k, v in backbone.encoder.state_dict().items())
    assert "backbone" in probe(tmp_path / "run", *SHORT, "--cached")


def test_frozen_features_are_the_encoders_in_the_order_of_the_training_loop(run_dir):
    backbone = load_backbone(run_dir)
    dataset = dataset_of(backbone, batch=100)
    plain = FrozenFeatures(backbone, dataset, ["pooled", "cls"], torch.no_grad, cached=False)
    cached = FrozenFeatures(backbone, dataset, ["pooled", "cls"], torch.no_grad, cached=True)
    everything, _ = extract(backbone, dataset, "train")
    images = list(dataset.train_batches(2, seed=1))
    for (x, y), (f, fy), (c, cy) in zip(
        images, plain.train_batches(2, 1), cached.train_batches(2, 1), strict=True
    ):
        expected = backbone(x)
        assert torch.equal(f, torch.cat([expected["pooled"], expected["cls"]], 1))
        assert torch.equal(y, fy)
        assert torch.equal(y, cy)  # same images in the same order, without their crops
        assert not torch.equal(f, c)
    rows = {tuple(row) for row in torch.cat([everything["pooled"], everything["cls"]], 1).tolist()}
    assert all(tuple(row) in rows for row in c.tolist())
    assert len(images) == dataset.size("train") // 100


def test_heads_of_several_features_share_nothing(run_dir, tmp_path):
    """The first head ends with the weights that it has when it is trained alone."""
    probe(run_dir, *SHORT, "--feature", "all", "--out", tmp_path / "all")
    probe(run_dir, *SHORT, "--feature", "cls", "--out", tmp_path / "cls")
    both, alone = (states(tmp_path / n / "linear_probe" / "seed0")["model"] for n in ("all", "cls"))
    assert {name.split(".")[1] for name in both} == {"cls", "pooled"}
    assert all(torch.equal(both[name], value) for name, value in alone.items())


def test_results_hold_last_and_best_epoch_and_say_so(run_dir):
    stdout = probe(run_dir, *SHORT, "--seeds", "0,3", "--cached", "--epochs", "5")
    assert (
        "max: the best epoch, chosen on the held-out images themselves, as the published scripts report"
        in stdout
    )
    result = json.loads((run_dir / "linear_probe.json").read_text())
    assert (result["label"], result["seed"], result["pretraining_epochs"]) == ("M-MAE 0.01", 0, 2)
    assert result["protocol"]["optim"]["epochs"] == 5
    assert [head["seed"] for head in result["heads"]] == [0, 3]
    for head in result["heads"]:
        records = [
            r for r in read_metrics(run_dir / "linear_probe" / f"seed{head['seed']}") if r["kind"] == "eval"
        ]
        assert [r["epoch"] for r in records] == list(range(6))
        values = head["features"]["cls"]
        assert values["top1"] == records[-1]["cls_top1"]
        assert values["max_top1"] == max(r["cls_top1"] for r in records[1:])
        assert (
            records[values["max_top5_epoch"]]["cls_top5"]
            == values["max_top5"]
            >= values["top5"]
            >= values["top1"]
        )
    assert result["heads"][0]["features"] != result["heads"][1]["features"]
    cell = [head["features"]["cls"]["top1"] for head in result["heads"]]
    assert f"{statistics.fmean(cell):.2f} ± {statistics.stdev(cell):.2f}" in stdout


def test_best_epoch_is_not_the_measurement_before_training():
    records = [
        {"kind": "eval", "epoch": e, "step": e, "f_top1": t, "f_top5": 90.0}
        for e, t in enumerate((50.0, 20, 40, 30))
    ]
    assert best_and_last(records) == {
        "f": {
            "top1": 30,
            "top5": 90,
            "max_top1": 40,
            "max_top1_epoch": 2,
            "max_top5": 90,
            "max_top5_epoch": 1,
        }
    }


def test_accuracies_count_first_and_first_five():
    logits = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7]])
    assert accuracies(logits, torch.tensor([0, 1])) == {"top1": 50, "top5": 50}
    assert accuracies(logits, torch.tensor([4, 2])) == {"top1": 0, "top5": 100}
    assert accuracies(torch.eye(3), torch.tensor([0, 0, 2])) == {"top1": pytest.approx(200 / 3), "top5": 100}


@pytest.mark.parametrize("cached", [[], ["--cached"]], ids=["augmented", "cached"])
def test_resumed_probe_equals_an_uninterrupted_one_bit_for_bit(run_dir, tmp_path, cached):
    options = [run_dir, *SHORT, *cached, "--feature", "all"]
    with interrupted(TrainingLoop, "_step", 15):  # in the second epoch of eleven steps
        code, _, stderr = run_program(linear_probe.main, *options, "--out", tmp_path / "cut")
    assert code == 130
    assert "interrupted; continue with --resume" in stderr
    cut, whole = (tmp_path / name / "linear_probe" / "seed0" for name in ("cut", "whole"))
    assert checkpoint.unseal(cut / "checkpoint.pt")["progress"]["epoch"] == 1
    probe(run_dir, "--out", tmp_path / "cut", "--resume")
    probe(*options, "--out", tmp_path / "whole")
    equal_states(cut, whole, moment="momentum_buffer")
    results = [json.loads((folder / "summary.json").read_text())["features"] for folder in (cut, whole)]
    assert results[0] == results[1]


def test_resume_keeps_what_is_finished_and_trains_further_seeds(run_dir):
    first = probe(run_dir, *SHORT, "--cached")
    path = run_dir / "linear_probe" / "seed0" / "checkpoint.pt"
    untouched = path.stat().st_mtime_ns
    assert probe(run_dir, "--resume") == first
    probe(run_dir, "--resume", "--seeds", "2")
    assert path.stat().st_mtime_ns == untouched
    assert [h["seed"] for h in json.loads((run_dir / "linear_probe.json").read_text())["heads"]] == [0, 1]


def test_resume_refuses_other_options_other_weights_and_damaged_checkpoints(run_dir, make_config):
    probe(run_dir, *SHORT, "--cached")
    assert "has results of linear_probe already; continue them with --resume" in refused(
        linear_probe.main, run_dir, *SHORT
    )
    line = refused(linear_probe.main, run_dir, "--resume", "--epochs", "9")
    assert "was started with --epochs 3, not 9; leave --epochs out" in line
    seed_dir = run_dir / "linear_probe" / "seed0"
    (seed_dir / "summary.json").unlink()
    content = (seed_dir / "checkpoint.pt").read_bytes()
    (seed_dir / "checkpoint.pt").write_bytes(content[:900])
    assert "seed0/checkpoint.pt is damaged" in refused(linear_probe.main, run_dir, "--resume")
    (seed_dir / "checkpoint.pt").write_bytes(content)
    make_run(run_dir.with_name("other"), make_config(seed=1))
    (run_dir.with_name("other") / "checkpoint.pt").replace(run_dir / "checkpoint.pt")
    (run_dir.with_name("other") / "config.json").replace(run_dir / "config.json")
    assert "was made with other weights than" in refused(linear_probe.main, run_dir, "--resume")


def test_runs_of_one_label_are_averaged_and_unlike_ones_refused(tmp_path, make_config):
    for seed in (0, 1):
        make_run(tmp_path / f"mmae-{seed}", make_config(seed=seed))
    make_run(tmp_path / "mae-0", make_config(method="mae"))
    make_run(tmp_path / "mmae-wide", make_config(seed=2, width=32))
    folders = [tmp_path / n for n in ("mmae-0", "mmae-1", "mae-0")]
    stdout = probe(*folders, *SHORT, "--cached", "--out", tmp_path / "results", "--seeds", "2")
    results = [json.loads((tmp_path / "results" / f.name / "linear_probe.json").read_text()) for f in folders]
    means = [statistics.fmean(h["features"]["cls"]["top1"] for h in r["heads"]) for r in results]
    _, *rows = rows_of(stdout)
    assert [row[:4] for row in rows] == [["M-MAE 0.01", "2", "2", "cls"], ["MAE", "1", "2", "cls"]]
    assert rows[0][4] == f"{statistics.fmean(means[:2]):.2f} ± {statistics.stdev(means[:2]):.2f}"
    assert (tmp_path / "results" / "linear_probe.md").read_text().splitlines()[0] in stdout
    assert not (tmp_path / "mmae-0" / "linear_probe.json").exists()
    line = refused(linear_probe.main, *folders, tmp_path / "mmae-wide", *SHORT)
    assert "has --width 32" in line
    assert "name only runs of one recipe" in line
    assert not (tmp_path / "mmae-0" / "linear_probe").exists()


def test_data_of_another_kind_are_refused(run_dir, tmp_path):
    folder = image_folder(tmp_path / "data", train=5, val=5)
    options = ["--data", "imagefolder", "--data-dir", folder, "--batch", "4", "--workers", "0"]
    line = refused(linear_probe.main, run_dir, *options)
    assert "--data: images of imagefolder have 3 channels, the encoder of" in line
    assert "takes 1; use the run's own data (digits)" in line


def test_image_files_and_new_classes_are_probed(tmp_path, make_config):
    folder = image_folder(tmp_path / "data", train=5, val=5)
    make_run(tmp_path / "run", make_config(), channels=3)
    options = ["--data", "imagefolder", "--data-dir", folder, "--batch", "4", "--workers", "0"]
    stdout = probe(tmp_path / "run", *SHORT, *options)
    assert "M-MAE 0.01" in stdout
    values = json.loads((tmp_path / "run" / "linear_probe.json").read_text())["heads"][0]["features"]["cls"]
    assert values["top5"] == 100  # two classes


def test_same_run_twice_is_refused(run_dir):
    assert "the same run is named twice" in refused(linear_probe.main, run_dir, run_dir)


def test_mixed_precision_keeps_the_heads_in_float32(run_dir):
    probe(run_dir, *SHORT, "--precision", "bf16")
    weights = states(run_dir / "linear_probe" / "seed0")["model"]
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float32}


@pytest.mark.slow
def test_probe_of_a_trained_encoder_beats_chance_by_far(tmp_path):
    """Real, short pre-training on digits; chance is 10 % (but fresh weights reach 85 % too: digits are easy)."""
    run = tmp_path / "run"
    options = ["--epochs", "40", "--no-tensorboard", "--device", "cpu"]
    assert run_program(pretrain_mmae.main, *options, "--out", run)[0] == 0
    probe(run, "--cached", "--feature", "all", "--device", "cpu")
    features = json.loads((run / "linear_probe.json").read_text())["heads"][0]["features"]
    assert features["cls"]["top1"] > 65
    assert features["pooled"]["top1"] > 75
    assert all(values["top5"] > 90 for values in features.values())
