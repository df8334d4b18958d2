"""MAE, U-MAE, M-MAE and Ent-MAE: one forward pass, the loss from ``matinfo.losses``, an online linear probe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from matinfo.distributed import ShardedGram, gather_rows
from matinfo.losses import masked_reconstruction_loss, mmae_tcr_loss, umae_uniformity_loss, vne_loss
from trainlib import ranks
from trainlib.method import Method, StepOutput
from trainlib.models import MaskedAutoencoder, Masking, model_sizes, patchify, random_masking, unpatchify
from trainlib.pictures import draw_reconstructions, draw_training


def token_features(tokens: Tensor) -> dict[str, Tensor]:
    """The CLS token and the mean of the patch tokens, in float32."""
    tokens = tokens.float()
    return {"cls": tokens[:, 0], "pooled": tokens[:, 1:].mean(1)}


class MaskedMethod(Method):
    """A masked autoencoder with the regulariser that the configuration names."""

    capturable = True

    def __init__(self, config, channels: int, classes: int) -> None:
        super().__init__()
        self.config = config.method
        sizes = model_sizes(config.model)
        self.autoencoder = MaskedAutoencoder(config.data.image_size, config.model.patch, channels, sizes)
        self.probe = nn.Linear(sizes.width, classes)
        nn.init.normal_(self.probe.weight, std=0.01)
        nn.init.zeros_(self.probe.bias)

    def compile_parts(self) -> None:
        """Encoder and decoder, as one."""
        self.autoencoder.compile()

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """The random numbers of one step: mask noise ``(batch, L)``."""
        return torch.rand(batch, self.autoencoder.length, generator=generator, device=generator.device)

    def regulariser(self, features: Tensor) -> Tensor:
        """The unweighted term that is added to the reconstruction loss, over the batch of all processes."""
        if self.config.method == "mae":
            return features.new_zeros(())
        if self.config.gather == "local":
            features = gather_rows(features, gradient="local")
        elif ranks.started() > 1 and self.config.method != "entmae" and not self.config.centering:
            features = ShardedGram(features.double(), normalize=True)  # d x d numbers instead of B x d
        else:
            features = ranks.gather(features)
        if self.config.method == "umae":
            return umae_uniformity_loss(features)
        if self.config.method == "mmae":
            return mmae_tcr_loss(
                features, mu=self.config.mu, scale=self.config.tcr_scale, centering=self.config.centering
            )
        return vne_loss(features)

    def reconstruction_loss(self, images: Tensor, prediction: Tensor, masking: Masking) -> Tensor:
        """The error on hidden patches; to be called with autocast off."""
        target = patchify(images.float(), self.autoencoder.patch)
        return masked_reconstruction_loss(
            prediction.float(), target, masking.mask, norm_pix=self.config.norm_pix
        )

    def step_output(
        self, loss: Tensor, logs: dict[str, Tensor], feature: Tensor, labels: Tensor
    ) -> StepOutput:
        """``loss`` with that of the online probe, which sees the detached feature; ``logs`` with its accuracy."""
        logits = self.probe(feature.detach())
        with torch.autocast(feature.device.type, enabled=False):
            logits = logits.float()
            probe_loss = nn.functional.cross_entropy(logits, labels)
        logs = logs | {
            "probe_loss": probe_loss,
            "probe_accuracy": (logits.argmax(1) == labels).float().mean(),
        }
        logs = {name: value.detach() for name, value in logs.items()}
        return StepOutput(loss + probe_loss, logs, feature.detach().float())

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> StepOutput:
        """Total loss, its parts, and the CLS features of the masked pass."""
        masking = random_masking(noise, self.config.mask_ratio)
        latent, prediction = self.autoencoder(images, masking)
        feature = latent[:, 0]
        if self.config.double_norm:
            feature = self.autoencoder.encoder.norm(feature)
        with torch.autocast(images.device.type, enabled=False):
            reconstruction = self.reconstruction_loss(images, prediction, masking)
            regulariser = self.regulariser(feature.float())
            loss = reconstruction + self.config.lambda_ * regulariser
        logs = {"loss": loss, "reconstruction": reconstruction, "regulariser": regulariser}
        return self.step_output(loss, logs, feature, labels)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """CLS token and mean of the patch tokens, of the images as they are or masked by the noise."""
        keep = None if noise is None else random_masking(noise, self.config.mask_ratio).keep
        return token_features(self.autoencoder.encoder(images, keep))

    def reconstruct(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The images with hidden patches at the mean colour, and with hidden patches filled in by the decoder."""
        patch, channels = self.autoencoder.patch, self.autoencoder.channels
        masking = random_masking(noise, self.config.mask_ratio)
        _, prediction = self.autoencoder(images, masking)
        target, prediction = patchify(images, patch), prediction.float()
        if self.config.norm_pix:  # back to pixels, with the mean and variance of the true patch
            mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
            prediction = prediction * (variance + 1e-6).sqrt() + mean
        hidden = masking.mask[:, :, None]
        return (
            unpatchify(target * (1 - hidden), patch, channels),
            unpatchify(target * (1 - hidden) + prediction * hidden, patch, channels),
        )

    def summarize(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """The reconstruction error of the last logged batch."""
        return {"reconstruction": [r for r in records if r["kind"] == "train"][-1]["reconstruction"]}

    def draw_pictures(self, dataset, config, records: list[dict[str, Any]], folder: Path) -> None:
        """Reconstructions of held-out images; loss and effective rank during training."""
        known = (
            "hidden patches are predicted up to their mean and variance, which are taken from the original"
        )
        note = known if self.config.norm_pix else ""
        draw_reconstructions(self, dataset, config.run.seed, folder / "reconstructions.png", note=note)
        draw_training(
            records, f"{config.label()}, {config.data.data}", folder / "training.png",
            losses={"total": "loss", "reconstruction": "reconstruction"}, features=("cls", "pooled"),
            panels={"effective rank, held-out images": ("effective_rank",)}, batch="CLS, masked training batch",
        )  # fmt: skip
