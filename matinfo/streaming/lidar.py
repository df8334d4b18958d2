"""LiDAR of a stream of samples and their augmentations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from matinfo._streams import Stream, check_not_empty, good_rows
from matinfo._validation import check_views
from matinfo.measures.spectra import lidar_of
from matinfo.operands import as_tensor
from matinfo.streaming.covariance import CovarianceAccumulator


class LidarAccumulator(Stream):
    """The two covariances of :func:`matinfo.measures.lidar`, of samples that come in batches.

    Args:
        width: d, the number of columns of every view.
        nan: What to do with a sample one of whose views holds NaN or infinity: ``"error"``, ``"skip"`` or
            ``"propagate"``, as for :class:`CovarianceAccumulator`.

    Raises:
        ValueError: If ``width`` < 1 or ``nan`` is unknown.
        TypeError: If ``width`` is not an integer.

    Notes:
        Two accumulators of d^2 + d float64 numbers, mergeable in any order and over ranks. No gradient. All views of a
        sample are in one batch; their number may differ between batches.

    Example:
        >>> import torch
        >>> from matinfo.measures import lidar
        >>> from matinfo.streaming import LidarAccumulator
        >>> views = torch.randn(2, 50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> stream = LidarAccumulator(4)
        >>> for batch in views.split(20, dim=1):
        ...     stream.update(batch)
        >>> stream.count, abs(float(stream.lidar()) - float(lidar(views))) < 1e-12
        (50, True)
    """

    def __init__(self, width: int, *, nan: str = "error") -> None:
        super().__init__(normalize=False, nan=nan)
        self._means = CovarianceAccumulator(width, center=True, normalize=False, nan="propagate")
        self._within = CovarianceAccumulator(width, normalize=False, nan="propagate")

    @property
    def width(self) -> int:
        """Number of columns."""
        return self._means.width

    @property
    def count(self) -> int:
        """Number of samples added."""
        return self._means.count

    def update(self, views: Tensor | np.ndarray) -> None:
        """Add the samples of a batch.

        Args:
            views: ``(V, n, d)``, V >= 2 views of n samples, Tensor or NumPy array, real floating point.

        Raises:
            ValueError: If the shape does not fit, or a sample is not finite under ``nan="error"``.
        """
        Z = check_views(as_tensor(views), "views", least=2)
        if Z.ndim != 3 or Z.shape[-1] != self.width:
            raise ValueError(f"Expected views of shape (V, n, {self.width}), got {tuple(Z.shape)}.")
        (rows,), skipped = good_rows([Z.detach().double().movedim(0, 1).flatten(1)], self._nan)
        Z = rows.unflatten(1, (Z.shape[0], self.width))
        means = Z.mean(1)
        self._means.update(means)
        self._within.update((Z - means[:, None]).flatten(0, 1))
        self._note(skipped, isinstance(views, np.ndarray))

    def lidar(self, *, delta: float = 1e-4, offset: float = 0.0) -> Tensor:
        """LiDAR of all samples so far: see :func:`matinfo.measures.lidar`."""
        check_not_empty(self.count, self._skipped)
        return self._out(lidar_of(self._means.covariance(), self._within.covariance(), delta, offset))

    def __repr__(self) -> str:
        return f"LidarAccumulator(width={self.width}, count={self.count}, skipped={self._skipped})"

    def _settings(self) -> dict[str, object]:
        return {"width": self.width, "nan": self._nan}

    def _add(self, other: LidarAccumulator) -> None:
        self._means.merge(other._means)
        self._within.merge(other._within)

    def _sum(self, total: Callable[[Tensor], Tensor]) -> None:
        self._means, self._within = self._means.summed(total), self._within.summed(total)
