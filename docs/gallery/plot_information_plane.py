"""
Information plane of a small network
====================================

How much does each layer of a classifier know of its input, and of the label? Both are matrix-based mutual
informations of order 1 between kernel matrices over one fixed set of images, followed while the network learns
scikit-learn's digits.
"""

# %%
# Kernels
# -------
#
# The same samples give one matrix for the input X, one for each layer T, one for the label Y. Input and layers get a
# Gaussian kernel; that of the label is 1 for equal labels, so that :math:`H_1(Y)` is the Shannon entropy of the label
# frequencies.
#
# The number depends on the bandwidth more than on anything else. Here it is half the median distance, found anew for
# every layer at every epoch, which makes the picture blind to a mere change of scale.

import itertools
import math

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from matinfo import Gram, mutual_information, von_neumann_entropy
from matinfo.kernels import median_bandwidth, rbf

data = load_digits()
images = torch.tensor(data.data, dtype=torch.float32) / 16
labels = torch.tensor(data.target)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train, held_out = order[:1400], order[1400:1656]  # 256 images are measured


def kernel(features):
    Z = features.double()
    return rbf(Z, bandwidth=0.5 * float(median_bandwidth(Z)))


KX = kernel(images[held_out])
KY = Gram(torch.eye(10, dtype=torch.float64)[labels[held_out]]).dense()
HX, HY = float(von_neumann_entropy(KX)), float(von_neumann_entropy(KY))
{"HX": round(HX, 3), "HY": round(HY, 3), "log_n": round(math.log(256), 3)}

# %%
# Training
# --------
#
# Three hidden layers of falling width; Adam; the plane is measured before training and after each of the first
# epochs.

torch.manual_seed(0)
widths = [64, 32, 16, 8]
layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(widths)])
head = nn.Linear(8, 10)
optimiser = torch.optim.Adam([*layers.parameters(), *head.parameters()], lr=3e-3)


def activations(x):
    found = []
    for layer in layers:
        x = torch.tanh(layer(x))
        found.append(x)
    return found


EPOCHS = 60
epochs, plane, accuracy = [], [], []
generator = torch.Generator().manual_seed(1)
for epoch in range(EPOCHS + 1):
    if epoch in (0, 1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40, 50, 60):
        with torch.no_grad():
            hidden = activations(images[held_out])
            kernels = [kernel(T) for T in hidden]
            plane.append(
                [(float(mutual_information(KX, K)), float(mutual_information(K, KY))) for K in kernels]
            )
            accuracy.append(float((head(hidden[-1]).argmax(1) == labels[held_out]).float().mean()))
        epochs.append(epoch)
    for batch in train[torch.randperm(len(train), generator=generator)].split(64):
        loss = nn.functional.cross_entropy(head(activations(images[batch])[-1]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

# %%
# The plane
# ---------

points = torch.tensor(plane)  # time, layer, (X, Y)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for index in range(3):
    left.plot(points[:, index, 0], points[:, index, 1], color="0.8", linewidth=0.8, zorder=0)
    dots = left.scatter(
        points[:, index, 0],
        points[:, index, 1],
        c=range(len(epochs)),
        cmap="viridis",
        marker="os^"[index],
        label=f"layer {index + 1}, width {widths[index + 1]}",
    )
    right.plot(epochs, points[:, index, 1], marker="os^"[index], markersize=4, label=f"layer {index + 1}")
left.axhline(HY, color="0.6", linewidth=0.8, linestyle=":")
right.axhline(HY, color="0.6", linewidth=0.8, linestyle=":", label="H(Y)")
left.set(xlabel="I(X; T), nats", ylabel="I(T; Y), nats", title="colour: before training to epoch 60")
right.set(xlabel="epoch", ylabel="I(T; Y), nats", title=f"held-out accuracy at the end {accuracy[-1]:.0%}")
left.legend(frameon=False, fontsize="small")
right.legend(frameon=False, fontsize="small")
plt.show()

# %%
# Reading it
# ----------
#
# Random layers already keep a good deal of both. In the first epoch or two both informations fall, as the units of a
# layer align; then information about the label rises, most in the last layer, which ends closest to H(Y), the dotted
# line, and farthest from the input. With other bandwidths the points move: a small one makes every matrix nearly the
# identity, and then every layer "knows" log n of everything. :doc:`/how-to/choose-kernel` shows how to see that
# happen.
