"""Losses on coding rates and matrix entropies: MCR², EMP-SSL, MEC, Matrix-SSL, VNE."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import (
    check_choice,
    check_count,
    check_positive,
    check_views,
)
from matinfo.coding_rate import coding_rate, rate_reduction
from matinfo.divergence import matrix_kl
from matinfo.entropy import entropy_of
from matinfo.losses._batch import aligned, one_batch
from matinfo.operands import Gram, normalize_rows
from matinfo.spectral.logarithm import continued_logdet, taylor_log
from matinfo.spectral.normalize import widened
from matinfo.spectral.traces import trace


@quantity
def mcr2_loss(features: Tensor, labels: Tensor, *, eps2: float = 0.5) -> Tensor:
    """Loss of maximal coding rate reduction (MCR²): the negative of the rate reduction.

    ``-(R(F) - sum_j (n_j/B) R(F_j))`` with ``R(F) = 1/2 log det(I + d/(B eps2) F^T F)``, F the l2-normalised rows of
    the features and F_j those of class j; soft memberships as in :func:`matinfo.rate_reduction`.

    Args:
        features: ``(B, d)`` features of a batch.
        labels: Classes ``(B,)`` (integers) or memberships ``(B, k)``, non-negative with rows that sum to 1.
        eps2: Squared distortion, > 0: the ``eps^2`` of the formula. The released code passes this number under the
            name ``eps`` and does not square it; :func:`matinfo.rate_reduction` takes the distortion itself.

    Returns:
        A scalar <= 0 for labels; dtype of the input, at least float32.

    Raises:
        ValueError: If the number of labels is not B, memberships are no distributions, ``eps2 <= 0``, or ``features``
            does not have two dimensions or has no entries.
        TypeError: If ``features`` is not real floating point.

    Notes:
        One Cholesky factorisation for each class and one for all, each on the smaller of its samples and features, in
        float64. Finite, with finite gradient, for collapsed (then 0) and zero features.

    References:
        Yu et al. (2020), Learning diverse and discriminative representations via the principle of maximal coding rate
        reduction.

    Example:
        >>> import torch
        >>> from matinfo.losses import mcr2_loss
        >>> Z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(float(mcr2_loss(Z, torch.tensor([0, 0, 1, 1]), eps2=1.0)), 4)
        -0.1438
    """
    check_positive(eps2, "eps2")
    F = normalize_rows(widened(one_batch(features, "features")))
    return -rate_reduction(F, labels, eps=math.sqrt(eps2))


@quantity
def emp_ssl_loss(views: Tensor, *, eps2: float = 0.2, invariance: float = 200.0) -> Tensor:
    """EMP-SSL loss of many crops of each image.

    ``-invariance mean_vb cos(f_vb, m_b) - mean_v R(F_v)`` with f the l2-normalised rows, ``m_b = mean_v f_vb`` and
    ``R(F) = 1/2 log det(I + d/(B eps2) F^T F)``.

    Args:
        views: ``(V, B, d)``, V crops of each of B images, row by row the same images.
        eps2: Squared distortion, > 0; the released code passes this number under the name ``eps``.
        invariance: Weight of the first term, > 0.

    Returns:
        A scalar; dtype of the input, at least float32.

    Raises:
        ValueError: If ``views`` does not have three dimensions or has no entries, ``eps2 <= 0``, or
            ``invariance <= 0``.
        TypeError: If ``views`` is not real floating point.

    Notes:
        One Cholesky factorisation a view, in float64. The gradient reaches the mean m_b too, as in the released code.
        Where crops cancel to m_b = 0 the cosine is 0 with zero gradient. Finite, with finite gradient, for collapsed,
        zero and arbitrarily large features.

    References:
        Tong et al. (2023), EMP-SSL: Towards self-supervised learning in one training epoch.

    Example:
        >>> import torch
        >>> from matinfo.losses import emp_ssl_loss
        >>> views = torch.eye(4).expand(3, 4, 4)  # three equal crops of four images: R = 2 log 2 at eps2 = 1
        >>> round(float(emp_ssl_loss(views, eps2=1.0, invariance=1.0)), 4)
        -2.3863
    """
    check_positive(eps2, "eps2")
    check_positive(invariance, "invariance")
    F = normalize_rows(widened(one_batch(check_views(views, "views"), "views", "(V, B, d)")))
    cosines = (F * normalize_rows(F.mean(-3, keepdim=True))).sum(-1)
    return -invariance * cosines.mean((-2, -1)) - coding_rate(F, eps=math.sqrt(eps2)).mean(-1)


@quantity
def mec_loss(
    features1: Tensor,
    features2: Tensor,
    *,
    eps2: float = 64.0,
    scale: str = "code",
    taylor: int | None = None,
) -> Tensor:
    """Loss of maximum entropy coding (MEC), one direction.

    ``-w log det(I_B + lambda S)``, ``S = (F1 F2^T + F2 F1^T)/2``, ``lambda = d/(B eps2)``, F the l2-normalised rows.
    ``"code"``: ``w = 1/(lambda B)``, the loss that the released code trains with, close to minus the mean cosine for
    small lambda. ``"paper"``: ``w = (B + d)/(2B)``, minus the coding length per sample. Eigenvalues of
    ``I + lambda S`` below 0.01 enter by the tangent of the logarithm at 0.01. With ``taylor=k`` the log-determinant is
    replaced by ``tr[C - C^2/2 + ... ± C^k/k]``, ``C = lambda F1 F2^T``, as released with k = 4.

    Args:
        features1: ``(B, d)`` predictions of the online network from one view.
        features2: ``(B, d)`` projections of the teacher from the other view; detached here.
        eps2: Squared distortion, > 0. The authors use 64 at d = 2048, B = 1024 (their option ``eps``; lambda = 1/32)
            and lower it to that from eight times as much over the first ten epochs.
        scale: ``"code"`` or ``"paper"``.
        taylor: Number of terms of the series, or None for the exact logarithm.

    Returns:
        A scalar; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, ``features1`` does not have two dimensions or has no entries, ``eps2 <= 0``,
            ``scale`` is unknown, or ``taylor < 1``.
        TypeError: If the features are not real floating point, or ``taylor`` is not an integer.

    Notes:
        The printed ``F1 F2^T`` is not symmetric. Its determinant can vanish, and be large for views that point in
        opposite directions; the symmetric part gives an upper bound of the printed loss (Ostrowski and Taussky:
        ``log det sym(A) <= log |det A|``), equal where F1 F2^T is symmetric, that decreases with every eigenvalue of S
        and is finite with finite gradient for all features. The series is of the printed matrix, and it converges
        where the spectral radius of C is below 1, for which ``d < eps2`` suffices; at collapsed features and the
        authors' d and eps2 it does not. In float64: two Cholesky factorisations of order B, or an eigendecomposition
        where eigenvalues fall below the floor; the series takes k - 1 products on the smaller of samples and features.
        For the symmetric loss of the authors average both directions.

    References:
        Liu et al. (2022), Self-supervised learning via maximum entropy coding, Equation 2; Ostrowski and Taussky
        (1951), On the variation of the determinant of a positive definite matrix.

    Example:
        >>> import torch
        >>> from matinfo.losses import mec_loss
        >>> Z = torch.eye(4)
        >>> round(float(mec_loss(Z, Z, eps2=1.0)), 4)  # lambda = 1: -log 2
        -0.6931
        >>> round(float(mec_loss(Z, Z, eps2=2.0, taylor=4)), 4)  # -2 (1/2 - 1/8 + 1/24 - 1/64)
        -0.8021
    """
    check_positive(eps2, "eps2")
    check_choice(scale, "scale", ("code", "paper"))
    terms = None if taylor is None else check_count(taylor, "taylor")
    F1, F2 = _online_and_teacher(features1, features2)
    samples, width = F1.shape[-2:]
    lambda_ = width / (samples * eps2)
    weight = 1 / (lambda_ * samples) if scale == "code" else (samples + width) / (2 * samples)
    if terms is not None:
        C = F1 @ F2.mT if samples <= width else F2.mT @ F1
        return -weight * trace(taylor_log(lambda_ * C, terms))
    C = lambda_ * (F1 @ F2.mT)
    return -weight * continued_logdet((C + C.mT) / 2, 1.0, bound=lambda_ * samples, side="samples")


@quantity
def matrix_ssl_loss(
    features1: Tensor,
    features2: Tensor,
    *,
    gamma: float = 1.0,
    lambda_: float = 0.5,
    mu: float = 0.5,
    form: str = "code",
    taylor: int | None = None,
) -> Tensor:
    """Matrix-SSL loss, one direction: matrix uniformity and ``gamma`` times matrix alignment.

    With ``C_ab = F_a^T (I - 11^T/B) F_b / B``, F the l2-normalised rows, S the symmetric part of C_12, and
    ``Q = C_11 + mu I``, ``P = C_22 + mu I``:
    ``"code"``: ``-lambda tr log(S + mu I) - gamma tr(P log Q)``, as released.
    ``"paper"``: ``MCE(I/d + mu I, S + mu I) + gamma MCE(P, Q)`` with ``MCE(P, Q) = tr(Q - P log Q)``, as printed, with
    our ridge on both sides, so that the two terms are least at ``S = I/d`` and at ``C_11 = C_22``.
    Eigenvalues of ``S + mu I`` below mu/100 enter by the tangent of the logarithm there.

    Args:
        features1: ``(B, d)`` predictions of the online network from one view.
        features2: ``(B, d)`` projections of the teacher from the other view; detached here.
        gamma: Weight of the alignment, > 0.
        lambda_: Weight of the uniformity of ``"code"``, > 0; ``"paper"`` has none.
        mu: Ridge, > 0. The released code has ``lambda = mu = 0.5``, its instructions say 1.
        form: ``"code"`` or ``"paper"``.
        taylor: Number of terms of the logarithm's series about the identity, on the matrices as they are (C_12 not
            symmetrised; released with 4), or None for the exact logarithm.

    Returns:
        A scalar; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, ``features1`` does not have two dimensions or has no entries, a number is not
            positive, ``form`` is unknown, or ``taylor < 1``.
        TypeError: If the features are not real floating point, or ``taylor`` is not an integer.

    Notes:
        Rows are normalised before they are centred. All eigenvalues of S lie in [-1, 1], so that above ``mu = 1.011``
        no tangent is ever used; with a smaller ridge it keeps value and gradient finite where the views contradict
        each other, and the exact value returns once they do not. The symmetric part gives an upper bound of the
        uniformity with the printed C_12, as in :func:`mec_loss`. The series converges where the eigenvalues of C_12
        are between -mu and 2 - mu, slowly at small mu. In float64: two Cholesky factorisations and three
        eigendecompositions of order d. For the symmetric loss of the authors average both directions. Finite, with
        finite gradient, for all features.

    References:
        Zhang et al. (2024), Matrix information theory for self-supervised learning.

    Example:
        >>> import torch
        >>> from matinfo.losses import matrix_ssl_loss
        >>> collapsed = torch.ones(8, 3)  # all covariances are 0
        >>> round(float(matrix_ssl_loss(collapsed, collapsed)), 4)  # 3 log 2/2 + 3 log 2/2
        2.0794
    """
    for number, name in ((gamma, "gamma"), (lambda_, "lambda_"), (mu, "mu")):
        check_positive(number, name)
    check_choice(form, "form", ("code", "paper"))
    terms = None if taylor is None else check_count(taylor, "taylor")
    Z1, Z2 = (F - F.mean(-2, keepdim=True) for F in _online_and_teacher(features1, features2))
    samples, width = Z1.shape[-2:]
    identity = torch.eye(width, dtype=Z1.dtype, device=Z1.device)
    C = Z1.mT @ Z2 / samples
    Q, P = (Z.mT @ Z / samples + mu * identity for Z in (Z1, Z2))
    if terms is None:
        log_trace = continued_logdet((C + C.mT) / 2, mu, bound=1.0, side="features")
        # -tr(P log Q) is the relative entropy plus the entropy of P, which is a constant.
        total = trace(P)
        cross = matrix_kl(P, Q) + total * (entropy_of(P, 1.0) - total.log() + 1) - trace(Q)
    else:
        log_trace = trace(taylor_log(C + (mu - 1) * identity, terms))
        cross = -(P * taylor_log(Q - identity, terms)).sum((-2, -1))
    if form == "code":
        return gamma * cross - lambda_ * log_trace
    uniformity = trace(C) + width * mu - (1 / width + mu) * log_trace
    return uniformity + gamma * (cross + trace(Q))


@quantity
def vne_loss(features: Tensor) -> Tensor:
    """Loss that maximises the von Neumann entropy (VNE) of the features' autocorrelation.

    ``-H_1(F^T F/B)``, F the l2-normalised rows and H_1 as :func:`matinfo.von_neumann_entropy`. The same for the Gram
    matrix ``F F^T``.

    Args:
        features: ``(B, d)`` features of a batch.

    Returns:
        A scalar between ``-log min(B, d)`` and 0; dtype of the input, at least float32.

    Raises:
        ValueError: If ``features`` does not have two dimensions or has no entries.
        TypeError: If ``features`` is not real floating point.

    Notes:
        One eigendecomposition on the smaller of samples and features, in float64; the gradient is exact at repeated
        and at zero eigenvalues. Zero rows do not count; where all are zero the loss is 0 with zero gradient, its value
        at collapse.

    References:
        Kim et al. (2023), VNE: An effective method for improving deep representation by manipulating eigenvalue
        distribution.

    Example:
        >>> import torch
        >>> from matinfo.losses import vne_loss
        >>> round(float(vne_loss(torch.eye(4).repeat(2, 1))), 4)  # -log 4
        -1.3863
    """
    Z = widened(one_batch(features, "features"))
    dead = (Z == 0).all(-1, keepdim=True).all(-2, keepdim=True)
    return -entropy_of(Gram(normalize_rows(torch.where(dead, 1.0, Z))), 1.0)


def _online_and_teacher(features1: Tensor, features2: Tensor) -> tuple[Tensor, Tensor]:
    Z1, Z2 = aligned(features1=features1, features2=features2)
    return normalize_rows(widened(Z1)), normalize_rows(Z2.detach().double())
