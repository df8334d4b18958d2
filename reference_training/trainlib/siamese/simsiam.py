"""SimSiam (Chen and He 2021): BYOL without a target network; the predictor learns at a constant rate."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from matinfo.losses import simsiam_loss
from trainlib.siamese.base import Projections, Rates, Settings, SiameseMethod
from trainlib.siamese.networks import Projector, mlp

BOTTLENECK = 4  # the predictor's hidden layer is narrower than the projection by this factor


class SimSiam(SiameseMethod):
    settings = Settings(
        label="SimSiam",
        augmentation="weak",
        projector=Projector(hidden_layers=1, last_norm=True),
        rates={"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.12, 5e-4), "lars": Rates(0.5, 1e-5)},
    )

    def __init__(self, config, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        width = config.model.projector_width
        self.predictor = mlp([width, max(1, width // BOTTLENECK), width])

    def special_groups(self, optim) -> list[tuple[nn.Module, dict[str, Any]]]:
        """The predictor keeps its learning rate."""
        return [*super().special_groups(optim), (self.predictor, {"constant": True})]

    def loss(self, batch: Projections) -> Tensor:
        """Both directions; no gradient flows through the other view."""
        p1, p2 = (self.predictor(z) for z in batch.online)
        return simsiam_loss(p1, p2, *batch.target)
