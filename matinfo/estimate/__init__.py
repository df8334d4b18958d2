"""Entropies, traces and log-determinants of matrices too large to factor, or even to form, with error bars."""

from matinfo.estimate.entropy import estimate_entropy, tail_corrected_entropy
from matinfo.estimate.gradient import DifferentiableEstimate, stochastic_entropy
from matinfo.estimate.information import estimate_information
from matinfo.estimate.result import Estimate
from matinfo.estimate.traces import estimate_tcr, estimate_trace_power
from matinfo.operands.kernel_operator import KernelOperator

__all__ = [
    "DifferentiableEstimate",
    "Estimate",
    "KernelOperator",
    "estimate_entropy",
    "estimate_information",
    "estimate_tcr",
    "estimate_trace_power",
    "stochastic_entropy",
    "tail_corrected_entropy",
]
