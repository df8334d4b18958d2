"""VICReg (Bardes et al. 2022): equal views, unit variances, no covariances."""

from __future__ import annotations

from torch import Tensor

from matinfo.losses import vicreg_loss
from trainlib.siamese.base import Projections, Rates, Settings, SiameseMethod
from trainlib.siamese.networks import Projector


class VICReg(SiameseMethod):
    settings = Settings(
        label="VICReg",
        augmentation="vicreg",
        projector=Projector(hidden_layers=2),
        rates={"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.03, 5e-4), "lars": Rates(0.3, 1e-4)},
    )

    def loss(self, batch: Projections) -> Tensor:
        """The paper's form and weights."""
        return vicreg_loss(*batch.online)
