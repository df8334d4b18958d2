"""Second moments of features that arrive in batches, in constant memory, mergeable in any order.

The spectrum of the n x n Gram matrix of all rows is that of a d x d sum over rows, so that the rows need not be kept.
Sums are in float64, or of float32 products with their rounding carried along; centring is by the pairwise update of
Chan, Golub and LeVeque (1983), which loses no digits to a large mean.
"""

from matinfo.streaming.covariance import CovarianceAccumulator
from matinfo.streaming.joint import JointAccumulator
from matinfo.streaming.lidar import LidarAccumulator
from matinfo.streaming.loader import accumulate
from matinfo.streaming.pair import PairAccumulator

__all__ = ["CovarianceAccumulator", "JointAccumulator", "LidarAccumulator", "PairAccumulator", "accumulate"]
