"""MI-MAE-style pre-training: disjoint masks of each image, information between and in their latents, and its control.

Our reading of Huang et al. (2025), whose equations and weights were known to us from descriptions only. The batch is
encoded under N masks that together show every patch once. Besides the reconstruction error of every mask:

* InfoNCE between the pooled latents of an image under different masks raises what they share;
* CLUB lowers what a latent tells about its own visible patches, given a Gaussian conditional q;
* a likelihood fits q, and nothing else, to the latents of the moment.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matinfo.losses import club_loss, gaussian_nll, mask_infonce_loss
from trainlib import ranks
from trainlib.masked import MaskedMethod
from trainlib.method import StepOutput
from trainlib.models import Masking


def disjoint_masking(noise: Tensor, masks: int) -> Masking:
    """Masks 1 to N of all images, one after the other: ``(N B, ...)``. Each patch is visible under exactly one.

    ``noise`` is ``(B, L)``; the first mask is that of ``random_masking`` with a ratio of ``1 - 1/N``.
    """
    visible = noise.shape[1] // masks
    shuffle = noise.argsort(dim=1)
    orders = torch.cat([shuffle.roll(-visible * k, 1) for k in range(masks)])
    restore = orders.argsort(dim=1)
    return Masking(orders[:, :visible], restore, (restore >= visible).to(noise.dtype))


class Conditional(nn.Module):
    """q(h | x): mean and log-variance of a diagonal Gaussian; the log-variance lies between -1 and 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, 2 * width)
        self.output = nn.Linear(2 * width, 2 * width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.output(nn.functional.gelu(self.hidden(x))).float().chunk(2, -1)
        return mean, log_variance.tanh()


class MaskInformationMethod(MaskedMethod):
    """A masked autoencoder that sees each image under several disjoint masks."""

    capturable = False  # not tried

    def __init__(self, config, channels: int, classes: int) -> None:
        super().__init__(config, channels, classes)
        informed = self.config.method == "mimae"
        self.conditional = Conditional(self.probe.in_features) if informed else None

    def visible_input(self, images: Tensor, masking: Masking) -> Tensor:
        """The mean embedding of the visible patches ``(N, B, width)``, without gradient: what q is given."""
        encoder, masks = self.autoencoder.encoder, len(masking.mask) // len(images)
        with torch.no_grad():
            tokens = encoder.patch_embed(images) + encoder.positions[:, 1:]
            shown = (1 - masking.mask).to(tokens.dtype).unflatten(0, (masks, -1))
            return (shown[:, :, None] @ tokens)[:, :, 0] / shown.sum(-1, keepdim=True)

    def information(self, images: Tensor, latent: Tensor, masking: Masking) -> dict[str, Tensor]:
        """The three information losses, unweighted. Only ``nll`` has a gradient for q, and it has no other."""
        mean, log_variance = self.conditional(self.visible_input(images, masking))
        with torch.autocast(images.device.type, enabled=False):
            pooled = latent[:, 1:].float().mean(1).unflatten(0, mean.shape[:2])
            mean, log_variance, pooled = (ranks.gather(x, dim=1) for x in (mean, log_variance, pooled))
            return {
                "infonce": mask_infonce_loss(pooled, temperature=self.config.temperature),
                "club": torch.func.vmap(club_loss)(mean, log_variance, pooled).mean(),
                "nll": torch.func.vmap(gaussian_nll)(mean, log_variance, pooled.detach()).mean(),
            }

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> StepOutput:
        """Total loss, its parts, and the CLS features under the first mask; ``loss`` in the log is without q's."""
        masking = disjoint_masking(noise, self.config.masks)
        repeated = images.repeat(self.config.masks, 1, 1, 1)
        latent, prediction = self.autoencoder(repeated, masking)
        with torch.autocast(images.device.type, enabled=False):
            reconstruction = self.reconstruction_loss(repeated, prediction, masking)
        terms = {} if self.conditional is None else self.information(images, latent, masking)
        weights = {"infonce": self.config.infonce_weight, "club": self.config.club_weight}
        regulariser = sum(
            (weights[name] * terms[name] for name in weights if terms), torch.zeros_like(reconstruction)
        )
        objective = reconstruction + regulariser
        loss = objective + (self.config.nll_weight * terms["nll"] if terms else 0.0)
        logs = {"loss": objective, "reconstruction": reconstruction, "regulariser": regulariser} | terms
        return self.step_output(loss, logs, latent[: len(images), 0], labels)
