"""Options of a run that takes about a second."""

from __future__ import annotations

TINY = [
    "--width", "16", "--depth", "1", "--heads", "2", "--decoder-width", "16", "--decoder-depth", "1",
    "--decoder-heads", "2", "--epochs", "2", "--batch", "256", "--threads", "1", "--no-tensorboard",
]  # fmt: skip
