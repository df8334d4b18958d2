"""Metrics for torchmetrics: quantities of all features of an epoch, in constant memory, exact over any number of ranks.

The states are sums over rows (second moments and counts, float64), so that merging, synchronising and ``forward`` are
additions. Metrics of a ``MetricCollection`` that need the same sums share them: one update serves all.
"""

from matinfo.metrics.features import (
    EffectiveRank,
    MatrixEntropy,
    RankMe,
    SpectralMeasure,
    TotalCodingRate,
    VendiScore,
)
from matinfo.metrics.pairs import JointEntropy, MatrixJensenShannon, MatrixMutualInformation

__all__ = [
    "EffectiveRank",
    "JointEntropy",
    "MatrixEntropy",
    "MatrixJensenShannon",
    "MatrixMutualInformation",
    "RankMe",
    "SpectralMeasure",
    "TotalCodingRate",
    "VendiScore",
]
