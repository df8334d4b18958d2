"""Metrics of two aligned streams of features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._streams import MEMORY_LIMIT, check_joint_memory, compared
from matinfo._validation import check_base, check_count, check_order
from matinfo.divergence import matrix_js
from matinfo.entropy import joint_entropy
from matinfo.information import mutual_information
from matinfo.metrics._base import MomentMetric, device_of
from matinfo.operands import StreamGram
from matinfo.spectral.khatri_rao import khatri_rao_moment
from matinfo.spectral.precision import without_autocast


class _PairMetric(MomentMetric):
    """A function of two aligned streams."""

    def __init__(self, width1: int, width2: int, *, normalize: bool, nan: str, **kwargs: Any) -> None:
        super().__init__(normalize, nan, **kwargs)
        self.width1, self.width2 = check_count(width1, "width1"), check_count(width2, "width2")

    def update(self, features1: Tensor, features2: Tensor) -> None:
        """Add a batch of samples, row i of both arguments the same one.

        Args:
            features1: ``(n, d_1)``.
            features2: ``(n, d_2)``.
        """
        with without_autocast(device_of(features1, "features1")):
            Z1, Z2 = self._rows((features1, self.width1, "features1"), (features2, self.width2, "features2"))
            self._absorb(Z1, Z2)

    def _absorb(self, Z1: Tensor, Z2: Tensor) -> None:
        raise NotImplementedError


class _JointMetric(_PairMetric):
    """A function of two Gram matrices and their Hadamard product."""

    def __init__(
        self,
        width1: int,
        width2: int,
        *,
        alpha: float = 1.0,
        base: float | None = None,
        normalize: bool = True,
        nan: str = "error",
        max_memory: float = MEMORY_LIMIT,
        **kwargs: Any,
    ) -> None:
        super().__init__(width1, width2, normalize=normalize, nan=nan, **kwargs)
        self.alpha, self.base = check_order(alpha), base
        check_base(base)
        check_joint_memory(self.width1, self.width2, max_memory)
        sizes = {"first": self.width1, "second": self.width2, "joint": self.width1 * self.width2}
        for name, size in sizes.items():
            self._add_state(name, torch.zeros(size, size, dtype=torch.float64))

    def _absorb(self, Z1: Tensor, Z2: Tensor) -> None:
        self._add("first", Z1.mT @ Z1)
        self._add("second", Z2.mT @ Z2)
        self._add("joint", khatri_rao_moment((Z1, Z2), torch.float64))

    def _traces(self) -> list[Tensor]:
        return [self._state(name).trace() for name in ("first", "second", "joint")]

    def _grams(self) -> tuple[StreamGram, StreamGram]:
        first, second, joint = ((M + M.mT) / 2 for M in map(self._state, ("first", "second", "joint")))
        return StreamGram.pair(first.double(), second.double(), joint.double(), self.count)


class MatrixMutualInformation(_JointMetric):
    """Mutual information of the Gram matrices of two streams: :func:`matinfo.mutual_information`.

    ``H_alpha(K_1) + H_alpha(K_2) - H_alpha(K_1 o K_2)`` with K_i over all samples.

    Args:
        width1: d_1, the number of columns of the first stream.
        width2: d_2, that of the second.
        alpha: Order in [0, inf].
        base: Base of the logarithm, > 1; None for nats.
        normalize: Whether to divide each row by its l2 norm, so that both matrices have unit diagonal.
        nan: As for :class:`MatrixEntropy`; a sample is left out of both streams.
        max_memory: Bytes that the joint second moment may take, default 2 GiB.
        **kwargs: For ``torchmetrics.Metric``.

    Raises:
        ValueError: If an argument is outside its domain, or ``8 (d_1 d_2)^2 > max_memory``.
        TypeError: If a width is not an integer.

    Notes:
        ``(d_1 d_2)^2`` float64 numbers, all summed over ranks; torchmetrics keeps copies of states, so count on
        four times as many bytes. Project wide features first.

    Example:
        >>> import torch
        >>> from matinfo.metrics import MatrixMutualInformation
        >>> metric = MatrixMutualInformation(2, 2, base=2)
        >>> bits = torch.eye(2)
        >>> metric.update(bits, bits.flip(-1))  # one bit is known from the other
        >>> round(float(metric.compute()), 4)
        1.0
    """

    def _value(self) -> Tensor:
        return mutual_information(*self._grams(), self.alpha, base=self.base)


class JointEntropy(_JointMetric):
    """Joint entropy of the Gram matrices of two streams: :func:`matinfo.joint_entropy`.

    ``H_alpha(K_1 o K_2)`` with K_i over all samples.

    Args:
        width1, width2, alpha, base, normalize, nan, max_memory: As for :class:`MatrixMutualInformation`, with which a
            ``MetricCollection`` shares its states.
        **kwargs: For ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from matinfo.metrics import JointEntropy
        >>> metric = JointEntropy(2, 2, base=2)
        >>> bits = torch.eye(2)
        >>> metric.update(bits[[0, 0, 1, 1]], bits[[0, 1, 0, 1]])
        >>> round(float(metric.compute()), 4)  # two independent bits
        2.0
    """

    def _value(self) -> Tensor:
        return joint_entropy(*self._grams(), alpha=self.alpha, base=self.base)


class MatrixJensenShannon(_PairMetric):
    """Matrix Jensen-Shannon divergence of the Gram matrices of two streams: :func:`matinfo.matrix_js`.

    ``H_1((P_1 + P_2)/2) - (H_1(P_1) + H_1(P_2))/2`` with ``P_i = K_i/tr K_i`` over all samples.

    Args:
        width1, width2, normalize, nan: As for :class:`MatrixMutualInformation`.
        **kwargs: For ``torchmetrics.Metric``.

    Notes:
        The mixture is the Gram matrix of ``[Z_1/sqrt(2 tr K_1), Z_2/sqrt(2 tr K_2)]``, side by side: (d_1 + d_2)^2
        float64 numbers, all summed over ranks.

    Example:
        >>> import torch
        >>> from matinfo.metrics import MatrixJensenShannon
        >>> metric = MatrixJensenShannon(1, 2)
        >>> metric.update(torch.ones(2, 1), torch.eye(2))  # one direction against two
        >>> round(float(metric.compute()), 4)
        0.2158
    """

    plot_lower_bound = 0.0

    def __init__(
        self, width1: int, width2: int, *, normalize: bool = True, nan: str = "error", **kwargs: Any
    ) -> None:
        super().__init__(width1, width2, normalize=normalize, nan=nan, **kwargs)
        size = self.width1 + self.width2
        self._add_state("side_by_side", torch.zeros(size, size, dtype=torch.float64))

    def _absorb(self, Z1: Tensor, Z2: Tensor) -> None:
        Z = torch.cat([Z1, Z2], -1)
        self._add("side_by_side", Z.mT @ Z)

    def _traces(self) -> list[Tensor]:
        squares = self._state("side_by_side").diagonal()
        return [squares[: self.width1].sum(), squares[self.width1 :].sum()]

    def _value(self) -> Tensor:
        M = self._state("side_by_side").double()
        return compared((M + M.mT) / 2, (self.width1, self.width2), matrix_js)
