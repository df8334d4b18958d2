"""
Where mutual information is negative
====================================

:math:`I_\\alpha(K_1; K_2) = H_\\alpha(K_1) + H_\\alpha(K_2) - H_\\alpha(K_1 \\circ K_2)` is certain to be
non-negative at the orders 0 and 1 only. This page draws the smallest counterexample at order 2, and one in which the
information is far below zero.
"""

# %%
# Four samples, two labels
# ------------------------
#
# A *partition matrix* is 1 where two samples carry the same label, else 0. Its spectrum is the list of label
# frequencies, and the Hadamard product of two of them is the partition matrix of the pair of labels. Here the labels
# are 0111 and 0001.

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

from matinfo import mutual_information, renyi_entropy, sandwiched_mutual_information


def same_label(labels):
    labels = np.asarray(labels)
    return (labels[:, None] == labels).astype(float)


K, L = same_label([0, 1, 1, 1]), same_label([0, 0, 0, 1])

figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
for axis, matrix, name in zip(axes, (K, L, K * L), ("$K_1$", "$K_2$", r"$K_1 \circ K_2$"), strict=True):
    axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1.6)
    for i, j in np.ndindex(4, 4):
        axis.text(j, i, f"{matrix[i, j]:.0f}", ha="center", va="center")
    entropy = float(renyi_entropy(matrix, alpha=2))
    axis.set(title=f"{name}:  $H_2$ = {entropy:.4f}", xticks=[], yticks=[])
plt.show()

# %%
# The joint entropy is larger than the sum of the other two:

round(float(mutual_information(K, L, alpha=2)), 4)

# %%
# Every order
# -----------
#
# The curve of the small example crosses zero between 1 and 2. The second pair has 32 samples: the first matrix has
# equal samples in its first half, the second in its second half. At order 1 they share 0.69 nats, at order 2 minus
# 0.81.

block = [0] * 16
rest = list(range(1, 17))
pairs = {
    "four samples": (K, L),
    "two disjoint blocks, n = 32": (same_label(block + rest), same_label(rest + block)),
}
orders = np.linspace(0, 5, 101)

figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
for axis, (name, (first, second)) in zip(axes, pairs.items(), strict=True):
    information = [float(mutual_information(first, second, alpha)) for alpha in orders]
    sandwiched = [
        float(sandwiched_mutual_information(first, second, alpha)) for alpha in orders[orders >= 0.5]
    ]
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.plot(orders, information, label=r"$I_\alpha$")
    axis.plot(orders[orders >= 0.5], sandwiched, "--", label="sandwiched")
    axis.plot(1, float(mutual_information(first, second)), "o", color="k", markersize=4)
    axis.set(title=name, xlabel=r"order $\alpha$", ylabel="nats")
    axis.legend(frameon=False)
plt.show()

# %%
# What to use
# -----------
#
# Order 1 (the dot, where the two definitions meet), or :func:`matinfo.sandwiched_mutual_information`, which is never
# negative and never decreases with the order. The smallest counterexample for each order, and why there is one beside
# every pair of independent labels, are in :doc:`/theory/what-does-not-hold`.
