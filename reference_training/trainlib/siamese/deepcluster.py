"""DeepCluster-v2 (Caron et al. 2018, 2020): predict the clusters that k-means finds in the last epoch's projections."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from matinfo.losses import deepcluster_loss
from trainlib.rng import generator
from trainlib.siamese.base import Projections, Rates, Settings, SiameseMethod

HEADS = 3
CHUNK = 500


@torch.no_grad()
def spherical_kmeans(
    rows: Tensor, count: int, generator: torch.Generator, iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """Directions ``(count, d)`` and assignments ``(N,)`` of unit rows, by Lloyd's iterations from random rows.

    A cluster that loses all its rows keeps its direction.
    """
    chosen = torch.randperm(len(rows), generator=generator)[:count]
    centres = rows[chosen.to(rows.device)].clone()
    for _ in range(iterations):
        nearest = (rows @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        filled = sums.norm(dim=1, keepdim=True) > 0
        centres = torch.where(filled, normalize(sums, dim=1), centres)
    return centres, (rows @ centres.T).argmax(1)


class DeepCluster(SiameseMethod):
    settings = Settings(
        label="DeepCluster",
        options={"temperature": 0.1, "prototypes": 128},
        rates={"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.12, 5e-4), "lars": Rates(0.6, 1e-6)},
    )
    bank: Tensor
    centres: Tensor
    assignments: Tensor

    def __init__(self, config, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        self.width = config.model.projector_width
        self.register_buffer("centres", torch.zeros(HEADS, self.config.prototypes, self.width))

    @torch.no_grad()
    def prepare(self, dataset) -> None:
        """Make the memory bank, one projection of each training image and view, from the untrained network."""
        super().prepare(dataset)
        self.eval()
        batches = dataset.evaluation_batches("train", CHUNK)
        rows = normalize(torch.cat([self.online(images)[1] for images, _ in batches]), dim=1)
        self.register_buffer("bank", torch.stack([rows, rows]))
        self.register_buffer("assignments", torch.full((HEADS, len(rows)), -1, device=rows.device))

    def before_epoch(self, epoch: int) -> None:
        """Cluster the bank anew for each head; the heads take the views in turn."""
        for head in range(HEADS):
            source = generator(self.run.seed, "cluster", epoch, head)
            centres, nearest = spherical_kmeans(self.bank[head % 2], self.config.prototypes, source)
            self.centres[head, : len(centres)] = centres
            self.assignments[head] = nearest

    def loss(self, batch: Projections) -> Tensor:
        """The mean over both views of the cross-entropies with the clusters of the images."""
        z1, z2 = (normalize(z, dim=1) for z in batch.online)
        if self.training:
            self.bank[:, batch.index] = torch.stack([z1, z2]).detach()
        wanted, temperature = self.assignments[:, batch.index], self.config.temperature
        terms = [deepcluster_loss(z @ self.centres.mT, wanted, temperature=temperature) for z in (z1, z2)]
        return (terms[0] + terms[1]) / 2
