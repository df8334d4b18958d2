"""The information that two branches share, from the correlation matrices of their features."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo import correlation, joint_entropy, matrix_js, mutual_information, spectrum_js
from matinfo.losses import sphere_entropy, sphere_reconstruction


@torch.no_grad()
def correlations(features1: Tensor, features2: Tensor) -> tuple[Tensor, Tensor]:
    """The column-normalised correlation matrices, on which everything here but the bound is measured."""
    return correlation(features1), correlation(features2)


@torch.no_grad()
def shared_information(K1: Tensor, K2: Tensor) -> dict[str, float]:
    """Mutual information and joint entropy (order 1, nats) of two correlation matrices."""
    return {
        "mutual_information": float(mutual_information(K1, K2)),
        "joint_entropy": float(joint_entropy(K1, K2)),
    }


@torch.no_grad()
def divergences(K1: Tensor, K2: Tensor) -> dict[str, float]:
    """Jensen-Shannon divergences of two correlation matrices: of the matrices, and of their sorted spectra."""
    return {"matrix_js": float(matrix_js(K1, K2)), "spectrum_js": float(spectrum_js(K1, K2))}


@torch.no_grad()
def reconstruction_bound(features1: Tensor, features2: Tensor) -> dict[str, float]:
    """The two parts of the entropy-reconstruction bound on the sphere at kappa = 10: entropy minus reconstruction."""
    return {
        "sphere_entropy": float(sphere_entropy(features2)),
        "sphere_reconstruction": float(sphere_reconstruction(features1, features2)),
    }
