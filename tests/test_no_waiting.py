"""Nothing is copied between host and device, nor read, where waiting is an error: seen without a device.

Fake tensors have a device and no values, so that an attempt to read one raises, and a dispatch mode sees every copy.
What the backward pass does is seen on a card alone (tests/test_gpu_engine.py).
"""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

import pytest
import torch
from contract_cases import ALL_CASES, tensors
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from matinfo import Gram, renyi_entropy
from matinfo.spectral import cusolver, precision

WAITING = {
    "dime": "its permutations come from a generator of the host",
    "sigreg_loss": "its directions come from a generator of the host",
    "rate_reduction": "how many classes there are is read from the labels",
    "mcr2_loss": "how many classes there are is read from the labels",
    "dino_loss": "this case makes its centre on the host",
    "deepcluster_loss": "this case makes its labels on the host",
    "simdino_loss": "this case makes its views on the host",
    "corinfomax_loss": "this case makes its covariances on the host",
    "masked_reconstruction_loss": "this case makes its masks on the host",
}
ENTROPIES = {
    f"{side}, {method}, order {alpha:g}": (
        partial(
            lambda x, side, **options: renyi_entropy(Gram(x) if side == "features" else x, **options),
            side=side,
            alpha=alpha,
            method=method,
        ),
        [(40, 40 if side == "matrix" else 12)],
    )
    for side in ("matrix", "features")
    for method in ("auto", "quadrature")
    for alpha in ((0.5, 1.0, 1.5, 2.0) if method == "quadrature" else (0.0, 0.5, 1.0, 2.0, 3.0, 20.0))
}
CASES = {
    **{
        name: (case, [x.shape for x in tensors(name)])
        for name, case in ALL_CASES.items()
        if name not in WAITING
    },
    **ENTROPIES,
}


class _NothingBetweenDevices(TorchDispatchMode):
    """Refuses copies from one device to another."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.copy_.default:
            assert args[0].device == args[1].device, "a copy between devices"
        elif func is torch.ops.aten._to_copy.default:
            assert args[0].device == result.device, "a copy between devices"
        return result


def _solved(A, *, vectors):
    return A.new_empty(A.shape[:-1]), A.new_empty(A.shape) if vectors else None


@pytest.fixture
def fake_card():
    """Tensors on ``cuda`` without a card; what asks the driver is answered here."""
    with (
        FakeTensorMode(),
        patch.object(precision, "float64_is_fast", lambda _: True),
        patch.object(cusolver, "batched_eigh", _solved),
        patch("torch.cuda.is_current_stream_capturing", lambda: False),
        patch("torch.cuda.get_sync_debug_mode", lambda: 2),
    ):
        yield


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_waited_for_where_waiting_is_an_error(name, fake_card):
    function, shapes = CASES[name]
    arguments = [torch.empty(shape, device="cuda").requires_grad_() for shape in shapes]
    with _NothingBetweenDevices():
        result = function(*arguments)
    assert result.device.type == "cuda"


def test_a_value_that_is_read_and_a_number_from_the_host_are_seen(fake_card):
    x = torch.empty(3, device="cuda")
    with pytest.raises(Exception, match="_local_scalar_dense"):
        x.sum().item()
    with _NothingBetweenDevices(), pytest.raises(AssertionError, match="between devices"):
        x + torch.as_tensor(1.0, device="cuda")
