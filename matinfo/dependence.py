"""Dependence between two kernel matrices: DiME, the Hilbert-Schmidt independence criterion and centred alignment."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import (
    check_choice,
    check_count,
    check_order,
    check_same_samples,
    values_are_readable,
)
from matinfo.entropy import joint_entropy_of
from matinfo.operands import Gram, Operand, as_operands
from matinfo.operands.matrix import check_matrix


@quantity
def dime(
    K1: Operand,
    K2: Operand,
    *,
    alpha: float = 1.0,
    permutations: int = 10,
    generator: torch.Generator | None = None,
    precision: str = "auto",
) -> Tensor:
    """Difference of matrix-based entropies of two kernel matrices (DiME).

    ``mean_P H_alpha(K_1 o P K_2 P^T) - H_alpha(K_1 o K_2)``, the mean over random permutations P of the samples: how
    much joint entropy is lost because row i of one matrix belongs to row i of the other.

    Args:
        K1: Positive semi-definite matrices ``(..., n, n)`` as Tensor or NumPy array, or :class:`Gram`, with unit
            diagonal.
        K2: The same, over the same samples.
        alpha: Order in [0, inf]; the authors use 1.01 to stand for 1.
        permutations: Number of permutations, >= 1; each is used for the whole batch.
        generator: Source of the permutations, a generator of any device; None for the global CPU one. Equal states
            give equal results.
        precision: ``"auto"``, ``"float32"`` or ``"float64"`` for the spectral work.

    Returns:
        ``(...)`` in nats; dtype of the input, at least float32. At alpha = 1 and unit diagonals at most
        ``I_1(K_1; K_2)``. Zero in expectation where the pairing of the samples is random, and exactly where a matrix is
        constant or the identity: unlike mutual information it rewards neither collapse nor kernels that tell all
        samples apart. An estimate may be slightly negative.

    Raises:
        ValueError: As :func:`joint_entropy`; also if ``permutations < 1``.
        TypeError: If a matrix is not real floating point, or ``permutations`` is not an integer.

    Notes:
        ``permutations + 1`` joint entropies, one after the other; derivatives as theirs. Grams stay factors, and are
        multiplied as n x n matrices or row by row (Khatri-Rao): never as d x d covariances, whose Hadamard product has
        another meaning. The estimate's standard error falls with the root of ``permutations``.

    References:
        Skean, Osorio, Brockmeier and Sanchez Giraldo (2023), DiME: Maximizing mutual information by a difference of
        matrix-based entropies.

    Example:
        >>> import torch
        >>> from matinfo import Gram, dime
        >>> K = Gram(torch.eye(2).repeat(50, 1))  # one bit, seen twice: near log 2
        >>> round(float(dime(K, K, generator=torch.Generator().manual_seed(0))), 2)
        0.69
        >>> float(dime(K, Gram(torch.ones(100, 1))))
        0.0
    """
    order = check_order(alpha)
    count = check_count(permutations, "permutations")
    first, second = as_operands((K1, K2), "dime")
    joint = joint_entropy_of([first, second], order, precision)
    n = second.shape[-1]
    device = torch.device("cpu") if generator is None else generator.device
    lost = []
    for _ in range(count):
        permutation = torch.randperm(n, generator=generator, device=device).to(second.device)
        lost.append(joint_entropy_of([first, second.reordered(permutation)], order, precision) - joint)
    return sum(lost[1:], lost[0]) / count


@quantity
def hsic(K1: Operand, K2: Operand, *, estimator: str = "biased") -> Tensor:
    """Hilbert-Schmidt independence criterion of two kernel matrices.

    Biased: ``tr(K_1 H K_2 H) / (n - 1)^2`` with ``H = I - 11^T/n``. Unbiased, with L_i for K_i without its diagonal:
    ``(tr(L_1 L_2) + 1^T L_1 1 1^T L_2 1 / ((n - 1)(n - 2)) - 2 1^T L_1 L_2 1 / (n - 2)) / (n (n - 3))``.

    Args:
        K1: Kernel matrices ``(..., n, n)`` as Tensor or NumPy array, or :class:`Gram`. Not normalised.
        K2: The same, over the same samples.
        estimator: ``"biased"`` or ``"unbiased"`` (n >= 4).

    Returns:
        ``(...)``, dtype of the input, at least float32. Biased: non-negative, zero where a matrix is constant.
        Unbiased: of mean zero for independent samples, and then as often negative.

    Raises:
        ValueError: If a matrix is not square or symmetric, the orders differ, the estimator is unknown, or there are
            fewer than two (unbiased: four) samples. Matrices need not be positive semi-definite: minus a distance,
            which is so after centring, is a kernel too.
        TypeError: If a matrix is not real floating point.

    Notes:
        O(n^2); of two Grams of features O(n d_1 d_2), and no n x n matrix is formed. Not free of scale: it is
        multiplied by the product of the scales. All work is in float64. Derivatives of every order. With the kernel
        ``-|x - y|/2`` four times the HSIC is the squared distance covariance, up to the factor ``((n - 1)/n)^2`` of
        the biased one.

    References:
        Gretton, Bousquet, Smola and Schölkopf (2005), equation 9; Song, Smola, Gretton, Bedo and Borgwardt (2012),
        equation 5; Sejdinovic, Sriperumbudur, Gretton and Fukumizu (2013) for distances.

    Example:
        >>> import torch
        >>> from matinfo import hsic
        >>> bits = torch.eye(2)[[0, 0, 1, 1]]
        >>> round(float(hsic(bits @ bits.mT, bits @ bits.mT)), 4)
        0.4444
    """
    check_choice(estimator, "estimator", ("biased", "unbiased"))
    first, second = _float64((K1, K2), "hsic", estimator)
    return _hsic(first, second, estimator)


@quantity
def cka(K1: Operand, K2: Operand, *, estimator: str = "biased") -> Tensor:
    """Centred kernel alignment.

    ``HSIC(K_1, K_2) / sqrt(HSIC(K_1, K_1) HSIC(K_2, K_2))``: linear CKA of features X and Y is
    ``cka(Gram(X), Gram(Y))``, kernel CKA that of kernel matrices.

    Args:
        K1: Kernel matrices ``(..., n, n)`` as Tensor or NumPy array, or :class:`Gram`.
        K2: The same, over the same samples.
        estimator: Of the three criteria, as in :func:`hsic`: ``"biased"``, as usual, or ``"unbiased"``, which does not
            grow with the number of features where there is nothing in common.

    Returns:
        ``(...)``, dtype of the input, at least float32. Biased: in [0, 1].

    Raises:
        ValueError: As :func:`hsic`; also if a matrix is constant (NaN on a GPU, where no value is waited for).
        TypeError: If a matrix is not real floating point.

    Notes:
        Three times the cost of :func:`hsic`. Free of scale, shifts and, for features, rotations.

    References:
        Cortes, Mohri and Rostamizadeh (2012); Kornblith, Norouzi, Lee and Hinton (2019), Similarity of neural network
        representations revisited; Nguyen, Raghu and Kornblith (2021) for the unbiased one.

    Example:
        >>> import torch
        >>> from matinfo import Gram, cka
        >>> X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> round(float(cka(Gram(X), Gram(2 * X + 1))), 4)
        1.0
    """
    check_choice(estimator, "estimator", ("biased", "unbiased"))
    first, second = _float64((K1, K2), "cka", estimator)
    own = _hsic(first, first, estimator) * _hsic(second, second, estimator)
    if values_are_readable(own) and own.device.type == "cpu" and bool((own <= 0).any()):
        raise ValueError("Expected matrices that are not constant, got one, which has no direction to align.")
    return _hsic(first, second, estimator) / own.sqrt()


def _float64(Ks: tuple[Operand, ...], function: str, estimator: str) -> list[Tensor | Gram]:
    """The matrices in their own scale; a Gram of plain features stays one."""
    as_operands(Ks, function)
    check_same_samples([tuple(K.shape) for K in Ks])
    n, least = Ks[0].shape[-1], 4 if estimator == "unbiased" else 2
    if n < least:
        raise ValueError(f"Expected at least {least} samples, got {n}.")
    if all([isinstance(K, Gram) and len(K.terms) == 1 and len(K.terms[0]) == 1 for K in Ks]):
        return [K for K in Ks if isinstance(K, Gram)]
    return [
        K.dense(torch.float64)
        if isinstance(K, Gram)
        else check_matrix(cast(Tensor, K), "K", function).double()
        for K in Ks
    ]


def _hsic(first: Tensor | Gram, second: Tensor | Gram, estimator: str) -> Tensor:
    n = first.shape[-1]
    if estimator == "biased":
        if isinstance(first, Gram) and isinstance(second, Gram):
            A, B = (
                Z - Z.mean(-2, keepdim=True)
                for Z in (first.terms[0][0].double(), second.terms[0][0].double())
            )
            return (A.mT @ B).square().sum((-2, -1)) / (n - 1) ** 2
        assert isinstance(first, Tensor)
        assert isinstance(second, Tensor)
        return (_centred(first) * _centred(second)).sum((-2, -1)) / (n - 1) ** 2
    inner, sums = _without_diagonal(first, second)
    total = (sums[0].sum(-1) * sums[1].sum(-1)) / ((n - 1) * (n - 2))
    return (inner + total - 2 / (n - 2) * (sums[0] * sums[1]).sum(-1)) / (n * (n - 3))


def _centred(K: Tensor) -> Tensor:
    """``H K H``."""
    K = K - K.mean(-2, keepdim=True)
    return K - K.mean(-1, keepdim=True)


def _without_diagonal(first: Tensor | Gram, second: Tensor | Gram) -> tuple[Tensor, list[Tensor]]:
    """``tr(L_1 L_2)`` and the row sums of L_1 and L_2, the matrices without their diagonals."""
    if isinstance(first, Gram) and isinstance(second, Gram):
        # The unbiased criterion does not see a shift of the features, and without it less cancels.
        A, B = (
            Z - Z.mean(-2, keepdim=True) for Z in (first.terms[0][0].double(), second.terms[0][0].double())
        )
        lengths = [Z.square().sum(-1) for Z in (A, B)]
        inner = (A.mT @ B).square().sum((-2, -1)) - (lengths[0] * lengths[1]).sum(-1)
        rows = [(Z @ Z.sum(-2, keepdim=True).mT)[..., 0] for Z in (A, B)]
        return inner, [row - length for row, length in zip(rows, lengths, strict=True)]
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    L1, L2 = (K - torch.diag_embed(K.diagonal(dim1=-2, dim2=-1)) for K in (first, second))
    return (L1 * L2).sum((-2, -1)), [L1.sum(-1), L2.sum(-1)]
