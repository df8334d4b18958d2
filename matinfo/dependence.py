"""Dependence between two kernel matrices: DiME, the Hilbert-Schmidt independence criterion and centred alignment."""

from __future__ import annotations

from typing import Any

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
from matinfo.operands.operator import TiledOperator, tiled_operator
from matinfo.spectral.normalize import times_power_of_two, without_scale


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
def hsic(K1: Operand | TiledOperator, K2: Operand | TiledOperator, *, estimator: str = "biased") -> Tensor:
    """Hilbert-Schmidt independence criterion of two kernel matrices.

    Biased: ``tr(K_1 H K_2 H) / (n - 1)^2`` with ``H = I - 11^T/n``. Unbiased, with L_i for K_i without its diagonal:
    ``(tr(L_1 L_2) + 1^T L_1 1 1^T L_2 1 / ((n - 1)(n - 2)) - 2 1^T L_1 L_2 1 / (n - 2)) / (n (n - 3))``.

    Args:
        K1: Kernel matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`Gram`, or a
            :class:`~matinfo.estimate.KernelOperator` (or products and sums of these). Not normalised.
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
        O(n^2); of two Grams of features O(n d_1 d_2), and no n x n matrix is formed. Where one is never formed, both
        are computed tile by tile, twice, at any n and without derivatives; else derivatives of every order. Not free of
        scale: it is multiplied by the product of the scales. All work is in float64. With the kernel
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
    return times_power_of_two(*hsic_and_exponent((K1, K2), "hsic", estimator))


@quantity
def cka(K1: Operand | TiledOperator, K2: Operand | TiledOperator, *, estimator: str = "biased") -> Tensor:
    """Centred kernel alignment.

    ``HSIC(K_1, K_2) / sqrt(HSIC(K_1, K_1) HSIC(K_2, K_2))``: linear CKA of features X and Y is
    ``cka(Gram(X), Gram(Y))``, kernel CKA that of kernel matrices.

    Args:
        K1: Kernel matrices ``(..., n, n)`` as Tensor or NumPy array, a :class:`Gram`, or a
            :class:`~matinfo.estimate.KernelOperator`.
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
    (first, _), (second, _) = without_scales((K1, K2), "cka", estimator)
    return hsic_of(first, second, estimator) / hsic_of_each(first, second, estimator)


def hsic_and_exponent(Ks: tuple[Any, Any], function: str, estimator: str) -> tuple[Tensor, Tensor]:
    """The criterion, float64, of matrices of size 1 or so; and the power of two that it is to be multiplied by."""
    (first, e), (second, f) = without_scales(Ks, function, estimator)
    return hsic_of(first, second, estimator), e + f


def without_scales(Ks: tuple[Any, ...], function: str, estimator: str) -> list[tuple[Any, Tensor]]:
    """All of one kind: features, operators where one is never formed, else entries; with the exponent taken out."""
    by_tiles = any([isinstance(K, TiledOperator) for K in Ks])
    operands = [tiled_operator(K, function) for K in Ks] if by_tiles else as_operands(Ks, function)
    check_same_samples([tuple(K.shape) for K in operands])
    n, least = operands[0].shape[-1], 4 if estimator == "unbiased" else 2
    if n < least:
        raise ValueError(f"Expected at least {least} samples, got {n}.")
    if by_tiles:  # of a known kernel, or of features that its blocks take as they are
        return [(K, torch.zeros((), dtype=torch.float64, device=K.device)) for K in operands]
    plain = all([isinstance(K, Gram) and K.is_plain for K in operands])
    return [_without_scale(K, plain) for K in operands]


def _without_scale(K: Any, plain: bool) -> tuple[Any, Tensor]:
    if isinstance(K, Gram):
        K, exponent = K.without_scale()
        return (K if plain else K.dense(torch.float64)), exponent
    entries, exponent = without_scale(K.entries, torch.float64)
    return entries, exponent if K.exponent is None else exponent + K.exponent


def hsic_of(first: Any, second: Any, estimator: str) -> Tensor:
    """The criterion of two matrices of one kind, float64."""
    n = first.shape[-1]
    if isinstance(first, TiledOperator):
        inner = _inner_of_tiles(first, second, estimator)
    elif isinstance(first, Gram):
        inner = _inner_of_features(first, second, estimator)
    else:
        A, B = (_centred_whole(K, estimator) for K in (first, second))
        inner = (A * B).sum((-2, -1))
    return inner / ((n - 1) ** 2 if estimator == "biased" else n * (n - 3))


def hsic_of_each(first: Any, second: Any, estimator: str) -> Tensor:
    """The criteria of two matrices with themselves, their geometric mean."""
    own = hsic_of(first, first, estimator) * hsic_of(second, second, estimator)
    if values_are_readable(own) and own.device.type == "cpu" and bool((own <= 0).any()):
        raise ValueError("Expected matrices that are not constant, got one, which has no direction to align.")
    return own.sqrt()


def _inner_of_features(first: Gram, second: Gram, estimator: str) -> Tensor:
    """Neither criterion sees a shift of the features, and without it less cancels."""
    n = first.shape[-1]
    A, B = (Z - Z.mean(-2, keepdim=True) for Z in (K.features(torch.float64) for K in (first, second)))
    inner = (A.mT @ B).square().sum((-2, -1))
    if estimator == "biased":
        return inner
    lengths = [Z.square().sum(-1) for Z in (A, B)]
    rows = [
        (Z @ Z.sum(-2, keepdim=True).mT)[..., 0] - length for Z, length in zip((A, B), lengths, strict=True)
    ]
    total = rows[0].sum(-1) * rows[1].sum(-1) / ((n - 1) * (n - 2))
    return inner - (lengths[0] * lengths[1]).sum(-1) + total - 2 / (n - 2) * (rows[0] * rows[1]).sum(-1)


def _inner_of_tiles(first: TiledOperator, second: TiledOperator, estimator: str) -> Tensor:
    """Two passes over both: what is multiplied is centred, so that nothing large cancels."""
    ones = torch.ones(first.shape[0], 1, dtype=torch.float64, device=first.device)
    sums = []
    for K in (first, second):
        rows_of = K.matmat(ones)[:, 0]
        sums.append(rows_of if estimator == "biased" else rows_of - K.diagonal())
    half = first.is_trusted and second.is_trusted
    inner = torch.zeros((), dtype=torch.float64, device=first.device)
    for rows, columns, block in first.tiles(half=half):
        blocks = block.double(), second.entries(rows, columns).double()
        A, B = (
            _centred(K, s[rows], s[columns], s.sum(), len(s), estimator)
            for K, s in zip(blocks, sums, strict=True)
        )
        product = A * B
        if estimator == "unbiased":
            product.diagonal(rows.start - columns.start).zero_()
        inner += (2 if half and rows != columns else 1) * product.sum()
    return inner


def _centred_whole(K: Tensor, estimator: str) -> Tensor:
    L = K if estimator == "biased" else _without_diagonal(K)
    centred = _centred(L, L.sum(-1), L.sum(-2), L.sum((-2, -1)), K.shape[-1], estimator)
    return centred if estimator == "biased" else _without_diagonal(centred)


def _centred(block: Tensor, rows: Tensor, columns: Tensor, total: Tensor, n: int, estimator: str) -> Tensor:
    """``H K H``; or, where the diagonal is not to count, the U-centred matrix of Székely and Rizzo (2014)."""
    each, whole = (n, n**2) if estimator == "biased" else (n - 2, (n - 1) * (n - 2))
    return block - rows[..., :, None] / each - columns[..., None, :] / each + total[..., None, None] / whole


def _without_diagonal(K: Tensor) -> Tensor:
    return K - torch.diag_embed(K.diagonal(dim1=-2, dim2=-1))
