"""The public functions and how to call them: the table behind test_contract.py and test_contract_errors.py."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import matrices
import numpy as np
import torch

import matinfo
from matinfo.kernels import (
    cosine,
    laplacian,
    linear,
    median_bandwidth,
    polynomial,
    rbf,
    scott_bandwidth,
    silverman_bandwidth,
)
from matinfo.losses import (
    byol_loss,
    deepcluster_loss,
    dino_loss,
    emp_ssl_loss,
    er_loss,
    mask_infonce_loss,
    matrix_ssl_loss,
    mcr2_loss,
    mec_loss,
    mmae_tcr_loss,
    patch_normalize,
    simsiam_loss,
    sinkhorn,
    sphere_entropy,
    sphere_reconstruction,
    swav_loss,
    umae_uniformity_loss,
    vicreg_loss,
    vne_loss,
)


@dataclass(frozen=True)
class Case:
    """One public function: how many data arguments it takes and of which kind."""

    function: Callable
    arguments: int = 1
    normalised: bool = True  # does not depend on the scale of each argument
    differentiable: bool = True
    hadamard: bool = False  # multiplies matrices entrywise, so that the basis of the samples matters

    def __call__(self, *arguments):
        return self.function(*arguments)


def with_labels(function):
    """`function` with fixed labels 0, 1, 2, 0, 1, 2, ... in the framework of its argument."""

    def call(features):
        labels = np.arange(np.shape(features)[-2] if np.ndim(features) > 1 else 4) % 3
        return function(features, labels if isinstance(features, np.ndarray) else torch.as_tensor(labels))

    return call


def with_teachers(function):
    """`function` of two equal views of the student, the same two of the teacher, and a centre of zeros."""

    def call(scores):
        if not isinstance(scores, np.ndarray | torch.Tensor) or scores.ndim < 2:
            return function(scores, scores, scores)
        views = scores[None][[0, 0]]
        width = scores.shape[-1]
        numpy = isinstance(scores, np.ndarray)
        return function(views, views, np.zeros(width) if numpy else torch.zeros(width, dtype=scores.dtype))

    return call


def with_assignments(function):
    """`function` with fixed assignments 0, 1, ..., K - 1, 0, ... in the framework of its argument."""

    def call(scores):
        samples, width = np.shape(scores)[-2:] if np.ndim(scores) > 1 else (4, 3)
        assignments = np.broadcast_to(np.arange(samples) % max(width, 1), np.shape(scores)[:-1] or (samples,))
        return function(scores, assignments if isinstance(scores, np.ndarray) else torch.tensor(assignments))

    return call


def with_flipped(function):
    """`function` of two views: the argument, and the same with its columns in reverse order."""

    def call(features):
        if not isinstance(features, np.ndarray | torch.Tensor):
            return function(features)
        if isinstance(features, np.ndarray):
            return function(np.stack([features, features[..., ::-1]], -3))
        return function(torch.stack([features, features.flip(-1)], -3))

    return call


def seeded_dime(K1, K2):
    """DiME with the same permutations at every call."""
    return matinfo.dime(K1, K2, permutations=3, generator=torch.Generator().manual_seed(0))


MATRIX_CASES = {
    "renyi_entropy": Case(matinfo.renyi_entropy),
    "renyi_entropy_half": Case(lambda K: matinfo.renyi_entropy(K, 0.5)),
    "renyi_entropy_one_and_a_half": Case(lambda K: matinfo.renyi_entropy(K, 1.5)),
    "renyi_entropy_two": Case(lambda K: matinfo.renyi_entropy(K, 2)),
    "renyi_entropy_three": Case(lambda K: matinfo.renyi_entropy(K, 3)),
    "renyi_entropy_zero": Case(lambda K: matinfo.renyi_entropy(K, 0), differentiable=False),
    "renyi_entropy_infinity": Case(lambda K: matinfo.renyi_entropy(K, math.inf)),
    "von_neumann_entropy": Case(matinfo.von_neumann_entropy),
    "joint_entropy": Case(matinfo.joint_entropy, 2, hadamard=True),
    "conditional_entropy": Case(matinfo.conditional_entropy, 2, hadamard=True),
    "mutual_information": Case(matinfo.mutual_information, 2, hadamard=True),
    "conditional_mutual_information": Case(matinfo.conditional_mutual_information, 3, hadamard=True),
    "normalized_mutual_information": Case(matinfo.normalized_mutual_information, 2, hadamard=True),
    "sandwiched_mutual_information": Case(matinfo.sandwiched_mutual_information, 2, hadamard=True),
    "sandwiched_mutual_information_two": Case(
        lambda K, L: matinfo.sandwiched_mutual_information(K, L, 2.0), 2, hadamard=True
    ),
    "dime": Case(seeded_dime, 2, hadamard=True),
    "total_correlation": Case(matinfo.total_correlation, 3, hadamard=True),
    "dual_total_correlation": Case(matinfo.dual_total_correlation, 3, hadamard=True),
    "normalized_total_correlation": Case(matinfo.normalized_total_correlation, 3, hadamard=True),
    "normalized_dual_total_correlation": Case(matinfo.normalized_dual_total_correlation, 3, hadamard=True),
    "matrix_kl": Case(matinfo.matrix_kl, 2, normalised=False),
    "matrix_js": Case(matinfo.matrix_js, 2),
    "spectrum_js": Case(matinfo.spectrum_js, 2),
    "effective_rank": Case(matinfo.effective_rank),
    "participation_ratio": Case(matinfo.participation_ratio),
    "vendi_score": Case(matinfo.vendi_score),
    "matrix_tcr": Case(matinfo.matrix_tcr, normalised=False),
}
FEATURE_CASES = {
    "rankme": Case(matinfo.rankme),
    "tcr": Case(matinfo.tcr, normalised=False),
    "coding_rate": Case(matinfo.coding_rate, normalised=False),
    "rate_reduction": Case(with_labels(matinfo.rate_reduction), normalised=False),
    "mmae_tcr_loss": Case(mmae_tcr_loss),
    "umae_uniformity_loss": Case(umae_uniformity_loss),
    "vne_loss": Case(vne_loss),
}
# Functions from features to matrices (or patches): checked here for dtype policy, in their own files for the rest.
ARRAY_CASES = {
    "correlation": Case(matinfo.correlation),
    "linear": Case(linear, normalised=False),
    "cosine": Case(cosine),
    "rbf": Case(rbf),
    "laplacian": Case(laplacian),
    "polynomial": Case(polynomial, normalised=False),
    "median_bandwidth": Case(median_bandwidth, normalised=False, differentiable=False),
    "scott_bandwidth": Case(scott_bandwidth, normalised=False, differentiable=False),
    "silverman_bandwidth": Case(silverman_bandwidth, normalised=False, differentiable=False),
    "patch_normalize": Case(patch_normalize, normalised=False),
}
# Losses between views: likewise. Detached arguments are given their own view, so that every gradient exists.
VIEW_CASES = {
    "vicreg_loss": Case(vicreg_loss, 2, normalised=False),
    "byol_loss": Case(lambda a, b: byol_loss(a, b, a, b), 2),
    "simsiam_loss": Case(lambda a, b: simsiam_loss(a, b, a, b), 2),
    "dino_loss": Case(with_teachers(dino_loss), normalised=False),
    "sinkhorn": Case(lambda scores: sinkhorn(scores, epsilon=1.0), normalised=False, differentiable=False),
    "swav_loss": Case(swav_loss, 2, normalised=False),
    "deepcluster_loss": Case(with_assignments(deepcluster_loss), normalised=False),
    "mcr2_loss": Case(with_labels(mcr2_loss)),
    "emp_ssl_loss": Case(with_flipped(emp_ssl_loss)),
    "mec_loss": Case(lambda a, b: mec_loss(a, b) + mec_loss(b, a), 2),
    "matrix_ssl_loss": Case(lambda a, b: matrix_ssl_loss(a, b) + matrix_ssl_loss(b, a), 2),
    "sphere_entropy": Case(sphere_entropy),
    "sphere_reconstruction": Case(sphere_reconstruction, 2),
    "er_loss": Case(er_loss, 2),
    "mask_infonce_loss": Case(with_flipped(mask_infonce_loss)),
}
SCALAR_CASES = MATRIX_CASES | FEATURE_CASES
ALL_CASES = SCALAR_CASES | ARRAY_CASES | VIEW_CASES


def public_name(case):
    """The name of the function behind a case: `renyi_entropy_half` is `renyi_entropy`."""
    return re.sub(r"_(half|one_and_a_half|two|three|zero|infinity)$", "", case)


def inputs(name, n=6, seed=0):
    """Generic float64 inputs: full-rank correlation matrices with a scale, or features."""
    count = ALL_CASES[name].arguments
    if name in MATRIX_CASES:
        return [(1.5 + i) * matrices.random_correlation(n, 10 * seed + i) for i in range(count)]
    return [matrices.features(n, 4, 10 * seed + i) for i in range(count)]


def tensors(name, dtype=torch.float64, **kwargs):
    return [torch.as_tensor(x, dtype=dtype) for x in inputs(name, **kwargs)]


def batch(name, shape=(2, 3)):
    """A batch of inputs, and the list of its elements."""
    elements = [inputs(name, seed=seed) for seed in range(math.prod(shape))]
    stacked = [np.stack(column).reshape(*shape, *column[0].shape) for column in zip(*elements, strict=True)]
    return [torch.as_tensor(x) for x in stacked], elements
