"""Several processes train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import check_theorems
import pytest
import run_paper
import torch
from trainlib import checkpoint
from trainlib.logs import read_metrics

pytestmark = pytest.mark.distributed
SCRIPTS = Path(__file__).parents[2] / "reference_training"
SMALL = ["--epochs", "2", "--no-tensorboard", "--threads", "1", "--rank-images", "64"]


def train(script: str, out: Path, *options: str, processes: int = 1) -> subprocess.CompletedProcess:
    """Pre-train for two epochs, under torchrun where there are several processes."""
    return run(script, *SMALL, *options, "--out", str(out), processes=processes)


def run(script: str, *options: str, processes: int = 1) -> subprocess.CompletedProcess:
    """Run a script, under torchrun where there are several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(SCRIPTS / script)]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.run([*command, *options], capture_output=True, text=True, env=environment)


def weights(run_dir: Path) -> torch.Tensor:
    """All parameters and buffers of the last checkpoint."""
    model = checkpoint.unseal(run_dir / "checkpoint.pt")["states"]["model"]
    return torch.cat([value.double().flatten() for value in model.values()])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "options"),
    [
        (4, ("--method", "mmae", "--lambda", "0.5")),
        (2, ("--method", "umae", "--lambda", "0.5")),
        (2, ("--method", "mmae", "--lambda", "0.5", "--centering")),
        (2, ("--method", "entmae", "--lambda", "0.1")),
        (2, ("--method", "mimae")),
    ],
    ids=str,
)
def test_masked_training_on_several_processes_ends_with_the_weights_of_one(options, processes, tmp_path):
    for name, count in (("one", 1), ("several", processes)):
        done = train("pretrain_mmae.py", tmp_path / name, *options, processes=count)
        assert done.returncode == 0, done.stderr
    one, several = weights(tmp_path / "one"), weights(tmp_path / "several")
    # AdamW divides by the gradient's size: rounding in a small gradient moves a weight by a share of the rate.
    assert (one - several).norm() < 1e-3 * one.norm()
    last = [read_metrics(tmp_path / name)[-1] for name in ("one", "several")]
    assert last[0].keys() == last[1].keys()


@pytest.mark.slow
def test_a_local_gather_weakens_the_regulariser(tmp_path):
    options = ("--method", "mmae", "--lambda", "0.5", "--gather")
    for gather in ("exact", "local"):
        done = train("pretrain_mmae.py", tmp_path / gather, *options, gather, processes=2)
        assert done.returncode == 0, done.stderr
    halved = train("pretrain_mmae.py", tmp_path / "halved", "--method", "mmae", "--lambda", "0.25")
    assert halved.returncode == 0, halved.stderr
    local, exact, half = (weights(tmp_path / name) for name in ("local", "exact", "halved"))
    assert (local - half).norm() < 0.1 * (local - exact).norm()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["byol", "swav", "deepcluster"])
def test_joint_embedding_training_runs_on_two_processes(method, tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        done = train("pretrain_siamese.py", tmp_path / name, "--method", method, processes=processes)
        assert done.returncode == 0, done.stderr
    first = [
        next(r for r in read_metrics(tmp_path / name) if r["kind"] == "train") for name in ("one", "two")
    ]
    # Batch normalisation sees half a batch on each of two processes; everything else is that of one.
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "result"),
    [
        ("linear_probe.py", ["--cached", "--epochs", "5", "--feature", "all"], "linear_probe.json"),
        ("finetune.py", ["--epochs", "2"], "finetune.json"),
    ],
)
def test_evaluation_on_two_processes_agrees_with_one(script, options, result, tmp_path):
    pretrained = train("pretrain_mmae.py", tmp_path / "run", "--method", "mae")
    assert pretrained.returncode == 0, pretrained.stderr
    accuracy = []
    for name, processes in (("one", 1), ("two", 2)):
        arguments = [str(tmp_path / "run"), *options, "--threads", "1", "--out", str(tmp_path / name)]
        done = run(script, *arguments, processes=processes)
        assert done.returncode == 0, done.stderr
        head = json.loads((tmp_path / name / result).read_text())["heads"][0]
        accuracy.append(head["features"]["cls"]["top1"])
    # Batch normalisation and drop path see a share of the batch: equal up to a few of the 360 held-out images.
    assert abs(accuracy[0] - accuracy[1]) < 10


@pytest.mark.slow
def test_neighbours_on_three_processes_are_those_of_one(tmp_path):
    pretrained = train("pretrain_mmae.py", tmp_path / "run", "--method", "mae")
    assert pretrained.returncode == 0, pretrained.stderr
    for name, processes in (("one", 1), ("three", 3)):  # batches of 500 are not shared evenly
        arguments = [str(tmp_path / "run"), "--k", "1", "20", "--threads", "1", "--feature", "all"]
        done = run("knn.py", *arguments, "--out", str(tmp_path / name), processes=processes)
        assert done.returncode == 0, done.stderr
    one, three = (
        json.loads((tmp_path / name / "knn.json").read_text())["accuracy_by_k"] for name in ("one", "three")
    )
    for feature, accuracies in one.items():  # ties within rounding may change one of the 360 images
        assert three[feature] == pytest.approx(accuracies, abs=0.3)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(run_script, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, error = run_script("--batch", "33", "--out", tmp_path / "run")
    assert code == 2
    assert "--batch: 33 images cannot be shared evenly by 2 processes; use a multiple of 2" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("program", "options"), [(check_theorems, []), (run_paper, ["figure3", "--scale", "digits"])]
)
def test_programs_that_start_others_refuse_torchrun(program, options, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert program.main([*options, "--out", str(tmp_path / "out")]) == 2
    assert "torchrun: this program runs as one process; start it with python" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
