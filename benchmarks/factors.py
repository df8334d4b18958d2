"""Cases on features: the matrix is known by its factor, and the smaller side is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import OURS, Case, Floor, Target, gradient_of, value_of
from benchmarks.inputs import features, labels
from benchmarks.machine import Rates
from benchmarks.peers import (
    REPITL,
    VENDI,
    Peers,
    diff_erank_recipe,
    mcr2_rate_reduction,
    plain_entropy,
    released_mmae_loss,
)
from matinfo import Gram, effective_rank, joint_entropy, rate_reduction, renyi_entropy, spectrum, vendi_score
from matinfo.losses import mmae_tcr_loss
from matinfo.measures import MEASURES, measure

F64 = torch.float64
RELEASED = "released code"
DUAL = "torch d x d by hand"
GRAM = "torch Gram + eigvalsh"
REPITL_GRAM = "repitl Gram + eigh"
REPITL_COVARIANCE = "repitl covariance form"
RECIPE = "published recipe"
RECIPE_VALUES = "recipe without vectors"
ONE_ENTROPY = "the decomposition and one entropy"

Calls = dict[str, Callable[[], Any]]


def feature_cases(peers: Peers, *, quick: bool) -> list[Case]:
    """M-MAE's regulariser, entropies, one sentence of Diff-eRank, MCR², the Vendi score, all measures of a spectrum."""
    return [
        _mmae(*((32, 128) if quick else (128, 1024))),
        _entropy(peers, *((128, 16) if quick else (4096, 256))),
        _joint(peers, *((128, 4, 4) if quick else (4096, 16, 8)), gradient=False),
        _joint(peers, *((128, 4, 4) if quick else (4096, 16, 8)), gradient=True),
        _sentence(*((16, 64) if quick else (64, 2048))),
        _mcr2(*((128, 16) if quick else (1024, 256)), classes=10),
        _vendi(peers, *((128, 16) if quick else (4096, 128))),
        _measures(64 if quick else 1024),
    ]


def _mmae(batch: int, d: int) -> Case:
    def build() -> Calls:
        F = features(batch, d)
        return {OURS: gradient_of(mmae_tcr_loss, F), RELEASED: gradient_of(released_mmae_loss, F)}

    def floor(rates: Rates) -> float:
        m = min(batch, d)
        products = 4 * batch * d * m * rates.gemm(F64)
        return products + sum(rates.factorization(kind, m, F64) for kind in ("cholesky", "cholesky_inverse"))

    return Case(
        name="mmae",
        title=f"M-MAE regulariser, forward + backward, B = {batch}, d = {d}",
        build=build,
        targets=(Target((RELEASED,), 20.0),),
        floor=Floor("two products, Cholesky and inverse on the batch side, float64", floor),
    )


def _entropy(peers: Peers, n: int, d: int) -> Case:
    def build() -> Calls:
        Z = features(n, d)
        calls = {
            OURS: gradient_of(lambda Z: renyi_entropy(Gram(Z)), Z),
            DUAL: gradient_of(lambda Z: plain_entropy(Z.mT @ Z, 1.0), Z),
            GRAM: gradient_of(lambda Z: plain_entropy(Z @ Z.mT, 1.0), Z),
        }
        if REPITL in peers.modules:
            entropy = peers.modules[REPITL].matrixAlphaEntropy
            calls[REPITL_GRAM] = gradient_of(lambda Z: entropy(Z @ Z.mT, 1), Z)
        return calls

    return Case(
        name="features",
        title=f"H_1 of features, forward + backward, n = {n}, d = {d}",
        build=build,
        targets=(Target((GRAM, REPITL_GRAM), 300.0),),
        floor=Floor(
            "three products and eigh on the feature side, float64",
            lambda rates: (4 * n * d * d + 2 * d**3) * rates.gemm(F64) + rates.factorization("eigh", d, F64),
        ),
    )


def _joint(peers: Peers, n: int, d1: int, d2: int, *, gradient: bool) -> Case:
    timed = gradient_of if gradient else value_of

    def hadamard(Z1: Tensor, Z2: Tensor) -> Tensor:
        return (Z1 @ Z1.mT) * (Z2 @ Z2.mT)

    def build() -> Calls:
        Z1, Z2 = features(n, d1), features(n, d2, seed=1)
        calls = {
            OURS: timed(lambda Z1, Z2: joint_entropy(Gram(Z1), Gram(Z2)), Z1, Z2),
            GRAM: timed(lambda Z1, Z2: plain_entropy(hadamard(Z1, Z2), 1.0), Z1, Z2),
        }
        if REPITL in peers.modules:
            repitl = peers.modules[REPITL]

            def covariance(Z1: Tensor, Z2: Tensor) -> Tensor:
                R = repitl.rowWiseKroneckerProduct(Z1, Z2)
                return repitl.vonNeumannEntropy(R.T @ R / R.shape[0])

            calls[REPITL_GRAM] = timed(lambda Z1, Z2: repitl.matrixAlphaEntropy(hadamard(Z1, Z2), 1), Z1, Z2)
            calls[REPITL_COVARIANCE] = timed(covariance, Z1, Z2)
        return calls

    passes = 4 if gradient else 2
    D = d1 * d2
    kind = "eigh" if gradient else "eigvalsh"
    return Case(
        name="joint-gradient" if gradient else "joint",
        group="joint",
        title=f"joint entropy of features, {'forward + backward' if gradient else 'forward'}, n = {n}, d1 d2 = {D}",
        build=build,
        targets=(Target((GRAM, REPITL_GRAM), 300.0),),
        floor=Floor(
            f"{passes // 2} product(s) and {kind} of order d1 d2, float64",
            lambda rates: passes * n * D * D * rates.gemm(F64) + rates.factorization(kind, D, F64),
        ),
    )


def _sentence(tokens: int, width: int) -> Case:
    def ours(hidden: Tensor) -> Tensor:
        return effective_rank(Gram(hidden - hidden.mean(0), normalize=True))

    def build() -> Calls:
        hidden = features(tokens, width) + 0.5 * features(1, width, seed=1)
        return {
            OURS: value_of(ours, hidden),
            RECIPE: value_of(diff_erank_recipe, hidden),
            RECIPE_VALUES: value_of(lambda hidden: diff_erank_recipe(hidden, vectors=False), hidden),
        }

    return Case(
        name="sentence",
        title=f"Diff-eRank of one sentence, forward, N = {tokens}, d = {width}",
        build=build,
        targets=(Target((RECIPE,), 1000.0),),
        floor=Floor(
            "one product and eigvalsh on the token side, float64",
            lambda rates: (
                2 * tokens**2 * width * rates.gemm(F64) + rates.factorization("eigvalsh", tokens, F64)
            ),
        ),
    )


def _mcr2(n: int, d: int, classes: int) -> Case:
    def build() -> Calls:
        Z, y = features(n, d), labels(n, classes)
        return {
            OURS: gradient_of(lambda Z: rate_reduction(Z, y), Z),
            RELEASED: gradient_of(lambda Z: mcr2_rate_reduction(Z, y), Z),
        }

    return Case(
        name="mcr2",
        title=f"MCR² rate reduction, forward + backward, n = {n}, d = {d}, {classes} classes",
        build=build,
    )


def _vendi(peers: Peers, n: int, d: int) -> Case:
    def build() -> Calls:
        Z = features(n, d)
        calls = {OURS: value_of(lambda Z: vendi_score(Gram(Z)), Z)}
        if VENDI in peers.modules:
            vendi = peers.modules[VENDI]
            calls[f"{VENDI} dual"] = value_of(lambda Z: vendi.score_dual(Z.numpy(), normalize=False), Z)
            calls[VENDI] = value_of(lambda Z: vendi.score_X(Z.numpy(), normalize=False), Z)
        return calls

    return Case(
        name="vendi",
        title=f"Vendi score of embeddings, forward, n = {n}, d = {d}",
        build=build,
        floor=Floor(
            "one product and eigvalsh on the feature side, float64",
            lambda rates: 2 * n * d * d * rates.gemm(F64) + rates.factorization("eigvalsh", d, F64),
        ),
    )


def _measures(n: int) -> Case:
    def build() -> Calls:
        Z = features(n, n)
        return {
            OURS: value_of(lambda Z: measure(Z)["von_neumann_entropy"], Z),
            ONE_ENTROPY: value_of(lambda Z: renyi_entropy(spectrum(Gram(Z))), Z),
        }

    count = sum(m.of == "spectrum" for m in MEASURES.values())
    return Case(
        name="measures",
        title=f"all {count} measures of a spectrum, forward, n = d = {n}",
        build=build,
        targets=(Target((ONE_ENTROPY,), round(1 / 1.1, 3)),),
    )
