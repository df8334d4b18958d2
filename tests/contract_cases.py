"""The public functions and how to call them: the table behind test_contract.py and test_contract_errors.py."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import matrices
import numpy as np
import pytest
import torch

import matinfo
from matinfo import kernels, losses


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
    """`function` of two equal views of the student, fixed outputs of the teacher, and a fixed centre."""

    def call(scores):
        if not isinstance(scores, np.ndarray | torch.Tensor) or scores.ndim < 2:
            return function(scores, scores, scores)
        views = scores[None][[0, 0]]
        teachers = fixed(scores, views.shape)
        return function(views, teachers, fixed(scores, scores.shape[-1:]))

    return call


def with_teacher_views(function):
    """`function` of two views, the argument and that with its columns in reverse, and a fixed view of the teacher."""

    def call(features):
        if not isinstance(features, np.ndarray | torch.Tensor) or features.ndim < 2:
            return function(features, features)
        return with_flipped(lambda views: function(views, fixed(features, views.shape)[..., :1, :, :]))(
            features
        )

    return call


def with_covariances(function):
    """`function` of two views and of two fixed covariance matrices."""

    def call(first, second):
        if not all(isinstance(x, np.ndarray | torch.Tensor) and x.ndim > 1 for x in (first, second)):
            return function(first, second, None, None)
        width, like = first.shape[-1], first.real
        one = 2 * np.eye(width)
        one = (
            torch.as_tensor(one, dtype=like.dtype, device=like.device)
            if isinstance(first, torch.Tensor)
            else one
        )
        return function(first, second, one, one)

    return call


def both_forms(features):
    """SIGReg in its limit, and over the same eight slices at every call."""
    generator = torch.Generator().manual_seed(0)
    sliced = losses.sigreg_loss(features, slices=8, generator=generator)
    return sliced + losses.sigreg_loss(features, form="limit")


def with_assignments(function):
    """`function` with fixed assignments 0, 1, ..., K - 1, 0, ... in the framework of its argument."""

    def call(scores):
        samples, width = np.shape(scores)[-2:] if np.ndim(scores) > 1 else (4, 3)
        assignments = np.broadcast_to(np.arange(samples) % max(width, 1), np.shape(scores)[:-1] or (samples,))
        if isinstance(scores, torch.Tensor):
            return function(scores, torch.tensor(assignments, device=scores.device))
        return function(scores, assignments)

    return call


def with_mask(function):
    """`function` of a prediction and a target of patches `(1, L, P)`, every other patch of which is hidden."""

    def call(pred, target):
        if not all(isinstance(x, np.ndarray | torch.Tensor) for x in (pred, target)):
            return function(pred, target, None)
        hidden = fixed(pred.real, (1, *pred.shape[:-1])) > 0
        return function(pred[None], target[None], hidden)

    return call


def fixed(like, shape):
    """Numbers between -1 and 1 that depend on nothing but the shape, and are the same in every precision."""
    numbers = np.round(64 * np.sin(1.0 + np.arange(math.prod(shape))).reshape(shape)) / 64
    return (
        torch.as_tensor(numbers, dtype=like.dtype, device=like.device)
        if isinstance(like, torch.Tensor)
        else numbers
    )


def of_softmax(function):
    """`function` of the softmax of each argument's rows."""

    def softmax(x):
        if isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim:
            return (x.double() if x.dtype == torch.float64 else x.float()).softmax(-1)
        if isinstance(x, np.ndarray) and x.dtype.kind == "f":
            return np.exp(x, dtype=np.float64) / np.exp(x, dtype=np.float64).sum(-1, keepdims=True)
        return x

    return lambda *arguments: function(*map(softmax, arguments))


def with_flipped(function):
    """`function` of two views: the argument, and the same with its columns in reverse order."""

    def call(features):
        if not isinstance(features, np.ndarray | torch.Tensor) or features.ndim < 2:
            return function(features)
        if isinstance(features, np.ndarray):
            return function(np.stack([features, features[..., ::-1]], -3))
        return function(torch.stack([features, features.flip(-1)], -3))

    return call


def seeded(function):
    """DiME, or its loss, with the same permutations at every call."""

    def call(K1, K2):
        return function(K1, K2, permutations=3, generator=torch.Generator().manual_seed(0))

    return call


MATRIX_CASES = {
    "renyi_entropy": Case(matinfo.renyi_entropy),
    "renyi_entropy_half": Case(lambda K: matinfo.renyi_entropy(K, 0.5)),
    "renyi_entropy_one_and_a_half": Case(lambda K: matinfo.renyi_entropy(K, 1.5)),
    "renyi_entropy_two": Case(lambda K: matinfo.renyi_entropy(K, 2)),
    "renyi_entropy_three": Case(lambda K: matinfo.renyi_entropy(K, 3)),
    "renyi_entropy_zero": Case(lambda K: matinfo.renyi_entropy(K, 0), differentiable=False),
    "renyi_entropy_two_by_eigh": Case(lambda K: matinfo.renyi_entropy(K, 2, method="eigh")),
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
    "dime": Case(seeded(matinfo.dime), 2, hadamard=True),
    "hsic": Case(matinfo.hsic, 2, normalised=False, hadamard=True),
    "cka": Case(matinfo.cka, 2, hadamard=True),
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
    "matrix_tcr_by_eigh": Case(lambda K: matinfo.matrix_tcr(K, method="eigh"), normalised=False),
}
FEATURE_CASES = {
    "rankme": Case(matinfo.rankme),
    "tcr": Case(matinfo.tcr, normalised=False),
    "coding_rate": Case(matinfo.coding_rate, normalised=False),
    "rate_reduction": Case(with_labels(matinfo.rate_reduction), normalised=False),
    "mmae_tcr_loss": Case(losses.mmae_tcr_loss),
    "umae_uniformity_loss": Case(losses.umae_uniformity_loss),
    "vne_loss": Case(losses.vne_loss),
}
# Functions from features to matrices (or patches): checked here for dtype policy, in their own files for the rest.
ARRAY_CASES = {
    "correlation": Case(matinfo.correlation),
    "linear": Case(kernels.linear, normalised=False),
    "cosine": Case(kernels.cosine),
    "rbf": Case(kernels.rbf),
    "laplacian": Case(kernels.laplacian),
    "polynomial": Case(kernels.polynomial, normalised=False),
    "median_bandwidth": Case(kernels.median_bandwidth, normalised=False, differentiable=False),
    "scott_bandwidth": Case(kernels.scott_bandwidth, normalised=False, differentiable=False),
    "silverman_bandwidth": Case(kernels.silverman_bandwidth, normalised=False, differentiable=False),
    "patch_normalize": Case(losses.patch_normalize, normalised=False),
    "gram_volume": Case(with_flipped(losses.gram_volume)),
}
# Losses between views: likewise. Detached arguments are given their own view, so that every gradient exists.
# (Losses of matrices, dime_loss and the bottlenecks, are in files of their own.)
VIEW_CASES = {
    "barlow_twins_loss": Case(losses.barlow_twins_loss, 2),
    "vicreg_loss": Case(losses.vicreg_loss, 2, normalised=False),
    "infonce_loss": Case(losses.infonce_loss, 2),
    "ntxent_loss": Case(losses.ntxent_loss, 2),
    "spectral_contrastive_loss": Case(losses.spectral_contrastive_loss, 2),
    "byol_loss": Case(lambda a, b: losses.byol_loss(a, b, a, b), 2),
    "simsiam_loss": Case(lambda a, b: losses.simsiam_loss(a, b, a, b), 2),
    "dino_loss": Case(with_teachers(losses.dino_loss), normalised=False),
    "sinkhorn": Case(
        lambda scores: losses.sinkhorn(scores, epsilon=1.0), normalised=False, differentiable=False
    ),
    "swav_loss": Case(losses.swav_loss, 2, normalised=False),
    "deepcluster_loss": Case(with_assignments(losses.deepcluster_loss), normalised=False),
    "mcr2_loss": Case(with_labels(losses.mcr2_loss)),
    "emp_ssl_loss": Case(with_flipped(losses.emp_ssl_loss)),
    "mec_loss": Case(lambda a, b: losses.mec_loss(a, b) + losses.mec_loss(b, a), 2),
    "matrix_ssl_loss": Case(lambda a, b: losses.matrix_ssl_loss(a, b) + losses.matrix_ssl_loss(b, a), 2),
    "sphere_entropy": Case(losses.sphere_entropy),
    "sphere_reconstruction": Case(losses.sphere_reconstruction, 2),
    "er_loss": Case(losses.er_loss, 2),
    "sigreg_loss": Case(both_forms, normalised=False),
    "bhep_loss": Case(lambda Z: losses.bhep_loss(Z, beta=0.5), normalised=False),
    "simdino_loss": Case(with_teacher_views(losses.simdino_loss)),
    "mmcr_loss": Case(with_flipped(losses.mmcr_loss)),
    "corinfomax_loss": Case(with_covariances(losses.corinfomax_loss), 2, normalised=False),
    "wmse_loss": Case(lambda a, b: losses.wmse_loss(a, b, shrinkage=0.1), 2, normalised=False),
    "gram_loss": Case(
        lambda a, b: losses.gram_loss(a, b[None] if hasattr(b, "ndim") else b, temperature=1.0), 2
    ),
    "discrete_er_loss": Case(of_softmax(losses.discrete_er_loss), 2, normalised=False),
    "mask_infonce_loss": Case(with_flipped(losses.mask_infonce_loss)),
    "masked_reconstruction_loss": Case(with_mask(losses.masked_reconstruction_loss), 2, normalised=False),
    "gaussian_nll": Case(losses.gaussian_nll, 3, normalised=False),
    "club_loss": Case(
        lambda a, b, c: losses.club_loss(a, b, c) + losses.club_loss(b, c, a) + losses.club_loss(c, a, b),
        3,
        normalised=False,
    ),
}
SCALAR_CASES = MATRIX_CASES | FEATURE_CASES
ALL_CASES = SCALAR_CASES | ARRAY_CASES | VIEW_CASES

NOT_LOSSES = ("sinkhorn", "patch_normalize", "gram_volume")
LOSSES = [name for name in ALL_CASES if name in matinfo.losses.__all__ and name not in NOT_LOSSES]


def each(names):
    """A test of every one of these functions, by name."""
    return pytest.mark.parametrize("name", list(names))


all_functions, scalar_functions, matrix_functions = each(ALL_CASES), each(SCALAR_CASES), each(MATRIX_CASES)
loss_functions = each(LOSSES)
batched_functions = each(name for name in SCALAR_CASES if name not in LOSSES)  # losses take one batch
functions_of_several = each(name for name, case in MATRIX_CASES.items() if case.arguments > 1)
differentiable_functions = each(name for name, case in ALL_CASES.items() if case.differentiable)


def public_name(case):
    """The name of the function behind a case: `renyi_entropy_half` is `renyi_entropy`."""
    return re.sub(r"(_half|_one_and_a_half|_two|_three|_zero|_infinity)?(_by_eigh)?$", "", case)


def inputs(name, n=6, seed=0):
    """Generic float64 inputs: full-rank correlation matrices with a scale, or features."""
    count = ALL_CASES[name].arguments
    if name in MATRIX_CASES:
        return [(1.5 + i) * matrices.random_correlation(n, 10 * seed + i) for i in range(count)]
    return [matrices.features(n, 4, 10 * seed + i) for i in range(count)]


def tensors(name, dtype=torch.float64, device="cpu", **kwargs):
    return [torch.as_tensor(x, dtype=dtype, device=device) for x in inputs(name, **kwargs)]


def batch(name, shape=(2, 3)):
    """A batch of inputs, and the list of its elements."""
    elements = [inputs(name, seed=seed) for seed in range(math.prod(shape))]
    stacked = [np.stack(column).reshape(*shape, *column[0].shape) for column in zip(*elements, strict=True)]
    return [torch.as_tensor(x) for x in stacked], elements
