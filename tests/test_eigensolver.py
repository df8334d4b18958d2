"""Batches on the CPU's cores, and what a solver may not do: wait, run out of 32 bits, mix up elements."""

from __future__ import annotations

import math
import threading

import matrices
import numpy as np
import pytest
import torch
from helpers import t

from matinfo import explain, renyi_entropy
from matinfo.spectral import cusolver, eigensolver


@pytest.fixture
def four_threads(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(eigensolver, "_WORTH_A_THREAD", 1)
    yield
    assert torch.get_num_threads() == 4
    torch.set_num_threads(before)


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("batch", [(10,), (2, 5), (3,)])
def test_eigh_psd_on_threads_equals_one_thread(four_threads, monkeypatch, batch, vectors):
    K = t(np.stack([matrices.named("random", 6, s) for s in range(math.prod(batch))])).reshape(*batch, 6, 6)
    workers = set()
    original = eigensolver._torch_solve
    barrier = threading.Barrier(min(4, math.prod(batch)), timeout=20)

    def watched(A, vectors):
        workers.add(threading.get_ident())
        barrier.wait()  # passes only if the parts are solved at the same time
        return original(A, vectors)

    monkeypatch.setattr(eigensolver, "_torch_solve", watched)
    eigenvalues, Q = eigensolver.eigh_psd(K, vectors=vectors)
    assert len(workers) > 1
    assert torch.equal(eigenvalues, torch.linalg.eigvalsh(K) if not vectors else torch.linalg.eigh(K)[0])
    if vectors:
        assert torch.allclose(Q @ torch.diag_embed(eigenvalues) @ Q.mT, K, atol=1e-13)


def test_eigh_psd_keeps_nan_in_its_element_on_threads(four_threads):
    K = t(np.stack([matrices.named("random", 6, s) for s in range(8)]))
    K[5, 1, 1] = math.nan
    value = renyi_entropy(K)
    assert value.isnan().nonzero().flatten().tolist() == [5]


def test_eigh_psd_rescues_one_element_of_a_thread(four_threads, monkeypatch):
    K = t(np.stack([matrices.named("random", 6, s) for s in range(8)]), torch.float32)
    original, marked = torch.linalg.eigvalsh, K[6, 0, 0].clone()

    def failing(A, *args, **kwargs):
        if A.dtype == torch.float32 and bool(((A[..., 0, 0] - marked).abs() < 1e-5).any()):
            raise torch.linalg.LinAlgError("failed to converge")
        return original(A, *args, **kwargs)

    monkeypatch.setattr(torch.linalg, "eigvalsh", failing)
    with explain() as log:
        value = renyi_entropy(K, precision="float32")
    assert "float64" in log.steps[-1].note
    assert torch.allclose(value, renyi_entropy(K.double()).float(), atol=1e-6)


def test_small_batches_are_not_worth_a_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(eigensolver, "ThreadPoolExecutor", lambda *a: pytest.fail("a pool was made"))
    renyi_entropy(t(np.stack([matrices.named("random", 6, s) for s in range(8)])))


def test_cusolver_is_not_available_without_a_device():
    if not torch.cuda.is_available():
        assert not cusolver.is_available()
