"""What was computed how: the log that :func:`explain` shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

_active: ContextVar[Explanation | None] = ContextVar("matinfo_explanation", default=None)
_quantity: ContextVar[str] = ContextVar("matinfo_quantity", default="")


@dataclass(frozen=True)
class Step:
    """One numerical step.

    Attributes:
        quantity: The public function that asked for it.
        route: The algorithm, e.g. ``"eigh"``, ``"frobenius"``, ``"cholesky"``.
        side: ``"matrix"`` (the matrix was given), ``"samples"`` (n x n) or ``"features"`` (d x d, the dual).
        size: Order of the matrix that was worked on.
        dtype: Working precision.
        device: Where it ran.
        note: Fallbacks and other remarks; empty if there were none.
    """

    quantity: str
    route: str
    side: str = "matrix"
    size: int = 0
    dtype: str = ""
    device: str = ""
    note: str = ""

    def __str__(self) -> str:
        text = f"{self.quantity}: {self.route} on the {self.side} side, {self.size} x {self.size}, "
        text += f"{self.dtype}, {self.device}"
        return f"{text} ({self.note})" if self.note else text


@dataclass
class Explanation:
    """The steps recorded inside one ``with explain()`` block."""

    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(str(step) for step in self.steps)


@contextlib.contextmanager
def explain() -> Iterator[Explanation]:
    """Context manager that records the route, precision and fallbacks of every quantity computed inside.

    Yields:
        An :class:`Explanation`; ``print`` it or read its ``steps``.

    Notes:
        The log belongs to the current thread (or async task). Nothing is recorded inside ``torch.compile``.

    Example:
        >>> import torch
        >>> from matinfo import Gram, explain, renyi_entropy
        >>> with explain() as log:
        ...     _ = renyi_entropy(Gram(torch.ones(6, 3)))
        >>> print(log)
        renyi_entropy: eigvalsh on the features side, 3 x 3, float64, cpu
    """
    explanation = Explanation()
    token = _active.set(explanation)
    try:
        yield explanation
    finally:
        _active.reset(token)
        outer = _active.get()
        if outer is not None:
            outer.steps += explanation.steps


def is_recording() -> bool:
    """Whether an ``explain`` block is active."""
    return not torch.compiler.is_compiling() and _active.get() is not None


@contextlib.contextmanager
def recording(quantity: str) -> Iterator[None]:
    """Name the public function on whose behalf the steps inside are done; the outermost one counts."""
    if _quantity.get():
        yield
        return
    token = _quantity.set(quantity)
    try:
        yield
    finally:
        _quantity.reset(token)


def record(route: str, matrix: torch.Tensor, *, side: str = "matrix", note: str = "") -> None:
    """Append one step to the active explanation, if there is one."""
    if torch.compiler.is_compiling():
        return
    explanation = _active.get()
    if explanation is not None:
        dtype = str(matrix.dtype).removeprefix("torch.")
        step = Step(_quantity.get(), route, side, matrix.shape[-1], dtype, str(matrix.device), note)
        explanation.steps.append(step)
