"""Collectives: value and gradient of every batch-coupled loss equal those of one process on the whole batch."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import distributed_worker as worker
import pytest
import torch
import torch.multiprocessing as mp

from matinfo import Gram, renyi_entropy
from matinfo.distributed import ShardedGram, gather_rows, merge_ranks, reduce_sum, world_size
from matinfo.streaming import CovarianceAccumulator

pytestmark = pytest.mark.distributed
ROOT = Path(__file__).resolve().parents[1]
ROUNDING = 1e-12  # float64 sums in another order


@pytest.fixture(
    scope="module",
    params=[2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))],
    ids=lambda n: f"{n} ranks",
)
def ranks(request, tmp_path_factory):
    """Reports of all ranks of one world size."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    # The server imports the worker once, for all ranks; it looks for it where an environment variable says.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        multiprocessing.set_forkserver_preload([worker.__name__])
        mp.start_processes(worker.work, (world, str(folder)), nprocs=world, start_method="forkserver")
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
            assert "same settings on every rank" in report["settings"]


def test_what_is_wrong_on_one_rank_is_refused_on_all_and_none_waits(ranks):
    for rank, report in enumerate(ranks):
        for key in ("no rows", "no rows, sharded"):
            assert "features to have at least one row" in report[key]
        assert "features to be a torch.Tensor" in report["a list"]
        assert "got torch.int64" in report["integers"]
        assert "shape (n, d), got (2, 3, 3)" in report["a batch, sharded"]
        if len(ranks) > 1:
            assert all(
                "On rank 0" in report[key] for key in ("no rows", "a list", "integers", "a batch, sharded")
            )
            assert ("same settings" if rank else "accumulator of matinfo.streaming") in report[
                "no accumulator"
            ]


def test_second_derivatives_through_collectives_are_those_of_one_process(ranks):
    for report in ranks:
        for name in ("gather", "sum", "sharded"):
            assert report[f"second derivative, {name}"] < ROUNDING


@pytest.mark.parametrize("share", worker.SHARES)
@pytest.mark.parametrize("name", worker.METRICS)
def test_metrics_synchronise_to_the_value_of_one_process_and_go_on_with_their_own_rows(ranks, name, share):
    for report in ranks:
        assert report[f"metric, {name}, {share}"] < 10 * ROUNDING
        count, own = report[f"count, {name}, {share}"]
        assert count == own
    assert sum(report[f"count, {name}, {share}"][1] for report in ranks) == 23


@pytest.mark.parametrize("share", worker.SHARES)
def test_metric_collections_synchronise_their_shared_sums(ranks, share):
    single_stream = [name for name, (_, streams) in worker.METRICS.items() if streams == 1]
    for report in ranks:
        assert max(report[f"collection, {name}, {share}"] for name in single_stream) < 10 * ROUNDING


def test_forward_can_synchronise_each_step(ranks):
    for report in ranks:
        assert report["step"] < 10 * ROUNDING
        assert report["after step"] == 1


@pytest.mark.parametrize("share", worker.SHARES)
@pytest.mark.parametrize("name", worker.ACCUMULATORS)
def test_merge_ranks_gives_the_accumulator_of_all_rows(ranks, name, share):
    rounding = 1e-6 if "float32" in name else ROUNDING
    for report in ranks:
        assert report[f"merged, {name}, {share}"] < rounding
        assert report[f"merged count, {name}, {share}"] == (23, 0)
        assert report[f"merged again, {name}, {share}"] == 46
        assert report["merged skipped"] == len(ranks)


@pytest.mark.slow
def test_example_of_the_how_to_page_runs_under_torchrun():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(ROOT / "docs" / "how-to" / "sharded_entropy.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ranks 2, rows 650" in done.stdout
    values = re.search(r"sharded (\S+)  gathered (\S+)  one process (\S+)", done.stdout)
    assert values is not None
    assert len(set(values.groups())) == 1
    deviation = re.search(r"differs from one process by (\S+)", done.stdout)
    assert deviation is not None
    assert float(deviation[1]) < 1e-12


def test_without_a_process_group_nothing_is_communicated():
    Z = torch.randn(5, 3, dtype=torch.float64)
    assert world_size() == 1
    assert gather_rows(Z) is Z
    assert reduce_sum(Z) is Z
    assert torch.equal(renyi_entropy(ShardedGram(Z)), renyi_entropy(Gram(Z)))
    stream = CovarianceAccumulator(3, normalize=False)
    stream.update(Z)
    copy = merge_ranks(stream)
    copy.update(Z)
    assert (stream.count, copy.count) == (5, 10)


def test_merge_ranks_refuses_what_is_no_accumulator():
    with pytest.raises(TypeError, match="accumulator of matinfo.streaming, got Tensor"):
        merge_ranks(torch.eye(2))


def test_gather_rows_of_a_list_names_its_type():
    with pytest.raises(TypeError, match="got list"):
        gather_rows([[1.0]])


def test_gather_rows_refuses_an_unknown_gradient():
    with pytest.raises(ValueError, match="gradient to be one of 'exact', 'local', got 'mean'"):
        gather_rows(torch.eye(2), gradient="mean")


def test_sharded_gram_refuses_batches_of_matrices():
    with pytest.raises(ValueError, match=r"shape \(n, d\), got \(2, 3, 4\)"):
        ShardedGram(torch.zeros(2, 3, 4))
