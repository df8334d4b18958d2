"""The share of M-MAE's regulariser in one training step.

The step is that of ``reference_training``: a masked autoencoder of encoder width 192 and depth 12, batch 256, images of
32 x 32 with patches of 4 x 4: forward, backward, AdamW. The regulariser is timed alone, forward + backward, on
features of the same shape, beside the released code's d x d LU log-determinant.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import OURS, Case, Target, gradient_of
from benchmarks.cli import Options
from benchmarks.factors import RELEASED
from benchmarks.inputs import features
from benchmarks.machine import Rates
from benchmarks.measure import run_case
from benchmarks.peers import released_mmae_loss
from matinfo.losses import mmae_tcr_loss

STEP = "training step (MAE)"
TARGET_SHARE = 0.01


def training_step(options: Options, rates: Rates) -> dict[str, Any]:
    """Times of the step and of both regularisers.

    Args:
        options: Rounds, seconds and clock.
        rates: Passed on.

    Returns:
        A record as of :func:`benchmarks.measure.run_case`; its target is the time of a step over the regulariser's.
    """
    batch, size = (16, "tiny") if options.quick else (256, "small")
    width = 128 if options.quick else 192

    def build() -> dict[str, Callable[[], Any]]:
        F = features(batch, width)
        return {
            OURS: gradient_of(mmae_tcr_loss, F),
            RELEASED: gradient_of(released_mmae_loss, F),
            STEP: _step(batch, size),
        }

    case = Case(
        name="training-step",
        title=f"M-MAE regulariser in a training step, batch {batch}, width {width}",
        build=build,
        targets=(Target((STEP,), 1 / TARGET_SHARE),),
    )
    return run_case(case, options, rates)


def _step(batch: int, size: str) -> Callable[[], Any]:
    """One step of plain masked pre-training on random images."""
    folder = str(Path(__file__).resolve().parents[1] / "reference_training")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    from trainlib.config import DataConfig, MaskedConfig, MaskedRunConfig, ModelConfig, resolve
    from trainlib.masked import MaskedMethod

    config = resolve(
        MaskedRunConfig(
            method=MaskedConfig(method="mae"),
            data=DataConfig(data="cifar10"),
            model=ModelConfig(model=size, patch=4),
        )
    )
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    method = MaskedMethod(config, 3, 10)
    optimizer = torch.optim.AdamW(method.parameters(), 1e-4)
    images = torch.rand(batch, 3, 32, 32, generator=generator)
    labels = torch.arange(batch) % 10
    noise = method.draw(batch, generator)

    def step() -> tuple[torch.Tensor, None]:
        optimizer.zero_grad()
        loss = method(images, labels, noise).loss
        loss.backward()
        optimizer.step()
        return loss.detach(), None

    return step
