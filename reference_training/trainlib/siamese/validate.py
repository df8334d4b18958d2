"""Every check of an option of joint-embedding pre-training that can be made before the data are read."""

from __future__ import annotations

from typing import Any

from trainlib.siamese.config import METHOD_OPTIONS, SiameseConfig
from trainlib.siamese.registry import METHOD_CLASSES
from trainlib.validate import positive_integers, require, validate_common

POSITIVE = {"temperature": "temperature", "lambda_": "lambda", "kappa": "kappa", "gamma": "gamma"}


def validate_siamese(config: Any) -> None:
    """Check the options of joint-embedding pre-training. ``config`` must be resolved."""
    validate_common(config)
    method, model = config.method, config.model
    for section, names in (
        (model, ("width", "projector_hidden", "projector_width")),
        (method, ("prototypes", "knn_images")),
    ):
        positive_integers(section, {name: "--" + name.replace("_", "-") for name in names})
    _check_options(method)
    require(
        0 <= config.optim.momentum < 1,
        "--momentum",
        f"expected a number in [0, 1), got {config.optim.momentum}",
        "use e.g. 0.9",
    )


def _check_options(method: SiameseConfig) -> None:
    """Refuse an option that the method does not have, and values outside its domain."""
    own = METHOD_CLASSES[method.method].settings
    for item in sorted(name for name in METHOD_OPTIONS if not own.has(name)):
        flag = "--" + item.rstrip("_")
        having = ", ".join(sorted(n for n, c in METHOD_CLASSES.items() if c.settings.has(item)))
        require(
            getattr(method, item) is None, flag, f"{method.method} has no such option", f"it is for {having}"
        )
    for item, flag in POSITIVE.items():
        value = getattr(method, item)
        require(
            value is None or 0 < value < float("inf"),
            f"--{flag}",
            f"expected a finite number above 0, got {value}",
            "raise it",
        )
    require(
        method.ema is None or 0 <= method.ema <= 1, "--ema", f"expected a share in [0, 1], got {method.ema}",
        "use e.g. 0.99",
    )  # fmt: skip
    require(
        method.queue is None or method.queue >= 0, "--queue",
        f"expected a whole number of at least 0, got {method.queue}", "use 0 for none",
    )  # fmt: skip
