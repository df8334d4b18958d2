"""Pictures of spectra, entropies and information, with matplotlib: ``pip install 'matinfo[plot]'``.

Every function draws on the axes that it is given, or makes a figure with pyplot, and returns the axes. Lines differ in
colour, marker and dash; the colours are chosen for the background, light or dark.
"""

from matinfo.plot.matrix import information_matrix
from matinfo.plot.panels import layers, layers_over_training, training_curves
from matinfo.plot.spectra import entropy_profile, spectra_over_time, spectrum
from matinfo.plot.theme import style

__all__ = [
    "entropy_profile",
    "information_matrix",
    "layers",
    "layers_over_training",
    "spectra_over_time",
    "spectrum",
    "style",
    "training_curves",
]
