"""A pass over a loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from matinfo._streams import Stream

S = TypeVar("S", bound=Stream)


def accumulate(loader: Iterable[Any], accumulator: S, *, extract: Callable[[Any], Any] | None = None) -> S:
    """An accumulator after one pass over a loader.

    Args:
        loader: Iterable of batches, such as a ``DataLoader``. Wrap it in ``tqdm`` for a progress bar.
        accumulator: A :class:`CovarianceAccumulator`, :class:`PairAccumulator` or :class:`JointAccumulator`; rows are
            added to those it holds.
        extract: Function of a batch that returns the features of a single stream, or a pair of them for two; it runs
            without gradients. If None, a batch is the features themselves, or a tuple or list that starts with them
            (one for a single stream, two for a pair; labels may follow).

    Returns:
        The accumulator that was given.

    Raises:
        ValueError: If a batch is refused: another width, or a row that is not finite under ``nan="error"``. The
            message names the batch; those before it stay added.
        TypeError: If a batch is not features, or ``accumulator`` is not an accumulator.
        Exception: What ``extract`` raises, as it is, with a note of the batch from Python 3.11 on.

    Notes:
        Memory of one batch beside the accumulator. The mode of a model in ``extract`` is left as it is: call
        ``model.eval()`` first. A loader without batches leaves the accumulator as it was, and an empty one refuses
        its results.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from matinfo.streaming import CovarianceAccumulator, accumulate
        >>> images, labels = torch.eye(4).repeat(6, 1), torch.arange(24)
        >>> loader = DataLoader(TensorDataset(images, labels), batch_size=5)
        >>> model = torch.nn.Linear(4, 2, bias=False).requires_grad_(False)
        >>> stream = accumulate(loader, CovarianceAccumulator(2), extract=lambda batch: model(batch[0]))
        >>> stream.count
        24
    """
    if not isinstance(accumulator, Stream):
        raise TypeError(f"Expected an accumulator of matinfo.streaming, got {type(accumulator).__name__}.")
    streams = accumulator.streams
    for i, batch in enumerate(loader):
        try:
            with torch.no_grad():
                found = batch if extract is None else extract(batch)
        except Exception as error:
            if hasattr(error, "add_note"):  # Python 3.11
                error.add_note(f"Batch {i} of the loader.")
            raise
        try:
            if isinstance(found, (Tensor, np.ndarray)):
                found = (found,)
            if not isinstance(found, (tuple, list)):
                raise TypeError(
                    "Expected a batch of features, or a tuple or list that starts with them, got "
                    f"{type(found).__name__}. Pass extract, a function from a batch to its features."
                )
            if len(found) < streams or (extract is not None and len(found) > streams):
                raise ValueError(
                    f"Expected features of {streams} stream{'s' if streams > 1 else ''}, got {len(found)}. "
                    "Pass extract, a function from a batch to its features."
                )
            accumulator.update(*found[:streams])
        except (ValueError, TypeError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{error} (Batch {i} of the loader.)") from error
    return accumulator
