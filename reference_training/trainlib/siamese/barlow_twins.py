"""Barlow Twins (Zbontar et al. 2021): the views' features are equal one by one and uncorrelated otherwise."""

from __future__ import annotations

from torch import Tensor

from matinfo.losses import barlow_twins_loss
from trainlib.siamese.base import Projections, SiameseMethod
from trainlib.siamese.optimizers import Rates

SCALE = 0.1  # common in CIFAR recipes; matters to SGD only


class BarlowTwins(SiameseMethod):
    label = "Barlow Twins"
    augmentation = "asymmetric"
    projector = {"hidden_layers": 2}
    options = {"lambda_": 5.1e-3}
    rates = {"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.12, 5e-4), "lars": Rates(0.3, 1e-4)}

    def loss(self, batch: Projections) -> Tensor:
        """The paper's sums."""
        return SCALE * barlow_twins_loss(*batch.online, lambda_=self.config.lambda_)
