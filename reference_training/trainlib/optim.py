"""AdamW with MAE's parameter groups and per-step schedule."""

from __future__ import annotations

import math

import torch
from torch import nn


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: matrices and tokens with decay; biases and norms (one-dimensional) without."""
    decayed, free = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            small = parameter.ndim <= 1 or name.endswith(".bias")
            (free if small else decayed).append(parameter)
    return [{"params": free, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]


def make_optimizer(module: nn.Module, optim) -> torch.optim.AdamW:
    """The optimiser of a run; the loop sets the learning rate at every step."""
    groups = parameter_groups(module, optim.weight_decay)
    return torch.optim.AdamW(groups, lr=peak_lr(optim), betas=(optim.beta1, optim.beta2))


def peak_lr(optim) -> float:
    """The base learning rate scaled to the batch."""
    return optim.lr * optim.batch / 256


def learning_rate(optim, epoch: float) -> float:
    """Linear warm-up from zero, then half a cosine to zero. ``epoch`` counts with its fraction."""
    if epoch < optim.warmup_epochs:
        return peak_lr(optim) * epoch / optim.warmup_epochs
    share = (epoch - optim.warmup_epochs) / max(1e-12, optim.epochs - optim.warmup_epochs)
    return peak_lr(optim) * 0.5 * (1 + math.cos(math.pi * share))
