"""The second moment of one stream of feature rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from matinfo._conventions import describe_rows
from matinfo._keywords import answers_keywords
from matinfo._streams import (
    PRECISIONS,
    Stream,
    check_not_empty,
    check_rows,
    converted,
    good_rows,
    without_roundoff,
)
from matinfo._validation import check_choice, check_count
from matinfo.coding_rate import coding_rate, tcr
from matinfo.operands import StreamGram, dtype_given
from matinfo.operands.gram import constant_column
from matinfo.rank import rankme
from matinfo.spectral.precision import at_least_float32, without_autocast
from matinfo.spectrum import spectrum
from matinfo.streaming._sums import RunningSum

BLOCK_ENTRIES = 2**18
"""Entries of the rows that are in float64 at a time: few, so that they stay in the cache."""

BLOCK_ROWS = 4096
"""Rows of a float32 product at most: its rounding is not carried, so it must not grow with the batch."""


def block_rows(width: int, dtype: torch.dtype) -> int:
    """Rows to add at a time: enough for the product to outweigh the addition of d x d matrices."""
    return BLOCK_ROWS if dtype == torch.float32 else max(BLOCK_ENTRIES // width, 4 * width)


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
        precision: ``"float64"``, or ``"float32"``: rows and the products of up to 4096 of them are in float32, and
            every sum of products is two float32 numbers, the second the rounding of the first.

    Raises:
        ValueError: If ``width`` < 1, or ``nan`` or ``precision`` is unknown.
        TypeError: If ``width`` is not an integer.

    Notes:
        d^2 + d float64 numbers; an update of n rows takes 2 n d^2 flops. No gradient. Results are float64, and NumPy
        if the first batch was; as long as there is no row they are refused with a ValueError. Batches may have no rows.
        State lives on the device of the first batch. One thread at a time: give each an accumulator, and merge.

        With ``precision="float32"`` no float64 number is made before a result is asked for, and the error of an entry
        of M is that of the float32 products: at most ``4096 eps sum_i |z_ij z_ik|`` with eps = 1.2e-7 and in practice
        about ``eps sum_i |z_ij z_ik|``, however many batches there were. Eigenvalues of M below about
        ``sqrt(d) eps`` times their mean count as zero.

    References:
        Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance; Ogita, Rump and Oishi (2005),
        Accurate sum and dot product, for the compensation.

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

    @answers_keywords
    def __init__(
        self,
        width: int,
        *,
        center: bool = False,
        normalize: bool = True,
        nan: str = "error",
        precision: str = "float64",
    ) -> None:
        super().__init__(normalize, nan)
        self._width = check_count(width, "width")
        self._center = bool(center)
        self._dtype = getattr(torch, check_choice(precision, "precision", PRECISIONS))
        self._count = 0
        self._eps = torch.finfo(self._dtype).eps
        self._mean = RunningSum.zeros(self._width, dtype=self._dtype)
        self._moment = RunningSum.zeros(self._width, self._width, dtype=self._dtype)

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
        """
        Z = check_rows(features, self._width)
        with torch.no_grad(), without_autocast(Z.device):
            (rows,), skipped = good_rows([Z], self._nan)
            for block in rows.split(block_rows(self._width, self._dtype)):
                self._absorb(converted(block, self._dtype, normalize=self._normalize), dtype_given(Z))
        self._note(skipped, isinstance(features, np.ndarray))

    def second_moment(self) -> Tensor:
        """M, the sum over rows (not divided by their number).

        Returns:
            ``(d, d)``, symmetric, float64.
        """
        return self._out(self._symmetric())

    def covariance(self) -> Tensor:
        """``M / n``, the mean over rows: what to compare with another stream over the same columns.

        The covariance if the accumulator centres; of trace 1 if it normalises and does not centre. Two of them go
        into :func:`~matinfo.matrix_kl`, :func:`~matinfo.matrix_js` and :func:`~matinfo.spectrum_js`; their streams
        need not be aligned nor equally long.

        Returns:
            ``(d, d)``, symmetric, float64.
        """
        return self._out(self._symmetric() / self._count)

    def correlation(self) -> Tensor:
        """The correlation matrix of the columns, as :func:`matinfo.correlation` of all rows.

        ``M_ij / sqrt(M_ii M_jj)``, with unit diagonal; a zero (or, centred, constant) column is a direction of its own.

        Returns:
            ``(d, d)``, float64.
        """
        M = self._symmetric()
        variance = M.diagonal()
        scale = torch.where(variance <= 0, 0.0, variance.rsqrt())
        result = M * scale[:, None] * scale
        result.diagonal().copy_(torch.where(variance.isnan(), variance, 1.0))
        return self._out(result)

    def gram(self) -> StreamGram:
        """The Gram matrix of all rows so far, for every function of its spectrum.

        ``K = Z Z^T``, n x n, with Z all rows (normalised and centred if the accumulator is). Later updates do not
        change it. What needs more than its spectrum, such as a product with another matrix, is refused.

        Returns:
            What stands for it, of shape ``(n, n)`` and width d; it says so where it cannot answer.
        """
        return StreamGram(self._symmetric(), self._count, is_numpy=bool(self._numpy))

    def tcr(self, mu: float = 1.0) -> Tensor:
        """Total coding rate of all rows: :func:`matinfo.tcr` of :meth:`gram`."""
        return tcr(self.gram(), mu)

    def coding_rate(self, *, eps: float = 0.5) -> Tensor:
        """Coding rate of all rows: :func:`matinfo.coding_rate` of :meth:`gram`."""
        return coding_rate(self.gram(), eps=eps)

    def rankme(self, *, offset: float = 0.0) -> Tensor:
        """RankMe of all rows: :func:`matinfo.rankme` of the spectrum of :meth:`gram`."""
        return rankme(spectrum(self.gram()), offset=offset)

    def __repr__(self) -> str:
        rows = describe_rows(center=self._center, normalize=self._normalize)
        return f"CovarianceAccumulator(width={self._width}, count={self._count}, skipped={self._skipped}; {rows})"

    def _settings(self) -> dict[str, object]:
        precision = str(self._dtype).removeprefix("torch.")
        return {"width": self._width, "center": self._center, "precision": precision, **super()._settings()}

    def _add(self, other: CovarianceAccumulator) -> None:
        self._combine(other._count, other._mean, other._moment)
        self._eps = max(self._eps, other._eps)

    def _sum(self, total: Callable[[Tensor], Tensor]) -> None:
        single = self._eps > torch.finfo(torch.float64).eps
        count, singles = total(torch.tensor([self._count, int(single)])).tolist()
        moment, mean = self._moment.double(), self._mean.double()
        if self._center and count:
            whole = total(mean * self._count) / count
            step = mean.to(whole.device) - whole
            moment = moment.to(whole.device) + self._count * torch.outer(step, step)
            self._mean = RunningSum.of(whole, self._dtype)
        self._moment = RunningSum.of(total(moment), self._dtype)
        self._count = count
        self._eps = torch.finfo(torch.float32 if singles else torch.float64).eps

    def _symmetric(self) -> Tensor:
        check_not_empty(self._count, self._skipped)
        moment = self._moment.double()
        moment = (moment + moment.mT) / 2
        if self._dtype != torch.float64:
            moment = without_roundoff(moment, self._dtype)
        if not self._center:
            return moment
        constant = moment.diagonal() <= constant_column(self._count, self._mean.double(), self._eps)
        return moment.masked_fill(constant[:, None] | constant, 0.0)

    def _packed(self) -> Tensor:
        """All that there is of float64 sums as one tensor: rows with n, the round-off of the features, the mean, M."""
        M, mean = self._moment.value, self._mean.value
        return torch.cat(
            [M.new_full((1, self._width), x) for x in (self._count, self._eps)] + [mean[None], M]
        )

    @classmethod
    def _unpacked(cls, packed: Tensor) -> CovarianceAccumulator:
        """The centred accumulator of which :meth:`_packed` made a tensor."""
        stream = cls(packed.shape[1], center=True, normalize=False)
        stream._count, stream._eps = int(packed[0, 0]), float(packed[1, 0])
        stream._mean, stream._moment = RunningSum(packed[2].double()), RunningSum(packed[3:].double())
        return stream

    def _absorb(self, Z: Tensor, given: torch.dtype) -> None:
        """Add a block of rows that have been checked and are in the dtype of the sums."""
        rows = Z.shape[0]
        if rows == 0:
            return
        if self._center:
            rough = Z.mean(0)
            Z = Z - rough
            rest = Z.mean(0)  # what rounding has left of the mean
            Z -= rest
            mean = RunningSum(rough)
            mean.add(rest)
        else:
            mean = self._mean
        self._combine(rows, mean, RunningSum(Z.mT @ Z))
        self._eps = max(self._eps, torch.finfo(at_least_float32(given)).eps)

    def _combine(self, count: int, mean: RunningSum, moment: RunningSum) -> None:
        if count == 0:
            return
        device = self._moment.value.device if self._count else moment.value.device
        self._moment = self._moment.moved(device)
        self._moment.add_sum(moment.moved(device))
        total = self._count + count
        if self._center:
            self._mean = self._mean.moved(device)
            step = mean.moved(device).minus(self._mean)
            self._moment.add(torch.outer(step * (self._count * (count / total)), step))
            self._mean.add(step * (count / total))
        self._count = total
