"""
Barlow Twins: the bound against the value
=========================================

A small Barlow Twins loss guarantees that the correlation matrices of the two views share information. How much is
guaranteed, and how much is there? Both are followed while a small network trains on scikit-learn's digits.
"""

# %%
# A small network, two views
# --------------------------
#
# A view is the image, rolled by up to one pixel, with noise. The projection has eight columns: the bounds weaken with
# the width.

import math

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from matinfo import bounds, correlation, joint_entropy, mutual_information
from matinfo.losses import barlow_twins_loss

WIDTH, LAMBDA, STEPS = 8, 0.1, 600
images = torch.tensor(load_digits().data, dtype=torch.float32).reshape(-1, 8, 8) / 16
generator = torch.Generator().manual_seed(0)


def view(batch):
    shifts = torch.randint(-1, 2, (2,), generator=generator).tolist()
    noise = 0.1 * torch.randn(batch.shape, generator=generator)
    return (batch.roll(shifts, (1, 2)) + noise).flatten(1)


torch.manual_seed(0)
network = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, WIDTH))
optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)

# %%
# Training, with both sides of each statement
# -------------------------------------------
#
# The chain is: a loss bounds the overlap of the two matrices from above, an overlap bounds information and joint
# entropy from below. ``form="paper"`` is the step as printed by Tan et al. (2024), ``"sharp"`` the one proved in
# :doc:`/theory/information`. The third curve starts from the overlap that is really there, and so shows how much is
# lost in the first step.


def both_sides(first, second, loss):
    K1, K2 = (correlation(Z.double(), center=True) for Z in (first, second))
    overlap = 0.5 * float(K1.square().sum() + K2.square().sum()) - WIDTH
    row = {
        "information": float(mutual_information(K1, K2, alpha=2)),
        "joint entropy": float(joint_entropy(K1, K2, alpha=2)),
        "loss": loss,
    }
    allowed = {
        form: bounds.barlow_twins_overlap_bound(loss, WIDTH, lambda_=LAMBDA, form=form)
        for form in ("paper", "sharp")
    }
    for name, S in {**allowed, "overlap": overlap}.items():
        row[f"information, {name}"] = (
            math.log(WIDTH) - 2 * math.log1p(S / WIDTH)
            if name == "paper"
            else bounds.information_lower_bound(S, WIDTH)
        )
        row[f"joint entropy, {name}"] = (
            math.log(WIDTH) - math.log1p(S / WIDTH)
            if name == "paper"
            else bounds.joint_entropy_lower_bound(S, WIDTH)
        )
    return row


rows = []
for step in range(STEPS + 1):
    batch = images[torch.randint(len(images), (256,), generator=generator)]
    first, second = network(view(batch)), network(view(batch))
    loss = barlow_twins_loss(first, second, lambda_=LAMBDA)
    if step % 10 == 0:
        rows.append({"step": step, **both_sides(first.detach(), second.detach(), loss.item())})
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

# %%
# Bound and value
# ---------------

steps = [row["step"] for row in rows]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for axis, quantity in zip(axes, ("information", "joint entropy"), strict=True):
    axis.axhline(math.log(WIDTH), color="0.6", linewidth=0.8, linestyle=":")
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.plot(steps, [row[quantity] for row in rows], color="k", label="value")
    for name, label in (
        ("overlap", "from the overlap"),
        ("sharp", "from the loss, sharp"),
        ("paper", "as printed"),
    ):
        axis.plot(steps, [row[f"{quantity}, {name}"] for row in rows], label=label)
    axis.set(title=f"{quantity}, order 2", xlabel="step", ylabel="nats", ylim=(-4, 2.5))
axes[1].legend(frameon=False, loc="lower right")
plt.show()

# %%
# The value is never below a bound, as it must be:

all(
    row[quantity] >= row[f"{quantity}, {name}"] - 1e-9
    for row in rows
    for quantity in ("information", "joint entropy")
    for name in ("overlap", "sharp", "paper")
)

# %%
# Loss and values at the end, and what is guaranteed (dotted line in the picture: log 8, the most there can be):

{name: round(value, 3) for name, value in rows[-1].items()}

# %%
# A bound below zero says nothing that was not known before. With the widths of real projectors (64 and more) the
# printed bounds are negative throughout training: :doc:`/theory/on-real-training` has every statement at every step
# of longer runs.
