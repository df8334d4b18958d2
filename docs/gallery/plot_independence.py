"""
A test of independence
======================

Are two columns of a table dependent, in any way? Matrix-based joint entropy falls when row i of one matrix belongs to
row i of the other, and a permutation test says whether it falls by more than chance. The data are the diabetes
patients that come with scikit-learn.
"""

# %%
# The statistic
# -------------
#
# :func:`matinfo.dime` is the mean of :math:`H(K_1 \circ P K_2 P^\top)` over random permutations P of the samples,
# less :math:`H(K_1 \circ K_2)`. The single entropies do not change under a permutation, so that DiME, mutual
# information and minus the joint entropy order the permutations alike: it is one test.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import pearsonr
from sklearn.datasets import load_diabetes

from matinfo import joint_entropy
from matinfo.kernels import rbf

PATIENTS, PERMUTATIONS = 160, 199
data = load_diabetes(scaled=False)
rng = np.random.default_rng(0)
chosen = rng.choice(len(data.target), PATIENTS, replace=False)
table = dict(zip(data.feature_names, data.data[chosen].T, strict=True), target=data.target[chosen])


def kernel(name):
    column = torch.tensor(table[name])[:, None]
    return rbf((column - column.mean()) / column.std())


orders = torch.stack([torch.tensor(rng.permutation(PATIENTS)) for _ in range(PERMUTATIONS)])


def permutation_test(K1, K2):
    """DiME of the true pairing, that of each permuted pairing, and the p-value."""
    permuted = torch.stack([K2[order][:, order] for order in orders])
    under_null = joint_entropy(K1, permuted)  # one batch of matrices
    observed = joint_entropy(K1, K2)
    centre = under_null.mean()
    # The true pairing counts as one of the permutations, so that a p-value is never 0.
    p = (1 + int((under_null <= observed).sum())) / (1 + PERMUTATIONS)
    return float(centre - observed), (centre - under_null).numpy(), p


# %%
# The target against each measurement
# -----------------------------------

outcome = kernel("target")
names = [name for name in data.feature_names if name != "sex"]
results = {name: permutation_test(kernel(name), outcome) for name in names}

figure, axis = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
axis.boxplot([results[name][1] for name in names], whis=(0, 95), showfliers=False, tick_labels=names)
axis.plot(
    range(1, len(names) + 1), [results[name][0] for name in names], "D", color="tab:red", label="observed"
)
for place, name in enumerate(names, 1):
    observed, under_null, p = results[name]
    top = max(observed, np.quantile(under_null, 0.95))
    axis.annotate(f"p = {p:.3f}", (place, top), (0, 6), textcoords="offset points", ha="center", fontsize=8)
axis.axhline(0, color="0.6", linewidth=0.8)
axis.set(ylabel="DiME with the target, nats", title="boxes: permuted pairings, upper whisker at 95 %")
axis.legend(frameon=False)
axis.margins(y=0.15)
plt.show()

# %%
# Beside the correlation
# ----------------------
#
# The p-value of Pearson's correlation asks for a straight line only. (Neither column is corrected for making nine
# tests.)

{name: (results[name][2], float(f"{pearsonr(table[name], table['target']).pvalue:.1g}")) for name in names}

# %%
# Is the p-value honest?
# ----------------------
#
# Under independence all pairings are equally likely, so that the rank of the true one among the permuted ones is
# uniform, whatever the kernels, bandwidths and number of patients: the test cannot be too optimistic, only weak. With
# a target that was shuffled beforehand nothing should stand out:

shuffled = torch.tensor(rng.permutation(PATIENTS))
control = {name: permutation_test(kernel(name), outcome[shuffled][:, shuffled])[2] for name in names}
{name: round(p, 3) for name, p in control.items()}

# %%
# Nine p-values of true independence: one below 0.11 is to be expected. :func:`matinfo.dime` itself, for use as a
# loss, takes the same average over ``permutations`` with a gradient.
