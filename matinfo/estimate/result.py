"""An estimate with its errors."""

from __future__ import annotations

from dataclasses import dataclass

from matinfo.spectral.stochastic import half_width

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """An estimated quantity with its error.

    Attributes:
        value: The estimate, in nats.
        standard_error: Standard error of the mean over the probes, with three degrees of freedom fewer than probes.
        bias_bound: Bound on the error that more probes would not remove: the truncated quadrature and round-off.
        probes: Number of random vectors, 0 where the value is exact.
        degree: Number of Lanczos steps for each, 0 where the value is exact.
        converged: Whether ``rtol`` was reached; True if none was asked for.
    """

    value: float
    standard_error: float
    bias_bound: float
    probes: int
    degree: int
    converged: bool = True

    def error(self, confidence: float = _CONFIDENCE) -> float:
        """Half the width of the confidence interval: Student's quantile times the standard error, plus the bias."""
        if not 0 < confidence < 1:
            raise ValueError(f"Expected confidence in (0, 1), got {confidence}.")
        return half_width(self.standard_error, self.bias_bound, self.probes, confidence)

    def interval(self, confidence: float = _CONFIDENCE) -> tuple[float, float]:
        """The confidence interval, ``value`` plus and minus :meth:`error`."""
        error = self.error(confidence)
        return self.value - error, self.value + error
