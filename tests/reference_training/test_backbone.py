"""From a run folder to its encoder: equal features, and one clear line where there is none."""

from __future__ import annotations

import json

import knn
import pytest
import torch
from protocol_runs import changed, make_run, refused
from siamese_options import siamese_config
from trainlib import checkpoint
from trainlib.backbone import load_backbone
from trainlib.checkpoint import Progress
from trainlib.errors import UsageError
from trainlib.files import write_json


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
def test_features_equal_those_of_the_siamese_program_bit_for_bit(tmp_path, backbone_name):
    method = make_run(tmp_path / "run", siamese_config(backbone=backbone_name), channels=3)
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


def _other_run(folder, config):
    make_run(folder, config)
    make_run(folder.with_name("other"), changed(config, width=32))
    (folder.with_name("other") / "checkpoint.pt").replace(folder / "checkpoint.pt")


def _other_states(folder, config, model):
    make_run(folder, config)
    checkpoint.save(folder, config, Progress(), {"model": model})


def _cut(path, share: float):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


SPOILT = {
    "no folder": (lambda folder, config: None, "RUN: there is no folder"),
    "no configuration": (
        lambda folder, config: folder.mkdir(),
        "is neither a run nor a comparison (it has no config.json); name the --out of",
    ),
    "foreign": (
        lambda folder, config: (folder.mkdir(), write_json(folder / "config.json", {"method": {"name": "other"}})),
        "is not the configuration of a pre-training run that this version knows",
    ),
    "json": (
        lambda folder, config: (make_run(folder, config), _cut(folder / "config.json", 0.5)),
        "config.json: is damaged (not JSON)",
    ),
    "no checkpoint": (
        lambda folder, config: (make_run(folder, config), (folder / "checkpoint.pt").unlink()),
        "has no checkpoint.pt; train it first (pre-training continues with --resume",
    ),
    "truncated": (
        lambda folder, config: (make_run(folder, config), _cut(folder / "checkpoint.pt", 0.1)),
        "RUN: {folder}/checkpoint.pt is damaged or not a checkpoint of this program",
    ),
    "other run": (_other_run, "checkpoint.pt was written with --width 32, the run has --width 16"),
    "other weights": (
        lambda folder, config: _other_states(folder, config, changed(config, width=32).build(1, 10).state_dict()),
        "checkpoint.pt does not hold the encoder that config.json describes",
    ),
    "no weights": (
        lambda folder, config: _other_states(folder, config, {}),
        "checkpoint.pt does not hold the encoder that config.json describes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "expected"), SPOILT.values(), ids=SPOILT)
def test_what_is_no_run_is_refused_in_one_line(tmp_path, make_config, spoil, expected):
    folder = tmp_path / "run"
    spoil(folder, make_config())
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    line = refused(knn.main, folder)
    assert expected.format(folder=folder) in line
    assert str(folder) in line
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
