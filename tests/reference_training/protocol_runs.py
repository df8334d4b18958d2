"""Configurations, folders and programs that many tests need: made without training, or with very little."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trainlib import checkpoint
from trainlib.checkpoint import Progress
from trainlib.config import sections
from trainlib.run import create_run_dir


def make_run(folder: Path, config, *, channels: int = 1, epoch: int | None = None):
    """A run folder with configuration and checkpoint, and the method whose weights it holds."""
    torch.manual_seed(config.run.seed)
    method = config.build(channels, 10)
    for parameter in method.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    create_run_dir(folder, config)
    progress = Progress(epoch=config.optim.epochs if epoch is None else epoch)
    checkpoint.save(folder, config, progress, {"model": method.state_dict()})
    return method.eval()


def run_program(main: Callable, *options) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            code = main([*map(str, options)])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
    return code, stdout.getvalue(), stderr.getvalue()


def done(main: Callable, *options) -> tuple[str, str]:
    """Stdout and stderr of a program that must succeed."""
    code, stdout, stderr = run_program(main, *options)
    assert code == 0, stderr
    return stdout, stderr


def refused(main: Callable, *options) -> str:
    """The one line with which a program refuses a request."""
    code, stdout, stderr = run_program(main, *options)
    assert (code, stdout) == (2, ""), stderr
    assert stderr.count("\n") == 1, stderr
    return stderr


def states(folder: Path) -> dict:
    """The states in a checkpoint."""
    return checkpoint.unseal(folder / "checkpoint.pt")["states"]


def equal_states(*folders: Path, moment: str) -> dict:
    """Check that the last checkpoints of two trainings have equal weights and optimisers; the weights."""
    ours, theirs = map(states, folders)
    assert ours["model"].keys() == theirs["model"].keys()
    assert [
        name for name, value in theirs["model"].items() if not torch.equal(ours["model"][name], value)
    ] == []
    moments = [s["optimizer"]["state"] for s in (ours, theirs)]
    assert all(torch.equal(moments[0][key][moment], own[moment]) for key, own in moments[1].items())
    return theirs["model"]


@contextlib.contextmanager
def interrupted(owner: type, name: str, call: int):
    """Inside, the method ``name`` raises Ctrl-C in place of its call of this number."""
    original, calls = getattr(owner, name), []

    def method(self, *arguments):
        calls.append(name)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, method)
        yield


def changed(config, **options):
    """The configuration with single options of any section replaced."""
    for name, section in sections(config):
        own = {f.name: options.pop(f.name) for f in dataclasses.fields(section) if f.name in options}
        config = dataclasses.replace(config, **{name: dataclasses.replace(section, **own)})
    assert not options, f"unknown options {sorted(options)}"
    return config


def rows_of(table: str) -> list[list[str]]:
    """The cells of the Markdown table in a text, the header first."""
    lines = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| --")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def image_folder(folder: Path, **counts: int) -> Path:
    """Images of several sizes in two classes, so many of each in every split."""
    random = np.random.default_rng(0)
    for split, count in counts.items():
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (24 + 3 * i, 40 - 2 * i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder
