"""Features of every tenth step of an M-MAE run, as they spread from collapse: ``python -m benchmarks.mmae_features``.

Trains on scikit-learn's digits (two minutes on one core) and keeps the first rows of what the regulariser sees, for
:mod:`benchmarks.gpu_stability`.
"""

from __future__ import annotations

import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from torch import Tensor

from benchmarks.cli import RESULTS

FILE = RESULTS / "mmae_features.npz"
_TRAINING = Path(__file__).resolve().parents[1] / "reference_training"
_ROWS, _EVERY = 24, 10


def main() -> None:
    """Train, and write the file."""
    sys.path.insert(0, str(_TRAINING))
    from trainlib import masked  # the training code is no package of this one

    loss, seen = masked.mmae_tcr_loss, []

    def watched(features: Tensor, **options: Any) -> Tensor:
        seen.append(features.detach()[:_ROWS].float().cpu().numpy())
        return loss(features, **options)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(masked, "mmae_tcr_loss", watched):
        command = f"pretrain_mmae.py --out {folder}/run --epochs 20 --batch 128 --device cpu --no-compile"
        with mock.patch.object(sys, "argv", command.split()):
            try:
                runpy.run_path(str(_TRAINING / "pretrain_mmae.py"), run_name="__main__")
            except SystemExit as end:
                if end.code:
                    raise
    np.savez_compressed(FILE, features=np.stack([Z for Z in seen[::_EVERY] if len(Z) == _ROWS]))


if __name__ == "__main__":
    main()
