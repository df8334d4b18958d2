"""Several processes: with ``reduce`` every rank records the value of all rows, without it its own; rank 0 writes."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from matinfo.monitor import Monitor

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
QUANTITIES = ("effective_rank", "rankme", "tcr", "matrix_tcr", "coding_rate")
OPTIONS = {"features": {}, "centred": {"center": True}, "samples": {"width": 40}}


def features(width):
    generator = torch.Generator().manual_seed(width)
    return torch.randn(18, width, generator=generator, dtype=torch.float64) + 0.3


def history(Z, batches, written=None, *, reduce, **options):
    """One step for each batch of rows."""
    layer = nn.Identity()
    writers = [] if written is None else [written.append]
    monitor = Monitor(layer, "", every=1, quantities=QUANTITIES, writers=writers, reduce=reduce, **options)
    for rows in batches:
        layer(Z[rows])
        monitor.step()
    return monitor


def work(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    mine = slice(0, 5) if rank == 0 else slice(5, None)
    report = {}
    for name, options in OPTIONS.items():
        options = dict(options)
        Z = features(options.pop("width", 6))
        for reduce in (True, False):
            written = []
            monitor = history(Z, [mine, mine], written, reduce=reduce, **options)
            report[name, reduce] = (
                monitor.history,
                len(written),
                torch.from_numpy(monitor.spectra[""].eigenvalues),
            )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        empty = slice(0, 0) if rank else slice(0, 5)
        monitor = history(features(6), [empty, mine], reduce=True)
    report["empty"] = len(monitor.history), [str(w.message) for w in caught]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Z = features(6)
        Z[0] = torch.nan  # on rank 1
        history(Z, [slice(0, 5) if rank else slice(5, None)], reduce=True)
    report["nan"] = [str(w.message) for w in caught]
    layer = nn.Identity()
    monitor = Monitor(layer, "", every=1, reduce=True)
    for width in (6, 6 - rank):
        layer(torch.ones(3, width))
    try:
        monitor.step()
    except ValueError as error:
        report["widths"] = str(error)
    torch.save(report, f"{folder}/monitor{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitor")
    mp.spawn(work, (2, str(folder)), nprocs=2)
    return [torch.load(folder / f"monitor{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", OPTIONS)
def test_reduce_records_all_rows_on_every_rank(reports, name):
    options = dict(OPTIONS[name])
    Z = features(options.pop("width", 6))
    alone = history(Z, [slice(None)] * 2, reduce=False, **options)
    for rank, report in enumerate(reports):
        records, written, eigenvalues = report[name, True]
        assert written == (2 if rank == 0 else 0)
        assert [record["rows"] for record in records] == [18, 18]
        for record, expected in zip(records, alone.history, strict=True):
            for quantity in QUANTITIES:
                assert record[quantity] == pytest.approx(expected[quantity], rel=1e-11), quantity
        assert torch.allclose(eigenvalues, torch.from_numpy(alone.spectra[""].eigenvalues), atol=1e-13)


def test_without_reduce_every_rank_records_its_own_rows(reports):
    assert [report["features", False][0][0]["rows"] for report in reports] == [5, 13]
    assert [report["features", False][1] for report in reports] == [2, 0]


def test_rank_without_rows_leaves_the_step_out_on_all(reports):
    for rank, report in enumerate(reports):
        count, said = report["empty"]
        assert count == 1
        assert len(said) == (1 if rank == 0 else 0)


def test_rows_that_are_not_finite_are_counted_over_the_ranks(reports):
    assert reports[0]["nan"] == [
        "Layer '', step 0: NaN or infinity in 1 of 18 rows. Its quantities are recorded as NaN."
    ]


def test_what_is_refused_on_one_rank_is_refused_on_all(reports):
    for report in reports:
        assert "to return the same width, got 6, then 5" in report["widths"]
