"""The second moment of two aligned streams side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from matinfo._keywords import answers_keywords
from matinfo._streams import Stream, check_rows, compared, converted, good_rows
from matinfo._validation import check_count
from matinfo.divergence import matrix_js, matrix_kl, spectrum_js
from matinfo.operands import Gram, StreamGram, dtype_given
from matinfo.spectral.precision import without_autocast
from matinfo.streaming.covariance import CovarianceAccumulator, block_rows


class PairAccumulator(Stream):
    """The second moment of two aligned streams of feature rows, side by side.

    ``M = sum_i [z_i, y_i] [z_i, y_i]^T``: how the two n x n Gram matrices of all rows lie to one another, hence their
    divergences. For their Hadamard product, and so for mutual information, take :class:`JointAccumulator`.

    Args:
        width1: d_1, the number of columns of the first stream.
        width2: d_2, that of the second.
        center: Whether to subtract the mean of all rows from each stream.
        normalize: Whether to divide each row of each stream by its l2 norm, before any centring.
        nan: As for :class:`CovarianceAccumulator`; a sample that is not finite in one stream is left out of both.

    Raises:
        ValueError: If a width is < 1 or ``nan`` is unknown.
        TypeError: If a width is not an integer.

    Notes:
        ``(d_1 + d_2)^2`` float64 numbers; an update of n rows takes 2 n (d_1 + d_2)^2 flops. Divergences take an
        eigendecomposition of M and work on matrices of order min(n, d_1 + d_2) that differ from the n x n ones by an
        isometry. Results are float64, and refused with a ValueError as long as there is no sample.

    Example:
        >>> import torch
        >>> from matinfo.streaming import PairAccumulator
        >>> stream = PairAccumulator(1, 2)
        >>> for Z in torch.eye(2).repeat(3, 1).split(4):
        ...     stream.update(torch.ones(len(Z), 1), Z)  # one direction against two
        >>> stream.count, round(float(stream.matrix_js()), 4)
        (6, 0.2158)
    """

    streams = 2

    @answers_keywords
    def __init__(
        self, width1: int, width2: int, *, center: bool = False, normalize: bool = True, nan: str = "error"
    ) -> None:
        super().__init__(normalize, nan)
        self._widths = check_count(width1, "width1"), check_count(width2, "width2")
        self._side = CovarianceAccumulator(sum(self._widths), center=center, normalize=False)

    @property
    def widths(self) -> tuple[int, int]:
        """Numbers of columns of the two streams."""
        return self._widths

    @property
    def count(self) -> int:
        """Number of samples added."""
        return self._side.count

    def update(self, features1: Tensor | np.ndarray, features2: Tensor | np.ndarray) -> None:
        """Add a batch of samples, row i of both arguments the same one.

        Args:
            features1: ``(n, d_1)``, Tensor or NumPy array, n >= 0, real floating point.
            features2: ``(n, d_2)``.

        Raises:
            ValueError: If a width or the numbers of rows differ, or a row is not finite under ``nan="error"``.
        """
        Z1, Z2 = (
            check_rows(Z, width, f"features{i}")
            for i, (Z, width) in enumerate(zip((features1, features2), self.widths, strict=True), 1)
        )
        with torch.no_grad(), without_autocast(Z1.device):
            streams, skipped = good_rows([Z1, Z2.to(Z1.device)], self._nan)
            size = block_rows(self._side.width, torch.float64)
            for blocks in zip(*[Z.split(size) for Z in streams], strict=True):
                A, B = (converted(Z, torch.float64, normalize=self._normalize) for Z in blocks)
                self._absorb(A, B, torch.promote_types(dtype_given(Z1), dtype_given(Z2)))
        self._note(skipped, isinstance(features1, np.ndarray))

    def second_moment(self) -> Tensor:
        """M, the sum over samples (not divided by their number).

        Returns:
            ``(d_1 + d_2, d_1 + d_2)``, symmetric, float64.
        """
        return self._out(self._symmetric())

    def marginals(self) -> tuple[CovarianceAccumulator, CovarianceAccumulator]:
        """The two streams each for itself, for ranks, rates and correlations. Later updates do not change them.

        Returns:
            Two :class:`CovarianceAccumulator`.
        """
        self._symmetric()
        d1 = self.widths[0]
        return self._marginal(slice(0, d1)), self._marginal(slice(d1, None))

    def grams(self) -> tuple[StreamGram, StreamGram]:
        """The two Gram matrices of all rows, for functions of their single spectra.

        Returns:
            Two, each as :meth:`CovarianceAccumulator.gram`.
        """
        first, second = self.marginals()
        return first.gram(), second.gram()

    def matrix_kl(self) -> Tensor:
        """Matrix Kullback-Leibler divergence of the two Gram matrices of all rows, as :func:`matinfo.matrix_kl`.

        ``tr[K_1 (log K_1 - log K_2)] - tr K_1 + tr K_2``, ``K_1 = Z_1 Z_1^T``, ``K_2 = Z_2 Z_2^T``, not divided by
        traces. It is finite only if every column of the first stream is a linear combination of columns of the
        second; to compare distributions over one feature space take ``matrix_kl`` of two
        :meth:`CovarianceAccumulator.covariance`.

        Returns:
            A scalar >= 0 or ``inf``, in nats times the trace, float64.
        """
        return self._compared(matrix_kl)

    def matrix_js(self) -> Tensor:
        """Matrix Jensen-Shannon divergence of the two Gram matrices of all rows: see :func:`matinfo.matrix_js`."""
        return self._compared(matrix_js)

    def spectrum_js(self) -> Tensor:
        """Jensen-Shannon divergence of the spectra of the two Gram matrices: see :func:`matinfo.spectrum_js`."""
        return self._compared(spectrum_js)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(widths={self.widths}, count={self.count}, skipped={self._skipped})"

    def _settings(self) -> dict[str, object]:
        return {"widths": self.widths, "center": self._side._center, **super()._settings()}

    def _add(self, other: PairAccumulator) -> None:
        self._side.merge(other._side)

    def _sum(self, total: Callable[[Tensor], Tensor]) -> None:
        self._side = self._side.summed(total)

    def _symmetric(self) -> Tensor:
        return self._side._symmetric()

    def _absorb(self, A: Tensor, B: Tensor, given: torch.dtype) -> None:
        self._side._absorb(torch.cat([A, B], -1), given)

    def _marginal(self, columns: slice) -> CovarianceAccumulator:
        side = self._side
        width = side._mean.value[columns].numel()
        alone = CovarianceAccumulator(width, center=side._center, normalize=self._normalize, nan=self._nan)
        alone._count, alone._eps = self.count, side._eps
        alone._skipped, alone._numpy = self._skipped, self._numpy
        alone._mean, alone._moment = side._mean.part(columns), side._moment.part(columns, columns)
        return alone

    def _compared(self, divergence: Callable[[Gram, Gram], Tensor]) -> Tensor:
        return self._out(compared(self._symmetric(), self.widths, divergence))
