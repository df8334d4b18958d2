"""Diversity and novelty of samples: Vendi scores with a condition, by class, with an interval; KEN and relative RKE."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._keywords import answers_keywords
from matinfo._validation import check_count, check_features, check_labels, check_order, check_positive
from matinfo.entropy import entropy_of, joint_entropy_of
from matinfo.kernels import random_features
from matinfo.measures.comparison import two_sets
from matinfo.operands import Gram, Matrix, Operand, as_factors, as_operand, as_tensor
from matinfo.spectral.eigensolver import eigh_psd
from matinfo.spectrum import spectrum

_LEVEL = 0.95
"""Of the intervals."""


class Interval(NamedTuple):
    """A mean over random choices, and where they lie.

    Attributes:
        value: Mean.
        low: Lower end of the 95 % interval.
        high: Upper end.
        standard_error: Of the mean.
    """

    value: float
    low: float
    high: float
    standard_error: float


@quantity
def conditional_vendi(K: Operand, condition: Operand, q: float = 1.0) -> Tensor:
    """Conditional Vendi score: the diversity of samples that their prompts do not explain.

    ``exp(H_q(K o C) - H_q(C))`` with the Hadamard product o.

    Args:
        K: Similarity matrices ``(..., n, n)`` of the samples, with unit diagonal, or :class:`~matinfo.Gram`.
        condition: C, the same of their prompts, row by row.
        q: Order in [0, inf]. At 2 it is the conditional RKE, whose gradient guides SPARKE, without eigenvalues.

    Returns:
        ``(...)``, between 1 and n: a number of kinds a prompt. (Information-Vendi, the diversity that the prompts
        explain, is ``exp(mutual_information(K, C, q))``.)

    Raises:
        ValueError: As :func:`matinfo.conditional_entropy`.
        TypeError: If a matrix is not real floating point.

    References:
        Jalali et al. (2024), Conditional Vendi score; Jalali et al. (2025), SPARKE, for q = 2.

    Example:
        >>> import torch
        >>> from matinfo.measures import conditional_vendi
        >>> prompts = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2))
        >>> float(conditional_vendi(torch.eye(4), prompts))  # two samples for each of two prompts
        2.0
    """
    order = check_order(q, "q")
    pair = as_factors((K, condition), "conditional_vendi")
    return (joint_entropy_of(pair, order, "auto") - entropy_of(pair[1], order)).exp()


@quantity
def class_vendi(K: Operand, labels: Tensor, q: float = 1.0) -> Tensor:
    """Vendi score of each class.

    ``VS_q`` of the rows and columns of K that belong to a class.

    Args:
        K: Similarity matrices ``(..., n, n)`` as Tensor or NumPy array, or :class:`~matinfo.Gram` of embeddings.
        labels: ``(n,)``, integers.
        q: Order in [0, inf].

    Returns:
        ``(..., classes)``, in ascending order of the labels: numbers of kinds.

    Raises:
        ValueError: As :func:`matinfo.vendi_score`; also if the number of labels is not n.
        TypeError: If K is not real floating point.

    References:
        Friedman and Dieng (2023), The Vendi score, Section 5.

    Example:
        >>> import torch
        >>> from matinfo.measures import class_vendi
        >>> class_vendi(torch.block_diag(torch.eye(2), torch.ones(2, 2)), torch.tensor([0, 0, 1, 1]))
        tensor([2.0000, 1.0000])
    """
    order = check_order(q, "q")
    K = as_operand(K, "K", "class_vendi")
    labels = check_labels(labels, K.shape[-1])
    members = [(labels == label).nonzero()[:, 0].to(K.device) for label in labels.unique()]
    return torch.stack([entropy_of(_part(K, rows), order).exp() for rows in members], -1)


@quantity
def relative_rke(K12: Tensor) -> Tensor:
    """Relative Rényi kernel entropy of order 1/2 of two sets of samples.

    ``-2 log |K_12|_*`` with ``K_12`` the kernel between the sets over ``sqrt(n m)`` and the nuclear norm: minus the
    logarithm of the fidelity of the two kernel covariances.

    Args:
        K12: Kernel values ``(..., n, m)`` of a kernel with ``k(x, x) = 1``, not divided by anything.

    Returns:
        ``(...)``, >= 0 but for rounding, in nats: 0 where the sets are alike, infinite where they share nothing.

    Raises:
        ValueError: If ``K12`` has fewer than two dimensions or no entries.
        TypeError: If it is not real floating point.

    Notes:
        One decomposition of the smaller side; first derivative.

    References:
        Jalali, Li and Farnia (2023), An information-theoretic evaluation of generative models in learning multi-modal
        distributions, Theorem 3 (RRKE).

    Example:
        >>> import torch
        >>> from matinfo.measures import relative_rke
        >>> float(relative_rke(torch.ones(3, 5))).__abs__() < 1e-12
        True
    """
    K12 = check_features(K12, "K12")
    norm = spectrum(Gram(K12.double())).roots().sum(-1)
    return math.log(K12.shape[-2] * K12.shape[-1]) - 2 * norm.log()


@quantity
def ken(K: Operand, count: int, *, eta: float = 1.0) -> Tensor:
    """KEN: the entropy of the kinds of samples that are more frequent than in a reference.

    ``-sum_k lambda_k log(lambda_k / sum_j lambda_j)`` over the positive eigenvalues of ``C_x - eta C_y``, the kernel
    covariances (mean of ``phi phi^T``) of the samples and of the reference.

    Args:
        K: Kernel matrix ``(..., n + m, n + m)`` of the samples and the reference together, unit diagonal, as Tensor or
            NumPy array, or :class:`~matinfo.Gram`.
        count: n, the number of samples, which come first.
        eta: How much more frequent a kind must be, > 0.

    Returns:
        ``(...)``, >= 0, in nats times a frequency; 0 where nothing is new. No gradient.

    Raises:
        ValueError: If ``count`` is not below n + m, or eta <= 0; as :func:`matinfo.renyi_entropy`.
        TypeError: If K is not real floating point.

    Notes:
        The eigenvalues are those of ``R^T D R`` with ``K = R R^T`` and D diagonal, symmetric in place of the released
        code's general matrix; two decompositions for a matrix, one for a Gram of few columns.

    References:
        Zhang, Li, Jalali and Farnia (2024), An interpretable evaluation of entropy-based novelty of generative models,
        Section 5.

    Example:
        >>> import torch
        >>> from matinfo import Gram
        >>> from matinfo.measures import ken
        >>> samples, reference = torch.eye(3)[[0, 0, 1, 1]], torch.eye(3)[[2, 2]]  # two new kinds
        >>> round(float(ken(Gram(torch.cat([samples, reference])), 4)), 4)  # log 2
        0.6931
    """
    K, n, total = two_sets(K, count, "ken")
    weight = torch.full(
        (total,), -check_positive(eta, "eta") / (total - n), dtype=torch.float64, device=K.device
    )
    weight[:n] = 1 / n
    if isinstance(K, Gram):
        R = K.features(torch.float64).detach()
    else:  # R with R R^T = K; the root of round-off is not small
        values, Q = eigh_psd(K.double(), side="matrix")
        roundoff = total * torch.finfo(values.dtype).eps * values[..., -1:]
        R = Q * torch.where(values <= roundoff, 0.0, values).sqrt()[..., None, :]
    x = eigh_psd(R.mT @ (weight[:, None] * R), vectors=False, side="difference")[0]
    # Eigenvalues of a difference carry the round-off of its terms, not their own.
    size = (weight.abs()[:, None] * R.square()).sum((-2, -1))[..., None]
    x = torch.where(x <= total * torch.finfo(x.dtype).eps * size, 0.0, x)
    share = x / torch.where(x.sum(-1, keepdim=True) == 0, 1.0, x.sum(-1, keepdim=True))
    return x.sum(-1) * torch.special.entr(share).sum(-1)


@answers_keywords
def fkea(
    X: Tensor | np.ndarray,
    q: float = 1.0,
    *,
    bandwidth: float | str = "median",
    n_features: int = 512,
    repeats: int = 8,
    seed: int = 0,
) -> Interval:
    """FKEA: the Vendi score of a Gaussian kernel from random Fourier features, with its error bar.

    The mean over independent draws of ``exp(H_q)`` of the D x D covariance of the features.

    Args:
        X: Samples ``(n, d)``, Tensor or NumPy array.
        q: Order in [0, inf]; 2 is the RKE mode count.
        bandwidth: sigma, or the rule that finds it, as for :func:`matinfo.kernels.random_features`.
        n_features: D, even.
        repeats: Number of draws, at least 2.
        seed: Of the random numbers.

    Returns:
        An :class:`Interval`: of the chance of the draws, not of the samples. Its value is too small by a bias of the
        order of ``1/D`` times the square of the score, which more draws do not remove: compare two D.

    Raises:
        ValueError: If an argument is outside its domain.
        TypeError: If X is not real floating point.

    Notes:
        O(repeats (n d D + n D^2 + D^3)): linear in n. No gradient; :func:`matinfo.kernels.random_features` has one.

    References:
        Ospanov, Zhang, Jalali, Cao, Bogdanov and Farnia (2024), Towards a scalable reference-free evaluation of
        generative models.

    Example:
        >>> import numpy as np
        >>> from matinfo.measures import fkea
        >>> X = np.repeat([[0.0], [100.0]], 50, axis=0)  # two kinds
        >>> score = fkea(X, bandwidth=1.0)
        >>> bool(score.low < 2 < score.high + 0.1)
        True
    """
    order = check_order(q, "q")
    Z = check_features(as_tensor(X), "X").detach()
    draws = torch.Generator(device=Z.device).manual_seed(seed)

    def score() -> Tensor:
        features = random_features(Z, n_features=n_features, bandwidth=bandwidth, generator=draws)
        return entropy_of(features, order).exp()

    return _interval(score, repeats)


@answers_keywords
def vendi_interval(
    K: Operand | np.ndarray, size: int, q: float = 1.0, *, repeats: int = 100, seed: int = 0
) -> Interval:
    """Vendi score of subsamples of one size, with the interval in which they lie.

    Mean and quantiles over random subsets, drawn without replacement, of ``VS_q`` of a subset's rows and columns.

    Args:
        K: Similarity matrix ``(n, n)`` as Tensor or NumPy array, or :class:`~matinfo.Gram` of embeddings.
        size: Number of samples of a subset, 1 to n. The Vendi score grows with it: two sets are compared at one size.
        q: Order in [0, inf].
        repeats: Number of subsets, at least 2.
        seed: Of the random numbers.

    Returns:
        An :class:`Interval` of what ``size`` samples show. It is narrow where ``size`` is near n, because subsets then
        overlap: take at most a tenth of n if it is to speak of other samples.

    Raises:
        ValueError: If an argument is outside its domain; as :func:`matinfo.vendi_score`.
        TypeError: If K is not real floating point.

    Notes:
        ``repeats`` decompositions of order ``min(size, d)``.

    References:
        Politis and Romano (1994), Large sample confidence regions based on subsamples; Friedman and Dieng (2023).

    Example:
        >>> import torch
        >>> from matinfo.measures import vendi_interval
        >>> score = vendi_interval(torch.eye(100), 10)  # ten samples that differ
        >>> round(score.low, 6), round(score.high, 6)
        (10.0, 10.0)
    """
    order = check_order(q, "q")
    operand = as_operand(as_tensor(K), "K", "vendi_interval")
    n = operand.shape[-1]
    if not check_count(size, "size") <= n or len(operand.shape) > 2:
        raise ValueError(f"Expected one matrix and a size of at most its {n} samples, got size {size}.")
    draws = torch.Generator().manual_seed(seed)

    def score() -> Tensor:
        rows = torch.randperm(n, generator=draws)[:size].to(operand.device)
        return entropy_of(_part(operand, rows), order).exp()

    with torch.no_grad():
        return _interval(score, repeats)


def _part(K: Gram | Matrix, rows: Tensor) -> Gram | Matrix:
    """The matrix over some of the samples, up to scale."""
    if isinstance(K, Gram):
        return K.reordered(rows)
    return Matrix.trusted(K.entries[..., rows, :][..., rows], K.given_dtype, K.rounding)


def _interval(score: Callable[[], Tensor], repeats: int) -> Interval:
    values = torch.stack([score().detach().cpu() for _ in range(check_count(repeats, "repeats", 2))])
    tail = (1 - _LEVEL) / 2
    low, high = values.quantile(torch.tensor([tail, 1 - tail], dtype=values.dtype)).tolist()
    return Interval(float(values.mean()), low, high, float(values.std() / math.sqrt(repeats)))
