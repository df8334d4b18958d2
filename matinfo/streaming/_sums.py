"""Sums that do not lose what their additions round off."""

from __future__ import annotations

import torch
from torch import Tensor


class RunningSum:
    """A sum of tensors of one shape: a float64 number each, or two float32 ones, the second the rounding of the first.

    The error of each addition is found exactly (Knuth's two-sum) and carried, so that the error of the sum of any
    number of terms is that of a few.
    """

    def __init__(self, value: Tensor, carry: Tensor | None = None) -> None:
        self.value = value
        self.carry = torch.zeros_like(value) if carry is None and value.dtype == torch.float32 else carry

    @classmethod
    def zeros(cls, *shape: int, dtype: torch.dtype) -> RunningSum:
        """The empty sum."""
        return cls(torch.zeros(*shape, dtype=dtype))

    @classmethod
    def of(cls, total: Tensor, dtype: torch.dtype) -> RunningSum:
        """The sum with a float64 value."""
        value = total.to(dtype)
        return cls(value, None if dtype == torch.float64 else (total - value.double()).to(dtype))

    def add(self, x: Tensor) -> None:
        """Add a term."""
        total = self.value + x
        if self.carry is not None:
            added = total - self.value
            self.carry = self.carry + ((self.value - (total - added)) + (x - added))
        self.value = total

    def add_sum(self, other: RunningSum) -> None:
        """Add another sum of the same dtype."""
        self.add(other.value)
        if self.carry is not None and other.carry is not None:
            self.carry = self.carry + other.carry

    def minus(self, other: RunningSum) -> Tensor:
        """The difference of two sums, rounded once."""
        difference = self.value - other.value
        if self.carry is None or other.carry is None:
            return difference
        return difference + (self.carry - other.carry)

    def moved(self, device: torch.device) -> RunningSum:
        """The sum on a device."""
        return RunningSum(self.value.to(device), None if self.carry is None else self.carry.to(device))

    def part(self, *index: slice) -> RunningSum:
        """Some of the entries."""
        return RunningSum(self.value[index], None if self.carry is None else self.carry[index])

    def double(self) -> Tensor:
        """The value in float64, on the CPU where the device has no float64."""
        device = "cpu" if self.value.device.type == "mps" else self.value.device
        total = self.value.to(device).double()
        return total if self.carry is None else total + self.carry.to(device).double()
