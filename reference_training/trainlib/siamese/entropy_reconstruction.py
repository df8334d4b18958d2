"""SimCLR, BYOL and DINO with the entropy-reconstruction objective (Rodríguez-Gálvez et al. 2023) in place of their own.

Architecture, augmentation, target network and rates stay those of the namesake. The paper's abstract leaves open whose
entropy counts where the target has no gradient; here it is that of the online network's output (our reading).
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from matinfo.losses import discrete_er_loss, er_loss
from trainlib.siamese.base import Projections
from trainlib.siamese.byol import BYOL
from trainlib.siamese.dino import DINO
from trainlib.siamese.simclr import SimCLR


class SimCLRER(SimCLR):
    settings = replace(SimCLR.settings, label="SimCLR+ER", options={"kappa": 10.0})

    def loss(self, batch: Projections) -> Tensor:
        """The continuous bound on the sphere, the mean of both directions."""
        (z1, z2), kappa = batch.online, self.config.kappa
        return (er_loss(z1, z2, kappa=kappa) + er_loss(z2, z1, kappa=kappa)) / 2


class BYOLER(BYOL):
    settings = replace(BYOL.settings, label="BYOL+ER", options={"ema": 0.99, "kappa": 10.0})

    def loss(self, batch: Projections) -> Tensor:
        """The continuous bound between target projections and online predictions, the mean of both directions."""
        (p1, p2), (t1, t2) = (self.predictor(z) for z in batch.online), batch.target
        kappa = self.config.kappa
        return (er_loss(t2, p1, kappa=kappa) + er_loss(t1, p2, kappa=kappa)) / 2


class DINOER(DINO):
    settings = replace(DINO.settings, label="DINO+ER")

    def loss(self, batch: Projections) -> Tensor:
        """The discrete bound between both networks' distributions at one temperature, without centring."""
        temperature = self.config.temperature
        s1, s2 = ((self.prototypes(z) / temperature).softmax(-1) for z in batch.online)
        t1, t2 = ((self.target_prototypes(t) / temperature).softmax(-1) for t in batch.target)
        return (discrete_er_loss(s1, t2) + discrete_er_loss(s2, t1)) / 2
