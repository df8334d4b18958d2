"""Matrix-SSL (Zhang et al. 2024): matrix cross-entropies of the views' covariances, between the branches of BYOL."""

from __future__ import annotations

from torch import Tensor

from matinfo.losses import matrix_ssl_loss
from trainlib.siamese.base import Projections, Rates, Settings
from trainlib.siamese.byol import BYOL


class MatrixSSL(BYOL):
    settings = Settings(
        label="Matrix-SSL",
        augmentation="symmetric",
        options={"ema": 0.99, "gamma": 1.0},
        rates={"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.12, 5e-4), "lars": Rates(0.5, 1e-5)},
    )

    def loss(self, batch: Projections) -> Tensor:
        """The mean of both directions."""
        (p1, p2), (t1, t2) = (self.predictor(z) for z in batch.online), batch.target
        gamma = self.config.gamma
        return (matrix_ssl_loss(p1, t2, gamma=gamma) + matrix_ssl_loss(p2, t1, gamma=gamma)) / 2
