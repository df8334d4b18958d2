"""
The spectrum of image features
==============================

How many directions do features occupy? The eigenvalues of their Gram matrix say it at a glance, the effective rank and
the entropies in a few numbers. The images are scikit-learn's digits: pixels, random features, and features that were
trained.
"""

# %%
# Three representations of the same images
# ----------------------------------------
#
# The pixels; the 64 outputs of a network with random weights; and those of the same network after it has learned to
# tell the digits apart. All are centred, so that the first eigenvalue is not the mean image.

# sphinx_gallery_thumbnail_number = 1
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from matinfo import Gram, effective_rank, plot, rankme

digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
labels = torch.tensor(digits.target)


def centred(features):
    return features - features.mean(0)


torch.manual_seed(0)
network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
head = nn.Linear(64, 10)
features = {"pixels": centred(images)}
with torch.no_grad():
    features["random"] = centred(network(images))

optimiser = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=3e-3)
steps, spectra = [], []
for step in range(101):
    if step % 20 == 0:
        with torch.no_grad():
            Z = centred(network(images))
        steps.append(step)
        spectra.append(Gram(Z))
    optimiser.zero_grad()
    nn.functional.cross_entropy(head(network(images)), labels).backward()
    optimiser.step()

with torch.no_grad():
    features["trained"] = centred(network(images))
    accuracy = (head(network(images)).argmax(1) == labels).float().mean().item()

# %%
# Spectra
# -------
#
# Both axes are logarithmic; a large marker stands at the effective rank. The eigenvalues of the trained features fall
# steeply around the ninth: about nine directions are enough to tell ten classes apart, and the others become small.

grams = {name: Gram(Z) for name, Z in features.items()}
plot.spectrum(grams)
plt.show()

# %%
# The same at every order
# -----------------------
#
# At α = 0 all directions count alike, at α = ∞ only the largest. Where two curves cross, as those of the pixels and the
# random features do, the order decides which representation looks richer.

plot.entropy_profile(grams)
plt.show()

# %%
# As single numbers
# -----------------
#
# The effective rank of the Gram matrix weighs directions by their variance, RankMe by its root: it is larger, and sees
# more of the tail.

numbers = {
    name: {"effective_rank": effective_rank(Gram(Z)), "rankme": rankme(Z)} for name, Z in features.items()
}
for ax in plot.layers(numbers):
    ax.set_xlabel("representation")
plt.show()

# %%
# While it is trained
# -------------------
#
# The spectrum from the first step (dark) to the last (bright).

ax = plot.spectra_over_time(steps, spectra)
ax.set_title(f"at the end {accuracy:.0%} of the training images are told apart")
plt.show()
