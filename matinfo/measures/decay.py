"""The power law of the decay of a spectrum."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_count
from matinfo.operands import Operand
from matinfo.spectrum import Spectrum, as_spectral, spectrum


class PowerLaw(NamedTuple):
    """A fit ``lambda_k ~ k^-exponent``, each entry of the shape of the batch.

    Attributes:
        exponent: alpha, by weighted least squares of log lambda on log k.
        error: Its standard error if the residuals were independent; those of neighbouring eigenvalues are not.
        r2: Weighted share of the variance of log lambda that the line explains.
        first: Rank of the first eigenvalue of the fit.
        last: Rank of the last one: the range asked for ends where round-off begins.
    """

    exponent: Tensor
    error: Tensor
    r2: Tensor
    first: int
    last: Tensor


def power_law(K: Operand | Spectrum, *, first: int = 6, last: int = 100, weighted: bool = True) -> PowerLaw:
    """Power law of the decay of a spectrum, with its range and error.

    ``alpha, c = argmin sum_k w_k (log lambda_k + alpha log k - c)^2`` over ``first <= k <= last``, k the rank of
    lambda_k.

    Args:
        K: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`~matinfo.Gram` or a
            :class:`~matinfo.Spectrum`; of centred features for the eigenvalues of their covariance.
        first: First rank, at least 1. The default leaves out five, as the released code does.
        last: Last rank.
        weighted: Whether ``w_k = 1/k``, as in the released code, so that every octave of ranks weighs the same; else
            1, the regression that the paper names.

    Returns:
        A :class:`PowerLaw`, float64; NaN where fewer than three eigenvalues above round-off are in the range.

    Raises:
        ValueError: As :func:`matinfo.spectrum`; also if the range is empty.
        TypeError: If K is not real floating point.

    Notes:
        One decomposition, O(m) after it. Differentiable once.

    References:
        Agrawal, Mondal, Ghosh and Richards (2022), alpha-ReQ; Stringer, Pachitariu et al. (2019), High-dimensional
        geometry of population responses in visual cortex, for the weights.

    Example:
        >>> import numpy as np
        >>> from matinfo import Spectrum
        >>> from matinfo.measures import power_law
        >>> fit = power_law(Spectrum(np.arange(1, 101) ** -1.5))
        >>> round(float(fit.exponent), 6), fit.first, int(fit.last)
        (1.5, 6, 100)
    """
    S = spectrum(K)
    fit = _fit(S, first, last, weighted)
    return fit._replace(**{name: S.out(value) for name, value in fit._asdict().items() if name != "first"})


def _fit(S: Spectrum, first: int, last: int, weighted: bool) -> PowerLaw:
    if not check_count(first, "first") < check_count(last, "last"):
        raise ValueError(f"Expected first < last, got first={first}, last={last}.")
    x = S.eigenvalues
    k = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
    used = (k >= first) & (k <= last) & (x.detach() > S.noise.cut(x.detach().flip(-1)))
    count = used.sum(-1)
    w = used / k if weighted else used.double()
    w = w / w.sum(-1, keepdim=True)
    log_k, log_x = k.log(), torch.where(used, x, 1.0).log()
    u = log_k - (w * log_k).sum(-1, keepdim=True)
    v = log_x - (w * log_x).sum(-1, keepdim=True)
    spread = (w * u.square()).sum(-1)
    slope = torch.where(count > 2, (w * u * v).sum(-1) / spread, torch.nan)
    residual = (w * (v - slope[..., None] * u).square()).sum(-1)
    error = (residual / (spread * (count - 2).clamp_min(1))).sqrt()
    total = (w * v.square()).sum(-1)
    r2 = 1 - residual / total
    end = torch.where(count > 0, (k * used).amax(-1), torch.nan)
    return PowerLaw(-slope, error, r2, first, end)


@quantity
def alpha_req(K: Operand | Spectrum, *, first: int = 6, last: int = 100, weighted: bool = True) -> Tensor:
    """Alpha-ReQ: the exponent of the decay of a spectrum.

    ``alpha`` of :func:`power_law`, which gives its error and range too.

    Args:
        K: As for :func:`power_law`.
        first: First rank, at least 1.
        last: Last rank.
        weighted: Whether rank k weighs 1/k.

    Returns:
        ``(...)``, a pure number; NaN where fewer than three eigenvalues above round-off are in the range.

    Raises:
        ValueError: As :func:`power_law`.
        TypeError: If K is not real floating point.

    Notes:
        As :func:`power_law`. The value 1 is where the paper finds the best representations.

    Example:
        >>> import numpy as np
        >>> from matinfo import Spectrum
        >>> from matinfo.measures import alpha_req
        >>> round(float(alpha_req(Spectrum(1 / np.arange(1, 51)))), 6)
        1.0
    """
    return _fit(spectrum(as_spectral(K, "K", "alpha_req")), first, last, weighted).exponent
