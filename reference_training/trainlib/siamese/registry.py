"""The methods by name."""

from __future__ import annotations

from trainlib.siamese.barlow_twins import BarlowTwins
from trainlib.siamese.base import SiameseMethod
from trainlib.siamese.byol import BYOL
from trainlib.siamese.deepcluster import DeepCluster
from trainlib.siamese.dino import DINO
from trainlib.siamese.entropy_reconstruction import BYOLER, DINOER, SimCLRER
from trainlib.siamese.matrix_ssl import MatrixSSL
from trainlib.siamese.simclr import SimCLR
from trainlib.siamese.simsiam import SimSiam
from trainlib.siamese.spectral import Spectral
from trainlib.siamese.swav import SwAV
from trainlib.siamese.vicreg import VICReg

METHOD_CLASSES: dict[str, type[SiameseMethod]] = {
    "simclr": SimCLR,
    "spectral": Spectral,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "matrix_ssl": MatrixSSL,
    "byol": BYOL,
    "simsiam": SimSiam,
    "dino": DINO,
    "swav": SwAV,
    "deepcluster": DeepCluster,
    "simclr_er": SimCLRER,
    "byol_er": BYOLER,
    "dino_er": DINOER,
}
