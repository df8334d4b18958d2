"""Random numbers that depend only on (seed, stream, epoch, step), so that a run can be resumed at any step.

Nothing is drawn from a global generator after the weights are initialised. Order, crops, views and masks are drawn on
the device that uses them: equal seeds give equal numbers on equal kinds of device (a CPU and a card draw different
ones). Parts of other libraries that know global generators only run inside ``seeded``.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

STREAMS = {"order": 0, "augment": 1, "mask": 2, "evaluation": 3, "cluster": 4}


def generator(
    seed: int, stream: str, epoch: int = 0, step: int = 0, *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator on ``device`` for one purpose at one point of a run."""
    sequence = np.random.SeedSequence((seed, STREAMS[stream], epoch, step))
    return torch.Generator(device).manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


@contextlib.contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch for a while, then put their states back."""
    states = np.random.SeedSequence(numbers).generate_state(2, np.uint64)
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 (what timm draws from)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        random.seed(int(states[0]))
        np.random.seed(int(states[0] & np.uint64(0xFFFFFFFF)))  # noqa: NPY002
        torch.manual_seed(int(states[1] >> np.uint64(1)))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
