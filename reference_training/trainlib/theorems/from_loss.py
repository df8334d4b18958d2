"""From the value of a loss to what it guarantees: exactly as printed, and by the sharper bounds of ``matinfo``."""

from __future__ import annotations

import functools
from math import log, log1p
from typing import Any

import numpy as np

from matinfo import bounds

Bounds = dict[str, dict[str, Any]]  # key of a statement -> form -> bound, a number or an array as the loss is


def bounds_from_loss(loss: Any, n: int, operand: str, lambda_: float, mu: float) -> Bounds:
    """All bounds of forms ``printed`` and ``sharp``: ``rows`` by the spectral contrastive loss, else by Barlow Twins'.

    The printed ones may fall below anything possible, such as a negative entropy: they are left so.
    """
    if operand == "rows":
        bracket = (2 + 2 / (lambda_ * n)) * loss  # Theorems 4.3.1 and 4.13.1
        inner = (2 / lambda_ + 2 * (n - 1)) * loss  # of their proof, in Theorem 4.17
        sharp = bounds.spectral_contrastive_overlap_bound(loss, n, lambda_=lambda_)
    else:
        bracket = 2 * loss / (n * lambda_) + 4 * np.sqrt(n * loss)  # Theorems 4.3.2 and 4.13.2
        inner = 2 * loss / lambda_ + 4 * (n - 1) * np.sqrt(n * loss)  # Theorem 4.17
        sharp = bounds.barlow_twins_overlap_bound(loss, n, lambda_=lambda_)
    found = bounds_from_overlaps({"sharp": sharp}, n, mu)
    information, entropy = log(n) - 2 * np.log1p(bracket), log(n) - np.log1p(bracket)
    printed = {"I_1": information, "I_2": information, "H_1": entropy, "H_2": entropy}
    printed |= {"T": n * log1p(mu) - inner / (2 * mu**2), "overlap": n * bracket}
    return {key: {"printed": value} | found[key] for key, value in printed.items()}


def bounds_from_overlaps(overlaps: dict[str, Any], n: int, mu: float) -> Bounds:
    """What ``matinfo.bounds`` makes of upper bounds of the overlap, by form; ``overlap`` is the overlap itself."""
    found: Bounds = {}
    for alpha in (1, 2):
        found[f"I_{alpha}"] = {
            form: bounds.information_lower_bound(S, n, alpha=alpha) for form, S in overlaps.items()
        }
        found[f"H_{alpha}"] = {
            form: bounds.joint_entropy_lower_bound(S, n, alpha=alpha) for form, S in overlaps.items()
        }
    found["T"] = {form: bounds.coding_rate_lower_bound(S, n, mu=mu) for form, S in overlaps.items()}
    found["overlap"] = {form: S for form, S in overlaps.items() if form != "overlap"}
    return found


def trivial(n: int, mu: float) -> dict[str, float]:
    """What holds without any loss: a bound that is no better says nothing.

    Information of order 2 may be negative; 0 is the value of branches that share nothing.
    """
    collapsed = log(n + mu) + (n - 1) * log(mu)
    return {"I_1": 0.0, "I_2": 0.0, "H_1": 0.0, "H_2": 0.0, "T": collapsed, "overlap": float(n * (n - 1))}


@functools.cache
def informative_below(n: int, operand: str, lambda_: float, mu: float) -> Bounds:
    """The loss, to 0.3 %, below which each bound says more than ``trivial``, by statement and form."""
    losses, known = np.logspace(-12, 12, 20_001), trivial(n, mu)
    found: Bounds = {}
    for key, forms in bounds_from_loss(losses, n, operand, lambda_, mu).items():
        sign = -1.0 if key == "overlap" else 1.0
        found[key] = {
            form: float(losses[max(0, int((sign * (bound - known[key]) > 1e-9).sum()) - 1)])
            for form, bound in forms.items()
        }
    return found
