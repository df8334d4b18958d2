"""The 16 families of hard matrices, those that the tests use too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np

_FILE = Path(__file__).resolve().parents[1] / "tests" / "matrices.py"


def _load() -> ModuleType:
    """The module of test matrices. Its Hypothesis strategies are of no use here: without Hypothesis, a stand-in."""
    spec = importlib.util.spec_from_file_location("test_matrices", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    absent = {} if importlib.util.find_spec("hypothesis") else {"hypothesis": mock.MagicMock()}
    with mock.patch.dict(sys.modules, absent):
        spec.loader.exec_module(module)
    return module


_matrices = _load()
NAMES: tuple[str, ...] = tuple(_matrices.HARD_FAMILIES)


def hard_features(family: str, n: int, seed: int) -> np.ndarray:
    """Features ``(batch, n)``, float64, whose n x n matrix ``Z^T Z`` belongs to the family."""
    return _matrices.hard_features(family, n, seed)
