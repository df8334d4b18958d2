"""Losses that make features Gaussian: SIGReg over random slices, its limit of infinitely many, BHEP without slices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_choice, check_count, check_positive
from matinfo.losses._batch import one_batch


@quantity
def sigreg_loss(
    features: Tensor,
    *,
    form: str = "sliced",
    slices: int = 1024,
    t_max: float = 3.0,
    nodes: int = 17,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sketched isotropic Gaussian regularisation (SIGReg) of LeJEPA: the Epps-Pulley statistic of random slices.

    ``mean_a B int |mean_b exp(i t a . z_b) - exp(-t^2/2)|^2 exp(-t^2/2) dt`` over unit vectors a: how far the
    characteristic function of each slice is from the standard normal's.
    ``"sliced"``: random a, t between -t_max and t_max by the trapezoidal rule, as released.
    ``"limit"``: all a and all t,
    ``B sqrt(2 pi) [mean_bc M(|z_b - z_c|^2/2) - sqrt(2) mean_b M(|z_b|^2/4) + 1/sqrt(3)]`` with
    ``M(x) = E_a exp(-x a_1^2) = 1F1(1/2; d/2; -x)``: a maximum mean discrepancy with a kernel of heavy tails.

    Args:
        features: ``(B, d)`` embeddings of a batch, neither normalised nor centred.
        form: ``"sliced"`` or ``"limit"``.
        slices: Number of random directions of ``"sliced"``.
        t_max: Where its integral ends, > 0.
        nodes: Number of its nodes on [0, t_max], >= 2.
        generator: Source of the directions, a generator of any device; None for the global CPU one. Equal states on all
            ranks give equal slices.

    Returns:
        A scalar >= 0; dtype of the input, at least float32. About 1 for a standard normal batch, and of the order of B
        at collapse.

    Raises:
        ValueError: If ``features`` does not have two dimensions or has no entries, ``form`` is unknown, or a number is
            not positive.
        TypeError: If ``features`` is not real floating point or a count not an integer.

    Notes:
        In float64. ``"sliced"``: O(B slices (d + nodes)). ``"limit"``: O(B^2 (d + 40)), and no variance from
        slices. The statistic and its gradient are bounded for features of any size.
        17 nodes to 3, as released, miss 0.3 % of the weight.

    References:
        Balestriero and LeCun (2025), LeJEPA: Provable and scalable self-supervised learning without the heuristics;
        Epps and Pulley (1983), A test for normality based on the empirical characteristic function; Zimmermann et al.
        (2025), KerJEPA: Kernel discrepancies for Euclidean self-supervised learning, for the limit.

    Example:
        >>> import torch
        >>> from matinfo.losses import sigreg_loss
        >>> collapsed = torch.zeros(8, 3)  # 8 int (1 - exp(-t^2/2))^2 exp(-t^2/2) dt
        >>> round(float(sigreg_loss(collapsed, form="limit")), 4)
        3.2714
    """
    check_choice(form, "form", ("sliced", "limit"))
    check_count(slices, "slices")
    check_positive(t_max, "t_max")
    check_count(nodes, "nodes", 2, "an interval has two ends")
    Z = one_batch(features, "features").double()
    if form == "limit":
        distances, norms = _squares(Z)
        pairs, own = _mean_over_slices(distances / 2, Z.shape[1]), _mean_over_slices(norms / 4, Z.shape[1])
        discrepancy = pairs.mean() - math.sqrt(2) * own.mean() + 1 / math.sqrt(3)
        return len(Z) * math.sqrt(2 * math.pi) * discrepancy
    device = torch.device("cpu") if generator is None else generator.device
    A = torch.randn(Z.shape[1], slices, dtype=torch.float64, device=device, generator=generator).to(Z.device)
    t = torch.linspace(0.0, t_max, nodes, dtype=torch.float64, device=Z.device)
    normal = (-t.square() / 2).exp()
    weights = torch.full_like(t, 2 * t_max / (nodes - 1))  # twice the half line
    weights[0] = weights[-1] = t_max / (nodes - 1)
    statistic = torch.zeros((), dtype=torch.float64, device=Z.device)
    projections = Z @ (A / A.norm(dim=0))
    for node, value, weight in zip(t, normal, weights * normal, strict=True):
        angle = node * projections
        error = (angle.cos().mean(0) - value).square() + angle.sin().mean(0).square()
        statistic = statistic + weight * error.mean()
    return len(Z) * statistic


@quantity
def bhep_loss(features: Tensor, *, beta: float = 0.1) -> Tensor:
    """Statistic of Baringhaus, Henze, Epps and Pulley (BHEP) against the standard normal, without slices.

    ``mean_bc exp(-beta^2 |z_b - z_c|^2/2) - 2 (1 + beta^2)^(-d/2) mean_b exp(-beta^2 |z_b|^2/(2 + 2 beta^2))
    + (1 + 2 beta^2)^(-d/2)``: the squared maximum mean discrepancy of a Gaussian kernel.

    Args:
        features: ``(B, d)`` embeddings of a batch, neither normalised nor centred.
        beta: Inverse width of the kernel, > 0; 0.1 in the released code of LeJEPA. Near ``1/sqrt(2 d)`` it sees
            distances as they are between standard normal vectors.

    Returns:
        A scalar in [0, 2] up to round-off; dtype of the input, at least float32.

    Raises:
        ValueError: If ``features`` does not have two dimensions or has no entries, or ``beta <= 0``.
        TypeError: If ``features`` is not real floating point.

    Notes:
        O(B^2 d), in float64. In many dimensions a beta of 1 sees nothing: all three terms but the diagonal vanish.

    References:
        Henze and Wagner (1997), A new approach to the BHEP tests for multivariate normality; Zimmermann et al. (2025)
        for its use as a loss.

    Example:
        >>> import torch
        >>> from matinfo.losses import bhep_loss
        >>> round(float(bhep_loss(torch.zeros(8, 1), beta=1.0)), 4)  # 1 - sqrt(2) + 1/sqrt(3)
        0.1631
    """
    check_positive(beta, "beta")
    Z = one_batch(features, "features").double()
    width, b = Z.shape[1], beta**2
    distances, norms = _squares(Z)
    return (
        (-b / 2 * distances).exp().mean()
        - 2 * (1 + b) ** (-width / 2) * (-b / (2 + 2 * b) * norms).exp().mean()
        + (1 + 2 * b) ** (-width / 2)
    )


_FAR = 1e140
"""Longer rows are shortened to it: float64 holds their squares."""


def _squares(Z: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances of all pairs of rows, and of each row from zero."""
    # Squares must exist; kernels are zero long before.
    Z = Z / (Z.detach().abs().amax() / _FAR).clamp(min=1.0)
    U = Z - Z.detach().mean(0)  # changes no distance, and their round-off shrinks
    # The lengths of the product's own rounding: a row is at distance 0 from itself, were it as long as 1e10.
    products = U @ U.mT
    lengths = products.diagonal()
    distances = lengths[:, None] + lengths - 2 * products
    # Not below zero, but with the derivatives that a clamp would cut off between equal rows.
    return distances - distances.detach().clamp(max=0.0), Z.square().sum(1)


_STEP, _TAIL, _LARGEST = 0.15, 37.0, 1e30
"""Step of the rule below, the exponent at which it ends, and where M(x) is zero for all purposes."""


def _mean_over_slices(x: Tensor, width: int) -> Tensor:
    """``E exp(-x u^2)``, u the first coordinate of a uniform point on the sphere of R^d."""
    x = x.clamp(max=_LARGEST)[..., None]
    if width == 1:
        return (-x[..., 0]).exp()
    # With u = tanh y the density (1 - u^2)^((d-3)/2) becomes sech(y)^(d-1), and y = s sinh t makes peak and tail as
    # wide as each other: an integrand on which the trapezoidal rule converges exponentially (Takahasi and Mori, 1974).
    power, half = width - 1, (width - 1) / 2
    exponent = _TAIL / power
    end = exponent + math.log1p(math.sqrt(-math.expm1(-2 * exponent)))  # where sech(y)^(d-1) is exp(-37)
    count = math.ceil(math.asinh(end * math.sqrt(_TAIL + half)) / _STEP)
    t = _STEP * torch.arange(count + 1, dtype=x.dtype, device=x.device)
    s = (x.detach() + half).rsqrt()
    y = s * t.sinh()
    log_density = -power * (y + torch.log1p((-2 * y).exp()) - math.log(2)) - x * y.tanh().square()
    weight = 2 * _STEP * s * t.cosh()  # both signs of y
    integral = (weight * log_density.exp()).sum(-1) - weight[..., 0] / 2  # and y = 0 once
    log_area = math.lgamma(0.5) + math.lgamma(half) - math.lgamma(half + 0.5)
    return integral / math.exp(log_area)
