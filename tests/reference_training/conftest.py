"""Small configurations and a way to run the script in this process."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pretrain_mmae
import pytest
import torch
from protocol_runs import changed, run_program
from training_options import TINY
from trainlib.config import MaskedRunConfig, resolve
from trainlib.evaluate import linear_probe_accuracy
from trainlib.masked import MaskedMethod
from trainlib.siamese.base import SiameseMethod


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


_DRAW = {method: method.draw_pictures for method in (MaskedMethod, SiameseMethod)}


@contextlib.contextmanager
def _pictures(drawn: bool):
    with pytest.MonkeyPatch.context() as patch:
        for method, draw in _DRAW.items():
            patch.setattr(method, "draw_pictures", draw if drawn else lambda *_: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def _runs_take_no_time():
    """Pictures, and a probe that has converged, take longer than the rest of a tiny run."""
    with _pictures(drawn=False), pytest.MonkeyPatch.context() as patch:
        patch.setitem(linear_probe_accuracy.__kwdefaults__, "iterations", 5)
        yield


@pytest.fixture(scope="session")
def drawn():
    """A context in which runs draw their pictures, for the tests that look at them."""
    return lambda: _pictures(drawn=True)


@pytest.fixture(scope="session")
def run_script():
    """Run ``pretrain_mmae.py`` with tiny defaults; gives exit code, stdout and stderr."""

    def run(*options: str | Path, defaults: list[str] = TINY) -> tuple[int, str, str]:
        return run_program(pretrain_mmae.main, *defaults, *options)

    return run


@pytest.fixture
def make_config():
    """A resolved tiny configuration; keyword arguments replace single options of any section."""

    tiny = {
        "width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "epochs": 2,
        "batch": 64, "device": "cpu", "threads": 1, "tensorboard": False,
    }  # fmt: skip
    return lambda **changes: resolve(changed(MaskedRunConfig(), **(tiny | changes)))
