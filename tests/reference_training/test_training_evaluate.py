"""The linear probe against scikit-learn's, spectra against naive definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from trainlib.evaluate import linear_probe_accuracy, spectrum


@pytest.fixture
def features():
    source = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 12, generator=source)
    labels = torch.randint(0, 4, (360,), generator=source)
    points = centres[labels] + 1.5 * torch.randn(360, 12, generator=source)
    return points[:300], labels[:300], points[300:], labels[300:]


def test_linear_probe_equals_scikit_learns_logistic_regression(features):
    train, train_labels, test, test_labels = (
        f.double().numpy() if f.is_floating_point() else f.numpy() for f in features
    )
    mean, std = train.mean(0), train.std(0, ddof=1)
    model = LogisticRegression(C=1 / (300 * 1e-2), tol=1e-8, max_iter=1000)
    model.fit((train - mean) / std, train_labels)
    expected = 100 * model.score((test - mean) / std, test_labels)
    assert linear_probe_accuracy(*features, classes=4, decay=1e-2, iterations=200) == pytest.approx(
        expected, abs=1e-4
    )
    assert 40 < expected < 100


def test_linear_probe_ignores_scale_and_shift_of_the_features(features):
    train, train_labels, test, test_labels = features
    scale = torch.logspace(-2, 2, 12)
    moved = linear_probe_accuracy(
        train * scale + 3, train_labels, test * scale + 3, test_labels, 4, iterations=200
    )
    assert moved == pytest.approx(
        linear_probe_accuracy(*features, 4, iterations=200), abs=1.7
    )  # one image of sixty


def test_spectrum_equals_naive_definitions(features):
    points = features[0].double().numpy()
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    p = np.linalg.eigvalsh(unit.T @ unit)
    p = p / p.sum()
    entropy = -(p * np.log(p)).sum()
    sigma = np.linalg.svd(points, compute_uv=False)
    sigma = sigma / sigma.sum()
    values = spectrum(features[0])
    assert values["entropy"] == pytest.approx(entropy, rel=1e-5)
    assert values["effective_rank"] == pytest.approx(math.exp(entropy), rel=1e-5)
    assert values["rankme"] == pytest.approx(math.exp(-(sigma * np.log(sigma)).sum()), rel=1e-5)
