"""Whole runs: what they leave, how they end, and that they learn."""

from __future__ import annotations

import errno
import json
import math

import pytest
import torch
from trainlib import checkpoint, files
from trainlib.config import MaskedRunConfig
from trainlib.logs import read_metrics
from trainlib.run import read_run_config


@pytest.fixture
def finished_run(run_script, tmp_path):
    code, stdout, stderr = run_script("--out", tmp_path / "run")
    assert code == 0, stderr
    return tmp_path / "run", stdout, stderr


def test_run_leaves_table_checkpoint_metrics_and_pictures(finished_run):
    folder, stdout, stderr = finished_run
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "checkpoint.pt", "config.json", "environment.json", "metrics.jsonl", "reconstructions.png", "summary.json",
        "training.png",
    }  # fmt: skip
    for picture in ("reconstructions.png", "training.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    assert "| M-MAE 0.01 | 1     | cls     |" in stdout and "pooled" in stdout
    assert "loss" in stderr and "effective rank" in stderr and "images/s" in stderr and "left" in stderr

    summary = json.loads((folder / "summary.json").read_text())
    for feature in ("cls", "pooled"):
        values = summary["features"][feature]
        assert values["entropy"] == pytest.approx(math.log(values["effective_rank"]), rel=1e-5)
        assert 1 <= values["effective_rank"] <= 16 and 1 <= values["rankme"] <= 16
        assert 0 <= values["knn_accuracy"] <= 100 and 0 <= values["probe_accuracy"] <= 100
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["torch"] and environment["threads"] == 1


def test_metrics_hold_training_lines_and_measurements_of_held_out_images(finished_run):
    records = read_metrics(finished_run[0])
    measured = [r for r in records if r["kind"] == "eval"]
    assert [r["epoch"] for r in measured] == [0, 2]
    last = measured[-1]
    summary = json.loads((finished_run[0] / "summary.json").read_text())
    assert last["cls_effective_rank"] == pytest.approx(summary["features"]["cls"]["effective_rank"], rel=1e-5)
    train = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in train] == [5, 10]
    assert {"loss", "reconstruction", "regulariser", "lr", "images_per_second", "batch_effective_rank", "batch_rankme",
            "batch_entropy", "probe_accuracy"} <= set(train[0])  # fmt: skip


def test_saved_configuration_is_the_resolved_one(finished_run):
    config = read_run_config(finished_run[0], MaskedRunConfig)
    assert (config.data.image_size, config.model.patch, config.model.width, config.optim.epochs) == (
        8,
        2,
        16,
        2,
    )


def test_resume_of_a_finished_run_prints_its_table_again(finished_run, run_script):
    before = {p.name: p.stat().st_mtime_ns for p in finished_run[0].iterdir()}
    code, stdout, _ = run_script("--resume", finished_run[0], defaults=[])
    assert code == 0 and stdout == finished_run[1]
    assert {p.name: p.stat().st_mtime_ns for p in finished_run[0].iterdir()} == before


def test_resume_with_another_option_names_it(finished_run, run_script):
    code, _, stderr = run_script("--resume", finished_run[0], "--lambda", "0.1", defaults=[])
    assert code == 2 and stderr.count("\n") == 1
    assert "was started with --lambda 0.01, not 0.1; leave --lambda out" in stderr


def test_resume_from_a_truncated_checkpoint_changes_nothing(finished_run, run_script):
    folder = finished_run[0]
    (folder / "summary.json").unlink()
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:5000])
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    code, _, stderr = run_script("--resume", folder, defaults=[])
    assert code == 2 and stderr.count("\n") == 1 and "checkpoint.pt is damaged" in stderr
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_tensorboard_logs_are_written_unless_declined(run_script, tmp_path):
    code, _, _ = run_script("--out", tmp_path / "run", "--epochs", "1", "--tensorboard")
    assert code == 0
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_loss_that_is_not_finite_stops_at_once_and_keeps_the_checkpoint(run_script, tmp_path):
    code, stdout, stderr = run_script("--out", tmp_path / "run", "--lambda", "1e39")
    assert code == 3 and stdout == "" and stderr.count("\n") == 1
    assert (
        "the loss is not finite at step 0; training stopped, the checkpoint of epoch 0 is kept in" in stderr
    )
    progress, states = checkpoint.load(tmp_path / "run", read_run_config(tmp_path / "run", MaskedRunConfig))
    assert progress.step == 0
    assert all(bool(torch.isfinite(w).all()) for w in states["model"].values())
    assert read_metrics(tmp_path / "run")[-1]["kind"] == "stopped"


def test_divergence_later_names_the_step_and_keeps_the_last_good_checkpoint(
    run_script, tmp_path, monkeypatch
):
    from trainlib import masked

    original, calls = masked.MaskedMethod.forward, []

    def poisoned(self, *arguments):
        calls.append(1)
        output = original(self, *arguments)
        return output._replace(loss=output.loss * float("nan")) if len(calls) == 8 else output

    monkeypatch.setattr(masked.MaskedMethod, "forward", poisoned)
    code, _, stderr = run_script("--out", tmp_path / "run")  # five steps an epoch
    assert code == 3
    assert "the loss is not finite at step 7" in stderr and "the checkpoint of epoch 1 is kept" in stderr
    progress, _ = checkpoint.load(tmp_path / "run", read_run_config(tmp_path / "run", MaskedRunConfig))
    assert (progress.epoch, progress.step) == (1, 5)
    monkeypatch.undo()
    code, _, stderr = run_script("--resume", tmp_path / "run", defaults=[])
    assert code == 0, stderr
    assert not any(r["kind"] == "stopped" for r in read_metrics(tmp_path / "run"))


def test_exploding_weights_stop_the_run(run_script, tmp_path):
    code, _, stderr = run_script("--out", tmp_path / "run", "--lr", "1e30", "--warmup-epochs", "0")
    assert code == 3 and "is not finite at step" in stderr and "Traceback" not in stderr


def test_full_disk_is_one_line_and_keeps_the_earlier_checkpoint(run_script, tmp_path, monkeypatch):
    original, calls = files.os.replace, []

    def full(source, target):
        if str(target).endswith("checkpoint.pt"):
            calls.append(1)
            if len(calls) == 2:  # the one after the first epoch
                raise OSError(errno.ENOSPC, "No space left on device")
        original(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    code, _, stderr = run_script("--out", tmp_path / "run")
    assert code == 2
    line = stderr.splitlines()[-1]
    assert line.startswith("pretrain_mmae.py: error: --out: no space left on the device while writing")
    assert "free some space" in line and "--resume" in line and "Traceback" not in stderr
    assert not list((tmp_path / "run").glob("*.tmp"))
    progress, _ = checkpoint.load(tmp_path / "run", read_run_config(tmp_path / "run", MaskedRunConfig))
    assert progress.epoch == 0
    monkeypatch.undo()
    code, _, stderr = run_script("--resume", tmp_path / "run", defaults=[])
    assert code == 0, stderr


def test_default_folder_is_numbered(run_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        code, _, _ = run_script("--epochs", "1")
        assert code == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["mmae-digits", "mmae-digits-2"]


@pytest.mark.parametrize("precision", ["bf16"])
def test_mixed_precision_runs(run_script, tmp_path, precision):
    code, _, stderr = run_script(
        "--out", tmp_path / "run", "--precision", precision, "--device", "cpu", "--epochs", "1"
    )
    assert code == 0, stderr


def test_digits_loss_falls_and_the_coding_rate_raises_the_effective_rank(run_script, tmp_path):
    """Real training, small: the order of the effective ranks of the paper's Figure 4 at lambda 0.1."""
    ranks = {}
    for method in ("mae", "umae", "mmae"):
        folder = tmp_path / method
        code, _, stderr = run_script(
            "--out", folder, "--method", method, "--lambda", "0.1", "--epochs", "30", "--width", "32", "--depth", "2",
            "--batch", "64", "--lr", "4e-3",
        )  # fmt: skip
        assert code == 0, stderr
        records = read_metrics(folder)
        losses = [r["reconstruction"] for r in records if r["kind"] == "train"]
        assert losses[-1] < 0.75 * losses[0], method
        ranks[method] = json.loads((folder / "summary.json").read_text())["features"]["cls"]["effective_rank"]
    assert ranks["mae"] < 0.8 * ranks["umae"]
    assert ranks["umae"] < 0.9 * ranks["mmae"]
