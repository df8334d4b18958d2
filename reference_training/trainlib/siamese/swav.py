"""SwAV (Caron et al. 2020): each view predicts the other's balanced assignment to learned prototypes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from matinfo.losses import swav_loss
from trainlib.siamese.base import Projections, Rates, Settings, SiameseMethod
from trainlib.siamese.networks import Projector, Prototypes

FROZEN_EPOCHS = 1


class SwAV(SiameseMethod):
    skips_parameters = True  # the prototypes, at first
    settings = Settings(
        label="SwAV",
        projector=Projector(hidden_layers=1, last_norm=True),
        options={"temperature": 0.1, "prototypes": 128, "queue": 1024},
        rates={"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.12, 5e-4), "lars": Rates(0.6, 1e-6)},
    )
    queue: Tensor
    queued: Tensor

    def __init__(self, config, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        width = config.model.projector_width
        self.prototypes = Prototypes(width, self.config.prototypes)
        self.register_buffer("queue", torch.zeros(2, self.config.queue, width))
        self.register_buffer("queued", torch.zeros((), dtype=torch.long))

    def before_epoch(self, epoch: int) -> None:
        """Hold the prototypes still until the projections have some shape."""
        self.prototypes.requires_grad_(epoch >= FROZEN_EPOCHS)

    def loss(self, batch: Projections) -> Tensor:
        """Swapped prediction; earlier projections join the assignment once the queue is full."""
        scores1, scores2 = (self.prototypes(z) for z in batch.online)
        size = self.queue.shape[1]
        queue1, queue2 = self.prototypes(self.queue) if 0 < size <= int(self.queued) else (None, None)
        if self.training and size:
            with torch.no_grad():  # the newest projections in front; the oldest fall out
                fresh = torch.stack([normalize(z, dim=1) for z in batch.online])
                self.queue.copy_(torch.cat([fresh, self.queue], 1)[:, :size])
                self.queued += fresh.shape[1]
        return swav_loss(scores1, scores2, temperature=self.config.temperature, queue1=queue1, queue2=queue2)
