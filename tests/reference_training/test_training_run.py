"""Whole runs: what they leave, how they end, and that they learn."""

from __future__ import annotations

import errno
import json
import math

import pretrain_mmae
import pytest
import torch
from protocol_runs import image_folder, refused
from trainlib import checkpoint, files
from trainlib.config import MaskedRunConfig
from trainlib.logs import read_metrics
from trainlib.run import read_run_config


@pytest.fixture(scope="module")
def made(run_script, tmp_path_factory, drawn):
    """Folder and output of one run; tests only read it."""
    folder = tmp_path_factory.mktemp("made") / "run"
    with drawn():
        code, stdout, stderr = run_script("--out", folder)
    assert code == 0, stderr
    return folder, stdout, stderr


def test_run_leaves_table_checkpoint_metrics_and_pictures(made):
    folder, stdout, stderr = made
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "checkpoint.pt", "checkpoint.previous.pt", "config.json", "environment.json", "metrics.jsonl",
        "reconstructions.png", "summary.json", "training.png",
    }  # fmt: skip
    for picture in ("reconstructions.png", "training.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    assert "| M-MAE 0.01 | 1     | cls     |" in stdout
    assert "pooled" in stdout
    assert "loss" in stderr
    assert "effective rank" in stderr
    assert "images/s" in stderr
    assert "left" in stderr

    summary = json.loads((folder / "summary.json").read_text())
    for feature in ("cls", "pooled"):
        values = summary["features"][feature]
        assert values["entropy"] == pytest.approx(math.log(values["effective_rank"]), rel=1e-5)
        assert 1 <= values["effective_rank"] <= 16
        assert 1 <= values["rankme"] <= 16
        assert 0 <= values["knn_accuracy"] <= 100
        assert 0 <= values["probe_accuracy"] <= 100
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["torch"]
    assert environment["threads"] == 1


def test_metrics_hold_training_lines_and_measurements_of_held_out_images(made):
    records = read_metrics(made[0])
    measured = [r for r in records if r["kind"] == "eval"]
    assert [r["epoch"] for r in measured] == [0, 2]
    last = measured[-1]
    summary = json.loads((made[0] / "summary.json").read_text())
    assert last["cls_effective_rank"] == pytest.approx(summary["features"]["cls"]["effective_rank"], rel=1e-5)
    train = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in train] == [5, 10]
    assert {"loss", "reconstruction", "regulariser", "lr", "images_per_second", "batch_effective_rank", "batch_rankme",
            "batch_entropy", "probe_accuracy"} <= set(train[0])  # fmt: skip


def test_saved_configuration_is_the_resolved_one(made):
    config = read_run_config(made[0], MaskedRunConfig)
    sizes = (config.data.image_size, config.model.patch, config.model.width, config.optim.epochs)
    assert sizes == (8, 2, 16, 2)


def test_resume_of_a_finished_run_prints_its_table_again(made, run_script):
    before = {p.name: p.stat().st_mtime_ns for p in made[0].iterdir()}
    code, stdout, _ = run_script("--resume", made[0], defaults=[])
    assert code == 0
    assert stdout == made[1]
    assert {p.name: p.stat().st_mtime_ns for p in made[0].iterdir()} == before


def test_resume_with_another_option_names_it(made):
    said = refused(pretrain_mmae.main, "--resume", made[0], "--lambda", "0.1")
    assert "was started with --lambda 0.01, not 0.1; leave --lambda out" in said


def test_tensorboard_logs_are_written_unless_declined(run_script, tmp_path):
    code, _, _ = run_script("--out", tmp_path / "run", "--epochs", "1", "--tensorboard")
    assert code == 0
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_loss_that_is_not_finite_stops_at_once_and_keeps_the_checkpoint(run_script, tmp_path):
    code, stdout, stderr = run_script("--out", tmp_path / "run", "--lambda", "1e39")
    assert code == 3
    assert stdout == ""
    assert stderr.count("\n") == 1
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
    assert "the loss is not finite at step 7" in stderr
    assert "the checkpoint of epoch 1 is kept" in stderr
    progress, _ = checkpoint.load(tmp_path / "run", read_run_config(tmp_path / "run", MaskedRunConfig))
    assert (progress.epoch, progress.step) == (1, 5)
    monkeypatch.undo()
    code, _, stderr = run_script("--resume", tmp_path / "run", defaults=[])
    assert code == 0, stderr
    assert not any(r["kind"] == "stopped" for r in read_metrics(tmp_path / "run"))


def test_exploding_weights_stop_the_run(run_script, tmp_path):
    code, _, stderr = run_script("--out", tmp_path / "run", "--lr", "1e30", "--warmup-epochs", "0")
    assert code == 3
    assert "is not finite at step" in stderr
    assert "Traceback" not in stderr


def test_measurement_that_is_not_finite_stops_the_run(run_script, tmp_path, monkeypatch):
    """Features may overflow where the loss and the weights do not; a log holds numbers only."""
    from trainlib import masked

    original, calls = masked.MaskedMethod.encode, []

    def overflowing(self, images):
        calls.append(1)
        features = original(self, images)
        return features if len(calls) == 1 else {name: f * float("inf") for name, f in features.items()}

    monkeypatch.setattr(masked.MaskedMethod, "encode", overflowing)
    code, _, stderr = run_script(
        "--out", tmp_path / "run"
    )  # measured before the first and after the last step
    assert code == 3
    assert "cls_effective_rank is not finite at step 10" in stderr
    assert "the checkpoint of epoch 1 is kept" in stderr


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
    assert "free some space" in line
    assert "--resume" in line
    assert "Traceback" not in stderr
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


def test_mixed_precision_runs(run_script, tmp_path):
    options = ["--precision", "bf16", "--device", "cpu", "--epochs", "1"]
    code, _, stderr = run_script("--out", tmp_path / "run", *options)
    assert code == 0, stderr


def train_on_digits(run_script, folder, method: str, *options: str) -> tuple[list[dict], float]:
    """Metrics and the final effective rank of the CLS feature."""
    code, _, stderr = run_script("--out", folder, "--method", method, *options)
    assert code == 0, stderr
    features = json.loads((folder / "summary.json").read_text())["features"]
    return read_metrics(folder), features["cls"]["effective_rank"]


@pytest.mark.slow  # `make demo` shows the same
def test_digits_loss_falls_and_the_coding_rate_raises_the_effective_rank(run_script, tmp_path):
    """Real training, short: the outer two methods of the paper's Figure 4, at lambda 0.1."""
    options = [
        "--lambda",
        "0.1",
        "--epochs",
        "15",
        "--width",
        "32",
        "--depth",
        "2",
        "--batch",
        "64",
        "--lr",
        "4e-3",
    ]
    ranks = {}
    for method in ("mae", "mmae"):
        records, ranks[method] = train_on_digits(
            run_script, tmp_path / method, method, *options, "--log-every", "4"
        )
        losses = [r["reconstruction"] for r in records if r["kind"] == "train"]
        assert sum(losses[-5:]) / 5 < 0.75 * losses[0], method
    assert 1 < ranks["mae"] < 0.5 * ranks["mmae"]  # 1.1 to 1.2 against 5.0 to 5.9


@pytest.mark.slow
def test_digits_effective_ranks_are_in_the_order_of_figure_4(run_script, tmp_path):
    """The default recipe, a third of its length, at lambda 0.1: MAE < U-MAE < M-MAE."""
    options = ["--lambda", "0.1", "--epochs", "80", "--no-tensorboard"]
    ranks = {}
    for method in ("mae", "umae", "mmae"):
        code, _, stderr = run_script("--out", tmp_path / method, "--method", method, *options, defaults=[])
        assert code == 0, stderr
        features = json.loads((tmp_path / method / "summary.json").read_text())["features"]
        ranks[method] = features["cls"]["effective_rank"]
    assert ranks["mae"] < ranks["umae"] < ranks["mmae"]


def test_image_files_run_from_end_to_end(run_script, tmp_path):
    image_folder(tmp_path / "data", train=12, val=4)
    code, table, stderr = run_script(
        "--data", "imagefolder", "--data-dir", tmp_path / "data", "--image-size", "16", "--patch", "4", "--batch", "8",
        "--workers", "0", "--model", "tiny", "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, stderr
    assert "M-MAE 0.01" in table
    assert [r["step"] for r in read_metrics(tmp_path / "run") if r["kind"] == "train"] == [3, 6]
