"""Every check of an option that can be made before the data are read."""

from __future__ import annotations

import math
from typing import Any

from trainlib.config import DOWNLOADABLE
from trainlib.errors import UsageError


def require(condition: bool, option: str, problem: str, remedy: str) -> None:
    """Raise a ``UsageError`` unless the condition holds."""
    if not condition:
        raise UsageError(option, problem, remedy)


def positive_integers(section: Any, names: dict[str, str]) -> None:
    """Check that each named option of a section is at least 1 where it is given."""
    for name, option in names.items():
        value = getattr(section, name)
        require(
            value is None or value >= 1,
            option,
            f"expected a whole number of at least 1, got {value}",
            "raise it",
        )


def validate_common(config: Any) -> None:
    """Check the sections that every method shares. ``config`` must be resolved."""
    data, optim, run = config.data, config.optim, config.run
    positive_integers(data, {"image_size": "--image-size"})
    positive_integers(run, {"rank_images": "--rank-images"})
    validate_schedule(data, optim, run)
    require(optim.batch >= 2, "--batch", "a batch of 1 has no spectrum to regularise", "use at least 2")
    for value, option in ((optim.beta1, "--beta1"), (optim.beta2, "--beta2")):
        require(0 <= value < 1, option, f"expected a number in [0, 1), got {value}", "use e.g. 0.9")
    validate_source(data)


def validate_schedule(data: Any, optim: Any, run: Any) -> None:
    """Check what every training has: epochs, batch, learning rate, crops, how often to log."""
    positive_integers(optim, {"epochs": "--epochs", "batch": "--batch"})
    positive_integers(run, {n: "--" + n.replace("_", "-") for n in (
        "log_every", "eval_every", "checkpoint_every")})  # fmt: skip
    for value, option in ((run.threads, "--threads"), (run.seed, "--seed")):
        require(value >= 0, option, f"expected a whole number of at least 0, got {value}", "raise it")
    require(
        0 < data.crop_min <= 1,
        "--crop-min",
        f"expected a share in (0, 1], got {data.crop_min}",
        "use e.g. 0.2",
    )
    for value, option in (
        (optim.lr, "--lr"),
        (optim.warmup_epochs, "--warmup-epochs"),
        (optim.weight_decay, "--weight-decay"),
    ):
        require(
            math.isfinite(value) and value >= 0,
            option,
            f"expected a finite number of at least 0, got {value}",
            "raise it",
        )
    require(
        optim.warmup_epochs <= optim.epochs,
        "--warmup-epochs",
        f"{optim.warmup_epochs} epochs of warm-up are more than the {optim.epochs} epochs of training",
        "lower it or raise --epochs",
    )


def validate_source(data: Any) -> None:
    """Check where the images come from."""
    require(
        data.workers >= 0,
        "--workers",
        f"expected a whole number of at least 0, got {data.workers}",
        "raise it",
    )
    if data.data != "digits":
        require(
            data.data_dir is not None,
            "--data-dir",
            f"--data {data.data} reads image files",
            "name their folder",
        )
    require(
        not data.download or data.data in DOWNLOADABLE, "--download",
        f"--data {data.data} cannot be downloaded", "leave it out",
    )  # fmt: skip


def validate_masked(config: Any) -> None:
    """Check the options of masked pre-training, alone and against the model."""
    from trainlib.models import model_sizes

    validate_common(config)
    method, model = config.method, config.model
    positive_integers(model, {n: "--" + n.replace("_", "-") for n in (
        "patch", "width", "depth", "heads", "decoder_width", "decoder_depth", "decoder_heads")})  # fmt: skip
    for value, option in ((method.lambda_, "--lambda"), (method.mu, "--mu")):
        require(
            math.isfinite(value) and value >= 0,
            option,
            f"expected a finite number of at least 0, got {value}",
            "raise it",
        )
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
    _validate_mask_information(config, patches)
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


def _validate_mask_information(config: Any, patches: int) -> None:
    """Check the options of the methods with several masks of each image."""
    method = config.method
    for name in ("infonce_weight", "club_weight", "nll_weight"):
        value = getattr(method, name)
        require(
            math.isfinite(value) and value >= 0, "--" + name.replace("_", "-"),
            f"expected a finite number of at least 0, got {value}", "raise it",
        )  # fmt: skip
    require(
        math.isfinite(method.temperature) and method.temperature > 0, "--temperature",
        f"expected a positive number, got {method.temperature}", "use e.g. 0.1",
    )  # fmt: skip
    if method.method not in ("mimae", "mae4"):
        return
    require(method.masks >= 2, "--masks", f"expected at least 2, got {method.masks}", "use 4")
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
