"""The base class of every differentiable function of the engine."""

from __future__ import annotations

from typing import Any

import torch


class SpectralOperation(torch.autograd.Function):
    """An autograd function of positional arguments only, whose ``apply`` costs little.

    ``torch.autograd.Function.apply`` first binds its arguments to the signature of ``forward``, which takes as long
    as a small eigendecomposition's worth of overhead (about 30 microseconds). All our arguments are positional, so
    outside ``torch.func`` transforms that step is left out.
    """

    generate_vmap_rule = True

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """The function of ``args``."""
        if torch._C._are_functorch_transforms_active():
            return super().apply(*args)
        return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[misc]
