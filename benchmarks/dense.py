"""Cases on a dense kernel matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.case import OURS, Case, Floor, Target, gradient_of, value_of
from benchmarks.inputs import features, kernel_matrix
from benchmarks.machine import Rates
from benchmarks.peers import (
    BARE,
    PLAIN,
    PLAIN64,
    REPITL,
    Peers,
    cholesky_tcr,
    cholesky_tcr_of,
    eigenvalue_tcr,
    eigh_entropy,
    norm_entropy,
    normalised_norm_entropy,
    product_entropy,
    slogdet_tcr,
)
from matinfo import matrix_tcr, renyi_entropy, tcr

BY_HAND = "torch by hand"
LU = "torch slogdet"
CHOLESKY = "torch Cholesky"
NORM = "torch norm"
EIGENVALUES = "torch entr"
EIGVALSH = "eigvalsh alone"
ORDERS = (0.5, 1.0, 2.0, 3.0)
F32 = torch.float32


def dense_cases(peers: Peers, *, quick: bool) -> list[Case]:
    """Orders one, two and three, the coding rate of a matrix, and the sweep over sizes and orders."""
    n, big = (64, 96) if quick else (1024, 2048)
    rates = {PLAIN: eigenvalue_tcr, LU: slogdet_tcr, CHOLESKY: cholesky_tcr}
    cases = [
        Case(
            name="h2",
            title=f"H_2 dense, forward + backward, n = {n}",
            build=_entropies(peers, 2.0, n, extra={BY_HAND: norm_entropy}),
            targets=(Target((REPITL,), 1.8), Target((PLAIN,), 150)),
            floor=_passes(3, n, F32),
        ),
        Case(
            name="h1",
            title=f"H_1 dense, forward, n = {big}",
            build=_entropies(peers, 1.0, big, gradient=False),
            targets=(Target((REPITL,), 2.5), Target((PLAIN,), 1.0)),
            floor=Floor("eigvalsh", lambda rates: rates.factorization("eigvalsh", big, F32)),
        ),
        Case(
            name="h3",
            title=f"H_3 dense, forward + backward, n = {n}",
            build=_entropies(peers, 3.0, n, extra={BY_HAND: product_entropy}),
            targets=(Target((PLAIN, REPITL), 4.0),),
            floor=Floor("one product", lambda rates: 2 * n**3 * rates.gemm(F32)),
        ),
        Case(
            name="tcr",
            title=f"matrix TCR, forward + backward, n = {n}",
            build=partial(_contenders, gradient_of, matrix_tcr, rates, n, F32),
            targets=(Target((PLAIN,), 4.0), Target((CHOLESKY,), 2.0)),
            floor=Floor("Cholesky and its inverse", partial(_cholesky_and_inverse, n)),
        ),
    ]
    cases += _small_cases() + [_checked(n, dtype) for dtype in (torch.float32, torch.float64)]
    sizes = (32, 64) if quick else (32, 64, 128, 256, 512, 1024, 2048)
    return cases + [
        _sweep(peers, alpha, m) for m in sizes for alpha in ORDERS if m < 2048 or alpha in (1.0, 2.0)
    ]


def _small_cases() -> list[Case]:
    """Small matrices, where a call costs more than the work; the others check nothing."""
    by_hand = {
        1.0: (EIGENVALUES, eigh_entropy, (32, 64)),
        2.0: (NORM, normalised_norm_entropy, (32, 64, 128, 256)),
    }
    entropies = [
        Case(
            name=f"small-h{alpha:g}-{n}",
            group="small",
            title=f"H_{alpha:g} dense, forward + backward, n = {n}",
            build=partial(
                _contenders, gradient_of, partial(renyi_entropy, alpha=alpha), {name: function}, n, F32
            ),
            targets=(Target((name,), 0.9),),
        )
        for alpha, (name, function, sizes) in by_hand.items()
        for n in sizes
    ]
    coding_rate = Case(
        name="small-tcr-8",
        group="small",
        title="TCR of 16 x 8 features, forward",
        build=lambda: {
            name: value_of(function, features(16, 8))
            for name, function in ((OURS, tcr), (CHOLESKY, cholesky_tcr_of))
        },
        targets=(Target((CHOLESKY,), 0.4),),
    )
    return [*entropies, coding_rate]


def _checked(n: int, dtype: torch.dtype) -> Case:
    """Order two with its checks of symmetry and definiteness beside the eigenvalues that it does without."""
    name = str(dtype).removeprefix("torch.")
    return Case(
        name=f"h2-forward-{name}",
        group="small",
        title=f"H_2 dense, forward, n = {n}, {name}",
        build=partial(
            _contenders, value_of, partial(renyi_entropy, alpha=2.0), {EIGVALSH: _largest}, n, dtype
        ),
        targets=(Target((EIGVALSH,), 100),),
        floor=_passes(6, n, dtype),
    )


def _contenders(
    timed: Callable[..., Any],
    ours: Callable[..., Any],
    others: dict[str, Callable[..., Any]],
    n: int,
    dtype: torch.dtype,
) -> dict[str, Callable[[], Any]]:
    K = kernel_matrix(n, dtype)
    return {name: timed(function, K) for name, function in ({OURS: ours} | others).items()}


def _largest(K: torch.Tensor) -> torch.Tensor:
    return torch.linalg.eigvalsh(K)[-1]


def _sweep(peers: Peers, alpha: float, n: int) -> Case:
    """Where float32 loses the answer (orders below one) a second yardstick is plain PyTorch in float64."""
    yardsticks = (PLAIN, PLAIN64) if alpha < 1 else (PLAIN,)
    return Case(
        name=f"sweep-{alpha:g}-{n}",
        group="sweep",
        title=f"H_{alpha:g} dense, forward + backward, n = {n}",
        build=_entropies(peers, alpha, n, only=(*yardsticks, REPITL, BARE)),
        targets=(*(Target((name,), round(1 / 1.1, 3)) for name in yardsticks), Target((REPITL,), 1.0)),
    )


def _entropies(
    peers: Peers,
    alpha: float,
    n: int,
    *,
    gradient: bool = True,
    extra: dict[str, Callable[..., Any]] | None = None,
    only: tuple[str, ...] = (),
) -> Callable[[], dict[str, Callable[[], Any]]]:
    timed = gradient_of if gradient else value_of

    def build() -> dict[str, Callable[[], Any]]:
        K = kernel_matrix(n)
        functions = peers.entropies(alpha, n, gradient=gradient) | (extra or {})
        wanted = only or set(functions) - {PLAIN64, BARE}
        functions = {name: function for name, function in functions.items() if name in wanted}
        return {OURS: timed(lambda K: renyi_entropy(K, alpha), K)} | {
            name: timed(function, K) for name, function in functions.items()
        }

    return build


def _passes(count: int, n: int, dtype: torch.dtype) -> Floor:
    """Order two reads K once, and for the gradient reads it and writes: three. With checks, six for the value."""
    size = dtype.itemsize * n * n
    numeral = {3: "three", 6: "six"}[count]
    return Floor(f"{numeral} passes over the matrix", lambda rates: count * size * rates.copy(size / 2**20))


def _cholesky_and_inverse(n: int, rates: Rates) -> float:
    return sum(rates.factorization(kind, n, F32) for kind in ("cholesky", "cholesky_inverse"))
