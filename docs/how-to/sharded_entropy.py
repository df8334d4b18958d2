"""Entropy of a global batch whose rows lie on several ranks, and of a data set that each rank reads a part of.

Two processes on one machine, without a GPU:

    torchrun --standalone --nproc-per-node 2 docs/how-to/sharded_entropy.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from matinfo import Gram, effective_rank, renyi_entropy
from matinfo.distributed import ShardedGram, gather_rows, merge_ranks
from matinfo.streaming import CovarianceAccumulator

WIDTH = 32


def features_of(rank: int) -> torch.Tensor:
    """Rows of one rank; their number differs between ranks."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(300 + 50 * rank, WIDTH, generator=generator, dtype=torch.float64)


def main() -> None:
    """What each rank does."""
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    Z = features_of(rank).to(device).requires_grad_()

    entropy = renyi_entropy(ShardedGram(Z))  # only a 32 x 32 matrix is communicated
    entropy.backward()
    assert Z.grad is not None
    gathered = renyi_entropy(Gram(gather_rows(Z.detach())))  # the same from all rows on every rank

    stream = CovarianceAccumulator(WIDTH, normalize=False)
    for batch in Z.detach().split(64):
        stream.update(batch)
    everything = merge_ranks(stream)

    whole = torch.cat([features_of(r) for r in range(world)]).to(device).requires_grad_()
    expected = renyi_entropy(Gram(whole))
    expected.backward()
    assert whole.grad is not None
    start = sum(len(features_of(r)) for r in range(rank))
    own = whole.grad[start : start + len(Z)]
    # DistributedDataParallel divides by the number of ranks; the gradient here is the sum.
    difference = (Z.grad / world - own).norm() / own.norm()
    if rank == 0:
        lines = [
            f"ranks {world}, rows {everything.count}",
            f"entropy        sharded {entropy:.6f}  gathered {gathered:.6f}  one process {expected:.6f}",
            f"effective rank streamed {effective_rank(everything.gram()):.6f}",
            f"gradient       differs from one process by {difference:.0e} of its norm",
        ]
        print("\n".join(lines))  # noqa: T201
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
