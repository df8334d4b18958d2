"""What the number of a linear probe hangs on, one factor at a time, on features that are at hand."""

from __future__ import annotations

import torch
from torch import Tensor

from trainlib.evaluate import linear_probe_accuracy
from trainlib.optim import set_learning_rates
from trainlib.probing import LinearProbe
from trainlib.protocol_config import ProbeOptimConfig, ProbeRunConfig

PUBLISHED = ProbeRunConfig(
    optim=ProbeOptimConfig(epochs=90, batch=4096, lr=0.1, warmup_epochs=10.0, trust=0.05)
)
"""Ninety epochs of LARS behind batch norm (He et al. 2022). The batch is a quarter of the published one, and the trust
coefficient fifty times as large, so that a thousand steps are enough."""


def probe_factors(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, classes: int
) -> dict[str, float]:
    """Accuracies in percent; the standard is logistic regression on standardised features, by L-BFGS.

    A shift or centring is no factor: the regression has a bias.

    Returns:
        ``probe_raw``: without dividing by the standard deviations. ``probe_rows``: features of length one, then as the
        standard. ``probe_published``: LARS and batch norm.
    """
    normalize = torch.nn.functional.normalize
    labels = train_labels, test_labels
    return {
        "probe_raw_accuracy": linear_probe_accuracy(
            train, labels[0], test, labels[1], classes, standardise=False
        ),
        "probe_rows_accuracy": linear_probe_accuracy(
            normalize(train, dim=1), labels[0], normalize(test, dim=1), labels[1], classes
        ),
        "probe_published_accuracy": published_probe_accuracy(train, labels[0], test, labels[1], classes),
    }


def published_probe_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, classes: int,
    *, config: ProbeRunConfig = PUBLISHED,
) -> float:  # fmt: skip
    """Accuracy in percent of the published protocol's head on features of plain images."""
    optim, device = config.optim, train.device
    batch = min(optim.batch, len(train))
    steps = len(train) // batch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        probe = LinearProbe({"all": train.shape[1]}, classes).to(device)
    optimizer = probe.make_optimizer(config)
    source = torch.Generator(device).manual_seed(config.run.seed)
    for epoch in range(optim.epochs):
        order = torch.randperm(len(train), generator=source, device=device)
        for step in range(steps):
            index = order[step * batch : (step + 1) * batch]
            set_learning_rates(optimizer, optim, epoch + step / steps)
            optimizer.zero_grad()
            probe(train[index], train_labels[index], index).loss.backward()
            optimizer.step()
    probe.eval()
    with torch.no_grad():
        return 100.0 * int((probe.logits(test)["all"].argmax(1) == test_labels).sum()) / len(test)
