"""Runs trained together are the runs that each would be alone, and ordinary runs in their folders."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import summarize_runs
import torch
from protocol_runs import done
from trainlib import augment, checkpoint, deadline
from trainlib.backbone import load_backbone
from trainlib.data import load_dataset
from trainlib.errors import DivergedError, UsageError
from trainlib.fleet.fleet import Fleet, fitted_epochs
from trainlib.fleet.lane import draw_epoch
from trainlib.fleet.training import train_fleet
from trainlib.logs import read_metrics
from trainlib.masked import MaskedMethod
from trainlib.optim import learning_rate, make_optimizer
from trainlib.run import train_run

METHODS = ("mae", "mmae", "umae")


@pytest.fixture
def configs(make_config):
    base = make_config(epochs=2, batch=512, rank_images=64)
    return [
        replace(base.with_method(method), run=replace(base.run, seed=seed))
        for seed in (0, 1)
        for method in METHODS
    ]


def _train(configs, folder, lanes=1, **options):
    fleet = Fleet(configs, load_dataset(configs[0]), lanes)
    folders = [folder / f"{c.method.method}-{c.run.seed}" for c in configs]
    train_fleet(fleet, configs, folders, measurements=1, **options)
    return folders


def _weights(folder, config):
    return checkpoint.load(folder, config)[1]["model"]


def test_fleet_run_does_not_depend_on_its_company(configs, tmp_path):
    together = _train(configs, tmp_path / "together", lanes=2)
    alone = _train(configs[4:5], tmp_path / "alone")
    ours, theirs = _weights(together[4], configs[4]), _weights(alone[0], configs[4])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    others = [_weights(folder, config) for folder, config in zip(together, configs, strict=True)]
    name = "autoencoder.encoder.cls_token"
    assert all(not torch.equal(ours[name], other[name]) for i, other in enumerate(others) if i != 4)


def test_fleet_step_is_the_step_of_method_and_optimiser(configs, tmp_path):
    config = replace(configs[1], optim=replace(configs[1].optim, epochs=1, warmup_epochs=0.0))
    dataset = load_dataset(config)
    torch.manual_seed(config.run.seed)
    method = MaskedMethod(config, dataset.channels, dataset.classes)
    optimizer = make_optimizer(method, config.optim)
    split, steps = dataset.splits["train"], dataset.steps_per_epoch()
    draws = draw_epoch(config, len(split.labels), method.autoencoder.length, 0, torch.device("cpu"))
    for step in range(steps):
        for group in optimizer.param_groups:
            rate = learning_rate(config.optim, step / steps)
            group["lr"] = float(torch.tensor(rate))  # the fleet's rates are float32
        index, crop = draws.order[step], augment.split(draws.crops[step])
        data = config.data
        pixels = augment.random_crop(split.images[index], crop, data.crop_min, data.flip, data.image_size)
        optimizer.zero_grad()
        method(dataset.normalize(pixels), split.labels[index], draws.noise[step]).loss.backward()
        optimizer.step()
    (folder,) = _train([config], tmp_path)
    for name, value in _weights(folder, config).items():
        assert torch.equal(value, method.state_dict()[name]), name


def test_fleet_resumes_to_the_bit(configs, tmp_path):
    configs = configs[:2]
    whole = _train(configs, tmp_path / "whole")
    with pytest.raises(deadline.PausedError), deadline.stop_after(0):
        _train(configs, tmp_path / "parts")
    parts = _train(configs, tmp_path / "parts")
    for ours, theirs, config in zip(parts, whole, configs, strict=True):
        left, right = _weights(ours, config), _weights(theirs, config)
        assert all(torch.equal(left[name], right[name]) for name in right)
        assert [record["epoch"] for record in read_metrics(ours)] == [1, 2, 2]
        pair = [json.loads((f / "summary.json").read_text()) for f in (ours, theirs)]
        assert pair[0]["features"] == pair[1]["features"]


def test_fleet_folder_is_that_of_an_ordinary_run(configs, tmp_path):
    (folder,) = _train(configs[:1], tmp_path)
    backbone = load_backbone(folder)
    assert backbone.origin.epoch == 2
    assert torch.isfinite(backbone(torch.zeros(2, 1, 8, 8))["cls"]).all()
    features = json.loads((folder / "summary.json").read_text())["features"]
    assert set(features) == {"cls", "pooled", "cls_masked"}
    for probe in ("raw", "rows", "published"):  # far above chance, each in its own way
        assert 20 < features["cls"][f"probe_{probe}_accuracy"] <= 100
    assert features["cls_masked"]["probe_accuracy"] < features["cls"]["probe_accuracy"]


def test_fleet_stops_a_run_that_diverges_and_trains_the_others(configs, tmp_path):
    wild = replace(configs[0].method, lambda_=1e39, method="mmae")  # overflows to an infinite loss in float32
    configs = [configs[0], replace(configs[1], method=wild)]
    good, bad = _train(configs, tmp_path)
    assert "cls_masked" in done(summarize_runs.main, good, "--out", tmp_path / "report")[0]
    assert (good / "summary.json").is_file()
    assert not (bad / "summary.json").is_file()
    assert json.loads((bad / "metrics.jsonl").read_text().splitlines()[-1])["kind"] == "stopped"
    with pytest.raises(DivergedError, match=r"the weight \S+ is not finite"):  # and so says who continues it
        train_run(configs[1], load_dataset(configs[1]), bad)


def test_fleet_measures_no_run_whose_last_step_left_infinite_weights(configs, tmp_path):
    good, wild = (
        replace(config, optim=replace(config.optim, epochs=1, warmup_epochs=0.0, batch=1437, lr=lr))
        for config, lr in zip(configs, (1e-3, 1e39), strict=False)
    )
    (fine, bad) = _train([good, wild], tmp_path)
    assert (fine / "summary.json").is_file()
    assert [record["kind"] for record in read_metrics(bad)] == ["stopped"]


def test_fleet_is_not_continued_from_checkpoints_of_unlike_epochs(configs, tmp_path):
    """A kill between two runs' checkpoints leaves one an epoch behind, whose epochs would be counted wrong."""
    with pytest.raises(deadline.PausedError), deadline.stop_after(0):
        _train(configs[:2], tmp_path)
    late = tmp_path / "mmae-0"
    progress, states = checkpoint.load(late, configs[1])
    checkpoint.save(late, configs[1], progress._replace(epoch=2), states)
    with pytest.raises(
        UsageError, match=r"mmae-0: its checkpoint is of epoch 2, that of \S*mae-0 of 1; move"
    ):
        _train(configs[:2], tmp_path)


def test_fitted_epochs_use_the_minutes_up_and_no_more(configs):
    fleet = Fleet(configs[:2], load_dataset(configs[0]), 2)
    few, record = fitted_epochs(fleet, 0.5)
    assert record["lanes"] == len(fleet.lanes)
    more, _ = fitted_epochs(fleet, 5.0)
    assert fitted_epochs(fleet, 5.0, most=1)[0] == 1
    assert more > few >= 1
