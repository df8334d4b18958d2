"""The few lines that many test files need."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
import torch

from matinfo.spectral.precision import TF32_SWITCH


def t(array, dtype=torch.float64) -> torch.Tensor:
    """A tensor of an array-like, float64 unless asked otherwise."""
    return torch.as_tensor(np.asarray(array), dtype=dtype)


def sym(A: torch.Tensor) -> torch.Tensor:
    """Symmetric part: lets gradcheck move one entry at a time without leaving the domain."""
    return (A + A.mT) / 2


def grad(function, x: torch.Tensor) -> torch.Tensor:
    """Gradient of a scalar function at x by reverse mode."""
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


def seeded(seed=0) -> torch.Generator:
    """A generator of its own for one draw."""
    return torch.Generator().manual_seed(seed)


@contextlib.contextmanager
def tf32(setting):
    """TF32 on or off, as a function that tells; pytest's ``monkeypatch`` cannot put attributes of this module back."""
    matmul = torch.backends.cuda.matmul
    before = getattr(matmul, TF32_SWITCH)
    setattr(matmul, TF32_SWITCH, setting)
    try:
        yield lambda: getattr(matmul, TF32_SWITCH)
    finally:
        setattr(matmul, TF32_SWITCH, before)


def lightly_loss(name):
    """A class of losses of another library, whose import warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(pytest.importorskip("lightly.loss"), name)
