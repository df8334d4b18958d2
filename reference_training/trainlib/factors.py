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
    rows = torch.nn.functional.normalize
    probe = _trained(train, train_labels, classes)
    with torch.no_grad():
        right = int((probe.logits(test)["all"].argmax(1) == test_labels).sum())
    return {
        "probe_raw_accuracy": linear_probe_accuracy(
            train, train_labels, test, test_labels, classes, standardise=False
        ),
        "probe_rows_accuracy": linear_probe_accuracy(
            rows(train, dim=1), train_labels, rows(test, dim=1), test_labels, classes
        ),
        "probe_published_accuracy": 100.0 * right / len(test),
    }


def _trained(features: Tensor, labels: Tensor, classes: int) -> LinearProbe:
    """The published protocol's head, trained on features of plain images."""
    optim, device, seed = PUBLISHED.optim, features.device, PUBLISHED.run.seed
    batch = min(optim.batch, len(features))
    steps = len(features) // batch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = LinearProbe({"all": features.shape[1]}, classes).to(device)
    optimizer = probe.make_optimizer(PUBLISHED)
    source = torch.Generator(device).manual_seed(seed)
    for epoch in range(optim.epochs):
        order = torch.randperm(len(features), generator=source, device=device)
        for step in range(steps):
            index = order[step * batch : (step + 1) * batch]
            set_learning_rates(optimizer, optim, epoch + step / steps)
            optimizer.zero_grad()
            probe(features[index], labels[index], index).loss.backward()
            optimizer.step()
    return probe.eval()
