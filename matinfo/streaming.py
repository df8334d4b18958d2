"""Second moments of features that arrive in batches, in constant memory, mergeable in any order.

The spectrum of the n x n Gram matrix of all rows is that of a d x d sum over rows, so that the rows need not be kept.
Sums are in float64; centring is by the pairwise update of Chan, Golub and LeVeque (1983), which loses no digits to a
large mean.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from matinfo._streams import (
    MEMORY_LIMIT,
    Stream,
    StreamGram,
    check_joint_memory,
    check_not_empty,
    check_rows,
    prepared_rows,
    singular_value_rank,
)
from matinfo._validation import check_count, check_positive
from matinfo.coding_rate import matrix_tcr
from matinfo.operands import Gram
from matinfo.spectral.khatri_rao import khatri_rao_moment
from matinfo.spectral.precision import at_least_float32, without_autocast

__all__ = ["CovarianceAccumulator", "JointAccumulator"]

BLOCK_ENTRIES = 2**22
"""Entries of the rows that are in float64 at a time."""


class CovarianceAccumulator(Stream):
    """The second moment of a stream of feature rows.

    ``M = sum_i z_i z_i^T``, or ``sum_i (z_i - m)(z_i - m)^T`` with m the mean of all rows. M is the dual of the
    n x n Gram matrix of all rows, so that :meth:`gram` gives every entropy and rank of that matrix.

    Args:
        width: d, the number of columns of every batch.
        center: Whether to subtract the mean of all rows, exactly, whatever the batches were.
        normalize: Whether to divide each row by its l2 norm (zero rows stay zero), before any centring.
        nan: What to do with a row that holds NaN or infinity: ``"error"`` refuses the batch and leaves the
            accumulator as it was, ``"skip"`` leaves the row out and counts it, ``"propagate"`` lets it in.

    Raises:
        ValueError: If ``width`` < 1 or ``nan`` is unknown.
        TypeError: If ``width`` is not an integer.

    Notes:
        d^2 + d float64 numbers; an update of n rows takes 2 n d^2 flops. No gradient. Results are float64, and NumPy
        if the first batch was. Batches may have no rows. State lives on the device of the first batch.

    References:
        Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.

    Example:
        >>> import torch
        >>> from matinfo import effective_rank
        >>> from matinfo.streaming import CovarianceAccumulator
        >>> stream = CovarianceAccumulator(3)
        >>> for batch in torch.eye(3).repeat(4, 1).split(5):
        ...     stream.update(batch)
        >>> stream.count, round(float(effective_rank(stream.gram())), 6)
        (12, 3.0)
    """

    def __init__(
        self, width: int, *, center: bool = False, normalize: bool = False, nan: str = "error"
    ) -> None:
        super().__init__(normalize, nan)
        self._width = check_count(width, "width")
        self._center = bool(center)
        self._count = 0
        self._eps = torch.finfo(torch.float64).eps
        self._mean = torch.zeros(self._width, dtype=torch.float64)
        self._moment = torch.zeros(self._width, self._width, dtype=torch.float64)

    @property
    def width(self) -> int:
        """Number of columns."""
        return self._width

    @property
    def count(self) -> int:
        """Number of rows added."""
        return self._count

    def update(self, features: Tensor | np.ndarray) -> None:
        """Add the rows of a batch.

        Args:
            features: ``(n, d)``, Tensor or NumPy array, n >= 0, real floating point.

        Raises:
            ValueError: If the width differs, or a row is not finite under ``nan="error"``.
            TypeError: If ``features`` is not real floating point.
        """
        Z = check_rows(features, self._width)
        with torch.no_grad(), without_autocast(Z.device):
            (rows,), skipped = prepared_rows([Z], normalize=self._normalize, nan=self._nan)
            self._absorb(rows, torch.finfo(at_least_float32(Z.dtype)).eps)
        self._note(skipped, isinstance(features, np.ndarray))

    def merge(self, other: CovarianceAccumulator) -> None:
        """Add the rows of another accumulator, which stays as it is; ``a + b`` makes a new one.

        Args:
            other: Made with the same arguments.

        Raises:
            ValueError: If its arguments differ.
            TypeError: If it is not of the same class.
        """
        self._check_mergeable(other)
        self._combine(other._count, other._mean, other._moment)
        self._eps = max(self._eps, other._eps)
        self._note(other._skipped, other._numpy)

    def second_moment(self) -> Tensor:
        """M, the sum over rows (not divided by their number).

        Returns:
            ``(d, d)``, symmetric, float64.

        Raises:
            ValueError: If no row has been added.
        """
        return self._out(self._symmetric())

    def correlation(self) -> Tensor:
        """The correlation matrix of the columns, as :func:`matinfo.correlation` of all rows.

        ``M_ij / sqrt(M_ii M_jj)``, with unit diagonal; a zero (or, centred, constant) column is a direction of its own.

        Returns:
            ``(d, d)``, float64.

        Raises:
            ValueError: If no row has been added.
        """
        M = self._symmetric()
        variance = M.diagonal()
        roundoff = self._count * (4 * self._eps * self._mean).square() if self._center else 0.0 * variance
        scale = torch.where(variance <= roundoff, 0.0, variance.rsqrt())
        result = M * scale[:, None] * scale
        result.diagonal().copy_(torch.where(variance.isnan(), variance, 1.0))
        return self._out(result)

    def gram(self) -> Gram:
        """The Gram matrix of all rows so far, for every function of its spectrum.

        ``K = Z Z^T``, n x n, with Z all rows (normalised and centred if the accumulator is). Later updates do not
        change it. What needs more than its spectrum, such as a product with another matrix, is refused.

        Returns:
            A :class:`~matinfo.Gram` of shape ``(n, n)`` and width d.

        Raises:
            ValueError: If no row has been added.
        """
        return StreamGram(self._symmetric(), self._count, is_numpy=bool(self._numpy))

    def tcr(self, mu: float = 1.0) -> Tensor:
        """Total coding rate of all rows, as :func:`matinfo.tcr`.

        ``log det(mu I_d + M)``.

        Args:
            mu: Ridge, > 0.

        Returns:
            A scalar in nats, float64.

        Raises:
            ValueError: If mu <= 0 or no row has been added.
        """
        return matrix_tcr(self.second_moment(), mu)

    def coding_rate(self, *, eps: float = 0.5) -> Tensor:
        """Coding rate of all rows, as :func:`matinfo.coding_rate`.

        ``1/2 log det(I + d/(n eps^2) M)``.

        Args:
            eps: Distortion, > 0.

        Returns:
            A scalar >= 0 in nats, float64.

        Raises:
            ValueError: If eps <= 0 or no row has been added.
        """
        check_positive(eps, "eps")
        moment = self.second_moment()
        return 0.5 * matrix_tcr(moment * (self._width / (self._count * eps**2)))

    def rankme(self, *, offset: float = 0.0) -> Tensor:
        """RankMe of all rows, as :func:`matinfo.rankme`.

        ``exp(-sum_k p_k log p_k)``, ``p_k = sigma_k / sum sigma + offset``, ``sigma_k`` the roots of the min(n, d)
        largest eigenvalues of M. Singular values below about 1e-8 of the largest are in the round-off of M and count
        as zero.

        Args:
            offset: Added to every p_k.

        Returns:
            A scalar, a number of dimensions, float64.

        Raises:
            ValueError: If offset < 0 or no row has been added.
        """
        return self._out(singular_value_rank(self._symmetric(), self._count, offset))

    def __repr__(self) -> str:
        return f"CovarianceAccumulator(width={self._width}, count={self._count}, skipped={self._skipped})"

    def _settings(self) -> dict[str, object]:
        return {"width": self._width, "center": self._center, **super()._settings()}

    def _symmetric(self) -> Tensor:
        check_not_empty(self._count, self._skipped)
        return (self._moment + self._moment.mT) / 2

    def _absorb(self, Z: Tensor, eps: float) -> None:
        """Add rows that have been checked, in float64."""
        for block in Z.split(max(1, BLOCK_ENTRIES // self._width)):
            if block.shape[0] == 0:
                continue
            mean = block.mean(0)
            centred = block - mean if self._center else block
            self._combine(block.shape[0], mean, centred.mT @ centred)
        self._eps = max(self._eps, eps)

    def _combine(self, count: int, mean: Tensor, moment: Tensor) -> None:
        if count == 0:
            return
        device = self._moment.device if self._count else moment.device
        total = self._count + count
        step = mean.to(device) - self._mean.to(device)
        self._moment = self._moment.to(device) + moment.to(device)
        if self._center:
            self._moment += torch.outer(step, step) * (self._count * (count / total))
        self._mean = self._mean.to(device) + step * (count / total)
        self._count = total


class JointAccumulator(Stream):
    """The joint second moment of two aligned streams of feature rows.

    ``M = sum_i (z_i kron y_i)(z_i kron y_i)^T``, d_1 d_2 x d_1 d_2: the dual of the Hadamard product of the two
    n x n Gram matrices of all rows. With the two single second moments it gives their joint and conditional
    entropies and their mutual information, at every order.

    Args:
        width1: d_1, the number of columns of the first stream.
        width2: d_2, that of the second.
        normalize: Whether to divide each row by its l2 norm, so that both matrices have unit diagonal.
        nan: As for :class:`CovarianceAccumulator`; a sample that is not finite in one stream is left out of both.
        max_memory: Bytes that M may take, default 2 GiB; widths that need more are refused at once.

    Raises:
        ValueError: If a width is < 1, ``nan`` is unknown, or ``8 (d_1 d_2)^2 > max_memory``.
        TypeError: If a width is not an integer.

    Notes:
        ``8 (d_1 d_2)^2`` bytes, up to three times as much during an update; 2 n (d_1 d_2)^2 flops for n rows. Not
        centred: the rows centred by a mean that is known only at the end would need moments of all lower orders.

    References:
        Khatri and Rao (1968) for the Hadamard product of Gram matrices; Giraldo et al. (2014) for the joint entropy.

    Example:
        >>> import torch
        >>> from matinfo import joint_entropy, mutual_information
        >>> from matinfo.streaming import JointAccumulator
        >>> stream = JointAccumulator(2, 2)
        >>> for labels in (torch.tensor([0, 1]), torch.tensor([1, 0, 1])):
        ...     Z = torch.eye(2)[labels]
        ...     stream.update(Z, Z.flip(-1))
        >>> K1, K2 = stream.grams()
        >>> round(float(mutual_information(K1, K2)), 4), round(float(joint_entropy(K1, K2)), 4)  # the label's entropy
        (0.673, 0.673)
    """

    def __init__(
        self,
        width1: int,
        width2: int,
        *,
        normalize: bool = False,
        nan: str = "error",
        max_memory: float = MEMORY_LIMIT,
    ) -> None:
        super().__init__(normalize, nan)
        self._first, self._second = CovarianceAccumulator(width1), CovarianceAccumulator(width2)
        check_joint_memory(self._first.width, self._second.width, max_memory)
        order = self._first.width * self._second.width
        self._joint = torch.zeros(order, order, dtype=torch.float64)

    @property
    def widths(self) -> tuple[int, int]:
        """Numbers of columns of the two streams."""
        return self._first.width, self._second.width

    @property
    def count(self) -> int:
        """Number of samples added."""
        return self._first.count

    def update(self, features1: Tensor | np.ndarray, features2: Tensor | np.ndarray) -> None:
        """Add a batch of samples, row i of both arguments the same one.

        Args:
            features1: ``(n, d_1)``, Tensor or NumPy array, n >= 0, real floating point.
            features2: ``(n, d_2)``.

        Raises:
            ValueError: If a width or the numbers of rows differ, or a row is not finite under ``nan="error"``.
            TypeError: If an argument is not real floating point.
        """
        Z1, Z2 = (
            check_rows(Z, width, f"features{i}")
            for i, (Z, width) in enumerate(zip((features1, features2), self.widths, strict=True), 1)
        )
        eps = torch.finfo(torch.float64).eps
        with torch.no_grad(), without_autocast(Z1.device):
            (A, B), skipped = prepared_rows([Z1, Z2.to(Z1.device)], normalize=self._normalize, nan=self._nan)
            device = self._joint.device if self.count else A.device
            self._joint = self._joint.to(device) + khatri_rao_moment((A, B), torch.float64).to(device)
            self._first._absorb(A, eps)
            self._second._absorb(B, eps)
        self._note(skipped, isinstance(features1, np.ndarray))

    def merge(self, other: JointAccumulator) -> None:
        """Add the samples of another accumulator, which stays as it is; ``a + b`` makes a new one.

        Args:
            other: Made with the same arguments.

        Raises:
            ValueError: If its arguments differ.
            TypeError: If it is not of the same class.
        """
        self._check_mergeable(other)
        device = self._joint.device if self.count else other._joint.device
        self._joint = self._joint.to(device) + other._joint.to(device)
        self._first.merge(other._first)
        self._second.merge(other._second)
        self._note(other._skipped, other._numpy)

    def second_moment(self) -> Tensor:
        """M, the sum over samples (not divided by their number).

        Returns:
            ``(d_1 d_2, d_1 d_2)``, symmetric, float64; index ``i d_2 + j`` stands for columns i and j.

        Raises:
            ValueError: If no sample has been added.
        """
        return self._out(self._symmetric())

    def gram(self) -> Gram:
        """The Hadamard product of the two Gram matrices, for every function of its spectrum.

        Returns:
            A :class:`~matinfo.Gram` of shape ``(n, n)`` and width d_1 d_2.

        Raises:
            ValueError: If no sample has been added.
        """
        return StreamGram(self._symmetric(), self.count, is_numpy=bool(self._numpy))

    def grams(self) -> tuple[Gram, Gram]:
        """The two Gram matrices, which may be multiplied with one another.

        They go into :func:`~matinfo.mutual_information`, :func:`~matinfo.joint_entropy`,
        :func:`~matinfo.conditional_entropy` and whatever else needs single spectra and that of the product. Later
        updates do not change them.

        Returns:
            Two :class:`~matinfo.Gram` of shape ``(n, n)``.

        Raises:
            ValueError: If no sample has been added.
        """
        joint = self._symmetric()
        singles = self._first._symmetric(), self._second._symmetric()
        return StreamGram.pair(*singles, joint, self.count, is_numpy=bool(self._numpy))

    def __repr__(self) -> str:
        return f"JointAccumulator(widths={self.widths}, count={self.count}, skipped={self._skipped})"

    def _settings(self) -> dict[str, object]:
        return {"widths": self.widths, **super()._settings()}

    def _symmetric(self) -> Tensor:
        check_not_empty(self.count, self._skipped)
        return (self._joint + self._joint.mT) / 2
