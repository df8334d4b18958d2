"""Losses of masked image modelling: MAE, U-MAE, M-MAE."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import (
    check_choice,
    check_features,
    check_positive,
    check_tensor,
    values_are_readable,
)
from matinfo.coding_rate import logdet_of
from matinfo.losses._batch import aligned, one_batch
from matinfo.operands import Gram, normalize_rows
from matinfo.spectral.normalize import widened
from matinfo.spectral.precision import at_least_float32


@quantity
def patch_normalize(target: Tensor) -> Tensor:
    """Patches normalised one by one, the MAE target with ``norm_pix_loss``.

    ``(t - mean(t)) / sqrt(var(t) + 1e-6)`` over the pixels of each patch, with the unbiased variance.

    Args:
        target: ``(..., L, P)``, L patches of P > 1 pixel values.

    Returns:
        ``(..., L, P)``, dtype of the input, at least float32.

    Raises:
        ValueError: If a patch has a single value.
        TypeError: If ``target`` is not real floating point.

    References:
        He et al. (2022), Masked autoencoders are scalable vision learners.

    Example:
        >>> import torch
        >>> from matinfo.losses import patch_normalize
        >>> patch_normalize(torch.tensor([[[0.0, 2.0]]])).round(decimals=3)
        tensor([[[-0.7070,  0.7070]]])
    """
    t = check_features(target, "target")
    if t.shape[-1] < 2:
        raise ValueError(
            "Expected patches of at least two pixel values, got one: the variance is not defined."
        )
    t = t.to(at_least_float32(t.dtype))
    size = t.detach().abs().amax(-1, keepdim=True).clamp(min=1.0)  # large pixels have squares that overflow
    t = t / size
    t = t - t.mean(-1, keepdim=True)
    variance = t.square().sum(-1, keepdim=True) / (t.shape[-1] - 1)
    floor = (1e-6 / size / size).clamp(min=torch.finfo(t.dtype).tiny)
    return t / (variance + floor).sqrt()


@quantity
def masked_reconstruction_loss(
    pred: Tensor, target: Tensor, mask: Tensor, *, norm_pix: bool = True
) -> Tensor:
    """Reconstruction loss of a masked autoencoder.

    ``sum_i mask_i mean_p (pred_ip - t_ip)^2 / sum_i mask_i`` over all patches i of the batch, t the (normalised)
    target: the mean squared error of the masked patches only.

    Args:
        pred: Predicted patches ``(B, L, P)``.
        target: True patches ``(B, L, P)``, not yet normalised.
        mask: ``(B, L)``, 1 (or True) where a patch was hidden from the encoder.
        norm_pix: Whether each target patch is normalised by :func:`patch_normalize`.

    Returns:
        A scalar >= 0, in squared units of the target; dtype of ``pred``, at least float32.

    Raises:
        ValueError: If shapes disagree, ``pred`` does not have three dimensions, no patch is masked, or a mask is
            negative (looked at on the CPU only).
        TypeError: If ``pred`` or ``target`` is not real floating point, or ``mask`` no tensor or array.

    Notes:
        O(B L P). Visible patches may hold anything. Infinite, not NaN, where a squared error is too large for the dtype
        (1e19 in float32).

    References:
        He et al. (2022).

    Example:
        >>> import torch
        >>> from matinfo.losses import masked_reconstruction_loss
        >>> pred, target = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
        >>> float(masked_reconstruction_loss(pred, target, torch.tensor([[1, 0]]), norm_pix=False))
        1.0
    """
    pred, target = aligned("(B, L, P)", pred=pred, target=target)
    if check_tensor(mask, "mask").shape != pred.shape[:-1]:
        raise ValueError(f"Expected mask of shape {tuple(pred.shape[:-1])}, got {tuple(mask.shape)}.")
    weight = mask.to(pred.dtype)
    if weight.device.type == "cpu" and values_are_readable(weight):
        if bool((weight < 0).any()):
            raise ValueError(
                f"Expected mask of 0 and 1 (hidden), got {weight.min().item():.3g}. Use mask.bool(), or mask != 0."
            )
        if not bool(weight.any()):
            raise ValueError(
                "Expected at least one masked patch, got none: the loss is a mean over masked patches."
            )
    goal = patch_normalize(target) if norm_pix else target
    # What is visible does not count, whatever its size: infinity times zero would be NaN.
    error = torch.where(weight[..., None] != 0, pred - goal, 0.0).square().mean(-1)
    return (error * weight).sum() / weight.sum()


@quantity
def umae_uniformity_loss(features: Tensor | Gram, *, form: str = "code") -> Tensor:
    """Uniformity loss of U-MAE.

    ``"code"``: ``mean_ij (f_i . f_j)^2`` over all pairs, i = j included (its constant 1/B does not matter).
    ``"paper"``: ``sum_{i != j} (f_i . f_j)^2``. The rows f are l2-normalised here.

    Args:
        features: ``(B, d)`` features of a batch; or their :class:`~matinfo.Gram` with ``normalize=True``, taken as it
            is, such as a :class:`~matinfo.distributed.ShardedGram` over all ranks.
        form: ``"code"`` or ``"paper"``.

    Returns:
        A scalar in [1/B, 1] for ``"code"``, in [0, B(B-1)] for ``"paper"``; dtype of the input, at least float32.

    Raises:
        ValueError: If ``features`` does not have two dimensions or has no entries, or ``form`` is unknown.
        TypeError: If ``features`` is not real floating point.

    Notes:
        ``sum_ij (f_i . f_j)^2 = |F^T F|_F^2``: a product on the smaller of batch and feature side, B d min(B, d).
        Minimised by features that are spread evenly over the directions.

    References:
        Zhang, Wang and Wang (2022), How mask matters; Tan et al. (2024), Section 5.

    Example:
        >>> import torch
        >>> from matinfo.losses import umae_uniformity_loss
        >>> float(umae_uniformity_loss(torch.eye(4)))
        0.25
    """
    check_choice(form, "form", ("code", "paper"))
    if form == "paper" and isinstance(features, Gram):
        raise ValueError(
            'Expected features for form="paper", got a Gram. Pass the features, or use form="code".'
        )
    gram = _one_gram(features) if isinstance(features, Gram) else Gram(one_batch(features, "features"), True)
    pairs = gram.frobenius_squared()
    if form == "code":
        return pairs / gram.shape[-1] ** 2
    (F,) = gram.terms[0]
    return pairs - F.double().square().sum(-1).square().sum(-1)


@quantity
def mmae_tcr_loss(
    features: Tensor | Gram, *, mu: float = 1.0, scale: str = "code", centering: bool = False
) -> Tensor:
    """Total-coding-rate loss of M-MAE, to be minimised: the negative of the coding rate.

    ``"code"``: ``-log det(I_d + (mu/d) F^T F)``, as the authors' released code has it.
    ``"paper"``: ``-log det(mu I_d + F^T F)``, as their Equation 11 has it. The rows of F are l2-normalised here.

    Args:
        features: ``(B, d)`` features of a batch; or the :class:`~matinfo.Gram` of float64 features with
            ``normalize=True``, taken as it is, such as a :class:`~matinfo.distributed.ShardedGram` over all ranks.
        mu: Positive number. The two scales are one family: ``mu_paper = d/mu_code`` up to a constant.
        scale: ``"code"`` or ``"paper"``.
        centering: Whether to subtract the batch mean of the normalised rows.

    Returns:
        A scalar. In the code's scale between ``-d log(1 + mu B/d^2)`` (isotropic, B >= d) and ``-log(1 + mu B/d)``
        (all features equal); dtype of the input, at least float32.

    Raises:
        ValueError: If mu <= 0, ``scale`` is unknown, or ``features`` does not have two dimensions or has no entries.
        TypeError: If ``features`` is not real floating point.

    Notes:
        One Cholesky factorisation, in float64 (the row normalisation removes most of the gradient, and what is left
        must keep its digits), on the smaller of the batch and the feature side. Finite, with finite gradient,
        for collapsed, identical and zero features. Minus its linear term it is, to second order,
        ``mu^2 B^2/(2 d^2)`` times :func:`umae_uniformity_loss`.

    References:
        Tan et al. (2024), Equation 11, Definition 4.8 and Theorem 5.2.

    Example:
        >>> import torch
        >>> from matinfo.losses import mmae_tcr_loss
        >>> collapsed = torch.ones(8, 4)
        >>> round(float(mmae_tcr_loss(collapsed)), 4)  # -log(1 + 8/4)
        -1.0986
    """
    check_choice(scale, "scale", ("code", "paper"))
    check_positive(mu, "mu")
    if isinstance(features, Gram):
        if centering:
            raise ValueError(
                "Expected features for centering=True, got a Gram. Pass the features themselves."
            )
        gram = _one_gram(features)
    else:
        F = normalize_rows(widened(one_batch(features, "features")))
        gram = Gram(F - F.mean(-2, keepdim=True) if centering else F)
    d = gram.width
    if scale == "paper":
        return -logdet_of(gram, mu, d)
    return d * math.log(d / mu) - logdet_of(gram, d / mu, d)


def _one_gram(gram: Gram) -> Gram:
    """Accept the Gram of one batch: of the tokens of each sample it would be another loss."""
    if len(gram.shape) > 2:
        raise ValueError(
            f"Expected the Gram of one batch of features (B, d), got {gram}. Take one vector a sample, such as "
            "features[:, 0]."
        )
    return gram
