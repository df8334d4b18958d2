"""The progress display: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

PLAIN_SECONDS = 15.0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class ProgressDisplay:
    """Shows step, loss, further numbers, images per second and time left."""

    def __init__(self, label: str, total_steps: int, done_steps: int = 0, *, quiet: bool = False) -> None:
        self.label, self.total, self.first = label, total_steps, done_steps
        self.started = self.last_line = time.monotonic()
        self._bar, self._quiet = None, quiet
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total_steps, initial=done_steps, desc=label, unit="step", dynamic_ncols=True, file=sys.stderr,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
            )  # fmt: skip

    def update(self, step: int, *, loss: float, images_per_second: float, **numbers: float) -> None:
        """Show the state after ``step`` steps, with any further named numbers."""
        if self._quiet:
            return
        shown = [f"{name.replace('_', ' ')} {value:.2f}" for name, value in numbers.items()]
        text = ", ".join([f"loss {loss:.4f}", *shown, f"{images_per_second:,.0f} images/s"])
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self.last_line >= PLAIN_SECONDS or step == self.total:
            self.last_line = now
            left = (now - self.started) / max(1, step - self.first) * (self.total - step)
            print(
                f"{self.label} step {step}/{self.total}: {text}, {_clock(left)} left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Leave the display as it is."""
        if self._bar is not None:
            self._bar.close()
