"""An estimate with its errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

from matinfo._validation import check_in
from matinfo.spectral.hutchpp import degrees_of_freedom

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """An estimated quantity with its error.

    Attributes:
        value: The estimate, in nats.
        standard_error: Standard error of the mean over the probes, with ``(probes - 3)/2`` degrees of freedom.
        bias_bound: Bound on the error that more probes would not remove: the truncated quadrature and round-off.
        probes: Number of random vectors, 0 where the value is exact.
        degree: Number of Lanczos steps for each, 0 where the value is exact.
        converged: Whether the tolerance was reached; True if none was asked for.
    """

    value: float
    standard_error: float
    bias_bound: float
    probes: int
    degree: int
    converged: bool = True

    def error(self, confidence: float = _CONFIDENCE) -> float:
        """Half the width of the confidence interval: Student's quantile times the standard error, plus the bias."""
        check_in(confidence, "confidence", "(0, 1)")
        if not self.probes:
            return self.bias_bound
        from scipy.special import stdtrit  # a good part of the time that importing matinfo would take

        quantile = float(stdtrit(degrees_of_freedom(self.probes), (1 + confidence) / 2))
        return quantile * self.standard_error + self.bias_bound

    def interval(self, confidence: float = _CONFIDENCE) -> tuple[float, float]:
        """The confidence interval, ``value`` plus and minus :meth:`error`."""
        error = self.error(confidence)
        return self.value - error, self.value + error

    def judged(self, asked: str, size: float, goal: Callable[[float], float] | None) -> Estimate:
        """The same, or with a warning and ``converged=False`` where the error is above the goal.

        ``asked`` is the tolerance in words, such as ``rtol=0.01``, and ``size`` what it is relative to, 1 if absolute.
        """
        if goal is None or self.error() <= goal(self.value):
            return self
        warnings.warn(
            f"Expected {asked}, reached {self.error() / size:.2g} with {self.probes} probes of degree {self.degree} "
            f"(standard error {self.standard_error:.2g}, bias bound {self.bias_bound:.2g}). Allow more probes or a "
            "higher degree, or give K in float64.",
            RuntimeWarning,
            stacklevel=4,  # of who called the estimate, whose keywords a wrapper has looked at
        )
        return replace(self, converged=False)
