"""Training losses: each a function to be minimised, unweighted, in nats where it is an information quantity."""

from matinfo.losses.contrastive import infonce_loss, ntxent_loss, spectral_contrastive_loss
from matinfo.losses.decorrelation import barlow_twins_loss
from matinfo.losses.masked import (
    masked_reconstruction_loss,
    mmae_tcr_loss,
    patch_normalize,
    umae_uniformity_loss,
)

__all__ = [
    "barlow_twins_loss",
    "infonce_loss",
    "masked_reconstruction_loss",
    "mmae_tcr_loss",
    "ntxent_loss",
    "patch_normalize",
    "spectral_contrastive_loss",
    "umae_uniformity_loss",
]
