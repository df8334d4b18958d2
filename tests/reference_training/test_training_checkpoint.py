"""Checkpoints and logs: atomic, safe to load, checked."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from trainlib import checkpoint
from trainlib.checkpoint import Progress
from trainlib.errors import UsageError
from trainlib.files import write_atomic
from trainlib.logs import MetricsLog, read_metrics


def test_checkpoint_round_trip(tmp_path, make_config):
    states = {"model": {"w": torch.randn(3)}, "optimizer": {"lr": 0.1}}
    checkpoint.save(tmp_path, make_config(), Progress(2, 44, 1.5), states)
    progress, loaded = checkpoint.load(tmp_path, make_config())
    assert progress == Progress(2, 44, 1.5)
    assert torch.equal(loaded["model"]["w"], states["model"]["w"])
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_checkpoint_absent_is_none(tmp_path, make_config):
    assert checkpoint.load(tmp_path, make_config()) is None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_checkpoint_truncated_is_refused(tmp_path, make_config, share):
    path = checkpoint.save(tmp_path, make_config(), Progress(), {"model": {"w": torch.zeros(1000)}})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        UsageError, match=r"--resume: .*checkpoint\.pt is damaged .*; put back a copy, or delete it"
    ):
        checkpoint.load(tmp_path, make_config())


def test_checkpoint_is_loaded_without_executing_anything(tmp_path, make_config):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"format": 1, "states": Bomb()}, tmp_path / "checkpoint.pt")
    with pytest.raises(UsageError, match="damaged or not a checkpoint"):
        checkpoint.load(tmp_path, make_config())
    assert not (tmp_path / "exploded").exists()


def test_checkpoint_of_another_configuration_names_the_option(tmp_path, make_config):
    checkpoint.save(tmp_path, make_config(lambda_=0.1), Progress(), {})
    with pytest.raises(
        UsageError, match=r"written with --lambda 0\.1, the run has --lambda 0\.01; use --lambda 0\.1"
    ):
        checkpoint.load(tmp_path, make_config(lambda_=0.01))
    assert (
        checkpoint.load(tmp_path, make_config(lambda_=0.1, threads=2, workers=7)) is not None
    )  # free to change


def test_write_atomic_replaces_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"

    def fail(descriptor):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr("trainlib.files.os.fsync", fail)
    with pytest.raises(OSError, match="input/output"):
        write_atomic(path, b"newer")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_write_atomic_on_a_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.with_name("file.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(path, b"new" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_metrics_after_a_resume_hold_no_later_steps_and_no_cut_line(tmp_path):
    log = MetricsLog(tmp_path, step=0, tensorboard=False)
    for step in (10, 20, 30):
        log.write("train", step=step, epoch=step / 20, loss=1.0)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # killed while writing
    log = MetricsLog(tmp_path, step=20, tensorboard=False)
    log.write("train", step=30, epoch=1.5, loss=0.5)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["loss"]) for r in lines] == [(10, 1.0), (20, 1.0), (30, 0.5)]
    assert read_metrics(tmp_path) == lines


def test_metrics_refuse_numbers_that_json_does_not_know(tmp_path):
    log = MetricsLog(tmp_path, step=0, tensorboard=False)
    with pytest.raises(ValueError, match="JSON compliant"):
        log.write("train", step=1, epoch=0, loss=float("nan"))
    log.close()
