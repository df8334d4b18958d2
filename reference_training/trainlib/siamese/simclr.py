"""SimCLR (Chen et al. 2020): each view picks its partner out of the batch."""

from __future__ import annotations

from torch import Tensor

from matinfo.losses import ntxent_loss
from trainlib.siamese.base import Projections, Rates, Settings, SiameseMethod
from trainlib.siamese.networks import Projector


class SimCLR(SiameseMethod):
    settings = Settings(
        label="SimCLR",
        projector=Projector(hidden_layers=1, norm=False),
        options={"temperature": 0.5},
        rates={"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.12, 5e-4), "lars": Rates(0.4, 1e-4)},
    )

    def loss(self, batch: Projections) -> Tensor:
        """NT-Xent."""
        return ntxent_loss(*batch.online, temperature=self.config.temperature)
