"""Every check of an option of joint-embedding pre-training that can be made before the data are read."""

from __future__ import annotations

from typing import Any

from trainlib.siamese.config import METHOD_OPTIONS
from trainlib.siamese.registry import METHOD_CLASSES
from trainlib.validate import require, validate_options


def validate_siamese(config: Any) -> None:
    """Check the options of joint-embedding pre-training, of which a method has only its own. Must be resolved."""
    validate_options(config, 2, "a batch of 1 has nothing to be compared with")
    method = config.method
    own = METHOD_CLASSES[method.method].settings
    for item in sorted(name for name in METHOD_OPTIONS if not own.has(name)):
        having = ", ".join(sorted(n for n, c in METHOD_CLASSES.items() if c.settings.has(item)))
        require(
            getattr(method, item) is None, "--" + item.rstrip("_"), f"{method.method} has no such option",
            f"it is for {having}",
        )  # fmt: skip
