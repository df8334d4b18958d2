"""Collectives: value and gradient of every batch-coupled loss equal those of one process on the whole batch."""

from __future__ import annotations

import distributed_worker as worker
import pytest
import torch
import torch.multiprocessing as mp

from matinfo import Gram, renyi_entropy
from matinfo.distributed import ShardedGram, gather_rows, reduce_sum, world_size

pytestmark = pytest.mark.distributed
ROUNDING = 1e-12  # float64 sums in another order


@pytest.fixture(
    scope="module",
    params=[2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))],
    ids=lambda n: f"{n} ranks",
)
def ranks(request, tmp_path_factory):
    """Reports of all ranks of one world size."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    mp.spawn(worker.work, (world, str(folder)), nprocs=world)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(world)]


@pytest.mark.parametrize("name", worker.LOSSES)
def test_gather_rows_gives_the_loss_and_gradient_of_one_process(ranks, name):
    for report in ranks:
        for shape in ("13 x 6", "8 x 20"):
            assert report[f"gather, {name}, {shape}"] < ROUNDING


def test_local_gradient_is_one_over_world_size_of_the_true_one(ranks):
    assert all(report["local"] < ROUNDING for report in ranks)


@pytest.mark.parametrize("name", worker.QUANTITIES)
def test_sharded_gram_gives_the_quantity_and_gradient_of_one_process(ranks, name):
    for report in ranks:
        for shape in ("13 x 6", "8 x 20"):
            assert report[f"sharded, {name}, {shape}"] < ROUNDING


def test_gather_rows_keeps_the_order_of_the_ranks_and_uneven_shares(ranks):
    world = len(ranks)
    for report in ranks:
        assert report["rows"]
        assert report["trailing"] == [world * (world + 1) // 2, 2, 3]
        assert report["vector"] == [float(rank) for rank in range(world) for _ in range(rank + 1)]
        assert report["sum"] == world
        assert report["shape"] == [13, 13]
        assert abs(report["tcr"]) < 1e-12
        assert report["reordered"]


def test_what_cannot_be_put_together_is_refused_on_every_rank(ranks):
    for report in ranks:
        assert "both local or both sharded" in report["mixed"]
        if len(ranks) > 1:
            assert "equal width and dtype" in report["width"]


def test_without_a_process_group_nothing_is_communicated():
    Z = torch.randn(5, 3, dtype=torch.float64)
    assert world_size() == 1
    assert gather_rows(Z) is Z
    assert reduce_sum(Z) is Z
    assert torch.equal(renyi_entropy(ShardedGram(Z)), renyi_entropy(Gram(Z)))


def test_gather_rows_refuses_an_unknown_gradient():
    with pytest.raises(ValueError, match="gradient to be one of 'exact', 'local', got 'mean'"):
        gather_rows(torch.eye(2), gradient="mean")


def test_sharded_gram_refuses_batches_of_matrices():
    with pytest.raises(ValueError, match=r"shape \(n, d\), got \(2, 3, 4\)"):
        ShardedGram(torch.zeros(2, 3, 4))
