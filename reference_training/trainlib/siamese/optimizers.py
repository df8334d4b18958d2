"""AdamW, SGD and LARS with parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainlib.optim import parameter_groups, peak_lr

PROBE_LR = {"adamw": 1e-2, "sgd": 0.1, "lars": 0.1}  # the probe is a monitor: one rate for all methods
TRUST = 0.02  # LARS: largest step of a matrix, relative to its norm


def make_optimizer(
    module: nn.Module, config, special: list[tuple[nn.Module, dict[str, Any]]]
) -> torch.optim.Optimizer:
    """The optimiser that the configuration names; parts in ``special`` have settings of their own.

    Biases and norms have no weight decay and, under LARS, no adaptation of their step.
    """
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    for part, settings in [*special, (module, {})]:
        for group in parameter_groups(part, config.weight_decay):
            kept = [p for p in group["params"] if id(p) not in taken]
            taken |= {id(p) for p in kept}
            groups += [{**group, "params": kept, **settings}] if kept else []
    peak, fused = peak_lr(config), next(module.parameters()).device.type == "cuda"
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=peak, betas=(config.beta1, config.beta2), fused=fused)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=peak, momentum=config.momentum, fused=fused)
    from timm.optim.lars import Lars

    return Lars(groups, lr=peak, momentum=config.momentum, trust_coeff=TRUST, trust_clip=True)
