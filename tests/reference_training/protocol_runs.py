"""Run folders for the evaluation protocols: made without training, or with very little."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import torch
from trainlib import checkpoint
from trainlib.checkpoint import Progress
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


def refused(main: Callable, *options) -> str:
    """The one line with which a program refuses a request."""
    code, stdout, stderr = run_program(main, *options)
    assert (code, stdout) == (2, ""), stderr
    assert stderr.count("\n") == 1, stderr
    return stderr


def states(folder: Path) -> dict:
    """The states in a checkpoint."""
    return checkpoint.unseal(folder / "checkpoint.pt")["states"]
