"""What a loss value, a feature matrix or a perturbation guarantees about matrix information, without the matrices.

Three steps, each a function: a loss bounds the *overlap* ``S = 1/2 sum_{i != j} (K1_ij^2 + K2_ij^2)`` of two
unit-diagonal matrices from above; an overlap bounds information, entropy and coding rate from below. Proofs are in the
theory section of the documentation.
"""

from matinfo.bounds.distance import entropy_continuity_bound, js_lower_bound, js_upper_bound, trace_distance
from matinfo.bounds.expansion import mmae_convergence_ratio, mmae_remainder, mmae_remainder_bound
from matinfo.bounds.overlap import (
    barlow_twins_overlap_bound,
    cross_overlap_bound,
    spectral_contrastive_overlap_bound,
)
from matinfo.bounds.quantities import (
    coding_rate_lower_bound,
    information_lower_bound,
    joint_entropy_lower_bound,
    product_coding_rate_lower_bound,
)

__all__ = [
    "barlow_twins_overlap_bound",
    "coding_rate_lower_bound",
    "cross_overlap_bound",
    "entropy_continuity_bound",
    "information_lower_bound",
    "joint_entropy_lower_bound",
    "js_lower_bound",
    "js_upper_bound",
    "mmae_convergence_ratio",
    "mmae_remainder",
    "mmae_remainder_bound",
    "product_coding_rate_lower_bound",
    "spectral_contrastive_overlap_bound",
    "trace_distance",
]
