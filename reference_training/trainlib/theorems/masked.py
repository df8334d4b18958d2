"""Both sides of every statement about one batch of features: Theorem 5.2 and what bounds a coding rate."""

from __future__ import annotations

from math import log, log1p, sqrt

from torch import Tensor

import matinfo
from matinfo import Gram, bounds
from matinfo.losses import mmae_tcr_loss, umae_uniformity_loss
from matinfo.operands import normalize_rows
from trainlib.theorems.statement import Evaluation


def evaluate(features: Tensor, scale: str, mu: float) -> dict[str, Evaluation]:
    """Every statement of the scale for the l2-normalised features of a batch, by key."""
    F = normalize_rows(features.detach().double().cpu())
    n, d = F.shape
    m = mu if scale == "paper" else d / mu
    shift = d * log(mu) if scale == "paper" else 0.0
    rate = -float(mmae_tcr_loss(F, mu=mu, scale=scale)) - shift
    pairs = n**2 * float(umae_uniformity_loss(F))  # |G|^2
    quadratic = pairs / (2 * m**2)
    rest = float(bounds.mmae_remainder(F, mu=mu, scale=scale))
    cap = float(bounds.mmae_remainder_bound(F, mu=mu, scale=scale))
    ratio = float(bounds.mmae_convergence_ratio(F, mu=mu, scale=scale))
    gram = F @ F.mT
    cubic = float((gram @ gram * gram).sum()) / (3 * m**3)
    extremal = bounds.coding_rate_lower_bound(_overlap_of(pairs - n, n), n, mu=m) - n * log(m)
    rank = min(n, d)
    found = {
        "ratio": Evaluation(ratio, {"plain": 1.0}),
        "expansion": Evaluation(rest - rate, {"plain": quadratic - n / m}),
        "remainder": Evaluation(rest, {"plain": cubic, "sharp": cap}),
        "remainder_least": Evaluation(rest, {"plain": 0.0, "sharp": 2 / 3 * cap}),
        "share": Evaluation(rest / quadratic, {"plain": 1.0, "sharp": 2 * ratio / (3 + 2 * ratio)}),
        "rate_most": Evaluation(rate, {"plain": n / m, "sharp": rank * log1p(n / (rank * m))}),
        "rate_least": Evaluation(rate, {"plain": log1p(n / m), "sharp": extremal}),
    }
    return {f"{scale}/{key}": evaluation for key, evaluation in found.items()}


def _overlap_of(P: float, n: int) -> float:
    """The overlap S for which ``coding_rate_lower_bound`` takes the sum of squares off the diagonal to be P."""
    P = min(max(P, 0.0), n * (n - 1.0))
    return P if P >= 2 else sqrt(2 * P)


def evaluate_common(features: Tensor) -> dict[str, Evaluation]:
    """Every statement of the features alone, by key."""
    F = normalize_rows(features.detach().double().cpu())
    n, d = F.shape
    one, two = (float(matinfo.renyi_entropy(Gram(F), alpha)) for alpha in (1, 2))
    return {
        "features/H_1_most": Evaluation(one, {"plain": log(n), "sharp": log(min(n, d))}),
        "features/H_2": Evaluation(two, {"plain": one}),
        "features/umae": Evaluation(-two, {"plain": log(float(umae_uniformity_loss(F)))}),
    }
