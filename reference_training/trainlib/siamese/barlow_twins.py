"""Barlow Twins (Zbontar et al. 2021): the views' features are equal one by one and uncorrelated otherwise."""

from __future__ import annotations

from torch import Tensor

from matinfo.losses import barlow_twins_loss
from trainlib.siamese.base import Projections, Rates, Settings, SiameseMethod
from trainlib.siamese.networks import Projector

SCALE = 0.1  # common in CIFAR recipes; matters to SGD and LARS
# The balance of the two sums depends on lambda times the number of features. The authors' 5.1e-3 makes 10 of the 2,048
# features in CIFAR recipes; with the 64 or 128 features of these runs it would leave most correlations.
LAMBDA = 5.1e-3 * 2048


class BarlowTwins(SiameseMethod):
    settings = Settings(
        label="Barlow Twins",
        augmentation="asymmetric",
        projector=Projector(hidden_layers=2),
        over_width={"lambda_": LAMBDA},
        rates={"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.12, 5e-4), "lars": Rates(0.3, 1e-4)},
    )

    def loss(self, batch: Projections) -> Tensor:
        """The paper's sums."""
        return SCALE * barlow_twins_loss(*batch.online, lambda_=self.config.lambda_)
