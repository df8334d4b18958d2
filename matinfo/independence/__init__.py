"""Tests of independence: how large an information is beside what permuted samples give."""

from matinfo.independence.core import IndependenceTest, conditional_independence_test, independence_test

__all__ = ["IndependenceTest", "conditional_independence_test", "independence_test"]
