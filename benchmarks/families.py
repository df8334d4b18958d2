"""The 16 families of hard matrices, those that the tests use too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from unittest import mock

import numpy as np

_TESTS = str(Path(__file__).resolve().parents[1] / "tests")
# Its Hypothesis strategies are of no use here: without Hypothesis, a stand-in.
_ABSENT = {} if importlib.util.find_spec("hypothesis") else {"hypothesis": mock.MagicMock()}
with mock.patch.dict(sys.modules, _ABSENT), mock.patch.object(sys, "path", [_TESTS, *sys.path]):
    _matrices = importlib.import_module("matrices")

NAMES: tuple[str, ...] = tuple(_matrices.HARD_FAMILIES)


def hard_features(family: str, n: int, seed: int) -> np.ndarray:
    """Features ``(batch, n)``, float64, whose n x n matrix ``Z^T Z`` belongs to the family."""
    return _matrices.hard_features(family, n, seed)
