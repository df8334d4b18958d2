"""Kernel matrices, bandwidth rules, features that approximate kernels, and the correlation matrix of features.

References:
    Schölkopf and Smola (2002), Learning with kernels.
"""

from matinfo.kernels.bandwidth import median_bandwidth, scott_bandwidth, silverman_bandwidth
from matinfo.kernels.feature_maps import nystrom, random_features
from matinfo.kernels.functions import correlation, cosine, laplacian, linear, polynomial, rbf

__all__ = [
    "correlation",
    "cosine",
    "laplacian",
    "linear",
    "median_bandwidth",
    "nystrom",
    "polynomial",
    "random_features",
    "rbf",
    "scott_bandwidth",
    "silverman_bandwidth",
]
