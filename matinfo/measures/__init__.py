"""Measures of representations that need no labels, beside the entropies and ranks of the main namespace."""

from matinfo.measures import registry
from matinfo.measures.comparison import entropy_difference_ratio, representation_js, semantic_kernel
from matinfo.measures.decay import PowerLaw, alpha_req, power_law
from matinfo.measures.dimension import (
    cluster_learnability,
    local_participation_ratio,
    mle_dimension,
    two_nn,
)
from matinfo.measures.diversity import (
    Interval,
    class_vendi,
    conditional_vendi,
    fkea,
    ken,
    relative_rke,
    vendi_interval,
)
from matinfo.measures.geometry import (
    alignment,
    coherence,
    curvature,
    matrix_nuclear_norm,
    mean_cosine,
    uniformity,
)
from matinfo.measures.isotropy import isoscore, isoscore_star, nesum, self_clustering
from matinfo.measures.registry import Measure, measure
from matinfo.measures.spectra import (
    condition_number,
    lidar,
    normalized_entropy,
    nuclear_norm,
    numerical_rank,
    stable_rank,
    truncated_vendi,
)

MEASURES: dict[str, Measure] = registry.MEASURES
"""Every measure of one set of features, by name. Those of pairs, classes and augmentations take more than that."""

__all__ = [
    # by name
    "MEASURES",
    "Measure",
    "measure",
    # of one spectrum
    "alpha_req",
    "power_law",
    "PowerLaw",
    "stable_rank",
    "nesum",
    "numerical_rank",
    "condition_number",
    "normalized_entropy",
    "nuclear_norm",
    "isoscore",
    "isoscore_star",
    "self_clustering",
    "truncated_vendi",
    # of rows
    "uniformity",
    "alignment",
    "mean_cosine",
    "coherence",
    "curvature",
    "matrix_nuclear_norm",
    "lidar",
    # of neighbours
    "two_nn",
    "mle_dimension",
    "local_participation_ratio",
    "cluster_learnability",
    # of samples and their reference, condition or class
    "conditional_vendi",
    "class_vendi",
    "relative_rke",
    "ken",
    "fkea",
    "vendi_interval",
    "Interval",
    # of two models, two sets of samples, several answers
    "entropy_difference_ratio",
    "representation_js",
    "semantic_kernel",
]
