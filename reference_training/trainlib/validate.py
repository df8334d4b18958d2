"""Every check of an option that can be made before the data are read."""

from __future__ import annotations

import dataclasses
from typing import Any

from trainlib.config import DOWNLOADABLE, Domain, flag_of, sections
from trainlib.errors import UsageError
from trainlib.models import model_sizes


def require(condition: bool, option: str, problem: str, remedy: str) -> None:
    """Raise a ``UsageError`` unless the condition holds."""
    if not condition:
        raise UsageError(option, problem, remedy)


def require_within(domain: Domain | None, option: str, value: Any) -> None:
    """Raise a ``UsageError`` if an option that is given lies outside of its domain."""
    if value is not None and domain is not None:
        require(domain.holds(value), option, f"expected {domain.expected}, got {value}", domain.remedy)


def validate_options(config: Any, least_batch: int = 1, reason: str = "") -> None:
    """Check that every option lies in its domain, and what all programs ask of data and schedule.

    ``config`` must be resolved. A training that needs more than one image a step gives the reason.
    """
    for _, section in sections(config):
        for item in dataclasses.fields(section):
            require_within(item.metadata["domain"], flag_of(item), getattr(section, item.name))
    data, optim = config.data, getattr(config, "optim", None)
    require(
        data.data == "digits" or data.data_dir is not None, "--data-dir",
        f"--data {data.data} reads image files", "name their folder",
    )  # fmt: skip
    require(
        not data.download or data.data in DOWNLOADABLE, "--download",
        f"--data {data.data} cannot be downloaded", "leave it out",
    )  # fmt: skip
    if optim is None:
        return
    require(optim.batch >= least_batch, "--batch", reason, f"use at least {least_batch}")
    require(
        optim.warmup_epochs <= optim.epochs, "--warmup-epochs",
        f"{optim.warmup_epochs} epochs of warm-up are more than the {optim.epochs} epochs of training",
        "lower it or raise --epochs",
    )  # fmt: skip


def validate_masked(config: Any) -> None:
    """Check the options of masked pre-training, alone and against the model."""
    validate_options(config, 2, "a batch of 1 has no spectrum to regularise")
    method, model = config.method, config.model
    require(method.mu > 0, "--mu", "the coding rate needs a positive mu", "use 1 (ViT-B) or 3 (ViT-L)")
    side, patch = config.data.image_size, model.patch
    divisors = ", ".join(str(p) for p in range(1, side) if side % p == 0)
    require(
        side % patch == 0, "--patch", f"a patch of {patch} does not divide images of {side} x {side} pixels",
        f"choose one of {divisors} or change --image-size",
    )  # fmt: skip
    patches = (side // patch) ** 2
    require(patches > 1, "--patch", "one patch covers the whole image", f"choose one of {divisors}")
    keep = int(patches * (1 - method.mask_ratio)) if 0 <= method.mask_ratio < 1 else 0
    require(
        0 < keep < patches, "--mask-ratio",
        f"a ratio of {method.mask_ratio} leaves {keep} of {patches} patches visible",
        "choose it so that at least one patch is visible and one is masked, such as 0.75",
    )  # fmt: skip
    if method.several:
        require(
            patches % method.masks == 0, "--masks",
            f"{patches} patches cannot be divided among {method.masks} masks", "choose a divisor, such as 4",
        )  # fmt: skip
        hidden = 1 - 1 / method.masks
        require(
            abs(method.mask_ratio - hidden) < 1e-6, "--mask-ratio",
            f"{method.masks} disjoint masks that show the image once hide {hidden:.6g} of it, not {method.mask_ratio}",
            f"use --mask-ratio {hidden:.6g}, or other --masks",
        )  # fmt: skip
    require(
        method.recipe is None or config.data.data == "imagefolder", "--recipe",
        f"{method.recipe} is for ImageNet-1K, not for --data {config.data.data}",
        "leave it out, or give --data imagefolder and --data-dir",
    )  # fmt: skip
    sizes = model_sizes(model)
    for width, heads, prefix in (
        (sizes.width, sizes.heads, ""),
        (sizes.decoder_width, sizes.decoder_heads, "decoder-"),
    ):
        require(
            width % heads == 0, f"--{prefix}heads", f"{heads} heads do not divide a width of {width}",
            "choose a divisor of the width",
        )  # fmt: skip
        require(
            width % 4 == 0, f"--{prefix}width", f"2-D sine-cosine positions need a multiple of 4, got {width}",
            f"use {4 * max(1, round(width / 4))}",
        )  # fmt: skip
