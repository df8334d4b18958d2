"""Random numbers that depend only on (seed, stream, epoch, step), so that a run can be resumed at any step.

Nothing is drawn from a global generator after the weights are initialised, and everything is drawn on the
CPU, so crops and masks are the same on every device.
"""

from __future__ import annotations

import numpy as np
import torch

STREAMS = {"order": 0, "augment": 1, "mask": 2, "evaluation": 3}


def generator(seed: int, stream: str, epoch: int = 0, step: int = 0) -> torch.Generator:
    """A CPU generator for one purpose at one point of a run."""
    sequence = np.random.SeedSequence((seed, STREAMS[stream], epoch, step))
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))
