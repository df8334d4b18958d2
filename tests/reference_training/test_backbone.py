"""From a run folder to its encoder: equal features, and one clear line where there is none."""

from __future__ import annotations

import dataclasses
import json

import knn
import pytest
import torch
from protocol_runs import make_run, refused
from trainlib import checkpoint
from trainlib.backbone import load_backbone
from trainlib.checkpoint import Progress
from trainlib.config import RunConfig, resolve
from trainlib.errors import UsageError
from trainlib.siamese.config import SiameseModelConfig, SiameseOptimConfig, SiameseRunConfig


@pytest.fixture
def siamese_config():
    config = SiameseRunConfig(
        model=SiameseModelConfig(width=4, projector_hidden=16, projector_width=8),
        optim=SiameseOptimConfig(epochs=2, batch=64),
        run=RunConfig(device="cpu", threads=1, tensorboard=False),
    )
    return resolve(config)


def test_features_equal_those_of_the_masked_program_bit_for_bit(tmp_path, make_config):
    method = make_run(tmp_path / "run", make_config(seed=3))
    images = torch.randn(7, 1, 8, 8)
    backbone = load_backbone(tmp_path / "run")
    with torch.no_grad():
        ours, theirs = backbone(images), method.encode(images)
    assert list(ours) == ["cls", "pooled"]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert backbone.widths == {"cls": 16, "pooled": 16}
    origin = backbone.origin
    assert (origin.channels, origin.label, origin.epoch, origin.run_dir) == (
        1,
        "M-MAE 0.01",
        2,
        tmp_path / "run",
    )
    assert not backbone.training
    assert not any("decoder" in name or "probe" in name for name, _ in backbone.named_parameters())


@pytest.mark.parametrize("backbone_name", ["convnet", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_features_equal_those_of_the_siamese_program_bit_for_bit(tmp_path, siamese_config, backbone_name):
    model = dataclasses.replace(siamese_config.model, backbone=backbone_name)
    config = dataclasses.replace(siamese_config, model=model)
    method = make_run(tmp_path / "run", config, channels=3)
    images = torch.randn(4, 3, 8, 8)
    backbone = load_backbone(tmp_path / "run")
    with torch.no_grad():
        ours, theirs = backbone(images), method.encode(images)
    assert list(ours) == ["backbone", "projector"]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert backbone.widths == {"backbone": 32 if backbone_name == "convnet" else 512, "projector": 8}
    assert backbone.origin.channels == 3


def test_untrained_is_the_same_network_with_fresh_weights(tmp_path, make_config):
    make_run(tmp_path / "run", make_config())
    backbone = load_backbone(tmp_path / "run")
    fresh = backbone.untrained(5)
    assert fresh.fingerprint() == backbone.untrained(5).fingerprint() != backbone.untrained(6).fingerprint()
    assert fresh.fingerprint() != backbone.fingerprint() == load_backbone(tmp_path / "run").fingerprint()
    assert fresh.widths == backbone.widths


def test_chosen_feature_is_the_standard_one_unless_named(tmp_path, make_config):
    make_run(tmp_path / "run", make_config())
    backbone = load_backbone(tmp_path / "run")
    assert (backbone.chosen(None), backbone.chosen("pooled")) == ("cls", "pooled")
    with pytest.raises(
        UsageError, match=r"--feature: M-MAE 0\.01 .* has no feature token; choose of cls, pooled"
    ):
        backbone.chosen("token")


def test_run_that_is_older_than_an_option_has_its_default(tmp_path, make_config):
    config = make_config()
    make_run(tmp_path / "run", config)
    path = tmp_path / "run" / "config.json"
    values = json.loads(path.read_text())
    del values["method"]["masks"]
    path.write_text(json.dumps(values))
    assert load_backbone(tmp_path / "run").origin.config == config


def spoil_nothing(folder, config):
    """No folder at all."""


def spoil_config(folder, config):
    folder.mkdir()


def spoil_foreign(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text('{"method": {"name": "other"}}')


def spoil_json(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text('{"method": ')


def spoil_missing(folder, config):
    make_run(folder, config)
    (folder / "checkpoint.pt").unlink()


def spoil_truncated(folder, config):
    make_run(folder, config)
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:2000])


def spoil_other_run(folder, config):
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, width=32))
    make_run(folder.with_name("other"), other)
    make_run(folder, config)
    (folder.with_name("other") / "checkpoint.pt").replace(folder / "checkpoint.pt")


def spoil_weights(folder, config):
    make_run(folder, config)
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, width=32))
    method = make_run(folder.with_name("other"), other)
    checkpoint.save(folder, config, Progress(), {"model": method.state_dict()})


def spoil_states(folder, config):
    make_run(folder, config)
    checkpoint.save(folder, config, Progress(), {"model": {}})


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_nothing, "RUN: there is no folder"),
        (
            spoil_config,
            "is neither a run nor a comparison (it has no config.json); name the --out of",
        ),
        (spoil_foreign, "is not the configuration of a pre-training run that this version knows"),
        (spoil_json, "config.json: is damaged (not JSON)"),
        (spoil_missing, "has no checkpoint.pt; train it first (pre-training continues with --resume"),
        (spoil_truncated, "RUN: {folder}/checkpoint.pt is damaged or not a checkpoint of this program"),
        (spoil_other_run, "checkpoint.pt was written with --width 32, the run has --width 16"),
        (spoil_weights, "checkpoint.pt does not hold the encoder that config.json describes"),
        (spoil_states, "checkpoint.pt does not hold the encoder that config.json describes"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_run_is_refused_in_one_line(tmp_path, make_config, spoil, expected):
    folder = tmp_path / "run"
    spoil(folder, make_config())
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    line = refused(knn.main, folder)
    assert expected.format(folder=folder) in line
    assert str(folder) in line
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
