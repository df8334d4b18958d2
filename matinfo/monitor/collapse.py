"""When a layer counts as collapsed, or as not seen, and how that is said: once for each event."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from matinfo._validation import check_in, check_positive
from matinfo.monitor.hooks import MOST_CALLS

if TYPE_CHECKING:
    from matinfo.monitor.measurement import Measured


class MonitorWarning(UserWarning):
    """Something about a monitored layer that training does not see by itself; base of the other warnings.

    Args:
        message: The sentence that is shown.

    Example:
        >>> import warnings
        >>> from matinfo.monitor import MonitorWarning
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", MonitorWarning)  # the records say it all the same
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


class NonFiniteWarning(MonitorWarning):
    """Features of a layer with NaN or infinity, or so large that their squares overflow.

    Args:
        message: The sentence that is shown.

    Example:
        >>> from matinfo.monitor import MonitorWarning, NonFiniteWarning
        >>> issubclass(NonFiniteWarning, MonitorWarning)
        True
    """


class CollapseWarning(MonitorWarning):
    """The effective rank of a layer has passed a threshold, or its features are all zero.

    Args:
        message: The sentence that is shown.
        layer: Name of the layer.
        step: Training step of the observation.
        reason: ``"collapse"``, ``"below"``, ``"fall"`` or ``"zero"``, as in :class:`Monitor`.
        value: Effective rank; NaN for ``"zero"``.
        threshold: What it fell below; NaN for ``"zero"``.

    Example:
        >>> from matinfo.monitor import CollapseWarning
        >>> warning = CollapseWarning("...", layer="head", step=150, reason="below", value=1.2, threshold=4.0)
        >>> warning.layer, warning.step
        ('head', 150)
    """

    def __init__(
        self,
        message: str,
        *,
        layer: str = "",
        step: int = -1,
        reason: str = "",
        value: float = math.nan,
        threshold: float = math.nan,
    ) -> None:
        super().__init__(message)
        self.layer, self.step, self.reason = layer, step, reason
        self.value, self.threshold = value, threshold


class Event(NamedTuple):
    """What is new about a layer: a plain record, and what is said."""

    record: dict[str, Any]
    warning: MonitorWarning


class Alarm:
    """The judgement of one layer: which events are on, and what the effective rank once was.

    An event that has been reported is reported again only after the layer has recovered: to 1.25 times an absolute
    threshold, or half-way back from a relative one to the highest value.
    """

    LEFT = (0.1, 0.05)
    """Share of its highest ``rank - 1``, without and with centring, that a layer has left when it has lost the rest.

    Less one, because one is what a single point has without centring and a single line with it: features after a ReLU
    start at a rank of 1.5 and live.
    """
    ONE_POINT, FEW = 1.1, 0.05
    """A rank below the first is one point; with centring, one below the second times min(rows, width) is few."""
    PATIENCE, RISING = 5, 1.5
    """Observations in a row, in none of which ``rank - 1`` was more than this many times its lowest value in the row.

    Healthy runs pass through such a state and rise out of it: a masked autoencoder without normalisation layers goes
    from rank 1.63 to 1.01 in the first twenty steps and to 1.9 in the next four hundred (benchmarks/monitor_alarms.py).
    """
    RECOVERY = 1.25
    SHORT = 0.5
    """A batch with fewer rows than this share of the largest one is not judged: rows bound the rank."""
    _STATE = ("peak", "peaks", "lost", "lowest", "most_rows")

    def __init__(self, below: float | None, fall: float | None, *, default: bool = False) -> None:
        if below is not None:
            check_positive(below, "collapse_below", "It is a number of dimensions.")
        if fall is not None:
            check_in(
                fall, "collapse_fall", "(0, 1)", "0.5 is the loss of half of the highest effective rank."
            )
        self.below, self.fall, self.default = below, fall, default
        self.peak, self.peaks = 0.0, [0.0, 0.0]
        self.lost, self.lowest = 0, math.inf
        self.most_rows = 0
        self.on: set[str] = set()

    def watch(self, layer: str, step: int, *, calls: int, missing: bool) -> list[MonitorWarning]:
        """What is new about how often the layer was called, and whether it showed rows."""
        messages = []
        if self.switch("calls", calls > MOST_CALLS):
            messages.append(
                f"Layer {layer!r} was called {calls} times up to step {step}: only the rows of the first {MOST_CALLS} "
                'calls are taken. Call Monitor.step() after every training step, or use calls="last".'
            )
        if self.switch("missing", missing):
            messages.append(
                f"Layer {layer!r} showed no rows at step {step}: it was not called between two calls of "
                "Monitor.step(), a validation aside, or the mask kept none. Nothing is recorded of it."
            )
        return list(map(MonitorWarning, messages))

    def judge(self, m: Measured, layer: str, step: int, *, judged: bool) -> list[Event]:
        """New events; features that are not finite are one at any step, a collapse only if it is judged."""
        finite, zero = m.problem in ("", "zero"), m.problem == "zero"
        # Rows that have no rank without centring are zero themselves, however few; a single one is constant anyway.
        few = m.rows < max(2, self.SHORT * self.most_rows) and not math.isnan(m.ranks[0])
        where = f"Layer {layer!r}, step {step}:"
        record = {"step": step, "layer": layer, "value": m.rank}
        events = []
        if self.switch("nonfinite", not finite):
            warning = NonFiniteWarning(f"{where} {m.problem}. Its quantities are recorded as NaN.")
            events.append(Event({**record, "reason": "nonfinite", "threshold": math.nan}, warning))
        if not finite or not judged or few:
            return events
        found = [] if zero else self._fallen(m)
        if self.switch("zero", zero):
            found.append(("zero", math.nan, "all features are zero or, after centring, constant"))
        for reason, threshold, what in found:
            collapse = CollapseWarning(
                f"{where} collapsed, {what}.",
                layer=layer,
                step=step,
                reason=reason,
                value=m.rank,
                threshold=threshold,
            )
            events.append(Event({**record, "reason": reason, "threshold": threshold}, collapse))
        return events

    def _fallen(self, m: Measured) -> list[tuple[str, float, str]]:
        """The thresholds that an effective rank has newly passed, in words too."""
        value = m.rank
        self.most_rows, self.peak = max(self.most_rows, m.rows), max(self.peak, value)
        found = self._lost(m) if self.default else []
        below, fall, rank = self.below, self.fall, f"effective rank {value:.4g}"
        if below is not None and self.switch("below", value < below, value >= self.RECOVERY * below):
            found.append(("below", below, f"{rank} is below {below:.4g}"))
        if fall is not None:
            threshold = (1 - fall) * self.peak
            if self.switch("fall", value < threshold, value >= (threshold + self.peak) / 2):
                found.append(
                    ("fall", threshold, f"{rank} has fallen from {self.peak:.4g} to below {threshold:.4g}")
                )
        return found

    def _lost(self, m: Measured) -> list[tuple[str, float, str]]:
        """The default rule: far below what the layer had, and hardly more than a point or a line, for some time."""
        limits = (self.ONE_POINT, max(self.ONE_POINT, self.FEW * min(m.rows - 1, m.width)))
        self.peaks = [
            max(old, new) if new == new else old for old, new in zip(self.peaks, m.ranks, strict=True)
        ]
        passed = [
            (value, limit, peak)
            for value, limit, peak, left in zip(m.ranks, limits, self.peaks, self.LEFT, strict=True)
            if value < limit and value - 1 < left * (peak - 1)
        ]
        if not passed:
            self.lost, self.lowest = 0, math.inf
        else:
            left = max(passed[0][0] - 1, 5e-3)  # below that, a rise is noise
            self.lowest = min(left, self.lowest)
            self.lost = 0 if left > self.RISING * self.lowest else self.lost + 1
        if not self.switch("collapse", self.lost >= self.PATIENCE, not passed):
            return []
        value, limit, peak = passed[0]
        kind = "effective rank" if value is m.ranks[0] else "centred effective rank"
        text = f"{kind} {value:.4g} after {peak:.4g}, for {self.PATIENCE} observations in a row"
        return [("collapse", limit, text)]

    def switch(self, reason: str, bad: bool, good: bool = True) -> bool:
        """Whether the event is new; where it is neither bad nor good nothing changes."""
        new = bad and reason not in self.on
        if bad:
            self.on.add(reason)
        elif good:
            self.on.discard(reason)
        return new

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self._STATE} | {"on": sorted(self.on)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse."""
        vars(self).update({name: state[name] for name in self._STATE}, on=set(state["on"]))
