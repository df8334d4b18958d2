"""What one rank does in the tests of ``matinfo.distributed``: run by torch.multiprocessing, reports by file."""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
import torchmetrics

from matinfo import (
    Gram,
    cka,
    effective_rank,
    hsic,
    joint_entropy,
    matrix_js,
    matrix_tcr,
    renyi_entropy,
    tcr,
)
from matinfo import metrics as m
from matinfo.distributed import ShardedGram, gather_rows, merge_ranks, reduce_sum
from matinfo.estimate import stochastic_entropy, tail_corrected_entropy
from matinfo.losses import (
    barlow_twins_loss,
    infonce_loss,
    mmae_tcr_loss,
    ntxent_loss,
    spectral_contrastive_loss,
    umae_uniformity_loss,
    vicreg_loss,
)
from matinfo.streaming import CovarianceAccumulator, JointAccumulator, PairAccumulator

LOSSES = {
    "mmae": mmae_tcr_loss,
    "mmae centred": lambda Z: mmae_tcr_loss(Z, centering=True),
    "umae": umae_uniformity_loss,
    "ntxent": lambda Z: ntxent_loss(Z, Z.flip(-1)),
    "infonce": lambda Z: infonce_loss(Z, Z.flip(-1)),
    "spectral contrastive": lambda Z: spectral_contrastive_loss(Z, Z.flip(-1)),
    "barlow twins": lambda Z: barlow_twins_loss(Z, Z.flip(-1)),
    "vicreg": lambda Z: vicreg_loss(Z, Z.flip(-1)),
}
QUANTITIES = {
    "entropy": renyi_entropy,
    "entropy 2": lambda K: renyi_entropy(K, 2),
    "effective rank": effective_rank,
    "matrix tcr": matrix_tcr,
    "product": lambda K: joint_entropy(K, 2.0 * K),
    "sum": lambda K: renyi_entropy(K + K, 0.7),
    "mmae": mmae_tcr_loss,
    "umae": umae_uniformity_loss,
    "hsic": lambda K: hsic(K, K + K, estimator="unbiased"),
    "cka": lambda K: cka(K, 2.0 * K) + hsic(K, K),
    "js": lambda K: matrix_js(K, K * K),
    "tail": lambda K: tail_corrected_entropy(K, trace=1e4),
    "estimate": lambda K: stochastic_entropy(K, 2).value,
}
METRICS = {
    "entropy": (lambda **k: m.MatrixEntropy(4, alpha=2, normalize=False, **k), 1),
    "rank": (lambda **k: m.EffectiveRank(4, center=True, normalize=False, **k), 1),
    "rankme": (lambda **k: m.RankMe(4, normalize=True, **k), 1),
    "coding rate": (lambda **k: m.TotalCodingRate(4, normalize=False, **k), 1),
    "vendi": (lambda **k: m.VendiScore(4, **k), 1),
    "information": (lambda **k: m.MatrixMutualInformation(4, 3, **k), 2),
    "joint entropy": (lambda **k: m.JointEntropy(4, 3, **k), 2),
    "divergence": (lambda **k: m.MatrixJensenShannon(4, 3, **k), 2),
}
ACCUMULATORS = {
    "covariance": (lambda: CovarianceAccumulator(4, normalize=False), 1),
    "covariance, centred": (lambda: CovarianceAccumulator(4, center=True, normalize=True), 1),
    "covariance, float32": (
        lambda: CovarianceAccumulator(4, center=True, precision="float32", normalize=False),
        1,
    ),
    "pair": (lambda: PairAccumulator(4, 3, center=True, normalize=False), 2),
    "joint": (lambda: JointAccumulator(4, 3, normalize=False), 2),
}
SHARES = ("ragged", "none on the last rank")


def features(rows: int, width: int) -> torch.Tensor:
    """The whole batch, the same on every rank."""
    generator = torch.Generator().manual_seed(rows * 1000 + width)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64)


def split(rows: int, world: int) -> list[int]:
    """Uneven shares: the last rank takes what is left."""
    share = max(1, rows // world)
    return [share] * (world - 1) + [rows - share * (world - 1)]


def share(rank: int, world: int, kind: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of this rank of 23 aligned rows of width 4 and 3; a rank may have none."""
    counts = split(23, world) if kind == "ragged" or world == 1 else [*split(23, world - 1), 0]
    own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
    pairs = zip(features(23, 4)[own].split(5), features(23, 3)[own].split(5), strict=True)
    return [pair for pair in pairs if len(pair[0])]


def single(function, rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and gradient on one process."""
    Z = features(rows, width).requires_grad_()
    value = function(Z)
    return value.detach(), torch.autograd.grad(value, Z)[0]


def _mine(rows: int, width: int, rank: int, world: int) -> tuple[torch.Tensor, slice]:
    counts = split(rows, world)
    own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
    return features(rows, width)[own].clone().requires_grad_(), own


def _deviation(function, reference, rows: int, width: int, rank: int, world: int, factor: float = 1.0):
    """Largest relative error of value and averaged gradient against one process."""
    expected, gradient = single(reference, rows, width)
    Z, own = _mine(rows, width, rank, world)
    value = function(Z)
    value.backward()
    averaged = Z.grad / world  # what DistributedDataParallel makes of the sum over ranks' parameters
    gradient = gradient[own] * factor
    errors = (
        (value.detach() - expected).abs() / expected.abs(),
        (averaged - gradient).norm() / gradient.norm(),
    )
    return max(float(e) for e in errors)


def _second_derivative(gather, rank: int, world: int) -> float:
    """Deviation from one process of the gradient of ``|dL/dZ|^2``, L a function of the gathered rows that is no square.

    Every rank adds its own rows' share of the norm, so that the sum over ranks is one scalar.
    """

    def loss(Z):
        return Z.pow(4).sum()

    whole = features(13, 6).requires_grad_()
    (g,) = torch.autograd.grad(
        loss(whole if gather is gather_rows else whole.mT @ whole), whole, create_graph=True
    )
    (expected,) = torch.autograd.grad(g.square().sum(), whole)
    Z, own = _mine(13, 6, rank, world)
    (g,) = torch.autograd.grad(loss(gather(Z)) / world, Z, create_graph=True)
    (found,) = torch.autograd.grad(g.square().sum(), Z)
    return float((found - expected[own]).norm() / expected[own].norm())


def _metrics(rank: int, world: int, found: dict[str, object]) -> None:
    """Deviations of synchronised metrics from one process with all rows."""
    whole = features(23, 4), features(23, 3)
    for kind in SHARES:
        mine = share(rank, world, kind)
        together = torchmetrics.MetricCollection({n: make() for n, (make, s) in METRICS.items() if s == 1})
        for name, (make, streams) in METRICS.items():
            metric, single_one = make(), make(sync_on_compute=False)
            single_one.update(*whole[:streams])
            for batch in mine:
                metric.update(*batch[:streams])
            found[f"metric, {name}, {kind}"] = float((metric.compute() - single_one.compute()).abs())
            found[f"count, {name}, {kind}"] = (metric.count, sum(len(batch[0]) for batch in mine))
        for Z, _ in mine:
            together.update(Z)
        values = together.compute()
        for name, value in values.items():
            alone = METRICS[name][0](sync_on_compute=False)
            alone.update(whole[0])
            found[f"collection, {name}, {kind}"] = float((value - alone.compute()).abs())
    step = m.TotalCodingRate(4, dist_sync_on_step=True, normalize=False)
    first = [features(23, 4)[r : r + 1] for r in range(world)]
    value = step(first[rank])
    found["step"] = float((value - tcr(torch.cat(first))).abs())
    found["after step"] = step.count


def _accumulators(rank: int, world: int, found: dict[str, object]) -> None:
    """Deviations of merged accumulators from one with all rows."""
    whole = features(23, 4), features(23, 3)
    for kind in SHARES:
        for name, (make, streams) in ACCUMULATORS.items():
            mine, all_rows = make(), make()
            all_rows.update(*whole[:streams])
            for batch in share(rank, world, kind):
                mine.update(*batch[:streams])
            before = mine.count
            total = merge_ranks(mine)
            error = total.second_moment() - all_rows.second_moment()
            found[f"merged, {name}, {kind}"] = float(error.abs().max() / all_rows.second_moment().trace())
            found[f"merged count, {name}, {kind}"] = (total.count, mine.count - before)
            total.update(*whole[:streams])  # it is an accumulator like any other
            found[f"merged again, {name}, {kind}"] = total.count
    skip = CovarianceAccumulator(1, nan="skip", normalize=False)
    skip.update(torch.tensor([[1.0], [float("nan")]]))
    found["merged skipped"] = merge_ranks(skip).skipped


def work(rank: int, world: int, folder: str) -> None:
    """All checks of one world size; the result is a dictionary of deviations and facts."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    found: dict[str, object] = {}
    for name, loss in LOSSES.items():
        for rows, width in ((13, 6), (8, 20)):
            found[f"gather, {name}, {rows} x {width}"] = _deviation(
                lambda Z, loss=loss: loss(gather_rows(Z)), loss, rows, width, rank, world
            )
    found["local"] = _deviation(
        lambda Z: mmae_tcr_loss(gather_rows(Z, gradient="local")),
        mmae_tcr_loss,
        13,
        6,
        rank,
        world,
        1 / world,
    )
    for name, quantity in QUANTITIES.items():
        for rows, width in ((13, 6), (8, 20)):
            found[f"sharded, {name}, {rows} x {width}"] = _deviation(
                lambda Z, q=quantity: q(ShardedGram(Z, normalize=True)),
                lambda Z, q=quantity: q(Gram(Z, normalize=True)),
                rows, width, rank, world,
            )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``compute`` method", UserWarning)  # of the rank without rows
        _metrics(rank, world, found)
    _accumulators(rank, world, found)
    for name, gather in (
        ("gather", gather_rows),
        ("sum", lambda Z: reduce_sum(Z.mT @ Z)),
        ("sharded", lambda Z: ShardedGram(Z).dual()),
    ):
        found[f"second derivative, {name}"] = _second_derivative(gather, rank, world)
    Z, _ = _mine(13, 6, rank, world)
    found["rows"] = torch.equal(gather_rows(Z.detach()), features(13, 6))
    found["trailing"] = list(gather_rows(torch.zeros(rank + 1, 2, 3)).shape)
    found["vector"] = gather_rows(torch.full((rank + 1,), float(rank))).tolist()
    found["sum"] = float(reduce_sum(torch.ones(())))
    sharded = ShardedGram(Z.detach())
    found["shape"] = list(sharded.shape)
    found["tcr"] = float(tcr(gather_rows(Z.detach())) - tcr(features(13, 6)))
    order = torch.arange(13).flip(0)
    whole = features(13, 6)
    found["reordered"] = torch.allclose(sharded.reordered(order).dense(), (whole @ whole.mT)[order][:, order])
    for key, call in {
        "mixed": lambda: sharded * Gram(Z.detach()),
        "width": lambda: gather_rows(torch.zeros(2, 3 + rank)),
        "settings": lambda: merge_ranks(CovarianceAccumulator(4, center=rank == 0)),
        "no rows": lambda: gather_rows(torch.zeros(rank, 3)),
        "no rows, sharded": lambda: ShardedGram(torch.zeros(rank, 3)),
        "a list": lambda: gather_rows(torch.zeros(2, 3) if rank else [[0.0]]),
        "integers": lambda: gather_rows(torch.zeros(2, 3, dtype=torch.float32 if rank else torch.int64)),
        "a batch, sharded": lambda: ShardedGram(torch.zeros(2, 3) if rank else torch.zeros(2, 3, 3)),
        "no accumulator": lambda: merge_ranks(CovarianceAccumulator(4) if rank else torch.eye(4)),
    }.items():
        try:
            call()
            found[key] = "accepted"
        except (TypeError, ValueError) as error:
            found[key] = str(error)
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
