"""Training losses: each a function to be minimised, unweighted, in nats where it is an information quantity.

All work in float32 at least, also under autocast; where more is needed the notes say so.
"""

from matinfo.losses.clustering import deepcluster_loss, sinkhorn, swav_loss
from matinfo.losses.coding import emp_ssl_loss, matrix_ssl_loss, mcr2_loss, mec_loss, vne_loss
from matinfo.losses.contrastive import (
    gram_loss,
    gram_volume,
    infonce_loss,
    ntxent_loss,
    spectral_contrastive_loss,
)
from matinfo.losses.decorrelation import barlow_twins_loss, vicreg_loss
from matinfo.losses.distillation import DINOCenter, byol_loss, dino_loss, simsiam_loss
from matinfo.losses.entropy_reconstruction import (
    discrete_er_loss,
    er_loss,
    sphere_entropy,
    sphere_reconstruction,
    vmf_log_normalizer,
)
from matinfo.losses.expansion import RunningCovariance, corinfomax_loss, mmcr_loss, simdino_loss, wmse_loss
from matinfo.losses.information import (
    club_loss,
    dib_loss,
    dime_loss,
    gaussian_nll,
    hsic_bottleneck_loss,
    mask_infonce_loss,
)
from matinfo.losses.masked import (
    masked_reconstruction_loss,
    mmae_tcr_loss,
    patch_normalize,
    umae_uniformity_loss,
)
from matinfo.losses.normality import bhep_loss, sigreg_loss

__all__ = [
    "DINOCenter",
    "RunningCovariance",
    "barlow_twins_loss",
    "bhep_loss",
    "byol_loss",
    "club_loss",
    "corinfomax_loss",
    "deepcluster_loss",
    "dib_loss",
    "dime_loss",
    "dino_loss",
    "discrete_er_loss",
    "emp_ssl_loss",
    "er_loss",
    "gaussian_nll",
    "gram_loss",
    "gram_volume",
    "hsic_bottleneck_loss",
    "infonce_loss",
    "mask_infonce_loss",
    "masked_reconstruction_loss",
    "matrix_ssl_loss",
    "mcr2_loss",
    "mec_loss",
    "mmae_tcr_loss",
    "mmcr_loss",
    "ntxent_loss",
    "patch_normalize",
    "sigreg_loss",
    "simdino_loss",
    "simsiam_loss",
    "sinkhorn",
    "spectral_contrastive_loss",
    "sphere_entropy",
    "sphere_reconstruction",
    "swav_loss",
    "umae_uniformity_loss",
    "vicreg_loss",
    "vmf_log_normalizer",
    "vne_loss",
    "wmse_loss",
]
