"""Entropy, effective rank, shared information and other quantities of the layers of a model, in one pass."""

from matinfo.layers.core import layerwise
from matinfo.layers.report import LayerReport

__all__ = ["LayerReport", "layerwise"]
