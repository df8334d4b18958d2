"""Learning rate and weight decay as in MAE."""

from __future__ import annotations

import math

import pytest
import torch
from trainlib.config import OptimConfig
from trainlib.masked import MaskedMethod
from trainlib.optim import learning_rate, make_optimizer


def test_learning_rate_warms_up_linearly_then_follows_a_half_cosine_per_step():
    optim = OptimConfig(epochs=20, batch=512, lr=1.5e-4, warmup_epochs=4.0)
    peak = 1.5e-4 * 512 / 256
    for step in range(20 * 7):
        epoch = step / 7
        expected = peak * epoch / 4 if epoch < 4 else peak * 0.5 * (1 + math.cos(math.pi * (epoch - 4) / 16))
        assert learning_rate(optim, epoch) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(optim, 0) == 0
    assert learning_rate(optim, 4) == pytest.approx(peak)
    assert learning_rate(optim, 20) == pytest.approx(0, abs=1e-18)


def test_learning_rate_without_warmup_starts_at_its_peak():
    assert learning_rate(OptimConfig(epochs=2, batch=256, lr=1e-3, warmup_epochs=0.0), 0) == pytest.approx(
        1e-3
    )


def test_optimizer_decays_everything_but_one_dimensional_parameters(make_config):
    config = make_config(weight_decay=0.05)
    method = MaskedMethod(config, 1, 10)
    optimizer = make_optimizer(method, config.optim)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in method.named_parameters():
        assert decay[id(parameter)] == (0.0 if parameter.ndim == 1 else 0.05), name
    assert len(decay) == len(list(method.parameters()))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}
