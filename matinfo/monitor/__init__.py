"""The training-time monitor: quantities and spectra of any layers every k steps, and a warning when one collapses.

A plain object with hooks; :class:`LightningMonitor` is the same as a callback, imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from matinfo.monitor.collapse import CollapseWarning, MonitorWarning, NonFiniteWarning
from matinfo.monitor.core import Monitor
from matinfo.monitor.measurement import Spectra
from matinfo.monitor.writers import CSVWriter, MLflowWriter, TensorBoardWriter, WandbWriter

if TYPE_CHECKING:
    from matinfo.monitor.lightning import LightningMonitor

__all__ = [
    "CSVWriter",
    "CollapseWarning",
    "LightningMonitor",
    "MLflowWriter",
    "Monitor",
    "MonitorWarning",
    "NonFiniteWarning",
    "Spectra",
    "TensorBoardWriter",
    "WandbWriter",
]


def __getattr__(name: str) -> Any:
    if name == "LightningMonitor":
        from matinfo.monitor.lightning import LightningMonitor

        return LightningMonitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
