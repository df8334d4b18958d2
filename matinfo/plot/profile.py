"""Entropy against its order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matinfo._validation import check_base, check_order
from matinfo.entropy import renyi_entropy
from matinfo.plot.operands import Drawables, labelled
from matinfo.plot.theme import axes_or_new, legend_label, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TICKS = {0.0: "0", 0.25: "¼", 0.5: "½", 1.0: "1", 2.0: "2", 4.0: "4", math.inf: "∞"}
_MARKED = (0.0, 0.5, 1.0, 2.0, math.inf)


def position(alpha: float) -> float:
    """``alpha / (1 + alpha)``: where an order stands on an axis that has room for infinity."""
    return 1.0 if alpha == math.inf else alpha / (1 + alpha)


def entropy_profile(
    K: Drawables,
    *,
    alphas: Sequence[float] | None = None,
    labels: str | Sequence[str] | None = None,
    base: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Rényi entropy against its order, from the rank to the largest eigenvalue.

    ``H_alpha(K)`` against alpha, at the position ``alpha / (1 + alpha)``, so that 0 and infinity are on the axis.

    Args:
        K: As for :func:`spectrum`: one operand, or several by label.
        alphas: Orders in [0, inf]; None for all of them, with markers at 0, ½, 1, 2 and ∞.
        labels: One label, or one for each operand of a sequence.
        base: Base of the logarithm, > 1; None for nats.
        ax: Axes to draw on; None for a new figure.

    Returns:
        The axes. x: order, a pure number; y: entropy in nats (or the base asked for).

    Raises:
        ValueError: If an order is outside [0, inf], or as :func:`spectrum`.
        TypeError: As :func:`spectrum`.
        ModuleNotFoundError: If matplotlib is not installed.

    Notes:
        One decomposition for each operand, whatever the number of orders. The curve never rises; a flat one belongs to
        equal eigenvalues, a steep one to a few large eigenvalues and many small ones.

    References:
        Sanchez Giraldo, Rao and Principe (2014).

    Example:
        >>> import numpy as np
        >>> from matinfo import plot
        >>> ax = plot.entropy_profile(np.diag([0.5, 0.25, 0.25]), base=2)
        >>> ax.get_ylabel()
        'entropy (bits)'
    """
    unit = check_base(base)
    curves = labelled(K, labels, "matinfo.plot.entropy_profile")
    if alphas is None:
        orders = sorted({*(i / (100 - i) for i in range(100)), *_MARKED})
        marked = [orders.index(alpha) for alpha in _MARKED]
    else:
        orders = sorted(check_order(alpha) for alpha in alphas)
        marked = list(range(len(orders)))
        if not orders:
            raise ValueError("Expected at least one order, got none. Use alphas=None for all of them.")
    ax = axes_or_new(ax)
    places = [position(alpha) for alpha in orders]
    for i, (name, S) in enumerate(curves):
        heights = [float(renyi_entropy(S, alpha)) / unit for alpha in orders]
        ax.plot(places, heights, label=legend_label(name), markevery=marked, **line_style(ax, i))
    ax.set_xticks([position(alpha) for alpha in _TICKS], list(_TICKS.values()))
    ax.set(xlabel="order α", ylabel=f"entropy ({unit_name(base)})", xlim=(-0.02, 1.02))
    low, high = ax.get_ylim()
    ax.set_ylim(min(0.0, low) if low < 0.3 * high else low, high)
    if any(name for name, _ in curves):
        ax.legend()
    return ax


def unit_name(base: float | None) -> str:
    """Nats, bits, or the base."""
    return {None: "nats", math.e: "nats", 2: "bits", 10: "bans"}.get(base, f"base {base:g}" if base else "")
