"""DINO (Caron et al. 2021): match the sharpened, centred distribution of a slowly moving teacher (two views)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from matinfo.losses import DINOCenter, dino_loss
from trainlib.siamese.base import Projections, Rates, Settings, SiameseMethod
from trainlib.siamese.networks import Prototypes

FROZEN_EPOCHS = 1
TEACHER_TEMPERATURE = 0.04


class DINO(SiameseMethod):
    skips_parameters = True  # the prototypes, at first
    settings = Settings(
        label="DINO",
        augmentation="asymmetric",
        options={"ema": 0.99, "temperature": 0.1, "prototypes": 256},
        rates={"adamw": Rates(2e-3, 0.01), "sgd": Rates(0.12, 5e-4), "lars": Rates(0.3, 1e-6)},
    )

    def __init__(self, config, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        self.prototypes = Prototypes(config.model.projector_width, self.config.prototypes)
        self.target_prototypes = copy.deepcopy(self.prototypes).requires_grad_(False)
        self.centre = DINOCenter(self.config.prototypes)

    def followed(self) -> list[tuple[nn.Module, nn.Module]]:
        """The teacher's prototypes are an average too."""
        return [*super().followed(), (self.prototypes, self.target_prototypes)]

    def before_epoch(self, epoch: int) -> None:
        """Hold the prototypes still at first, as the authors do."""
        self.prototypes.requires_grad_(epoch >= FROZEN_EPOCHS)

    def loss(self, batch: Projections) -> Tensor:
        """Cross-entropies of each view's student with the other view's teacher."""
        students = torch.stack([self.prototypes(z) for z in batch.online])
        teachers = torch.stack([self.target_prototypes(t) for t in batch.target])
        loss = dino_loss(
            students, teachers, self.centre.center,
            student_temperature=self.config.temperature, teacher_temperature=TEACHER_TEMPERATURE,
        )  # fmt: skip
        if self.training:
            self.centre.update(teachers)
        return loss
