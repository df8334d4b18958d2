"""Both sides of every statement about two branches, from the projections that a loss was given."""

from __future__ import annotations

from math import log, log1p
from typing import NamedTuple

import torch
from torch import Tensor

import matinfo
from matinfo import bounds
from matinfo.losses import barlow_twins_loss, spectral_contrastive_loss
from matinfo.losses.decorrelation import unit_columns
from matinfo.operands import normalize_rows
from trainlib.theorems.from_loss import bounds_from_loss, bounds_from_overlaps, trivial
from trainlib.theorems.statement import Evaluation

MU = 1.0  # ridge of the coding rates


class Branches(NamedTuple):
    """Unit vectors of two branches as rows, their unit-diagonal matrices, and the loss that speaks of exactly these."""

    operand: str
    a: Tensor
    b: Tensor
    K1: Tensor
    K2: Tensor
    loss: float
    lambda_: float

    @property
    def n(self) -> int:
        """Order of the matrices."""
        return len(self.K1)


def branches(views: tuple[Tensor, Tensor], operand: str, lambda_: float) -> Branches:
    """What an operand makes of the projections, in float64, with the loss in sum form."""
    z1, z2 = (view.detach().double().cpu() for view in views)
    if operand == "rows":
        a, b = normalize_rows(z1), normalize_rows(z2)
        loss = spectral_contrastive_loss(z1, z2, lambda_=lambda_)
        return Branches(operand, a, b, _gram(a), _gram(b), float(loss), lambda_)
    center = operand == "centred"
    a, b = (unit_columns(z, center=center).mT for z in (z1, z2))
    K1, K2 = (matinfo.correlation(z, center=center) for z in (z1, z2))
    loss = barlow_twins_loss(z1, z2, lambda_=lambda_, center=center)
    return Branches(operand, a, b, K1, K2, float(loss), lambda_)


def _gram(rows: Tensor) -> Tensor:
    K = rows @ rows.mT
    K = (K + K.mT) / 2
    return K.fill_diagonal_(1.0)


def evaluate(pair: Branches, mu: float = MU) -> dict[str, Evaluation]:
    """Every statement of the operand, by key."""
    found = {**_of_the_loss(pair, mu), **_identities(pair, mu), **_always(pair, mu), **_divergences(pair)}
    return {f"{pair.operand}/{key}": evaluation for key, evaluation in found.items()}


def facts(pair: Branches) -> dict[str, float]:
    """What the bounds are functions of, for the log."""
    return {f"{pair.operand}/{name}": float(getattr(pair, name)) for name in ("loss", "n", "lambda_")}


def _of_the_loss(pair: Branches, mu: float) -> dict[str, Evaluation]:
    K, L, n = pair.K1, pair.K2, pair.n
    overlap = max(float((K.square().sum() + L.square().sum()) / 2) - n, 0.0)
    cross = float(bounds.cross_overlap_bound(pair.a @ pair.b.mT))
    found = bounds_from_loss(pair.loss, n, pair.operand, pair.lambda_, mu)
    for key, floors in bounds_from_overlaps({"cross": cross, "overlap": overlap}, n, mu).items():
        found[key] |= floors
    values = {"T": float(matinfo.matrix_tcr(K * L, mu)), "overlap": overlap}
    for alpha in (1, 2):
        values[f"I_{alpha}"] = float(matinfo.mutual_information(K, L, alpha))
        values[f"H_{alpha}"] = float(matinfo.joint_entropy(K, L, alpha=alpha))
    known = trivial(n, mu)
    return {key: Evaluation(values[key], floors, known[key]) for key, floors in found.items()}


def _identities(pair: Branches, mu: float) -> dict[str, Evaluation]:
    K, L, n = pair.K1, pair.K2, pair.n
    identity = torch.eye(n, dtype=torch.float64)
    squares = [float(M.square().sum()) for M in (K, L, K * L)]
    shifted = (mu * identity + K * L) / (1 + mu)
    excess = (pair.a @ pair.b.mT).abs() - K.abs() - (pair.a - pair.b).norm(dim=-1)

    def equal(value: Tensor, other: float) -> Evaluation:
        return Evaluation(float(value), {"plain": other})

    return {
        "lemma": Evaluation(float(excess.max()), {"plain": 0.0}),
        "I_2_identity": equal(
            matinfo.mutual_information(K, L, 2), 2 * log(n) - log(squares[0] * squares[1] / squares[2])
        ),
        "H_2_identity": equal(matinfo.joint_entropy(K, L, alpha=2), 2 * log(n) - log(squares[2])),
        "H_1_identity": equal(matinfo.von_neumann_entropy(K), log(n) - float(matinfo.matrix_kl(K, identity)) / n),
        "T_identity": equal(
            matinfo.matrix_tcr(K * L, mu), n * log1p(mu) - float(matinfo.matrix_kl(identity, shifted))
        ),
    }  # fmt: skip


def _always(pair: Branches, mu: float) -> dict[str, Evaluation]:
    K, L, n = pair.K1, pair.K2, pair.n
    single = {a: [float(matinfo.renyi_entropy(M, a)) for M in (K, L)] for a in (0, 1, 2)}
    joint = {a: float(matinfo.joint_entropy(K, L, alpha=a)) for a in (0, 1, 2)}
    found = {
        "H_1_rank": Evaluation(joint[1], {"plain": sum(single[0]), "sharp": joint[0]}),
        "H_1_most": Evaluation(max(single[1]), {"plain": log(n), "sharp": max(single[0])}),
    }
    for a in (1, 2):
        information = {"plain": log(n), "sharp": min(single[a])}
        found[f"I_{a}_most"] = Evaluation(float(matinfo.mutual_information(K, L, a)), information)
        found[f"H_{a}_joint"] = Evaluation(joint[a], {"plain": max(single[a])})
        found[f"H_{a}_sum"] = Evaluation(joint[a], {"plain": sum(single[a])})
    rates = [float(matinfo.matrix_tcr(M, mu)) for M in (K, L)]
    floors = {
        name: bounds.product_coding_rate_lower_bound(*rates, n, mu=mu, form=form)
        for name, form in (("plain", "paper"), ("sharp", "sharp"))
    }
    found["T_product"] = Evaluation(float(matinfo.matrix_tcr(K * L, mu**2 + 2 * mu)), floors)
    found["T_most"] = Evaluation(max(rates), {"plain": n * log1p(mu)})
    return found


def _divergences(pair: Branches) -> dict[str, Evaluation]:
    K, L, n = pair.K1, pair.K2, pair.n
    js, distance = float(matinfo.matrix_js(K, L)), float(bounds.trace_distance(K, L))
    gap = abs(float(matinfo.von_neumann_entropy(K)) - float(matinfo.von_neumann_entropy(L)))
    moved = bounds.entropy_continuity_bound(distance, n)
    return {
        "JS_most": Evaluation(js, {"plain": log(2), "sharp": bounds.js_upper_bound(distance)}),
        "JS_least": Evaluation(js, {"plain": 0.0, "sharp": bounds.js_lower_bound(distance)}),
        "JS_spectra": Evaluation(float(matinfo.spectrum_js(K, L)), {"plain": js}),
        "H_1_gap": Evaluation(gap, {"plain": log(n), "sharp": moved}),
    }
