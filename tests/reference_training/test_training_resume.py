"""A run that is killed and resumed ends with the weights of one that never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pretrain_mmae
import pytest
import torch
from protocol_runs import equal_states, refused
from training_options import TINY
from trainlib import checkpoint
from trainlib.logs import read_metrics

import matinfo

EPOCHS, STEPS = 6, 5  # of one epoch
OPTIONS = [
    *TINY, "--epochs", str(EPOCHS), "--checkpoint-every", "2", "--eval-every", "3", "--device", "cpu", "--seed", "3",
    "--lambda", "0.1",
]  # fmt: skip
KILLED_AT = 3 * STEPS + 3  # in the fourth epoch: the third lies behind the last checkpoint, and is in the log

# The script, in a process of its own as a user runs it, up to the moment of the SIGKILL.
KILLED = f"""
import itertools, os, signal, sys
import pretrain_mmae
from trainlib.masked import MaskedMethod

forward, steps = MaskedMethod.forward, itertools.count()

def killed(self, *arguments):
    if next(steps) == {KILLED_AT}:
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(self, *arguments)

MaskedMethod.forward = killed
pretrain_mmae.main(sys.argv[1:])
"""


def kill_in_the_middle(folder: Path) -> None:
    """A run whose process is killed after a checkpoint and the log of later steps."""
    scripts, package = Path(pretrain_mmae.__file__).parent, Path(matinfo.__file__).parents[1]
    path = os.pathsep.join([str(scripts), str(package), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", KILLED, *OPTIONS, "--out", str(folder)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def comparable(folder: Path) -> list[dict]:
    """The metrics without what depends on the clock."""
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in read_metrics(folder)]


def test_killed_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, capsys):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_in_the_middle(killed)
    assert not (killed / "summary.json").exists()
    reached = checkpoint.unseal(killed / "checkpoint.pt")["progress"]
    assert reached["epoch"] == 2
    assert max(r["step"] for r in read_metrics(killed)) > 2 * STEPS

    assert pretrain_mmae.main(["--resume", str(killed)]) == 0
    assert pretrain_mmae.main([*OPTIONS, "--out", str(whole)]) == 0
    capsys.readouterr()

    equal_states(killed, whole, moment="exp_avg_sq")
    records = comparable(killed)
    assert records == comparable(whole)
    steps = [(r["kind"], r["step"]) for r in records]
    assert len(steps) == len(set(steps))
    assert ("train", EPOCHS * STEPS) in steps
    features = [json.loads((f / "summary.json").read_text())["features"] for f in (killed, whole)]
    assert features[0] == features[1]


def test_weights_move_during_training_so_that_equality_means_something(tmp_path, run_script):
    weights = []
    for epochs, seed in ((2, 0), (2, 1)):
        code, _, _ = run_script("--out", tmp_path / f"{epochs}-{seed}", "--epochs", epochs, "--seed", seed)
        assert code == 0
        weights.append(checkpoint.unseal(tmp_path / f"{epochs}-{seed}" / "checkpoint.pt")["states"]["model"])
    assert all(not torch.equal(weights[0][k], weights[1][k]) for k in weights[0] if k.endswith("weight"))


def test_resumed_comparison_skips_finished_runs_and_trains_the_rest(tmp_path, run_script):
    code, table, stderr = run_script("--compare", "--out", tmp_path / "all")
    assert code == 0, stderr
    untouched = (tmp_path / "all" / "mae-seed0" / "checkpoint.pt").stat().st_mtime_ns
    for name in ("checkpoint.pt", "summary.json", "metrics.jsonl"):
        (tmp_path / "all" / "mmae-seed0" / name).unlink()
    code, again, stderr = run_script("--resume", tmp_path / "all", defaults=[])
    assert code == 0, stderr
    assert (tmp_path / "all" / "mae-seed0" / "checkpoint.pt").stat().st_mtime_ns == untouched

    def without_seconds(text: str) -> list[str]:
        return [line.rsplit("|", 3)[0] for line in text.splitlines() if line.startswith("| ")]

    assert without_seconds(again) == without_seconds(table)


@pytest.mark.parametrize("option", [["--compare"], ["--seeds", "2"], ["--out", "elsewhere"]])
def test_resume_takes_its_plan_from_the_folder(tmp_path, option):
    assert "leave" in refused(pretrain_mmae.main, "--resume", tmp_path, *option)
