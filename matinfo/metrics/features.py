"""Metrics of one stream of features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._validation import check_base, check_choice, check_count, check_order, check_positive
from matinfo.coding_rate import tcr
from matinfo.entropy import renyi_entropy
from matinfo.measures import MEASURES
from matinfo.metrics._base import MomentMetric, device_of
from matinfo.operands import StreamGram, dtype_given
from matinfo.rank import check_offset, effective_rank, rankme, vendi_score
from matinfo.spectral.precision import without_autocast
from matinfo.spectrum import spectrum
from matinfo.streaming import CovarianceAccumulator


def _together(states: Tensor) -> Tensor:
    """The moments of all rows out of those of several batches or ranks, stacked."""
    first, *others = [CovarianceAccumulator._unpacked(state) for state in states]
    for other in others:
        first.merge(other)
    return first._packed()


class _FeatureMetric(MomentMetric):
    """A function of the second moment of one stream."""

    def __init__(self, width: int, *, center: bool, normalize: bool, nan: str, **kwargs: Any) -> None:
        super().__init__(normalize, nan, **kwargs)
        self.width, self.center = check_count(width, "width"), bool(center)
        empty = CovarianceAccumulator(self.width, center=True, normalize=False)
        self._add_state("moments", empty._packed(), _together)

    def update(self, features: Tensor) -> None:
        """Add the rows of a batch.

        Args:
            features: ``(n, d)``, one row a sample.
        """
        with without_autocast(device_of(features, "features")):
            (Z,) = self._rows((features, self.width, "features"))
            stream = self._stream()
            stream._absorb(Z, dtype_given(features))
            self._set("moments", stream._packed())

    def _stream(self) -> CovarianceAccumulator:
        return CovarianceAccumulator._unpacked(self._state("moments"))

    def _second_moment(self) -> Tensor:
        stream = self._stream()
        if self.center:
            return stream._symmetric()
        mean, M = stream._mean.value, stream._moment.value
        return (M + M.mT) / 2 + stream.count * torch.outer(mean, mean)

    def _traces(self) -> list[Tensor]:
        return [self._second_moment().trace()]

    def _gram(self) -> StreamGram:
        return StreamGram(self._second_moment(), self.count)


class MatrixEntropy(_FeatureMetric):
    """Matrix entropy of the Gram matrix of all features: :func:`matinfo.renyi_entropy`.

    ``H_alpha(Z Z^T)`` with Z all rows.

    Args:
        width: d, the number of columns of every batch.
        alpha: Order in [0, inf].
        base: Base of the logarithm, > 1; None for nats.
        center: Whether to subtract the mean of all rows.
        normalize: Whether to divide each row by its l2 norm, before any centring.
        nan: ``"error"`` refuses a batch with NaN or infinity, ``"skip"`` leaves such rows out, ``"propagate"`` lets
            them in.
        **kwargs: For ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument is outside its domain.
        TypeError: If ``width`` is not an integer.

    Notes:
        All metrics of one stream raise these errors and hold d^2 + 3 d float64 numbers, gathered from all ranks: those
        of a centred :class:`matinfo.streaming.CovarianceAccumulator`, so that a large mean costs no digits.

    Example:
        >>> import torch
        >>> from matinfo.metrics import MatrixEntropy
        >>> metric = MatrixEntropy(4, base=2)
        >>> for batch in torch.eye(4).repeat(3, 1).split(5):
        ...     metric.update(batch)
        >>> round(float(metric.compute()), 4)
        2.0
    """

    def __init__(
        self,
        width: int,
        *,
        alpha: float = 1.0,
        base: float | None = None,
        center: bool = False,
        normalize: bool = True,
        nan: str = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(width, center=center, normalize=normalize, nan=nan, **kwargs)
        self.alpha, self.base = check_order(alpha), base
        check_base(base)

    def _value(self) -> Tensor:
        return renyi_entropy(self._gram(), self.alpha, base=self.base)


class EffectiveRank(_FeatureMetric):
    """Effective rank of the Gram matrix of all features: :func:`matinfo.effective_rank`.

    ``exp(H_alpha(Z Z^T))`` with Z all rows.

    Args:
        width: d, the number of columns of every batch.
        alpha: Order in [0, inf].
        center, normalize, nan: As for :class:`MatrixEntropy`.
        **kwargs: For ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from matinfo.metrics import EffectiveRank
        >>> metric = EffectiveRank(4)
        >>> metric.update(torch.eye(4)[:2])
        >>> metric.update(torch.eye(4)[2:])
        >>> round(float(metric.compute()), 4)
        4.0
    """

    plot_lower_bound = 1.0

    def __init__(
        self,
        width: int,
        *,
        alpha: float = 1.0,
        center: bool = False,
        normalize: bool = True,
        nan: str = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(width, center=center, normalize=normalize, nan=nan, **kwargs)
        self.alpha = check_order(alpha)

    def _value(self) -> Tensor:
        return effective_rank(self._gram(), self.alpha)


class RankMe(_FeatureMetric):
    """RankMe of all features: :func:`matinfo.rankme`.

    ``exp(-sum_k p_k log p_k)``, ``p_k = sigma_k / sum sigma + offset``, with sigma the singular values of all rows.

    Args:
        width: d, the number of columns of every batch.
        offset: Added to every p_k; RankMe's authors use 1e-7.
        center, normalize, nan: As for :class:`MatrixEntropy`.
        **kwargs: For ``torchmetrics.Metric``.

    Notes:
        Singular values below about 1e-8 of the largest count as zero.

    Example:
        >>> import torch
        >>> from matinfo.metrics import RankMe
        >>> metric = RankMe(3, normalize=False)  # rows as they are, as its authors take them
        >>> metric.update(torch.diag(torch.tensor([2.0, 1.0, 0.0])))
        >>> round(float(metric.compute()), 4)
        1.8899
    """

    plot_lower_bound = 1.0

    def __init__(
        self,
        width: int,
        *,
        offset: float = 0.0,
        center: bool = False,
        normalize: bool = True,
        nan: str = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(width, center=center, normalize=normalize, nan=nan, **kwargs)
        self.offset = check_offset(offset)

    def _value(self) -> Tensor:
        return rankme(spectrum(self._gram()), offset=self.offset)


class TotalCodingRate(_FeatureMetric):
    """Total coding rate of all features: :func:`matinfo.tcr`.

    ``log det(mu I_d + Z^T Z)`` with Z all rows.

    Args:
        width: d, the number of columns of every batch.
        mu: Ridge, > 0.
        center, normalize, nan: As for :class:`MatrixEntropy`.
        **kwargs: For ``torchmetrics.Metric``.

    Notes:
        It grows with the number of rows, as the definition does.

    Example:
        >>> import torch
        >>> from matinfo.metrics import TotalCodingRate
        >>> metric = TotalCodingRate(3)
        >>> metric.update(torch.eye(3))
        >>> round(float(metric.compute()), 4)  # 3 log 2
        2.0794
    """

    def __init__(
        self,
        width: int,
        *,
        mu: float = 1.0,
        center: bool = False,
        normalize: bool = True,
        nan: str = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(width, center=center, normalize=normalize, nan=nan, **kwargs)
        self.mu = check_positive(mu, "mu")

    def _traces(self) -> list[Tensor]:
        return []  # defined for the zero matrix too

    def _value(self) -> Tensor:
        return tcr(self._gram(), self.mu)


class VendiScore(_FeatureMetric):
    """Vendi score of all features under cosine similarity: :func:`matinfo.vendi_score`.

    ``exp(H_q(Z Z^T / n))`` with Z all rows, by default of unit length.

    Args:
        width: d, the number of columns of every batch.
        q: Order in [0, inf].
        normalize: Whether to divide each row by its l2 norm; if not, similarity is the inner product.
        nan: As for :class:`MatrixEntropy`.
        **kwargs: For ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from matinfo.metrics import VendiScore
        >>> metric = VendiScore(2)
        >>> metric.update(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 2.0]]))  # two kinds
        >>> round(float(metric.compute()), 4)
        2.0
    """

    higher_is_better = True
    plot_lower_bound = 1.0

    def __init__(
        self, width: int, *, q: float = 1.0, normalize: bool = True, nan: str = "error", **kwargs: Any
    ) -> None:
        super().__init__(width, center=False, normalize=normalize, nan=nan, **kwargs)
        self.q = check_order(q, "q")

    def _value(self) -> Tensor:
        return vendi_score(self._gram(), self.q)


class SpectralMeasure(_FeatureMetric):
    """Any measure of the spectrum of all features, by its name in :data:`matinfo.measures.MEASURES`.

    ``MEASURES[name].function(spectrum(Z Z^T))`` with Z all rows.

    Args:
        width: d, the number of columns of every batch.
        name: ``"stable_rank"``, ``"alpha_req"``, ``"isoscore"``, ...: those that need nothing but the spectrum.
        center: Whether to subtract the mean of all rows.
        normalize: Whether to divide each row by its l2 norm, before any centring. ``MEASURES[name].rows`` says what the
            definition assumes of the two.
        nan: As for :class:`MatrixEntropy`.
        **kwargs: For ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from matinfo.metrics import SpectralMeasure
        >>> metric = SpectralMeasure(3, "stable_rank")
        >>> metric.update(torch.eye(3))
        >>> round(float(metric.compute()), 4)
        3.0
    """

    def __init__(
        self,
        width: int,
        name: str,
        *,
        center: bool = False,
        normalize: bool = True,
        nan: str = "error",
        **kwargs: Any,
    ) -> None:
        super().__init__(width, center=center, normalize=normalize, nan=nan, **kwargs)
        of_spectrum = tuple([known for known, m in MEASURES.items() if m.of == "spectrum"])
        self.measure = check_choice(name, "name", of_spectrum)

    def _traces(self) -> list[Tensor]:
        return [] if MEASURES[self.measure].at_zero else super()._traces()

    def _value(self) -> Tensor:
        return MEASURES[self.measure].function(spectrum(self._gram()))
