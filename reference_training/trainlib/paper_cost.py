"""A rough cost of the commands of a figure or table, before they run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainlib.models import model_sizes
from trainlib.paper import FINETUNE, MASKED, PROBE, SIAMESE
from trainlib.paper_commands import Command

IMAGES = {"digits": 1437, "cifar10": 50_000, "cifar100": 50_000, "imagenette": 9469, "imagefolder": 1_281_167}
# Images of an epoch per second, measured on a shared virtual CPU of two cores; the recipes of the small scales.
CPU_RATES = {
    ("digits", MASKED): 3900, ("digits", SIAMESE): 4800, ("digits", PROBE): 6200, ("digits", FINETUNE): 1800,
    ("cifar-small", MASKED): 2000, ("cifar-small", SIAMESE): 1400, ("cifar-small", PROBE): 25_000,
    ("cifar-small", FINETUNE): 350,
}  # fmt: skip
SUSTAINED = 1e14  # floating-point operations a second that a large GPU keeps up in bf16; an assumption
RESNET18_CIFAR = 2 * 0.56e9  # operations of a forward pass of one image of 32 x 32


def describe(commands: Iterable[Command], scale: str) -> str:
    """How much is left to do: seconds on two CPU cores, or operations for a GPU."""
    commands = list(commands)
    if all((scale, c.program) in CPU_RATES for c in commands):
        seconds = sum(_views(c.config) * _images(c) / CPU_RATES[scale, c.program] for c in commands)
        return f"about {max(1, round(seconds / 60))} minutes on two CPU cores"
    pretraining: dict[Any, Any] = {c.folder: c.config for c in commands if c.pretrains}
    total = sum(_operations(c, pretraining.get(c.folder)) for c in commands)
    hours = total / SUSTAINED / 3600
    return (
        f"about {total:.1e} floating-point operations, {hours:.2g} hours of a GPU that sustains 100 TFLOP/s"
    )


def _images(command: Command) -> float:
    return IMAGES[command.config.data.data] * command.config.optim.epochs


def _views(config: Any) -> float:
    """How many times the usual work an image is: several masks share the loading only."""
    return 3.5 if getattr(getattr(config, "method", None), "several", False) else 1.0


def _operations(command: Command, run: Any) -> float:
    """Twice the multiplications of the linear layers, times three with a backward pass."""
    config = command.config if command.pretrains else run
    if config is None:
        return 0.0
    images = _images(command)
    if not hasattr(config.model, "patch"):
        return images * RESNET18_CIFAR * 2 * 3
    sizes, length = model_sizes(config.model), (config.data.image_size // config.model.patch) ** 2
    encoder, decoder = 12 * sizes.depth * sizes.width**2, 12 * sizes.decoder_depth * sizes.decoder_width**2
    if not command.pretrains:
        return 2 * encoder * length * images * (3 if command.program == FINETUNE else 1)
    masks = config.method.masks if config.method.several else 1
    visible = length * (1 - config.method.mask_ratio)
    return 6 * masks * (encoder * visible + decoder * length) * images
