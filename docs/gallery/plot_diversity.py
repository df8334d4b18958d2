"""
Diversity of image sets
=======================

The Vendi score of a set is its effective number of distinct elements: :math:`\\exp H_q(K)` of a similarity matrix
with unit diagonal. Here the sets are scikit-learn's digits, and similarity is a Gaussian kernel of the pixels.
"""

# %%
# Three sets of 100 images
# ------------------------
#
# One digit only; all ten digits; and ten images, each ten times over.

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from matinfo import vendi_score
from matinfo.kernels import median_bandwidth, rbf

data = load_digits()
images, labels = data.data / 16, data.target
rng = np.random.default_rng(0)

sets = {
    "one digit": images[rng.choice(np.flatnonzero(labels == 3), 100, replace=False)],
    "all digits": images[rng.choice(len(images), 100, replace=False)],
    "ten images, ten copies": np.repeat(images[rng.choice(len(images), 10, replace=False)], 10, axis=0),
}

figure, axes = plt.subplots(1, 3, figsize=(8.5, 1.2), layout="constrained")
for axis, (name, members) in zip(axes, sets.items(), strict=True):
    shown = members[rng.permutation(100)[:30]].reshape(3, 10, 8, 8)
    axis.imshow(shown.transpose(0, 2, 1, 3).reshape(24, 80), cmap="gray_r")
    axis.set_title(name)
    axis.axis("off")
plt.show()

# %%
# One bandwidth for all
# ---------------------
#
# Scores are comparable only under one kernel, so the bandwidth is found once, on a sample of all images. Half the
# median distance separates these sets well; at a tenth of it every image counts as unlike all others (score 100), at
# twice it all images as nearly alike (score 2).

bandwidth = 0.5 * float(median_bandwidth(images[rng.choice(len(images), 500, replace=False)]))
kernels = {name: rbf(members, bandwidth=bandwidth) for name, members in sets.items()}
{name: round(float(vendi_score(K)), 1) for name, K in kernels.items()}

# %%
# It is the number that the package ``vendi-score`` gives, here written out; the largest relative difference:


def by_hand(K):
    p = np.linalg.eigvalsh(K / len(K))
    p = p[p > 0]
    return np.exp(-(p * np.log(p)).sum())


float(max(abs(vendi_score(K) / by_hand(K) - 1) for K in kernels.values()))

# %%
# Orders
# ------
#
# A small order counts whatever is there, a large one what dominates. The copies have at most ten distinct elements at
# any order.

orders = [0.25, 0.5, 1, 2, 4, 8, np.inf]
figure, axis = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for name, K in kernels.items():
    axis.plot(range(len(orders)), [float(vendi_score(K, q)) for q in orders], "o-", label=name)
axis.axhline(10, color="0.6", linewidth=0.8, linestyle=":")
axis.set(yscale="log", xlabel="order q", ylabel="Vendi score", xticks=range(len(orders)))
axis.set_xticklabels([f"{q:g}" if np.isfinite(q) else "∞" for q in orders])
axis.legend(frameon=False)
plt.show()

# %%
# More classes, more diversity
# ----------------------------
#
# Sets of 100 images drawn from the first k digits; the mean of five draws, and their range.

counts = range(1, 11)
scores = np.array(
    [
        [
            float(vendi_score(rbf(images[rng.choice(pool, 100, replace=False)], bandwidth=bandwidth)))
            for _ in range(5)
        ]
        for pool in (np.flatnonzero(labels < k) for k in counts)
    ]
)
figure, axis = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
axis.fill_between(counts, scores.min(1), scores.max(1), alpha=0.25, linewidth=0)
axis.plot(counts, scores.mean(1), "o-")
axis.set(xlabel="number of digits in the pool", ylabel="Vendi score of 100 images", xticks=counts)
plt.show()

# %%
# The score depends on the number of images too: compare sets of one size. :doc:`/how-to/score-diversity` has the
# choices side by side.
