"""The comparison of our training loop with lightly's."""

from __future__ import annotations

import json

import pytest
import time_training
from protocol_runs import refused
from test_training_data import write_cifar
from trainlib import cifar


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "mmae"])
def test_both_loops_are_timed_on_the_same_images(method, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cifar, "COUNTS", {"train": 50, "test": 10})
    options = f"--method {method} --batch 16 --steps 1 --repeats 2 --data-dir {write_cifar(tmp_path)}".split()
    assert time_training.main(options) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["batch"] == 16
    for clock in ("images_per_second", "images_per_cpu_second"):
        assert set(result[clock]) == {"matinfo", "lightly"}
        assert min(result[clock].values()) > 0


@pytest.mark.parametrize("option", ["--batch", "--steps", "--repeats", "--threads"])
def test_nothing_to_time_is_one_line(option, tmp_path):
    said = refused(time_training.main, "--data-dir", tmp_path, option, "0")
    assert f"{option}: expected a whole number of at least 1, got 0" in said


def test_missing_data_is_one_line(tmp_path):
    assert "--data-dir" in refused(time_training.main, "--data-dir", tmp_path / "nowhere")
