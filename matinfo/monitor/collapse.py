"""When a layer counts as collapsed, and how that is said: once for each event."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

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
        reason: ``"below"``, ``"fall"`` or ``"zero"``, as in :class:`Monitor`.
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

    RECOVERY = 1.25
    SHORT = 0.5
    """A batch with fewer rows than this share of the largest one is not judged: rows bound the rank."""

    def __init__(self, below: float | None, fall: float | None) -> None:
        self.below, self.fall = below, fall
        self.peak = 0.0
        self.most_rows = 0
        self.on: set[str] = set()

    def judge(self, m: Measured, layer: str, step: int, *, judged: bool) -> list[Event]:
        """New events; features that are not finite are one at any step, a collapse only if it is judged."""
        finite, zero = m.problem in ("", "zero"), m.problem == "zero"
        where = f"Layer {layer!r}, step {step}:"
        record = {"step": step, "layer": layer, "value": m.rank}
        events = []
        if self.switch("nonfinite", not finite, finite):
            warning = NonFiniteWarning(f"{where} {m.problem}. Its quantities are recorded as NaN.")
            events.append(Event({**record, "reason": "nonfinite", "threshold": math.nan}, warning))
        if not finite or not judged:
            return events
        found = [] if zero else self._fallen(m.rank, m.rows)
        if self.switch("zero", zero, not zero):
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

    def _fallen(self, value: float, rows: int) -> list[tuple[str, float, str]]:
        """The thresholds that an effective rank has newly passed, in words too."""
        if rows < 2 or rows < self.SHORT * self.most_rows:
            return []
        self.most_rows, self.peak = max(self.most_rows, rows), max(self.peak, value)
        found = []
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

    def switch(self, reason: str, bad: bool, good: bool) -> bool:
        """Whether the event is new; between bad and good nothing changes."""
        new = bad and reason not in self.on
        if bad:
            self.on.add(reason)
        elif good:
            self.on.discard(reason)
        return new

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"peak": self.peak, "most_rows": self.most_rows, "on": sorted(self.on)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse."""
        self.peak, self.most_rows, self.on = state["peak"], state["most_rows"], set(state["on"])
