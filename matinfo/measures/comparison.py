"""Two models, two sets of samples, several answers: what their spectra share."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_choice, check_count, check_positive
from matinfo.entropy import entropy_of
from matinfo.operands import Gram, Operand
from matinfo.operands.matrix import check_matrix
from matinfo.spectral.eigensolver import eigh_psd
from matinfo.spectral.entropy_function import entropy_of_eigenvalues
from matinfo.spectrum import Spectrum, as_spectral, spectrum

_NO_ENTROPY = 1e-12
"""Entropies up to this are the round-off of a constant."""


@quantity
def entropy_difference_ratio(K1: Operand | Spectrum, K2: Operand | Spectrum) -> Tensor:
    """Matrix entropy difference ratio (HDR) of two representations of the same samples.

    ``|H_1(K_1) - H_1(K_2)| / max(H_1(K_1), H_1(K_2))``, and 0 where both entropies are 0. Its companion, the matrix
    mutual information ratio (MIR), is ``normalized_mutual_information(K1, K2)``, by the smaller entropy.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`~matinfo.Gram` or a
            :class:`~matinfo.Spectrum`.
        K2: The same; the orders may differ.

    Returns:
        ``(...)``, between 0 (equal entropies) and 1, a pure number.

    Raises:
        ValueError: As :func:`matinfo.renyi_entropy`.
        TypeError: If a matrix is not real floating point.

    Notes:
        Two decompositions, in float64, but for a Spectrum; the gradient at equal entropies is zero.

    References:
        Song, Tan, Zou, Ma and Huang (2024), Unveiling the dynamics of information interplay in supervised learning.

    Example:
        >>> import torch
        >>> from matinfo.measures import entropy_difference_ratio
        >>> round(float(entropy_difference_ratio(torch.eye(4), torch.eye(2))), 4)
        0.5
    """
    spectra = [
        spectrum(as_spectral(K, name, "entropy_difference_ratio")) for K, name in ((K1, "K1"), (K2, "K2"))
    ]
    first, second = (entropy_of(S, 1.0) for S in spectra)
    larger = torch.maximum(first, second)
    return (first - second).abs() / torch.where(larger <= _NO_ENTROPY, torch.inf, larger)


@quantity
def representation_js(K: Operand, count: int, *, keep: int | None = None) -> Tensor:
    """Representation Jensen-Shannon divergence of two sets of samples.

    ``S((C_x + C_y)/2) - (S(C_x) + S(C_y))/2`` with the kernel covariances C (mean of ``phi phi^T``) of the two sets and
    S the von Neumann entropy. It is :func:`matinfo.matrix_js` of the two d x d covariances where features are explicit.

    Args:
        K: Kernel matrix ``(..., n + m, n + m)`` of both sets together, unit diagonal, as Tensor or NumPy array, or
            :class:`~matinfo.Gram`.
        count: n, the size of the first set, which comes first.
        keep: The bias correction of the released code: each entropy keeps so many of its largest eigenvalues, and the
            rest of the trace is spread evenly over the other ones, min(n + m, d) in all. The mixture has twice as many
            samples as each set, so that without a correction its entropy is less biased downwards and the divergence
            biased upwards: by about log 2 for kernels so narrow that samples share nothing.

    Returns:
        ``(...)``, between 0 and log 2 without ``keep``, in nats.

    Raises:
        ValueError: If ``count`` is not below n + m; as :func:`matinfo.renyi_entropy`.
        TypeError: If K is not real floating point.

    Notes:
        Three decompositions, of the smaller sides, in float64; first derivative. The released code weighs the sets by
        their sizes, which is the same for n = m.

    References:
        Hoyos-Osorio and Sanchez Giraldo (2023), The representation Jensen-Shannon divergence, Definition 1 and
        Section 4.

    Example:
        >>> import torch
        >>> from matinfo import Gram
        >>> from matinfo.measures import representation_js
        >>> same, other = torch.eye(2)[[0, 0]], torch.eye(2)[[1, 1]]
        >>> round(float(representation_js(Gram(torch.cat([same, other])), 2)), 4)  # log 2
        0.6931
    """
    K, n, total = two_sets(K, count, "representation_js")
    weight = torch.full((total,), (2 * (total - n)) ** -0.5, dtype=torch.float64, device=K.device)
    weight[:n] = (2 * n) ** -0.5
    order = min(K.width, total) if isinstance(K, Gram) else total
    entropies = []
    for rows in (slice(None), slice(0, n), slice(n, None)):  # of w_i K_ij w_j over these
        w = weight[rows]
        if isinstance(K, Gram):
            part: Operand = Gram(K.features(torch.float64)[..., rows, :] * w[:, None])
        else:
            part = K.double()[..., rows, rows] * w[:, None] * w
        entropies.append(_entropy(part, keep, order))
    return entropies[0] - (entropies[1] + entropies[2]) / 2


def two_sets(K: Operand, count: int, function: str) -> tuple[Tensor | Gram, int, int]:
    """A kernel matrix of two sets of samples together, the size of the first, and of both."""
    K = K if isinstance(K, Gram) else check_matrix(cast(Tensor, K), "K", function)
    n, total = check_count(count, "count"), K.shape[-1]
    if n >= total:
        raise ValueError(f"Expected count below the {total} samples, got {n}.")
    return K, n, total


def _entropy(K: Operand, keep: int | None, order: int) -> Tensor:
    if keep is None:
        return entropy_of(K, 1.0)
    S = spectrum(K)
    x = S.eigenvalues
    rest = order - check_count(keep, "keep")
    if rest <= 0:
        return entropy_of_eigenvalues(x, 1.0, S.noise)
    top = x[..., :keep]
    tail = (x.sum(-1, keepdim=True) - top.sum(-1, keepdim=True)) / rest
    return entropy_of_eigenvalues(torch.cat([top, tail.expand(*tail.shape[:-1], rest)], -1), 1.0, S.noise)


@quantity
def semantic_kernel(
    W: Tensor, *, kind: str = "heat", time: float = 0.4, nu: float = 1.0, kappa: float = 1.0
) -> Tensor:
    """Semantic kernel of several answers, whose von Neumann entropy is the kernel language entropy.

    ``exp(-t L)`` (``"heat"``) or ``(2 nu/kappa^2 I + L)^-nu`` (``"matern"``) of the graph Laplacian ``L = diag(W 1) -
    W``, then divided to unit diagonal. ``kernel_language_entropy = von_neumann_entropy(semantic_kernel(W))``; over
    ``log n`` it is the released code's scaled one, :func:`normalized_entropy`.

    Args:
        W: How much two answers mean the same, ``(..., n, n)``, symmetric, >= 0: for instance the sum of the entailment
            probabilities both ways, by a model of natural-language inference. Tensor or NumPy array.
        kind: ``"heat"`` or ``"matern"``.
        time: t > 0 of the heat kernel; the released code's 0.4.
        nu: Smoothness > 0 of the Matérn kernel.
        kappa: Length > 0 of the Matérn kernel.

    Returns:
        ``(..., n, n)``, positive definite with unit diagonal, dtype of W, at least float32. No gradient.

    Raises:
        ValueError: If W is not square and symmetric or has a negative entry, or an argument is outside its domain.
        TypeError: If W is not real floating point.

    Notes:
        One decomposition, in float64. The diagonal of W does not matter.

    References:
        Nikitin, Kossen, Gal and Marttinen (2024), Kernel language entropy, Sections 3 and 4.

    Example:
        >>> import torch
        >>> from matinfo import von_neumann_entropy
        >>> from matinfo.measures import semantic_kernel
        >>> apart = torch.zeros(4, 4)  # four answers that have nothing in common
        >>> round(float(von_neumann_entropy(semantic_kernel(apart), base=2)), 4)
        2.0
    """
    check_choice(kind, "kind", ("heat", "matern"))
    time, nu, kappa = (check_positive(x, name) for x, name in ((time, "time"), (nu, "nu"), (kappa, "kappa")))
    weights = check_matrix(W, "W", "semantic_kernel").detach().double()
    if bool((weights < 0).any()):
        raise ValueError(f"Expected weights >= 0, got {weights.min().item():.3g}.")
    L = torch.diag_embed(weights.sum(-1)) - weights
    x, Q = eigh_psd(L, side="matrix")
    x = x.clamp_min(0.0)
    if kind == "heat":
        f = torch.exp(-time * x)
    else:
        f = (2 * nu / kappa**2 + x) ** -nu
    K = (Q * f[..., None, :]) @ Q.mT
    scale = K.diagonal(dim1=-2, dim2=-1).rsqrt()
    K = K * scale[..., :, None] * scale[..., None, :]
    K.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return K
