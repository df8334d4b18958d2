"""The base classes of every differentiable function of the engine, whose ``apply`` costs little.

``torch.autograd.Function.apply`` first binds its arguments to the signature of ``forward``, and again in C++ where a
``setup_context`` is defined; together that takes as long as a small eigendecomposition. All our arguments are
positional, so both are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual

from matinfo.spectral.precision import without_autocast


class SpectralOperation(torch.autograd.Function):
    """An autograd function that keeps its arguments; outside ``torch.func`` an eager twin takes its place."""

    generate_vmap_rule = True
    _apply_eagerly: Callable[..., Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "jvp" in cls.__dict__:
            cls.jvp = staticmethod(_differentiable_jvp(cls.jvp))  # type: ignore[method-assign]

        def forward(ctx: Any, *args: Any) -> Any:
            output = cls.forward(*args)
            cls.setup_context(ctx, args, output)
            return output

        def backward(ctx: Any, *grads: Any) -> Any:
            if grads[0] is None:  # only where a function asks for gradients that are not materialised
                return (None,) * len(ctx.needs_input_grad)
            with without_autocast(grads[0].device):
                return cls.backward(ctx, *grads)

        methods = {"forward": forward, "backward": backward, "jvp": cls.jvp}
        statics = {name: staticmethod(method) for name, method in methods.items()}
        eager: Any = type(cls.__name__, (torch.autograd.Function,), statics)
        cls._apply_eagerly = super(torch.autograd.Function, eager).apply  # type: ignore[misc]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        """What the rules get back from :func:`kept`."""
        keep(ctx, *inputs)

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """The function of ``args``."""
        transformed = torch._C._are_functorch_transforms_active()
        return super().apply(*args) if transformed else cls._apply_eagerly(*args)


def keep(ctx: Any, *values: Any) -> None:
    """Save tensors and numbers for the rules, which get them back from :func:`kept`."""
    tensors, numbers = [], []
    for x in values:
        is_tensor = isinstance(x, Tensor)
        numbers.append(None if is_tensor else x)
        if is_tensor:
            tensors.append(x)
    ctx.numbers = numbers
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def kept(ctx: Any) -> list[Any]:
    """What was saved, in its order."""
    tensors = iter(ctx.saved_tensors)
    return [next(tensors) if number is None else number for number in ctx.numbers]


def refusal(message: str) -> Any:
    """A rule for a derivative that there is not."""

    def refuse(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(message)

    return staticmethod(refuse)


def _differentiable_jvp(jvp: Callable[..., Any]) -> Callable[..., Any]:
    """The rule, itself differentiable in forward mode.

    PyTorch calls it with forward mode switched off, so that forward over forward mode would return a second derivative
    of zero without a word; switched on, a saved tensor would carry the tangent that the rule is asked to apply.
    """

    def differentiable(ctx: Any, *tangents: Any) -> Any:
        with _set_fwd_grad_enabled(True):
            return jvp(_Primals(ctx), *tangents)

    return differentiable


class _Primals:
    """A context whose saved tensors have no tangent of this level of forward mode."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    @property
    def saved_tensors(self) -> tuple:
        return tuple([x if x is None else unpack_dual(x).primal for x in self._ctx.saved_tensors])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)
