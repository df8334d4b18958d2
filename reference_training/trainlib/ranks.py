"""Several processes, as torchrun starts them: each trains on its share of every batch, the first one writes.

All random numbers are drawn for the whole batch and then shared out, and whatever couples the samples of a batch is
gathered, so that W processes train as one does, up to rounding and to the statistics of batch normalisation (which
are each process's own on a CPU, and those of all on CUDA).
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from matinfo.distributed import gather_rows, reduce_sum, world_size
from trainlib.errors import UsageError


def started() -> int:
    """Number of processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def expect_one() -> None:
    """Refuse torchrun, in programs that start or judge other programs."""
    if started() > 1:
        raise UsageError("torchrun", "this program runs as one process", "start it with python")


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Whether this process writes files and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def connect(device: str) -> None:
    """Join the other processes, if there are any."""
    if started() > 1 and not dist.is_initialized():
        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo")


def disconnect() -> None:
    """Leave the other processes."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def agree(value: Any) -> Any:
    """What the first process says."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def share(rows: Any) -> Any:
    """This process's rows of a whole batch, a tensor or a named tuple of them.

    The batch must be a multiple of the number of processes.
    """
    if isinstance(rows, tuple):
        return type(rows)(*(share(part) for part in rows))
    count = len(rows) // world_size()
    return rows[rank() * count : (rank() + 1) * count]


def part(rows: Tensor) -> Tensor:
    """This process's rows where the processes need not have equally many; they may be none."""
    return rows.tensor_split(world_size())[rank()]


def gather(x: Tensor, *, dim: int = 0) -> Tensor:
    """The whole batch from the shares of all processes, with the gradient of one process."""
    if world_size() == 1:
        return x
    if not x.is_floating_point():
        return gather(x.double(), dim=dim).to(x.dtype)
    return gather_rows(x.movedim(dim, 0)).movedim(0, dim)


def mean(x: Tensor) -> Tensor:
    """The average over all processes."""
    return reduce_sum(x) / world_size()
