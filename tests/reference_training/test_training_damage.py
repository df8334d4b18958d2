"""Files of a run that something else has damaged: one line, exit code 2, and nothing is changed."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pretrain_mmae
import pytest
import torch
from training_options import TINY
from trainlib import checkpoint

SCRIPTS = Path(pretrain_mmae.__file__).parent


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run of two epochs without its summary, so that it has something to continue."""
    folder = tmp_path_factory.mktemp("original") / "run"
    assert pretrain_mmae.main([*TINY, "--out", str(folder), "--epochs", "2", "--no-tensorboard"]) == 0
    (folder / "summary.json").unlink()
    return folder


@pytest.fixture
def begun(original, tmp_path):
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "run"))


def _refused(run_script, folder: Path, *, names: str) -> str:
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, _, err = run_script("--resume", folder)
    assert code == 2, err
    lines = [line for line in err.splitlines() if line.startswith("pretrain_mmae.py: error")]
    assert len(lines) == 1
    assert names in lines[0]
    assert "Traceback" not in err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    return lines[0]


def _flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)


def _later_epoch(path: Path) -> None:
    """A well-formed file that says another epoch: only the digest can tell."""
    sealed = torch.load(path, weights_only=True)
    content = torch.load(io.BytesIO(sealed["content"].numpy().tobytes()), weights_only=True)
    content["progress"]["epoch"] = 10**6
    buffer = io.BytesIO()
    torch.save(content, buffer)
    sealed["content"] = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
    torch.save(sealed, path)


CHECKPOINT_DAMAGE = {
    "bit early": lambda p: _flip(p, 0.3),
    "bit in a weight": lambda p: _flip(p, 0.5),
    "bit late": lambda p: _flip(p, 0.8),
    "epoch": _later_epoch,
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("not a checkpoint"),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-100]),
    "a list": lambda p: torch.save([1, 2], p),
    "a tensor": lambda p: torch.save(torch.zeros(3), p),
    "an old format": lambda p: torch.save({"format": 1}, p),
    "no content": lambda p: torch.save({"format": 2, "sha256": "0"}, p),
    "content of another type": lambda p: torch.save({"format": 2, "sha256": "0", "content": "x"}, p),
}


@pytest.mark.parametrize("damage", CHECKPOINT_DAMAGE.values(), ids=CHECKPOINT_DAMAGE)
def test_damaged_checkpoint_is_refused_and_the_one_before_offered(begun, run_script, damage):
    damage(begun / checkpoint.NAME)
    line = _refused(run_script, begun, names=checkpoint.NAME)
    assert checkpoint.PREVIOUS in line


def test_checkpoint_before_the_last_continues_to_the_same_weights(begun, run_script):
    whole = torch.load(begun / checkpoint.NAME, weights_only=True)["sha256"]
    (begun / checkpoint.PREVIOUS).replace(begun / checkpoint.NAME)
    assert torch.load(begun / checkpoint.NAME, weights_only=True)["sha256"] != whole
    assert run_script("--resume", begun)[0] == 0
    assert json.loads((begun / "summary.json").read_text())["epochs"] == 2


def test_crash_between_the_two_renamings_leaves_the_previous_checkpoint(begun, run_script):
    (begun / checkpoint.NAME).unlink()
    assert run_script("--resume", begun)[0] == 0


JSON_DAMAGE = {
    "empty": b"",
    "cut": b'{"method": {',
    "bytes": b"\xff\xfe\x00",
    "null": b"null",
    "list": b"[]",
    "string": b'"run"',
    "deep": b"[" * 100_000,
    "other keys": b'{"a": 1}',
}


@pytest.mark.parametrize("content", JSON_DAMAGE.values(), ids=JSON_DAMAGE)
def test_damaged_configuration_is_refused(begun, run_script, content):
    (begun / "config.json").write_bytes(content)
    _refused(run_script, begun, names="config.json")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("optim", "epochs", "two"),
        ("optim", "epochs", 2.5),
        ("optim", "batch", True),
        ("optim", "lr", [1]),
        ("data", "data", "imagenet"),
        ("run", "seed", None),
        ("method", "lambda_", {}),
    ],
)
def test_configuration_with_an_option_of_another_type_is_refused(begun, run_script, section, key, value):
    config = json.loads((begun / "config.json").read_text())
    config[section][key] = value
    (begun / "config.json").write_text(json.dumps(config))
    _refused(run_script, begun, names="config.json")


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"[]",
        b"\xff\xfe",
        b'{"kind": "train"}',
        b'{"kind": "train", "step": "1", "epoch": 1, "loss": 1.0}',
        b"[" * 100_000,
    ],
)
def test_damaged_log_is_refused(begun, run_script, line):
    path = begun / "metrics.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(first + b"\n" + line + b"\n" + rest)
    _refused(run_script, begun, names="line 2 is damaged")


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_log_that_has_lost_the_training_is_refused(begun, run_script, content):
    """The end of the run, after hours, was a traceback: it has a last record of the training to report."""
    (begun / "metrics.jsonl").unlink() if content is None else (begun / "metrics.jsonl").write_bytes(content)
    _refused(run_script, begun, names="metrics.jsonl")


@pytest.mark.parametrize(
    "content", [*JSON_DAMAGE.values(), b'{"runs": 3}', b'{"runs": []}', b'{"runs": [1]}']
)
def test_damaged_study_is_refused(begun, run_script, tmp_path, content):
    (tmp_path / "study.json").write_bytes(content)
    _refused(run_script, tmp_path, names="study.json")


@pytest.mark.parametrize("name", ["../victim", "/victim", "a/../../victim", "..", "link"])
def test_study_never_leads_out_of_its_folder(begun, run_script, tmp_path, name):
    victim = begun.rename(tmp_path / "victim")
    study = tmp_path / "study"
    study.mkdir()
    (study / "link").symlink_to(victim)
    name = str(victim) if name == "/victim" else name
    (study / "study.json").write_text(json.dumps({"runs": [name]}))
    before = {p: p.read_bytes() for p in victim.rglob("*") if p.is_file()}
    code, _, err = run_script("--resume", study)
    assert code == 2
    assert "which is not a folder in" in err
    assert {p: p.read_bytes() for p in victim.rglob("*") if p.is_file()} == before


def test_an_interrupt_that_a_package_swallowed_is_one_line():
    code = (
        "import os, signal\n"
        "from trainlib.entry import enter\n"
        "def main():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
        "    raise RecursionError('what was not imported')\n"
        "enter('program', main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=SCRIPTS,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "program: error: interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["pretrain_mmae.py", "knn.py", "judge_runs.py"])
def test_interrupt_during_imports_is_one_line(script):
    process = subprocess.Popen(
        [sys.executable, str(SCRIPTS / script), "nothing" if script != "pretrain_mmae.py" else "--no-tensorboard"],
        stderr=subprocess.PIPE, text=True, cwd=SCRIPTS, env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.strip().endswith("interrupted")
