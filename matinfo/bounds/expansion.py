"""U-MAE as the second-order term of M-MAE: how much the expansion leaves out, and where its series converges."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_choice, check_features, check_positive
from matinfo.operands import Gram, normalize_rows, smaller_side
from matinfo.spectral.traces import largest_eigenvalue, spectrum


@quantity
def mmae_convergence_ratio(features: Tensor, *, mu: float = 1.0, scale: str = "code") -> Tensor:
    """Largest expansion variable of M-MAE: its Taylor series converges exactly where this is at most 1.

    ``lambda_max(F^T F)/m`` with m = mu (``"paper"``) or d/mu (``"code"``), the rows of F l2-normalised here.

    Args:
        features: ``(..., n, d)`` features of a batch, Tensor or NumPy array.
        mu: The number given to :func:`matinfo.losses.mmae_tcr_loss`, > 0.
        scale: ``"code"`` or ``"paper"``, as there.

    Returns:
        ``(...)``, between n/(d m) and n/m, a pure number; dtype of the input, at least float32.

    Raises:
        ValueError: If mu <= 0, ``scale`` is unknown, or ``features`` has fewer than two dimensions or no entries.
        TypeError: If ``features`` is not real floating point.

    Notes:
        One list of eigenvalues on the smaller side. Collapsed features have n/m: in the code's scale at mu = 1 the
        series diverges for them as soon as the batch is larger than the width. First derivative only: the projector on
        the top eigenspace divided by its dimension.

    References:
        Tan et al. (2024), Theorem 5.2.

    Example:
        >>> import torch
        >>> from matinfo.bounds import mmae_convergence_ratio
        >>> round(float(mmae_convergence_ratio(torch.ones(1024, 768))), 4)  # collapsed: 1024/768
        1.3333
    """
    return _of_smaller_side(largest_eigenvalue, features, mu, scale)


@quantity
def mmae_remainder(features: Tensor, *, mu: float = 1.0, scale: str = "code") -> Tensor:
    """What the second-order expansion of M-MAE leaves out.

    ``sum_i [log(1 + x_i) - x_i + x_i^2/2]`` over the eigenvalues x of ``F^T F/m``, m = mu (``"paper"``) or d/mu
    (``"code"``): the U-MAE approximation ``-sum x + sum x^2/2`` of the M-MAE loss lies this much above it.

    Args:
        features: ``(..., n, d)`` features of a batch, Tensor or NumPy array; rows l2-normalised here.
        mu: The number given to :func:`matinfo.losses.mmae_tcr_loss`, > 0.
        scale: ``"code"`` or ``"paper"``, as there.

    Returns:
        ``(...)``, >= 0, in nats; dtype of the input, at least float32.

    Raises:
        ValueError: If mu <= 0, ``scale`` is unknown, or ``features`` has fewer than two dimensions or no entries.
        TypeError: If ``features`` is not real floating point.

    Notes:
        ``sum x^2/2`` is ``n^2/(2 m^2)`` times :func:`matinfo.losses.umae_uniformity_loss`. As a share of that term the
        remainder is at most ``2 r/(3 + 2 r)``, r the :func:`mmae_convergence_ratio`. One list of eigenvalues on the
        smaller side. First derivative only.

    References:
        Tan et al. (2024), Theorem 5.2.

    Example:
        >>> import torch
        >>> from matinfo.bounds import mmae_remainder
        >>> round(float(mmae_remainder(torch.ones(4, 4))), 4)  # x = 1, 0, 0, 0: log 2 - 1/2
        0.1931
    """
    x = _of_smaller_side(spectrum, features, mu, scale)
    series = torch.stack([(-x) ** k / (k + 3) for k in range(12)]).sum(0)  # no digits lost where x is small
    return torch.where(x < 0.03, x**3 * series, x.log1p() - x + x**2 / 2).sum(-1)


@quantity
def mmae_remainder_bound(features: Tensor, *, mu: float = 1.0, scale: str = "code") -> Tensor:
    """Simple upper bound of :func:`mmae_remainder` that holds inside and outside the radius of convergence.

    ``sum_i x_i^3/(3 + 2 x_i)`` over the eigenvalues x of ``F^T F/m``. It is less than both ``sum x^3/3``, the next
    Taylor term, and ``sum x^2/2``, the U-MAE term itself, and at most 3/2 of the remainder.

    Args:
        features: ``(..., n, d)`` features of a batch, Tensor or NumPy array; rows l2-normalised here.
        mu: The number given to :func:`matinfo.losses.mmae_tcr_loss`, > 0.
        scale: ``"code"`` or ``"paper"``, as there.

    Returns:
        ``(...)``, >= 0, in nats; dtype of the input, at least float32.

    Raises:
        ValueError: If mu <= 0, ``scale`` is unknown, or ``features`` has fewer than two dimensions or no entries.
        TypeError: If ``features`` is not real floating point.

    Notes:
        One list of eigenvalues on the smaller side. First derivative only.

    References:
        Tan et al. (2024), Theorem 5.2; proved in the theory section of the documentation.

    Example:
        >>> import torch
        >>> from matinfo.bounds import mmae_remainder_bound
        >>> float(mmae_remainder_bound(torch.ones(4, 4)))  # x = 1, 0, 0, 0
        0.2
    """
    x = _of_smaller_side(spectrum, features, mu, scale)
    return (x**3 / (3 + 2 * x)).sum(-1)


def _of_smaller_side(solver: Callable[..., Tensor], features: Tensor, mu: float, scale: str) -> Tensor:
    """Expansion variables x: what a solver finds of ``F^T F``, over m."""
    check_choice(scale, "scale", ("code", "paper"))
    check_positive(mu, "mu")
    side = smaller_side(Gram(normalize_rows(check_features(features, "features"))))
    m = mu if scale == "paper" else features.shape[-1] / mu
    return solver(side.matrix, side.noise, side=side.name) / m
