"""A step replayed as a CUDA graph is the step that it was recorded from."""

from __future__ import annotations

import pytest
import torch
from trainlib.loop import CapturedStep, make_fabric
from trainlib.masked import MaskedMethod
from trainlib.optim import learning_rate, make_optimizer, set_learning_rates


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_captured_step_equals_the_ordinary_one(make_config):
    config = make_config(device="cuda", precision="32", lambda_=0.01)
    source = torch.Generator("cuda").manual_seed(0)
    batches = [
        (torch.rand(64, 1, 8, 8, generator=source, device="cuda"), torch.arange(64, device="cuda") % 10,
         torch.rand(64, 16, generator=source, device="cuda"))
        for _ in range(8)
    ]  # fmt: skip
    weights = []
    for captured in (True, False):
        torch.manual_seed(0)
        method = MaskedMethod(config, 1, 10).to("cuda")
        optimizer = make_optimizer(method, config.optim, captured=captured)
        step = CapturedStep(method, optimizer, make_fabric(config))
        step.failed = not captured
        losses = []
        for number, batch in enumerate(batches):
            set_learning_rates(optimizer, config.optim, number / len(batches))
            losses.append(float(step(*batch).loss))
        assert (step.graph is not None) == captured
        weights.append((losses, [p.detach().clone() for p in method.parameters()]))
    torch.testing.assert_close(weights[0][0], weights[1][0], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(weights[0][1], weights[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_rates_reach_a_captured_optimiser_without_a_new_tensor(make_config):
    config = make_config()
    module = torch.nn.Linear(3, 2)
    optimizer = make_optimizer(module, config.optim)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(1.0)
    kept = [group["lr"] for group in optimizer.param_groups]
    set_learning_rates(optimizer, config.optim, 0.7)
    assert all(group["lr"] is tensor for group, tensor in zip(optimizer.param_groups, kept, strict=True))
    assert [float(t) for t in kept] == pytest.approx([learning_rate(config.optim, 0.7)] * 2)
