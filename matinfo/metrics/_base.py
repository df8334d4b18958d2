"""What all metrics share: sums over rows as states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from matinfo._conventions import describe_rows
from matinfo._extras import needs
from matinfo._keywords import check_keywords
from matinfo._streams import NAN_POLICIES, check_rows, prepared_rows
from matinfo._validation import check_choice

with needs("torchmetrics", "matinfo.metrics", "metrics"):
    from torchmetrics import Metric


def device_of(features: object, name: str) -> torch.device:
    """The device of a batch; metrics take tensors only, because they live on one."""
    if not isinstance(features, Tensor):
        raise TypeError(
            f"Expected {name} to be a torch.Tensor, got {type(features).__name__}. Use torch.as_tensor({name})."
        )
    return features.device


class MomentMetric(Metric):
    """A function of sums over rows."""

    is_differentiable = False
    higher_is_better: bool | None = None
    full_state_update = False
    center = False  # pairs are not; metrics of one stream set their own

    def __init__(self, normalize: bool, nan: str, **kwargs: Any) -> None:
        check_keywords(type(self), kwargs)
        super().__init__(**kwargs)
        self.normalize = bool(normalize)
        self.nan = check_choice(nan, "nan", NAN_POLICIES)
        self._names: dict[str, str] = {}
        for name in ("count", "skipped"):
            self._add_state(name, torch.zeros((), dtype=torch.long))

    def _add_state(self, name: str, default: Tensor, reduce: Any = "sum") -> None:
        # A collection shares states by name and value after the first batch: other rules for rows need other names.
        self._names[name] = f"{name}_{'unit' if self.normalize else 'raw'}_{self.nan}"
        self.add_state(self._names[name], default, dist_reduce_fx=reduce)

    def _state(self, name: str) -> Tensor:
        return getattr(self, self._names[name])

    def _set(self, name: str, value: Tensor) -> None:
        setattr(self, self._names[name], value)

    def _add(self, name: str, value: Tensor | int) -> None:
        self._set(name, self._state(name) + value)

    @property
    def count(self) -> int:
        """Number of rows added."""
        return int(self._state("count"))

    @property
    def skipped(self) -> int:
        """Number of rows left out under ``nan="skip"``."""
        return int(self._state("skipped"))

    def extra_repr(self) -> str:
        """The number of rows added and how they are prepared, for ``repr``; of a collection too."""
        return f"count={self.count}; {describe_rows(center=self.center, normalize=self.normalize)}"

    def _rows(self, *streams: tuple[Tensor, int, str]) -> list[Tensor]:
        """Rows to add, in float64; counts them."""
        checked = [check_rows(*stream) for stream in streams]
        rows, skipped = prepared_rows(checked, normalize=self.normalize, nan=self.nan)
        self._add("count", rows[0].shape[0])
        self._add("skipped", skipped)
        return rows

    def compute(self) -> Tensor:
        """The value for all rows added, on all ranks.

        Returns:
            A float64 scalar; NaN if there are no rows, or if a spectrum is to be normalised that is zero, as it is for
            rows that are zero and for a single centred row.
        """
        if self.count == 0 or any([total == 0 for total in self._traces()]):
            return torch.full((), torch.nan, dtype=torch.float64, device=self._state("count").device)
        return self._value()

    def _traces(self) -> list[Tensor]:
        """Traces of the matrices whose spectra are normalised."""
        return []

    def _value(self) -> Tensor:
        raise NotImplementedError

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Figure and axis with one or more values, the present one by default, as of every torchmetrics metric."""
        return self._plot(val, ax)
