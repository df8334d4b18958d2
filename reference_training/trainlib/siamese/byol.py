"""BYOL (Grill et al. 2020): predict a slowly moving target network's projection of the other view."""

from __future__ import annotations

from torch import Tensor

from matinfo.losses import byol_loss
from trainlib.siamese.base import Projections, Rates, Settings, SiameseMethod
from trainlib.siamese.networks import mlp


class BYOL(SiameseMethod):
    settings = Settings(
        label="BYOL",
        augmentation="asymmetric",
        options={"ema": 0.99},
        rates={"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.12, 5e-4), "lars": Rates(1.0, 1e-5)},
    )

    def __init__(self, config, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        width = config.model.projector_width
        self.predictor = mlp([width, config.model.projector_hidden, width])

    def loss(self, batch: Projections) -> Tensor:
        """Both directions."""
        p1, p2 = (self.predictor(z) for z in batch.online)
        return byol_loss(p1, p2, *batch.target)
