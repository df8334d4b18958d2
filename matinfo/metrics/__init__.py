"""Metrics for torchmetrics: quantities of all features of an epoch, in constant memory, exact over any number of ranks.

The states are moments and counts of rows in float64, which are put together exactly when ``forward``, merging or ranks
do. Metrics of a ``MetricCollection`` that need the same ones share them: one update serves all.
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
