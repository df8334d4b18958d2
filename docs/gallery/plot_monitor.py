"""
A collapse, seen while it happens
=================================

A siamese network that only pulls two views of an image together has a perfect solution: every image at the same point.
SimSiam's stop-gradient keeps training away from it. Here the same network is trained on scikit-learn's digits with and
without it, and a :class:`~matinfo.monitor.Monitor` watches the encoder: its spectrum, its effective rank, and the step
at which it gives way.
"""

# %%
# Two views and a loss
# --------------------
#
# A view is the image shifted by up to a pixel, with noise. The loss is SimSiam's negative cosine between the prediction
# of one view and the code of the other; the only difference between the two runs is ``detach``.

import warnings

import torch
from sklearn.datasets import load_digits
from torch import nn

from matinfo.monitor import CollapseWarning, Monitor
from matinfo.plot import training_curves

STEPS, BATCH = 200, 128

images = torch.tensor(load_digits().images, dtype=torch.float32) / 16


def view(x, generator):
    shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
    noise = 0.15 * torch.randn(x.shape, generator=generator)
    return (x.roll(shift, (1, 2)) + noise).flatten(1)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32))
        self.predictor = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 32))

    def forward(self, x):
        code = self.encoder(x)
        return code, self.predictor(code)


def similarity(prediction, code):
    return nn.functional.cosine_similarity(prediction, code).mean()


# %%
# Training with a monitor
# -----------------------
#
# The monitor hooks the encoder and asks nothing else of the loop than one call of ``step``. The encoder runs twice in a
# step, once for each view: both are observed together. A layer counts as collapsed when it has lost three quarters of
# the highest effective rank that it had, or when less than two dimensions are left.


def train(stop_gradient):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = Siamese()
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    monitor = Monitor(model, "encoder", every=5, collapse_fall=0.75, collapse_below=2)
    for _ in range(STEPS):
        batch = images[torch.randint(len(images), (BATCH,), generator=generator)]
        (code1, prediction1), (code2, prediction2) = (model(view(batch, generator)) for _ in range(2))
        if stop_gradient:
            code1, code2 = code1.detach(), code2.detach()
        loss = -(similarity(prediction1, code2) + similarity(prediction2, code1)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step()
    monitor.remove()
    return monitor


# %%
# With the stop-gradient nothing is said. Without it the monitor warns, and names the layer and the step:

healthy = train(stop_gradient=True)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always", CollapseWarning)
    collapsed = train(stop_gradient=False)

# %%
# The spectra over time
# ---------------------
#
# Each line is the spectrum of the encoder's codes at one step, dark at the start: one eigenvalue takes everything. The
# dotted lines below are the steps of the warnings, the title is the first of them.

figure = collapsed.plot()
figure.suptitle(str(said[0].message).replace(": ", ":\n"), fontsize="small")

# %%
# Beside the healthy run:

table = [
    {"step": record["step"], "run": name, "effective_rank": record["effective_rank"]}
    for name, monitor in (("with stop-gradient", healthy), ("without", collapsed))
    for record in monitor.history
]
axes = training_curves(table, ["effective_rank"], by="run")
