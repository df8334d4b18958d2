"""What frozen features are worth: spectrum (from ``matinfo``), nearest neighbours, linear probe."""

from __future__ import annotations

import torch
from torch import Tensor

import matinfo
from matinfo import Gram, effective_rank, rankme, renyi_entropy

EVALUATION_BATCH = 500
NEIGHBOURS = 20
TEMPERATURE = 0.07


def spectrum(features: Tensor) -> dict[str, float]:
    """Effective rank and entropy (nats) of the Gram matrix of normalised features, RankMe of the raw ones."""
    S = matinfo.spectrum(Gram(features, normalize=True))
    return {
        "effective_rank": float(effective_rank(S)),
        "rankme": float(rankme(features)),
        "entropy": float(renyi_entropy(S)),
    }


@torch.no_grad()
def extract(
    encode, dataset, split: str, limit: int | None = None, *, batch: int = EVALUATION_BATCH
) -> tuple[dict[str, Tensor], Tensor]:
    """Features ``{name: (N, d)}`` of unmasked, unaugmented images, and their labels."""
    parts: dict[str, list[Tensor]] = {}
    labels = []
    for images, target in dataset.evaluation_batches(split, batch, limit):
        for name, features in encode(images).items():
            parts.setdefault(name, []).append(features)
        labels.append(target)
    return {name: torch.cat(chunks) for name, chunks in parts.items()}, torch.cat(labels)


@torch.no_grad()
def knn_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, classes: int,
    *, neighbours: int = NEIGHBOURS, temperature: float = TEMPERATURE,
) -> float:  # fmt: skip
    """Accuracy in percent of a vote among the nearest training images, weighted by exp(cosine / temperature)."""
    bank = torch.nn.functional.normalize(train, dim=1)
    queries = torch.nn.functional.normalize(test, dim=1)
    correct = 0
    for start in range(0, len(queries), EVALUATION_BATCH):
        similarity = queries[start : start + EVALUATION_BATCH] @ bank.T
        nearest, index = similarity.topk(min(neighbours, len(bank)), dim=1)
        votes = torch.zeros(len(nearest), classes, device=train.device)
        weights = ((nearest - nearest[:, :1]) / temperature).exp()  # relative to the nearest: no overflow
        votes.scatter_add_(1, train_labels[index], weights)
        correct += int((votes.argmax(1) == test_labels[start : start + EVALUATION_BATCH]).sum())
    return 100.0 * correct / len(test)


def linear_probe_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, classes: int,
    *, decay: float = 1e-4, iterations: int = 200, standardise: bool = True,
) -> float:  # fmt: skip
    """Accuracy in percent of multinomial logistic regression on standardised (else: centred) features.

    The objective (mean cross-entropy plus ``decay / 2`` times the squared weights) is convex and minimised by
    L-BFGS from zero, so there is no learning rate and no seed.
    """
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6) if standardise else 1.0
    train, test = (train - mean) / std, (test - mean) / std
    weight = torch.zeros(train.shape[1], classes, device=train.device, requires_grad=True)
    bias = torch.zeros(classes, device=train.device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        history_size=20,
        tolerance_grad=1e-5,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = (
            torch.nn.functional.cross_entropy(train @ weight + bias, train_labels)
            + decay / 2 * weight.square().sum()
        )
        loss.backward()
        return loss

    solver.step(objective)
    with torch.no_grad():
        return 100.0 * int(((test @ weight + bias).argmax(1) == test_labels).sum()) / len(test)


def accuracies(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, classes: int, **probe: int
) -> dict[str, float]:
    """Held-out accuracies of nearest neighbours and of a linear probe; ``probe`` are its options."""
    features = train, train_labels, test, test_labels, classes
    return {
        "knn_accuracy": knn_accuracy(*features),
        "probe_accuracy": linear_probe_accuracy(*features, **probe),
    }


def evaluate_features(encode, dataset, rank_images: int) -> dict[str, dict[str, float]]:
    """All measurements for each kind of feature; spectra on the first ``rank_images`` held-out images."""
    train, train_labels = extract(encode, dataset, "train")
    test, test_labels = extract(encode, dataset, "test")
    return {
        name: spectrum(test[name][:rank_images])
        | accuracies(train[name], train_labels, test[name], test_labels, dataset.classes)
        for name in test
    }
