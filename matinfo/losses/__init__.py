"""Training losses: each a function to be minimised, unweighted, in nats where it is an information quantity."""

from matinfo.losses.masked import (
    masked_reconstruction_loss,
    mmae_tcr_loss,
    patch_normalize,
    umae_uniformity_loss,
)

__all__ = ["masked_reconstruction_loss", "mmae_tcr_loss", "patch_normalize", "umae_uniformity_loss"]
