"""Symmetric positive semi-definite matrices known by their products, and products and sums of them."""

from matinfo.operators.kernel import KernelOperator
from matinfo.operators.operator import as_operator, check_definite, checked_moments, smaller_side

__all__ = ["KernelOperator", "as_operator", "check_definite", "checked_moments", "smaller_side"]
