"""
The entropy of many points, with error bars
===========================================

From eigenvalues the matrix-based entropy of :math:`n` points takes :math:`n^3` operations. From products with the
kernel matrix, which is never formed, it takes :math:`n^2` a step and comes with an error bar. Here both are
affordable, so that the error bars can be looked at.
"""

# %%
# Estimates of growing cost beside the truth
# ------------------------------------------
#
# 600 points on a noisy spiral. The error bar is a 95 % interval: Student's quantile times the standard error over the
# random vectors ("probes"), plus a bound on what the truncated recurrence leaves out.

import matplotlib.pyplot as plt
import numpy as np
import torch

from matinfo import renyi_entropy
from matinfo.estimate import KernelOperator, estimate_entropy
from matinfo.kernels import rbf

rng = np.random.default_rng(0)
angle = rng.uniform(0, 4 * np.pi, 600)
X = torch.from_numpy(
    np.stack([angle * np.cos(angle), angle * np.sin(angle)], 1) + 0.3 * rng.standard_normal((600, 2))
)
K = KernelOperator(X, bandwidth=0.8)
truth = float(renyi_entropy(rbf(X, bandwidth=0.8)))

counts = [4, 8, 16, 32, 64, 128]
seed = torch.Generator().manual_seed(0)
found = [estimate_entropy(K, probes=probes, degree=12, generator=seed) for probes in counts]

figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), layout="constrained", sharey=True)
axes[0].axhline(truth, color="0.5", lw=1, label="eigenvalues")
axes[0].errorbar(
    counts, [e.value for e in found], [e.error() for e in found], fmt="o", capsize=3, label="estimate"
)
axes[0].set(xscale="log", xlabel="probes", ylabel="entropy $H_1$ (nats)", title="12 steps")
axes[0].set_xticks(counts, counts)
axes[0].minorticks_off()
axes[0].legend()

# %%
# The bias of few steps
# ---------------------
#
# More probes do not mend a recurrence that is too short: on the right the interval has a part that stays, the bias
# bound (thick). It is known without the truth.

degrees = [2, 3, 4, 6, 10]
short = [
    estimate_entropy(K, probes=64, degree=degree, generator=torch.Generator().manual_seed(1))
    for degree in degrees
]
place = np.arange(len(degrees))
axes[1].axhline(truth, color="0.5", lw=1)
axes[1].errorbar(place, [e.value for e in short], [e.error() for e in short], fmt="o", capsize=3)
axes[1].errorbar(place, [e.value for e in short], [e.bias_bound for e in short], fmt="none", lw=4, alpha=0.5)
axes[1].set_xticks(place, degrees)
axes[1].set(xlabel="steps", title="64 probes")
plt.show()

# %%
# How often does the interval hold the truth?
# -------------------------------------------
#
# One hundred seeds with 16 probes and 12 steps.

intervals = [
    estimate_entropy(K, probes=16, degree=12, generator=torch.Generator().manual_seed(s)).interval()
    for s in range(100)
]
held = [low <= truth <= high for low, high in intervals]

figure, axis = plt.subplots(figsize=(8.5, 2.4), layout="constrained")
for s, ((low, high), holds) in enumerate(zip(intervals, held, strict=True)):
    axis.plot([s, s], [low, high], color="tab:blue" if holds else "tab:red")
axis.axhline(truth, color="0.5", lw=1)
axis.set(xlabel="seed", ylabel="$H_1$ (nats)", title=f"{sum(held)} of 100 intervals hold the truth")
plt.show()
