"""AdamW, SGD and LARS with MAE's parameter groups and per-step schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.optim import Lars
from torch import nn

TRUST = 0.02  # LARS: largest step of a matrix, relative to its norm


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: matrices and tokens with decay; biases and norms (one-dimensional) without."""
    decayed, free = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            small = parameter.ndim <= 1 or name.endswith(".bias")
            (free if small else decayed).append(parameter)
    return [{"params": free, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]


def make_optimizer(
    module: nn.Module,
    optim,
    special: Sequence[tuple[nn.Module, dict[str, Any]]] = (),
    *,
    captured: bool = False,
) -> torch.optim.Optimizer:
    """The optimiser of a run; the loop sets the learning rate at every step.

    Parts of the module in ``special`` have settings of their own. Biases and norms have no weight decay and, under
    LARS, no adaptation of their step. On a card one kernel updates all weights (``fused``). A step that is ``captured``
    in a graph reads its rate from device memory, one tensor a group.
    """
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    for part, settings in [*special, (module, {})]:
        for group in parameter_groups(part, optim.weight_decay):
            kept = [p for p in group["params"] if id(p) not in taken]
            taken |= {id(p) for p in kept}
            groups += [{**group, "params": kept, **settings}] if kept else []
    peak, device, name = (
        peak_lr(optim),
        next(module.parameters()).device,
        getattr(optim, "optimizer", "adamw"),
    )
    fused = device.type == "cuda"
    if captured:
        groups = [group | {"lr": torch.tensor(peak, device=device)} for group in groups]
    if name == "adamw":
        betas = (optim.beta1, optim.beta2)
        return torch.optim.AdamW(groups, lr=peak, betas=betas, fused=fused, capturable=captured)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=peak, momentum=optim.momentum, fused=fused)
    return Lars(groups, lr=peak, momentum=optim.momentum, trust_coeff=TRUST, trust_clip=True)


def peak_lr(optim) -> float:
    """The base learning rate scaled to the batch."""
    return optim.lr * optim.batch / 256


def learning_rate(optim, epoch: float, peak: float | None = None) -> float:
    """Linear warm-up from zero, then half a cosine to zero. ``epoch`` counts with its fraction.

    With an option ``min_lr`` the cosine of the common rate ends there, and every other one at the same share.
    """
    peak = peak_lr(optim) if peak is None else peak
    if epoch < optim.warmup_epochs:
        return peak * epoch / optim.warmup_epochs
    share = (epoch - optim.warmup_epochs) / max(1e-12, optim.epochs - optim.warmup_epochs)
    floor = getattr(optim, "min_lr", 0.0)
    floor = floor / peak_lr(optim) if floor else 0.0
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))


def set_learning_rates(optimizer: torch.optim.Optimizer, optim, epoch: float) -> float:
    """Give every group its rate and return the common one.

    A group with ``peak`` follows the schedule to a peak of its own, one with ``constant`` keeps its rate.
    """
    for group in optimizer.param_groups:
        if not group.get("constant", False):
            rate = learning_rate(optim, epoch, group.get("peak"))
            if isinstance(group["lr"], torch.Tensor):  # read by a captured step
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
    return learning_rate(optim, epoch)
