"""Dependence between two kernel matrices judged against permuted samples: DiME."""

from __future__ import annotations

import torch
from torch import Tensor

from matinfo._interface import quantity
from matinfo._validation import check_count, check_order
from matinfo.entropy import joint_entropy_of
from matinfo.operands import Operand, as_operands


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
