"""The joint second moment of two aligned streams."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matinfo._keywords import answers_keywords
from matinfo._streams import MEMORY_LIMIT, check_joint_memory
from matinfo.operands import StreamGram
from matinfo.spectral.khatri_rao import khatri_rao_moment
from matinfo.streaming.pair import PairAccumulator


class JointAccumulator(PairAccumulator):
    """The joint second moment of two aligned streams of feature rows.

    ``M = sum_i (z_i kron y_i)(z_i kron y_i)^T``, d_1 d_2 x d_1 d_2: the dual of the Hadamard product of the two
    n x n Gram matrices of all rows. With the two single second moments it gives their joint and conditional
    entropies and their mutual information, at every order. What :class:`PairAccumulator` has it has too.

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

    @answers_keywords
    def __init__(
        self,
        width1: int,
        width2: int,
        *,
        normalize: bool = True,
        nan: str = "error",
        max_memory: float = MEMORY_LIMIT,
    ) -> None:
        super().__init__(width1, width2, normalize=normalize, nan=nan)
        check_joint_memory(*self.widths, max_memory)
        order = self.widths[0] * self.widths[1]
        self._joint = torch.zeros(order, order, dtype=torch.float64)

    def second_moment(self) -> Tensor:
        """M, the sum over samples (not divided by their number).

        Returns:
            ``(d_1 d_2, d_1 d_2)``, symmetric, float64; index ``i d_2 + j`` stands for columns i and j.
        """
        return self._out(self._product())

    def gram(self) -> StreamGram:
        """The Hadamard product of the two Gram matrices, for every function of its spectrum.

        Returns:
            What stands for it, as :meth:`CovarianceAccumulator.gram`, of width d_1 d_2.
        """
        return StreamGram(self._product(), self.count, is_numpy=bool(self._numpy))

    def grams(self) -> tuple[StreamGram, StreamGram]:
        """The two Gram matrices, which may be multiplied with one another.

        They go into :func:`~matinfo.mutual_information`, :func:`~matinfo.joint_entropy`,
        :func:`~matinfo.conditional_entropy` and whatever else needs single spectra and that of the product. Later
        updates do not change them.

        Returns:
            Two, each as :meth:`CovarianceAccumulator.gram`.
        """
        first, second = (stream._symmetric() for stream in self.marginals())
        return StreamGram.pair(first, second, self._product(), self.count, is_numpy=bool(self._numpy))

    def _add(self, other: PairAccumulator) -> None:
        assert isinstance(other, JointAccumulator)
        self._add_joint(other._joint)
        super()._add(other)

    def _sum(self, total: Callable[[Tensor], Tensor]) -> None:
        super()._sum(total)
        self._joint = total(self._joint)

    def _product(self) -> Tensor:
        self._symmetric()  # refuses an empty stream
        return (self._joint + self._joint.mT) / 2

    def _absorb(self, A: Tensor, B: Tensor, given: torch.dtype) -> None:
        self._add_joint(khatri_rao_moment((A, B), torch.float64))
        super()._absorb(A, B, given)

    def _add_joint(self, moment: Tensor) -> None:
        device = self._joint.device if self.count else moment.device
        self._joint = self._joint.to(device) + moment.to(device)
