"""Entropies of matrices too large to factor, or even to form, with error bars."""

from matinfo.estimate.entropy import estimate_entropy
from matinfo.estimate.gradient import DifferentiableEstimate, stochastic_entropy
from matinfo.estimate.result import Estimate
from matinfo.spectral.operators import KernelOperator

__all__ = ["DifferentiableEstimate", "Estimate", "KernelOperator", "estimate_entropy", "stochastic_entropy"]
