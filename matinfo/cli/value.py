"""One number of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """A number with its unit and the call that gives it, or the reason why there is none."""

    name: str
    value: float | None
    unit: str
    call: str
    alpha: float | None = None
    reason: str = ""

    @property
    def title(self) -> str:
        """What it is, for a reader."""
        words = _TITLES.get(self.name, self.name.replace("_", " "))
        if self.name == "matrix_kl":
            words = words.format(*("12" if "1" in self.call.split(",")[0] else "21"))
        return words if self.alpha is None else f"{words}, order {order_name(self.alpha)}"


_TITLES = {
    "renyi_entropy": "entropy",
    "rankme": "RankMe",
    "tcr": "total coding rate",
    "matrix_tcr": "total coding rate",
    "matrix_kl": "KL divergence, {} from {}",
    "matrix_js": "JS divergence",
    "spectrum_js": "JS divergence of the spectra",
}


def order_name(alpha: float) -> str:
    """An order as Python and as a reader writes it."""
    return "inf" if alpha == math.inf else f"{alpha:g}"
