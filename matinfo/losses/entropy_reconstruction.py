"""Losses of the entropy-reconstruction (ER) bound on mutual information: on the sphere, and for cluster assignments.

``I(Z1; Z2) >= H(Z2) + E log q(Z2 | Z1)``; the loss is ``Rec - Ent`` with ``Rec = -E log q``.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import (
    check_choice,
    check_count,
    check_positive,
    check_probabilities,
)
from matinfo.losses._batch import aligned, unit_rows

_CONSTANTS = ("exact", "published")
_REDUCTIONS = ("average", "expectation")

_LARGEST_KAPPA = 1e10
"""At it the series for the Bessel functions takes 1.7 million terms."""

_PUBLISHED_OFFSET = 1e-7
"""What the released code adds to Bessel functions and to probabilities inside logarithms."""


def vmf_log_normalizer(dim: int, kappa: float) -> float:
    """Logarithm of the normalising constant of the von Mises-Fisher density.

    ``log C_d(kappa) = (d/2 - 1) log kappa - (d/2) log 2 pi - log I_{d/2-1}(kappa)``, the density being
    ``C_d(kappa) exp(kappa m . z)`` on the unit sphere of R^d with its surface measure.

    Args:
        dim: d >= 2, the dimension of the space around the sphere.
        kappa: Concentration, > 0 and at most 1e10.

    Returns:
        The number, a Python float in nats, correct to about 1e-13 of its size.

    Raises:
        ValueError: If ``dim < 2`` or kappa is not in (0, 1e10].
        TypeError: If ``dim`` is not an integer or kappa not a number.

    Notes:
        As ``-log |S^{d-1}| - log 0F1(; d/2; kappa^2/4)``: the powers of kappa and the under- and overflow of the Bessel
        function cancel in the formula, not in rounding, and the series has positive terms only. About
        ``12 sqrt(kappa)`` terms around the largest; remembered.

    References:
        Mardia and Jupp (2000), Directional statistics, Section 9.3.2; DLMF 10.39.9.

    Example:
        >>> from matinfo.losses import vmf_log_normalizer
        >>> round(vmf_log_normalizer(3, 2.0), 6)  # log(2 / (4 pi sinh 2))
        -3.126244
    """
    check_count(dim, "dim", 2, "the sphere of R^1 is two points")
    log_area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
    return -log_area - _log_hypergeometric(dim / 2, _check_kappa(kappa))


def _check_kappa(kappa: float) -> float:
    if check_positive(kappa, "kappa") > _LARGEST_KAPPA:
        raise ValueError(f"Expected kappa <= {_LARGEST_KAPPA:g}, got {kappa}: the series grows too long.")
    return float(kappa)


@functools.lru_cache(maxsize=256)
def _log_hypergeometric(b: float, kappa: float) -> float:
    """``log 0F1(; b; y) = log sum_k y^k / (k! (b)_k)``, ``y = kappa^2/4``."""
    log_y = 2 * (math.log(kappa) - math.log(2))
    # Terms grow while k (b - 1 + k) < y; around the largest they fall off no slower than a Poisson distribution's.
    shift = b - 1
    largest = 0.5 * kappa * (kappa / (shift + math.hypot(shift, kappa)))
    width = 12 * math.sqrt(largest) + 40
    first, last = max(0, math.floor(largest - width)), math.ceil(largest + width)
    start = first * log_y - math.lgamma(first + 1) - (math.lgamma(b + first) - math.lgamma(b))
    k = np.arange(first + 1, last + 1, dtype=np.float64)
    steps = log_y - np.log(k) - np.log(shift + k)
    terms = np.concatenate([[0.0], np.cumsum(steps)])
    top = float(terms.max())
    if first == 0 and top == 0.0:
        return math.log1p(float(np.exp(terms[1:]).sum()))
    return start + top + math.log(float(np.exp(terms - top).sum()))


def _log_constant(dim: int, kappa: float, constant: str) -> float:
    """``log C_d(kappa)``, exact or with the released code's ``log(I + 1e-7)`` in place of ``log I``."""
    check_choice(constant, "constant", _CONSTANTS)
    exact = vmf_log_normalizer(dim, kappa)
    if constant == "exact":
        return exact
    known = (dim / 2 - 1) * math.log(kappa) - dim / 2 * math.log(2 * math.pi)
    return known - float(np.logaddexp(known - exact, math.log(_PUBLISHED_OFFSET)))


@quantity
def sphere_entropy(
    features: Tensor, *, kappa: float = 10.0, reduction: str = "average", constant: str = "exact"
) -> Tensor:
    """Entropy of features on the unit sphere, by a von Mises-Fisher kernel density.

    ``-sum_i w_i log p(z_i)`` with ``log p(z_i) = log C_d(kappa) - log B + log sum_j exp(kappa z_i . z_j)``, z the
    l2-normalised rows, j = i included. ``"average"``: ``w_i = 1/B``, Joe's estimator; ``"expectation"``: ``w`` the
    softmax of ``log p`` over the batch, the plug-in estimator.

    Args:
        features: ``(B, d)``, d >= 2.
        kappa: Concentration of the kernel, > 0.
        reduction: ``"average"`` or ``"expectation"``.
        constant: ``"exact"`` for log C_d, or ``"published"`` for the authors' code, which has ``log(I + 1e-7)`` for the
            logarithm of the Bessel function and is far off in absolute terms from about d = 60 at kappa = 10. The
            gradient is the same.

    Returns:
        A scalar, differential entropy in nats (usually negative for large d), to be maximised; dtype of the input, at
        least float32.

    Raises:
        ValueError: If ``features`` does not have two dimensions, or has no entries or one column, kappa <= 0, or a
            choice is unknown.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(B^2 d). The gradient goes through the weights w too, as in the authors' code. Finite, with finite gradient,
        for collapsed, zero and arbitrarily large features.

    References:
        Rodríguez-Gálvez et al. (2023), The role of entropy and reconstruction in multi-view self-supervised learning,
        Section 4.1; Joe (1989), Estimation of entropy and other functionals of a multivariate density.

    Example:
        >>> import torch
        >>> from matinfo.losses import sphere_entropy, vmf_log_normalizer
        >>> collapsed = sphere_entropy(torch.ones(4, 3), kappa=2.0)  # one kernel: -log C - kappa
        >>> round(float(collapsed), 4), round(-vmf_log_normalizer(3, 2.0) - 2.0, 4)
        (1.1262, 1.1262)
    """
    _check_kappa(kappa)
    check_choice(reduction, "reduction", _REDUCTIONS)
    (z,) = unit_rows(features=features)
    return _entropy_without_constant(z, kappa, reduction) - _log_constant(z.shape[-1], kappa, constant)


@quantity
def sphere_reconstruction(
    features1: Tensor, features2: Tensor, *, kappa: float = 10.0, constant: str = "exact"
) -> Tensor:
    """Reconstruction term of the ER bound on the unit sphere.

    ``-mean_i [kappa a_i . b_i + log C_d(kappa)]`` with a and b the l2-normalised rows: minus the log-density of a von
    Mises-Fisher distribution around one view at the other.

    Args:
        features1: ``(B, d)`` features of the first view, d >= 2.
        features2: The same of the second view, row by row the same samples.
        kappa: Concentration, > 0.
        constant: ``"exact"`` or ``"published"``, as :func:`sphere_entropy`.

    Returns:
        A scalar in nats, at least ``-kappa - log C_d(kappa)``; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, ``features1`` does not have two dimensions, or has no entries or one column,
            kappa <= 0, or ``constant`` is unknown.
        TypeError: If the features are not real floating point.

    Notes:
        O(B d). Symmetric in the views; detach the one that is a target.

    References:
        Rodríguez-Gálvez et al. (2023), Section 4.

    Example:
        >>> import torch
        >>> from matinfo.losses import sphere_reconstruction, vmf_log_normalizer
        >>> Z = torch.eye(3)
        >>> round(float(sphere_reconstruction(Z, Z, kappa=2.0)) + vmf_log_normalizer(3, 2.0), 4)
        -2.0
    """
    _check_kappa(kappa)
    a, b = unit_rows(features1=features1, features2=features2)
    return -kappa * (a * b).sum(-1).mean(-1) - _log_constant(a.shape[-1], kappa, constant)


@quantity
def er_loss(
    features1: Tensor, features2: Tensor, *, kappa: float = 10.0, reduction: str = "average"
) -> Tensor:
    """Entropy-reconstruction loss on the unit sphere: the negative of a lower bound on mutual information.

    ``Rec - Ent = sphere_reconstruction(F1, F2) - sphere_entropy(F2)``.

    Args:
        features1: ``(B, d)`` features of the view that predicts.
        features2: ``(B, d)`` features of the view that is predicted and whose entropy counts, row by row the same
            samples.
        kappa: Concentration, > 0.
        reduction: ``"average"`` or ``"expectation"``, as :func:`sphere_entropy`.

    Returns:
        A scalar in nats, at least ``-log B``, and 0 at collapse; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, ``features1`` does not have two dimensions or has no entries, kappa <= 0, or
            ``reduction`` is unknown.
        TypeError: If the features are not real floating point.

    Notes:
        O(B^2 d). log C_d cancels and is never computed, so that the exact and the published constant give the same
        loss. Nothing is detached: a target network's features come without gradient, or detach them; for the symmetric
        loss average both orders. Finite, with finite gradient, for collapsed, zero and arbitrarily large features.

    References:
        Rodríguez-Gálvez et al. (2023), The role of entropy and reconstruction in multi-view self-supervised learning.

    Example:
        >>> import torch
        >>> from matinfo.losses import er_loss
        >>> round(float(er_loss(torch.eye(8), torch.eye(8), kappa=50.0)), 4)  # -log 8
        -2.0794
    """
    _check_kappa(kappa)
    check_choice(reduction, "reduction", _REDUCTIONS)
    a, b = unit_rows(features1=features1, features2=features2)
    return -kappa * (a * b).sum(-1).mean(-1) - _entropy_without_constant(b, kappa, reduction)


@quantity
def discrete_er_loss(
    probabilities1: Tensor, probabilities2: Tensor, *, reduction: str = "expectation", eps: float = 1e-7
) -> Tensor:
    """Entropy-reconstruction loss of soft cluster assignments.

    ``Rec - Ent``, ``Rec = -mean_i sum_k [p_ik log(q_ik + eps) + q_ik log(p_ik + eps)]/2`` and Ent the mean over both
    views of the entropy of ``m = mean_i p_i``: ``-sum_k m_k log(m_k + eps)`` for ``"expectation"``, the plug-in
    estimator, or ``-mean_k log(m_k + eps)`` for ``"average"``.

    Args:
        probabilities1: ``(B, K)`` assignments p of the first view, rows that sum to 1.
        probabilities2: The same, q, of the second view, row by row the same samples.
        reduction: ``"expectation"`` or ``"average"``.
        eps: What is added inside the logarithms, > 0; 1e-7 in the authors' code.

    Returns:
        A scalar in nats, for ``"expectation"`` at least about ``-log K``, and 0 where every row is the same one-hot
        row; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, ``probabilities1`` does not have two dimensions or has no entries, rows are
            not distributions, ``eps <= 0``, or ``reduction`` is unknown.
        TypeError: If an argument is not real floating point.

    Notes:
        O(B K). Both directions of the cross-entropy have a gradient; detach the view that is a target. Finite, with
        finite gradient, for one-hot rows too. The average over the two views' entropies is our reading: the authors'
        code computes the entropy of one batch and leaves the choice open. ``"average"`` is no entropy: it is least, log
        K, for even use of the clusters and grows as they empty, so that the loss then rewards collapse; it is here
        because the authors' code has it.

    References:
        Rodríguez-Gálvez et al. (2023), Section 4.

    Example:
        >>> import torch
        >>> from matinfo.losses import discrete_er_loss
        >>> round(float(discrete_er_loss(torch.eye(4), torch.eye(4))), 4)  # certain and even: -log 4
        -1.3863
    """
    check_choice(reduction, "reduction", _REDUCTIONS)
    check_positive(eps, "eps")
    check_probabilities(probabilities1, "probabilities1")
    check_probabilities(probabilities2, "probabilities2")
    p, q = aligned(probabilities1=probabilities1, probabilities2=probabilities2)
    p, q = p.double(), q.double()  # a small eps would be lost in float32
    reconstruction = -(p * (q + eps).log() + q * (p + eps).log()).sum(-1).mean(-1) / 2
    usage = torch.stack([p.mean(0), q.mean(0)])
    logs = (usage + eps).log()
    entropies = -logs.mean(-1) if reduction == "average" else -(usage * logs).sum(-1)
    return reconstruction - entropies.mean()


def _entropy_without_constant(z: Tensor, kappa: float, reduction: str) -> Tensor:
    """The entropy of unit rows plus ``log C_d``, which is between -kappa and kappa + log B for Joe's estimator."""
    log_density = (kappa * (z @ z.mT)).logsumexp(-1) - math.log(z.shape[-2])
    if reduction == "average":
        return -log_density.mean(-1)
    return -(log_density.softmax(-1) * log_density).sum(-1)
