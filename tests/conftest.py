"""Shared set-up: one thread, fixed seeds, Hypothesis profiles. The default dtype is never touched."""

from __future__ import annotations

import gc
import os
import warnings

# NumPy's threads, which only listen before the first import: they fight over the cores at the small sizes used here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)

# Forward-mode AD compiles its rules at first use, and torch 2.13+ warns there about its own torch.jit.script.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # a DeprecationWarning in older ones
    warnings.simplefilter("ignore", DeprecationWarning)
    torch.func.jvp(torch.sin, (torch.ones(()),), (torch.ones(()),))

_COMMON = {
    "deadline": None,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow],
    "database": None,
}
hypothesis.settings.register_profile("default", max_examples=25, derandomize=True, **_COMMON)
hypothesis.settings.register_profile("thorough", max_examples=1000, **_COMMON)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# Without a card torch.manual_seed keeps a copy of its call stack for each kind of card: that takes longer than a test.
_SEED = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed

# The tests of the card run on another device where this says so: a rehearsal without one.
_CARD = os.environ.get("MATINFO_TEST_DEVICE", "cuda")


@pytest.fixture(params=["cpu", pytest.param(_CARD, marks=pytest.mark.gpu, id="gpu")])
def device(request):
    """The CPU by default, a CUDA device with ``-m gpu``."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


# Modules and the fifteen thousand tests stay: the garbage collector need not walk over them again and again.
gc.disable()


def pytest_collection_finish():
    """What has been collected is set aside."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish():
    """Extension modules count what is left at the end."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _seeded_and_unchanged():
    """Every test starts from the same seeds and must leave torch's global switches as it found them."""
    _SEED(0)
    np.random.seed(0)
    dtype, flush, grad = torch.get_default_dtype(), torch.tensor([1e-40]) * 1.0, torch.is_grad_enabled()
    threads = torch.get_num_threads()
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(threads)  # first: more threads would fight for the cores in all tests that follow
    assert left == threads, "the number of threads was changed"
    assert torch.get_default_dtype() == dtype, "the default dtype was changed"
    assert torch.equal(torch.tensor([1e-40]) * 1.0, flush), "the flush-denormal switch was changed"
    assert torch.is_grad_enabled() == grad, "gradient mode was changed"
