"""Losses of mutual information: between masked views (MI-MAE style), of latent and input (CLUB), DiME, bottlenecks."""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_positive, check_views
from matinfo.dependence import dime, hsic_and_exponent
from matinfo.information import mutual_information
from matinfo.losses._batch import aligned, check_single, one_batch
from matinfo.losses.contrastive import infonce_loss
from matinfo.operands import Operand
from matinfo.spectral.normalize import times_power_of_two

_LOWEST_LOG_VARIANCE = -1400.0
"""Below it ``exp(-s/2)`` nears the end of float64."""

_LARGEST_EXPONENT, _SMALLEST = 709.0, 2.3e-308
"""Of the largest and of the smallest normal float64 number."""


@quantity
def mask_infonce_loss(views: Tensor, *, temperature: float = 0.1) -> Tensor:
    """InfoNCE loss between the latents of one image under different masks, over all ordered pairs of masks.

    ``mean_{k != l} mean_b -log softmax_c(h_kb . h_lc / t)_b`` with h the l2-normalised rows. The candidates are the
    other images of the batch under mask l.

    Args:
        views: ``(N, B, d)`` latents under N >= 2 masks, row by row the same images.
        temperature: t > 0.

    Returns:
        A scalar >= 0; dtype of the input, at least float32. ``log B`` for identical latents.

    Raises:
        ValueError: If ``views`` does not have three dimensions, or has fewer than two masks or no entries, or
            temperature <= 0.
        TypeError: If ``views`` is not real floating point.

    Notes:
        ``N (N - 1)/2`` products of B^2 d: the mean of :func:`infonce_loss` over the pairs, which has both orders.
        Finite, with finite gradient, for collapsed, zero and arbitrarily large features. The term that raises mutual
        information in MI-MAE, in our reading: the paper's Equations 7 and 8 were known to us from descriptions only.

    References:
        Huang et al. (2025), Learning mask invariant mutual information for masked image modeling; van den Oord et al.
        (2018).

    Example:
        >>> import torch
        >>> from matinfo.losses import mask_infonce_loss
        >>> round(float(mask_infonce_loss(torch.ones(4, 8, 3))), 4)  # log 8
        2.0794
    """
    check_positive(temperature, "temperature")
    masks = one_batch(check_views(views, "views", least=2), "views", "(V, B, d)")
    pairs = [infonce_loss(a, b, temperature=temperature) for a, b in combinations(masks, 2)]
    return torch.stack(pairs).mean()


@quantity
def gaussian_nll(mean: Tensor, log_variance: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of a diagonal Gaussian, the loss that fits a variational conditional q(h | x).

    ``mean_b sum_j [(h - m)^2 exp(-s) + s + log 2 pi]_bj / 2`` with m the means, s the log-variances, h the targets.

    Args:
        mean: m, ``(B, d)``, what q predicts from the input of each sample.
        log_variance: s, ``(B, d)``; bound it (a tanh at the end of the network), or the loss has no lower bound.
        targets: h, ``(B, d)``. Nothing is detached: to train q alone pass ``targets.detach()``, and give q detached
            inputs.

    Returns:
        A scalar in nats; dtype of the input, at least float32.

    Raises:
        ValueError: If the shapes differ, or ``mean`` does not have two dimensions or has no entries.
        TypeError: If an argument is not real floating point.

    Notes:
        O(B d), in float64. Infinite, not NaN, where it is too large for the dtype; a target that q predicts exactly
        costs nothing at any log-variance. The approximation term of MI-MAE in our reading, see
        :func:`mask_infonce_loss`.

    References:
        Cheng et al. (2020), CLUB: A contrastive log-ratio upper bound of mutual information.

    Example:
        >>> import torch
        >>> from matinfo.losses import gaussian_nll
        >>> zeros = torch.zeros(4, 2)
        >>> round(float(gaussian_nll(zeros, zeros, zeros)), 4)  # log 2 pi
        1.8379
    """
    m, s, h = (x.double() for x in aligned(mean=mean, log_variance=log_variance, targets=targets))
    r = h - m
    certain = (r == 0) & (s < _LOWEST_LOG_VARIANCE)  # 0 times a precision beyond float64
    z = r * (-torch.where(certain, 0.0, s) / 2).exp()
    return (z.square() + s + math.log(2 * math.pi)).sum(-1).mean() / 2


@quantity
def club_loss(mean: Tensor, log_variance: Tensor, targets: Tensor) -> Tensor:
    """CLUB: a variational upper bound of the mutual information of targets and what q was given.

    ``mean_i [log q(h_i | x_i) - mean_j log q(h_j | x_i)]`` for ``q(h | x) = N(m(x), diag exp s(x))``; j runs over the
    whole batch, i included.

    Args:
        mean: m, ``(B, d)``, what q predicts from the input of each sample; detached here.
        log_variance: s, ``(B, d)``, detached here.
        targets: h, ``(B, d)``: the only argument with a gradient, so that minimising trains the encoder against a
            frozen q.

    Returns:
        A scalar in nats; dtype of the input, at least float32. An upper bound of ``I(h; x)`` in expectation only where
        q is (near) the true conditional; a poor q gives any number, negative ones too.

    Raises:
        ValueError: If the shapes differ, or ``mean`` does not have two dimensions or has no entries.
        TypeError: If an argument is not real floating point.

    Notes:
        O(B d), in float64: with ``c = mean_j h_j``,
        ``mean_j (h_j - m)^2 - (h_i - m)^2 = mean_j (h_j - c)^2 + (c - h_i)(c + h_i - 2m)``, in which nothing large is
        subtracted from its like. Never NaN; of a magnitude that float64 cannot hold it is 1e307 and more, or infinite.
        The term that lowers mutual information in MI-MAE in our reading, see
        :func:`mask_infonce_loss`.

    References:
        Cheng et al. (2020), Equation 10 with all pairs of a batch.

    Example:
        >>> import torch
        >>> from matinfo.losses import club_loss
        >>> h = torch.tensor([[1.0], [-1.0]])
        >>> float(club_loss(h, torch.zeros(2, 1), h))  # (2^2 + 0)/2 is the mean squared distance: half of it
        1.0
    """
    m, s, h = (x.double() for x in aligned(mean=mean, log_variance=log_variance, targets=targets))
    m, s = m.detach(), s.detach()
    size = torch.maximum(h.detach().abs().amax(), m.abs().amax()).clamp(min=_SMALLEST)
    m, h = m / size, h / size
    shift = h.detach().mean(-2, keepdim=True)  # changes no difference, and their round-off shrinks
    m, h = m - shift, h - shift
    c = h.mean(-2, keepdim=True)
    spread = (h - c).square().mean(-2, keepdim=True)
    distances = spread + (c - h) * (c + h - 2 * m)
    # Size and precision multiply the sum, not its terms, of which two could be inf and -inf.
    top = (-s).amax()
    unit = (top + 2 * size.log()).clamp(max=_LARGEST_EXPONENT).exp()
    return (distances * (-s - top).exp()).sum(-1).mean() / 2 * unit


@quantity
def dime_loss(
    K1: Operand,
    K2: Operand,
    *,
    alpha: float = 1.0,
    permutations: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Loss that maximises the difference of matrix-based entropies (DiME) of two views.

    ``-dime(K1, K2)``, see :func:`matinfo.dime`.

    Args:
        K1: Positive semi-definite matrix ``(n, n)`` as Tensor or NumPy array, or :class:`matinfo.Gram`, of the first
            view, with unit diagonal.
        K2: The same of the second view, over the same samples.
        alpha: Order in (0, inf].
        permutations: Number of permutations, >= 1.
        generator: Source of the permutations; None for the global one.

    Returns:
        A scalar in nats, 0 at collapse of either view and where all samples are orthogonal in one; dtype of the input,
        at least float32.

    Raises:
        ValueError: As :func:`matinfo.dime`; also of more than one matrix a view, whose values :func:`matinfo.dime` has.
        TypeError: As :func:`matinfo.dime`.

    Notes:
        As :func:`matinfo.dime`. Pass one generator for a whole run, not a new one of the same seed at each step.

    Example:
        >>> import torch
        >>> from matinfo import Gram
        >>> from matinfo.losses import dime_loss
        >>> K = Gram(torch.eye(2).repeat(3, 1))  # one bit, seen twice
        >>> bool(dime_loss(K, K, generator=torch.Generator().manual_seed(0)) < -0.3)
        True
    """
    check_single("-matinfo.dime(K1, K2).mean()", K1=K1, K2=K2)
    return -dime(K1, K2, alpha=alpha, permutations=permutations, generator=generator)


@quantity
def dib_loss(K_inputs: Operand, K_latents: Operand, *, alpha: float = 1.01) -> Tensor:
    """Regulariser of the deterministic information bottleneck (DIB): what the latents keep of the inputs.

    ``I_alpha(X; T) = H_alpha(K_X) + H_alpha(K_T) - H_alpha(K_X o K_T)``, see :func:`matinfo.mutual_information`; added
    with a small weight to a cross-entropy of the labels.

    Args:
        K_inputs: Positive semi-definite matrix ``(n, n)`` of the inputs as Tensor or NumPy array, or
            :class:`matinfo.Gram`, with unit diagonal.
        K_latents: The same of the latents, over the same samples.
        alpha: Order; 1.01 in the released code.

    Returns:
        A scalar in nats; dtype of the input, at least float32.

    Raises:
        ValueError: As :func:`matinfo.mutual_information`; also of more than one matrix.
        TypeError: As :func:`matinfo.mutual_information`.

    Notes:
        As :func:`matinfo.mutual_information`. The released code has ``exp(-|x - y|^2/sigma)``, that is
        :func:`matinfo.kernels.rbf` with bandwidth ``sqrt(sigma/2)``: sigma = 1000 for images, and for latents the
        square of the mean distance to the ten nearest of the batch, itself included. It counts in bits: divide by
        log 2.

    References:
        Yu, Yu and Principe (2021), Deep deterministic information bottleneck with matrix-based entropy functional.

    Example:
        >>> import torch
        >>> from matinfo.losses import dib_loss
        >>> round(float(dib_loss(torch.eye(4), torch.ones(4, 4))), 4)  # constant latents keep nothing
        0.0
    """
    check_single("torch.func.vmap", K_inputs=K_inputs, K_latents=K_latents)
    return mutual_information(K_inputs, K_latents, alpha)


@quantity
def hsic_bottleneck_loss(
    K_inputs: Operand, K_latents: Operand, K_targets: Operand, *, beta: float = 100.0
) -> Tensor:
    """HSIC bottleneck: dependence of the latents on the inputs, less beta times that on the targets.

    ``HSIC(X, T) - beta HSIC(T, Y)`` with the biased ``HSIC = tr(K H L H)/(n - 1)^2``, see
    :func:`matinfo.hsic`.

    Args:
        K_inputs: Positive semi-definite matrix ``(n, n)`` of the inputs, n >= 2, as Tensor or NumPy array, or
            :class:`matinfo.Gram`.
        K_latents: The same of the latents, over the same samples.
        K_targets: The same of the targets, such as the Gram of one-hot labels.
        beta: Weight, > 0.

    Returns:
        A scalar; dtype of the input, at least float32.

    Raises:
        ValueError: As :func:`matinfo.hsic`; also of more than one matrix of each, or if ``beta <= 0``.
        TypeError: As :func:`matinfo.hsic`.

    Notes:
        Twice the cost of :func:`matinfo.hsic`. Not scale-free: it is bilinear in the matrices.

    References:
        Ma, Lewis and Kleijn (2020), The HSIC bottleneck: deep learning without back-propagation; Gretton et al. (2005),
        Measuring statistical dependence with Hilbert-Schmidt norms.

    Example:
        >>> import torch
        >>> from matinfo.losses import hsic_bottleneck_loss
        >>> labels = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
        >>> round(float(hsic_bottleneck_loss(torch.eye(4), labels, labels, beta=1.0)), 4)  # (2 - 4)/9
        -0.2222
    """
    check_positive(beta, "beta")
    check_single("torch.func.vmap", K_inputs=K_inputs, K_latents=K_latents, K_targets=K_targets)
    kept, e = hsic_and_exponent((K_inputs, K_latents), "hsic", "biased")
    told, f = hsic_and_exponent((K_latents, K_targets), "hsic", "biased")
    common = torch.maximum(e, f)  # two terms that float64 does not hold would leave NaN
    difference = times_power_of_two(kept, e - common) - beta * times_power_of_two(told, f - common)
    return times_power_of_two(difference, common)
