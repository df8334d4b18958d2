"""Losses that spread features over all directions: SimDINO, MMCR, CorInfoMax, W-MSE."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_count, check_features, check_in, check_positive, check_views
from matinfo.coding_rate import coding_rate
from matinfo.losses._batch import (
    aligned,
    mean_over_other_views,
    one_batch,
    students_and_teachers,
)
from matinfo.operands import normalize_rows
from matinfo.operands.gram import prepared_rows
from matinfo.spectral.logdet import logdet_shifted
from matinfo.spectral.normalize import widened
from matinfo.spectral.singular import singular_values
from matinfo.spectral.whitening import whitened_features


@quantity
def simdino_loss(
    students: Tensor,
    teachers: Tensor,
    *,
    eps2: float = 0.5,
    gamma: float = 1.0,
) -> Tensor:
    """SimDINO loss: alignment with the teacher, and the coding rate of the student's global views.

    ``-mean s . t - gamma (B + d)/(B d) mean_v R(S_v)`` with rows l2-normalised, s the students' and t the teachers',
    and ``R(F) = 1/2 log det(I + d/(B eps2) F^T F)``. The first mean is over the T V - T pairs of different views and
    over the batch, the second over the T global views.

    Args:
        students: ``(V, B, d)`` features of the student, V >= 2. The first T views are those of the teacher.
        teachers: ``(T, B, d)`` features of the teacher, 1 <= T <= V; detached here.
        eps2: Squared distortion, > 0; the released code passes this number under the name ``eps``.
        gamma: Weight of the rate, > 0, beside ``(B + d)/(B d)``, the balance of the released code (there 1).

    Returns:
        A scalar; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes do not fit together, a tensor is empty, there is no pair of different views, or a
            number is not positive.
        TypeError: If an argument is not real floating point.

    Notes:
        T Cholesky factorisations on the smaller of samples and features, in float64. The released head normalises its
        output, as is done here; ``-s . t`` is the paper's ``|s - t|^2/2`` less 1. Finite, with finite gradient, for
        collapsed, zero and arbitrarily large features.

    References:
        Wu et al. (2025), Simplifying DINO via coding rate regularization.

    Example:
        >>> import torch
        >>> from matinfo.losses import simdino_loss
        >>> views = torch.eye(4).expand(2, 4, 4)  # R = 2 log 2 at eps2 = 1, times (4 + 4)/16
        >>> round(float(simdino_loss(views, views, eps2=1.0)), 4)
        -1.6931
    """
    check_positive(eps2, "eps2")
    check_positive(gamma, "gamma")
    students, teachers = students_and_teachers(students, teachers)
    S, T = normalize_rows(widened(students)), normalize_rows(teachers.double())
    alignment = mean_over_other_views(torch.einsum("tbd,vbd->tv", T, S) / S.shape[1])
    rate = coding_rate(S[: len(T)], eps=math.sqrt(eps2)).mean()
    samples, width = S.shape[1:]
    return -alignment - gamma * (samples + width) / (samples * width) * rate


@quantity
def mmcr_loss(views: Tensor, *, lambda_: float = 0.0) -> Tensor:
    """Maximum manifold capacity representations (MMCR): minus the nuclear norm of the centroids.

    ``lambda mean_b |F_b|_* - |C|_*`` with F_b the V l2-normalised rows of image b, C the B centroids ``mean_v f_vb``,
    and ``|.|_*`` the sum of the singular values.

    Args:
        views: ``(V, B, d)`` embeddings of V augmentations of each of B images, row by row the same images.
        lambda_: Weight of the images' own nuclear norms, >= 0.

    Returns:
        A scalar, for ``lambda_ = 0`` between ``-B`` (and at least ``-sqrt(B min(B, d))``) and 0; dtype of the input, at
        least float32.

    Raises:
        ValueError: If ``views`` does not have three dimensions or has no entries, or ``lambda_ < 0``.
        TypeError: If ``views`` is not real floating point.

    Notes:
        One singular value decomposition of B x d, for ``lambda_ > 0`` B more of V x d, in float64. First derivative
        only; at repeated singular values it is exact, at zero ones the subgradient of least norm, so that dead
        directions are not woken at random. Finite, with finite gradient, for collapsed and zero features.

    References:
        Yerxa et al. (2023), Learning efficient coding of natural images with maximum manifold capacity
        representations.

    Example:
        >>> import torch
        >>> from matinfo.losses import mmcr_loss
        >>> float(mmcr_loss(torch.eye(4).expand(3, 4, 4)))  # four orthogonal centroids of length one
        -4.0
    """
    check_in(lambda_, "lambda_", "[0, inf)")
    F = normalize_rows(widened(one_batch(check_views(views, "views"), "views", "(V, B, d)")))
    capacity = singular_values(F.mean(0)).sum()
    if lambda_ == 0:
        return -capacity
    return lambda_ * singular_values(F.transpose(0, 1)).sum(-1).mean() - capacity


class RunningCovariance(torch.nn.Module):
    """Running mean and covariance of features, which CorInfoMax carries from batch to batch.

    ``m <- (1 - momentum) mean(Z) + momentum m`` and
    ``R <- (1 - momentum) mean_b (z_b - m)(z_b - m)^T + momentum R``, m the new mean; from ``m = 0`` and ``R = I``.
    Buffers in float64, so saved and moved with the module that owns it.

    Args:
        dim: Width d of the features.
        momentum: Share of the past, in [0, 1); 0.01 in the released code, which calls it the forgetting factor.

    Raises:
        TypeError: If ``dim`` is not an integer or ``momentum`` not a number.
        ValueError: If ``dim < 1`` or ``momentum`` is outside [0, 1).

    Notes:
        Knows one process: in distributed training give it the features gathered over all of them. The gradient of a
        step is that through its own batch. In evaluation mode (``.eval()``) the buffers stay, as those of batch norm.

    Example:
        >>> import torch
        >>> from matinfo.losses import RunningCovariance
        >>> running = RunningCovariance(2, momentum=0.5)
        >>> running(torch.tensor([[2.0, 0.0], [2.0, 0.0]]))  # mean 1 of 2: half of the outer product, half of I
        tensor([[1.0000, 0.0000],
                [0.0000, 0.5000]], dtype=torch.float64)
    """

    mean: Tensor
    covariance: Tensor

    def __init__(self, dim: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = check_in(momentum, "momentum", "[0, 1)", "At 1 the covariance would never move.")
        self.register_buffer("mean", torch.zeros(check_count(dim, "dim"), dtype=torch.float64))
        self.register_buffer("covariance", torch.eye(dim, dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """The covariance ``(d, d)`` after one more batch ``(B, d)``, with the gradient of it; the buffers move."""
        Z = one_batch(features, "features").double()
        if Z.shape[1] != len(self.mean):
            raise ValueError(f"Expected features of shape (B, {len(self.mean)}), got {tuple(Z.shape)}.")
        with torch.autocast(Z.device.type, enabled=False):
            mean = (1 - self.momentum) * Z.mean(0) + self.momentum * self.mean
            U = Z - mean
            covariance = (1 - self.momentum) * (U.mT @ U / len(U)) + self.momentum * self.covariance
        if self.training and mean.detach().isfinite().all() and covariance.detach().isfinite().all():
            self.mean, self.covariance = mean.detach(), covariance.detach()
        return covariance

    def extra_repr(self) -> str:
        """The two settings, for ``print``."""
        return f"{len(self.mean)}, momentum={self.momentum}"


@quantity
def corinfomax_loss(
    features1: Tensor,
    features2: Tensor,
    covariance1: Tensor,
    covariance2: Tensor,
    *,
    invariance: float = 1.0,
    covariance: float = 1.0,
    eps: float = 1e-8,
) -> Tensor:
    """CorInfoMax loss: distance of the views, and log-determinants of their covariances.

    ``invariance mean_bj (Z1 - Z2)_bj^2 - covariance [log det(R1 + eps I) + log det(R2 + eps I)]/d``.

    Args:
        features1: ``(B, d)`` projections of the first view.
        features2: The same of the second view, row by row the same samples.
        covariance1: R1, ``(d, d)``, of the first view: what :class:`RunningCovariance` returns for these features.
        covariance2: R2 of the second view, from a running covariance of its own.
        invariance: Weight of the mean squared error, > 0.
        covariance: Weight of the log-determinants, > 0.
        eps: Ridge, > 0; 1e-8 in the released code.

    Returns:
        A scalar in units of the squared features and nats per dimension, without lower bound; dtype of the input, at
        least float32.

    Raises:
        ValueError: If shapes do not fit together, ``features1`` does not have two dimensions or has no entries, or a
            number is not positive.
        TypeError: If an argument is not real floating point.

    Notes:
        Two Cholesky factorisations, in float64. The means over B d entries and over d are those of the released code,
        whose weights multiply them. NaN where a covariance plus eps is not positive definite.
        Infinite, not NaN, where squares of the features do not exist.

    References:
        Ozsoy et al. (2022), Self-supervised learning with an information maximization criterion.

    Example:
        >>> import torch
        >>> from matinfo.losses import RunningCovariance, corinfomax_loss
        >>> Z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> first, second = RunningCovariance(2), RunningCovariance(2)  # Z has covariance I
        >>> abs(round(float(corinfomax_loss(Z, Z, first(Z), second(Z))), 4))
        0.0
    """
    for number, name in ((invariance, "invariance"), (covariance, "covariance"), (eps, "eps")):
        check_positive(number, name)
    Z1, Z2 = aligned(features1=features1, features2=features2)
    R1, R2 = aligned("(d, d)", covariance1=covariance1, covariance2=covariance2)
    width = Z1.shape[1]
    if R1.shape != (width, width):
        raise ValueError(f"Expected covariance1 of shape {(width, width)}, got {tuple(R1.shape)}.")
    volume = sum(logdet_shifted(R.double(), eps, side="features") for R in (R1, R2))
    return invariance * (Z1 - Z2).double().square().mean() - covariance * volume / width


@quantity
def wmse_loss(
    features1: Tensor,
    features2: Tensor,
    *,
    shrinkage: float = 0.0,
    normalize: bool = True,
    together: bool = False,
) -> Tensor:
    """W-MSE loss: the distance of the views after whitening.

    ``2 - 2 mean_b cos(w1_b, w2_b)`` or, not normalised, ``mean_bj (W1 - W2)_bj^2``, with ``W = (Z - mean) L^{-T}``,
    ``L L^T = (1 - shrinkage) Cov + shrinkage I`` and the unbiased covariance of each view, or of both together.

    Args:
        features1: ``(B, d)`` projections of the first view, B > d unless the covariance is shrunk.
        features2: The same of the second view, row by row the same samples.
        shrinkage: In [0, 1).
        normalize: Whether the whitened rows are divided by their length, the released default.
        together: Whether both views are whitened by the mean and covariance of all 2B rows. The released code did so
            for two views, and has whitened each by its own since it takes more.

    Returns:
        A scalar in [0, 4], or >= 0 where not normalised; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, ``features1`` does not have two dimensions, fewer than two rows or no column,
            ``shrinkage`` is outside [0, 1), or (on the CPU) a covariance is singular.
        TypeError: If the features are not real floating point.

    Notes:
        One or two Cholesky factorisations of d x d, in float64. The released code averages over random sub-batches:
        pass those. Does not depend on the offset of the features, nor for ``shrinkage = 0`` on any
        lower-triangular map of them; ``Z L^{-T}`` depends on the order of the dimensions.

    References:
        Ermolov et al. (2021), Whitening for self-supervised representation learning.

    Example:
        >>> import torch
        >>> from matinfo.losses import wmse_loss
        >>> Z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> round(float(wmse_loss(Z, 5 * Z + 1)), 4), round(float(wmse_loss(Z, -Z)), 4)
        (0.0, 4.0)
    """
    check_in(shrinkage, "shrinkage", "[0, 1)")
    Z1, Z2 = (widened(Z) for Z in aligned(features1=features1, features2=features2))
    check_features(Z1, "features1", least=2)
    if together:
        W1, W2 = _white(torch.cat([Z1, Z2]), shrinkage).chunk(2)
    else:
        W1, W2 = _white(Z1, shrinkage), _white(Z2, shrinkage)
    if normalize:
        return 2 - 2 * (normalize_rows(W1) * normalize_rows(W2)).sum(1).mean()
    return (W1 - W2).square().mean()


def _white(Z: Tensor, shrinkage: float) -> Tensor:
    """Whitened rows; what rounding leaves of a constant column is no direction to blow up."""
    return whitened_features(prepared_rows(Z, True, False), shrinkage)
