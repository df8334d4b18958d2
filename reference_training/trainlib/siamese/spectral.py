"""Spectral contrastive learning (HaoChen et al. 2021; Tan et al. 2024, Equation 2)."""

from __future__ import annotations

from torch import Tensor

from matinfo.losses import spectral_contrastive_loss
from trainlib.siamese.base import Projections, Rates, Settings, SiameseMethod
from trainlib.siamese.networks import Projector


class Spectral(SiameseMethod):
    settings = Settings(
        label="Spectral",
        projector=Projector(hidden_layers=1, norm=True),
        options={"lambda_": 1.0},
        rates={"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.12, 5e-4), "lars": Rates(0.4, 1e-4)},
    )

    def loss(self, batch: Projections) -> Tensor:
        """The sum of the paper over the batch size, so that the rates do not depend on it."""
        features1, features2 = batch.online
        return spectral_contrastive_loss(features1, features2, lambda_=self.config.lambda_) / len(features1)
