"""Spectra: one or several, their entropies against the order, and one as it changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from matinfo._validation import check_base, check_order
from matinfo.entropy import renyi_entropy
from matinfo.plot.inputs import Drawables, labelled, shares, spectrum_of
from matinfo.plot.theme import (
    SEQUENTIAL,
    axes_or_new,
    contrast,
    ground_of,
    legend_label,
    line_style,
    matplotlib_module,
)
from matinfo.rank import effective_rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INDEX = "index of the eigenvalue"
SHARE = "eigenvalue / trace"
_TICKS = {0.0: "0", 0.25: "¼", 0.5: "½", 1.0: "1", 2.0: "2", 4.0: "4", math.inf: "∞"}
_MARKED = (0.0, 0.5, 1.0, 2.0, math.inf)


def spectrum(K: Drawables, *, labels: str | Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Eigenvalue spectrum on two logarithmic axes, with the effective rank marked.

    ``p_k = lambda_k / tr K`` in descending order against k, and a mark at ``k = exp(H_1(p))``, the effective rank.
    Eigenvalues in the round-off are left out.

    Args:
        K: A matrix ``(n, n)``, a :class:`~matinfo.Gram` of features, a :class:`~matinfo.Spectrum`, or eigenvalues
            ``(n,)`` in any order; or several: by label in a mapping, or in a sequence. Tensor or NumPy array. For
            features pass ``Gram(features)``.
        labels: One label, or one for each operand of a sequence.
        ax: Axes to draw on; None for a new figure.

    Returns:
        The axes. x: index, a pure number; y: share of the trace, a pure number.

    Raises:
        ValueError: If a matrix is not square, symmetric and positive semi-definite, or not finite, or a batch.
        TypeError: If an operand is not real floating point.

    Notes:
        One decomposition, of the smaller side of a Gram. No gradient.

    References:
        Roy and Vetterli (2007), The effective rank.

    Example:
        >>> import numpy as np
        >>> from matinfo import Gram, plot
        >>> Z = np.random.default_rng(0).normal(size=(100, 8))
        >>> ax = plot.spectrum({"features": Gram(Z), "half of them": Gram(Z[:, :4])})
        >>> [text.get_text().split(":")[0] for text in ax.get_legend().get_texts()]
        ['features', 'half of them']
    """
    curves = labelled(K, labels, "matinfo.plot.spectrum")
    outside = ax is None and len(curves) > 1
    ax = axes_or_new(ax, size=(5.6, 3.8 + 0.22 * len(curves) * outside))
    for i, (name, S) in enumerate(curves):
        kept = shares(S)
        rank = float(effective_rank(S))
        look = line_style(ax, i)
        text = f"effective rank {rank:.3g}"
        index = np.arange(1, len(kept) + 1)
        label = legend_label(f"{name}: {text}" if name else text)
        ax.plot(index, kept, label=label, markevery=(0.04 * (i % 4), 0.16), **look)
        at = min(rank, float(len(kept)))
        height = np.exp(np.interp(np.log(at), np.log(index), np.log(kept)))
        ax.plot(
            [at, at], [0, height], color=look["color"], linestyle=look["linestyle"], linewidth=1.0, alpha=0.8
        )
        ax.plot(
            [at], [height], color=look["color"], marker=look["marker"], markersize=9, markerfacecolor="none",
            markeredgewidth=1.8, linestyle="none",
        )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel=INDEX, ylabel=SHARE)
    _limits(ax, [shares(S) for _, S in curves])
    if outside:
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))
    else:
        ax.legend()
    return ax


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


def spectra_over_time(
    steps: Sequence[float] | np.ndarray,
    spectra: Sequence[Drawables] | np.ndarray | Tensor,
    *,
    label: str = "step",
    ax: Axes | None = None,
) -> Axes:
    """Eigenvalue spectra of one representation at several times, dark to bright.

    ``p_k = lambda_k / sum lambda`` in descending order against k, one line for each step, coloured by it.

    Args:
        steps: ``(T,)``, ascending: steps, epochs or whatever ``label`` says.
        spectra: One for each step: eigenvalues ``(T, n)``, or a sequence of what :func:`spectrum` takes. A row of NaN,
            as a monitor keeps it for features that were not finite, is left out.
        label: What ``steps`` counts.
        ax: Axes to draw on; None for a new figure. The colour bar takes its room from them.

    Returns:
        The axes. x: index, a pure number; y: share of the trace, a pure number.

    Raises:
        ValueError: If there are no spectra, or not one for each step; as :func:`spectrum`.
        TypeError: As :func:`spectrum`.

    Notes:
        One decomposition for each matrix; none for eigenvalues.

    References:
        Agrawal et al. (2022), α-ReQ, for the decay of spectra during training.

    Example:
        >>> import numpy as np
        >>> from matinfo import plot
        >>> decay = np.arange(1, 17) ** -np.linspace(2, 0.5, 5)[:, None]
        >>> ax = plot.spectra_over_time([0, 10, 20, 30, 40], decay)
        >>> len(ax.get_lines())
        5
    """
    times = np.asarray(steps, dtype=float)
    rows: list[Any] = list(spectra)
    if len(rows) == 0 or len(rows) != len(times):
        raise ValueError(f"Expected one spectrum for each step, got {len(rows)} for {len(times)} steps.")
    rows = [np.asarray(row, dtype=float) if isinstance(row, list | tuple) else row for row in rows]
    known = [not (isinstance(row, Tensor | np.ndarray) and bool(cast(Any, row != row).all())) for row in rows]
    if not any(known):
        raise ValueError("Expected a spectrum of numbers, got NaN alone.")
    times, rows = times[known], [row for row, is_known in zip(rows, known, strict=True) if is_known]
    curves = [shares(spectrum_of(row, "matinfo.plot.spectra_over_time")) for row in rows]
    ax = axes_or_new(ax)
    low, high = float(times.min()), float(times.max())
    scale = matplotlib_module("colors").Normalize(low, high if high > low else low + 1)
    colours = matplotlib_module("cm").ScalarMappable(scale, _readable(ax))
    for time, kept in zip(times, curves, strict=True):
        few: dict[str, Any] = {"marker": "o", "markersize": 3} if len(kept) < 3 else {}
        ax.plot(np.arange(1, len(kept) + 1), kept, color=colours.to_rgba(time), linewidth=1.5, **few)
    ax.set(xscale="log", yscale="log", xlabel=INDEX, ylabel=SHARE)
    _limits(ax, curves)
    figure = ax.get_figure()
    assert figure is not None
    figure.colorbar(colours, ax=ax, label=label)
    return ax


def _readable(ax: Axes) -> object:
    """The sequential map without the end that is lost in the ground: less than 3:1 of contrast."""
    background = matplotlib_module("colors").to_rgb(ground_of(ax).background)
    colours = matplotlib_module().colormaps[SEQUENTIAL](np.linspace(0, 1, 512))[:, :3]
    seen = [colour for colour in colours if contrast(tuple(colour), background) >= 3]
    return matplotlib_module("colors").ListedColormap(seen)


def _limits(ax: Axes, curves: list[np.ndarray]) -> None:
    """All points visible, at least a decade of them."""
    low, high = min(float(p[-1]) for p in curves), max(float(p[0]) for p in curves)
    low = min(low / 1.5, high / 10)
    ax.set_ylim(low, high * 1.6)
    ax.set_xlim(0.9, max(10.0, 1.15 * max(len(p) for p in curves)))
