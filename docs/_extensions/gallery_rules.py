"""How the gallery is run and in which order it is shown."""

from typing import Any

import numpy as np
import torch

ORDER = (
    "plot_spectrum.py",
    "plot_effective_rank_training.py",
    "plot_monitor.py",
    "plot_layers.py",
    "plot_information_plane.py",
    "plot_diversity.py",
    "plot_independence.py",
    "plot_power.py",
    "plot_estimate.py",
    "plot_barlow_bound.py",
    "plot_subadditivity.py",
)
"""From what is met first to what is met last; a script that is not named comes after these."""


class Order:
    """Sort key of a script's file name."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, name: str) -> tuple[int, str]:
        return (ORDER.index(name) if name in ORDER else len(ORDER), name)

    def __repr__(self) -> str:
        return "Order"  # part of the configuration that Sphinx compares between builds


def start_afresh(gallery_conf: dict[str, Any], name: str) -> None:
    """Seeds, and one thread, before each script."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 -- scripts use generators of their own; libraries may not
    torch.set_num_threads(1)
