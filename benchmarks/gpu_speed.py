"""Times on the device: batches of small matrices, large dense ones, features, coding rates, the quadrature.

Every contender is forward + backward. Ratios are over the contender that a row names. One that raises gets a line
instead of a time.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import gradient_of
from benchmarks.inputs import features, kernel_matrix
from benchmarks.measure import relative
from benchmarks.peers import (
    diff_erank_recipe,
    entropy_by_eigh,
    entropy_of_eigenvalues,
    plain_entropy,
    released_mmae_loss,
    slogdet_tcr,
)
from matinfo import Gram, effective_rank, explain, joint_entropy, matrix_tcr, renyi_entropy
from matinfo.estimate import KernelOperator, estimate_entropy
from matinfo.losses import mmae_tcr_loss
from matinfo.spectral import cusolver
from matinfo.spectral.triangular import weighted_inverse_sum

EIGH = "H_1, torch.linalg.eigh"
SLOGDET = "TCR, torch slogdet"
TOLERANCE = 1e-3
RECIPE = "Diff-eRank recipe without vectors"
QUADRATURE: dict[str, Any] = {"method": "quadrature", "rtol": TOLERANCE}
_LARGEST_FOR_GRADIENT_CHECK = 2048


class Stopwatch:
    """Times contenders on a device and keeps the rows.

    Args:
        device: ``"cuda"`` or ``"cpu"``.
        deadline: ``time.perf_counter()`` after which nothing is started.
    """

    def __init__(self, device: str, deadline: float) -> None:
        self.device = device
        self.deadline = deadline
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        function: Callable[..., Tensor],
        *inputs: Tensor,
        over: str = "",
        truth: tuple[Tensor, Tensor | None] | None = None,
        target: float | None = None,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Time ``function`` forward + backward.

        Args:
            name: Of the contender.
            function: Of the inputs.
            *inputs: Tensors on the device.
            over: The contender that the ratio is formed with.
            truth: True value and gradient, for the relative errors.
            target: The ratio to reach with a value that is right to ``tolerance``, and a gradient to ten times that.
            tolerance: A relative error.
        """

        def work(row: dict[str, Any]) -> None:
            call = gradient_of(function, *inputs)
            with explain() as log:
                value, gradient = call()  # also the warm-up
            row["route"] = "; ".join(
                dict.fromkeys(step.route + f" ({step.note})" * bool(step.note) for step in log.steps)
            )
            if truth is not None:
                row["value_error"] = relative(value, truth[0])
                row["gradient_error"] = None if truth[1] is None else relative(gradient, truth[1])
            del value, gradient
            self._time(row, call)
            errors = row["value_error"] or 0.0, (row["gradient_error"] or 0.0) / 10
            if target is not None and row["ratio"] and row["ratio"] >= target and max(errors) <= tolerance:
                row["status"] = "met"

        self._fill(work, name, over, target=target, tolerance=tolerance, status="missed")

    def plain(self, name: str, call: Callable[[], Any], *, over: str = "") -> None:
        """Time a call that has no gradient."""

        def work(row: dict[str, Any]) -> None:
            call()
            self._time(row, call)

        self._fill(work, name, over)

    def once(self, name: str, function: Callable[[], str], *, estimate: float) -> None:
        """One call without a warm-up, of about ``estimate`` seconds; it returns a note."""

        def work(row: dict[str, Any]) -> None:
            cuda = self.device == "cuda"
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            try:
                row["note"] = function()
            finally:
                self._wait()
                row["seconds"] = time.perf_counter() - start
                row["memory_mib"] = torch.cuda.max_memory_allocated() / 2**20 if cuda else None

        self._fill(work, name, estimate=estimate)

    def _fill(
        self,
        work: Callable[[dict[str, Any]], None],
        name: str,
        over: str = "",
        *,
        estimate: float = 0.0,
        **known: Any,
    ) -> None:
        """A row of its own, unless it would end too late; what is raised meanwhile is its note."""
        numbers = ("seconds", "ratio", "memory_mib", "value_error", "gradient_error", "target", "tolerance")
        row: dict[str, Any] = dict.fromkeys(numbers)
        row |= {"name": name, "over": over, "note": "", "route": "", "status": ""} | known
        self.rows.append(row)
        if time.perf_counter() + estimate > self.deadline:
            row["note"] = "left out: the time is spent"
            return
        try:
            work(row)
        except Exception as error:  # an unavailable route or a solver that fails is a result
            row["note"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]

    def _time(self, row: dict[str, Any], call: Callable[[], Any]) -> None:
        row["memory_mib"], row["seconds"] = self._memory(call), self._median(call)
        slow = [other["seconds"] for other in self.rows if other["name"] == row["over"] and other["seconds"]]
        row["ratio"] = slow[0] / row["seconds"] if slow else None

    def _memory(self, call: Callable[[], Any]) -> float | None:
        if self.device == "cpu":
            call()
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def _median(self, call: Callable[[], Any]) -> float:
        """Median over calls that start and end with an idle device: at most 20, or half a second."""
        seconds: list[float] = []
        while len(seconds) < 20 and (sum(seconds) < 0.5 or len(seconds) < 2):
            self._wait()
            start = time.perf_counter()
            call()
            self._wait()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def speed_cases(device: str, *, quick: bool) -> dict[str, Callable[[Stopwatch], None]]:
    """Title to a function that times the contenders of one case."""
    batches = ((10, 16, 50.0), (4, 48, 5.0)) if quick else ((1000, 64, 50.0), (512, 256, 5.0), (64, 768, 5.0))
    sizes = (64, 96) if quick else (1024, 2048, 4096, 8192)
    cases: dict[str, Callable[[Stopwatch], None]] = {
        "drivers of the eigensolver": partial(_drivers, device, quick),
        "six factors and the weighted sum of their inverses": partial(_factors, device, quick),
    }
    cases |= {
        f"batch {b} x {n} x {n}, float32": partial(_batch, device, b, n, target) for b, n, target in batches
    }
    for n in sizes:
        cases[f"dense, float32, n = {n}"] = partial(_dense, device, n)
    n, d = (256, 16) if quick else (8192, 256)
    cases[f"H_1 of features, float32, n = {n}, d = {d}"] = partial(_features, device, n, d)
    n, d, width = (256, 16, 64) if quick else (65536, 512, 2048)
    cases[f"features without their Gram matrix, n = {n}, d = {d}"] = partial(
        _large_features, device, n, d, width
    )
    batch, width = (32, 64) if quick else (1024, 768)
    cases[f"M-MAE regulariser, B = {batch}, d = {width}"] = partial(_mmae, device, batch, width)
    cases["estimates of a kernel of n samples, d = 64, error bar 1 %"] = partial(_reach, device, quick)
    return cases


def _drivers(device: str, quick: bool, stopwatch: Stopwatch) -> None:
    """Eigenvalues and eigenvectors, nothing else: what decides which driver serves which order."""
    shapes = (
        ((3, 16),)
        if quick
        else ((1000, 64), (512, 256), (64, 512), (64, 768), (1, 512), (1, 1024), (1, 4096))
    )
    for (batch, n), dtype in itertools.product(shapes, (torch.float32, torch.float64)):
        Z = torch.randn(batch, n, 2 * n, generator=torch.Generator().manual_seed(n)).to(device, dtype)
        K = Z @ Z.mT / n
        name = f"{batch} x {n}, {str(dtype)[6:]}"
        stopwatch.plain(f"{name}: torch.linalg.eigh", partial(torch.linalg.eigh, K))
        if device == "cuda":
            batched = partial(cusolver.batched_eigh, K, vectors=True)
            stopwatch.plain(f"{name}: cuSOLVER batched", batched, over=f"{name}: torch.linalg.eigh")


def _factors(device: str, quick: bool, stopwatch: Stopwatch) -> None:
    """What the quadrature is made of."""
    for n in (64,) if quick else (2048, 4096, 8192):
        P = kernel_matrix(n, torch.float64, device) / n
        P.diagonal().add_(0.01 / n)
        stopwatch.plain(
            f"n = {n}: six times torch.linalg.cholesky",
            lambda P=P: [torch.linalg.cholesky(P) for _ in range(6)],
        )
        L = torch.linalg.cholesky(P)
        for dtype in (torch.float64, torch.float32):
            factors = torch.stack([L.to(dtype)] * 6)
            total = partial(weighted_inverse_sum, factors, [1.0] * 6)
            stopwatch.plain(f"n = {n}: inverses by products, {str(dtype)[6:]}", total)


def _batch(device: str, batch: int, n: int, target: float, stopwatch: Stopwatch) -> None:
    K = torch.stack([kernel_matrix(n, device=device)] * batch)
    K = K * torch.linspace(0.5, 2.0, batch, device=device)[:, None, None]  # no two alike

    def sum_of_tcr(K: Tensor) -> Tensor:
        return torch.linalg.slogdet(K + torch.eye(n, dtype=K.dtype, device=device))[1].sum()

    truth = _truth(entropy_by_eigh, K.double())
    stopwatch.add(EIGH, entropy_by_eigh, K, truth=truth)
    total = lambda K, **options: renyi_entropy(K, **options).sum()  # noqa: E731
    goal: dict[str, Any] = {"over": EIGH, "truth": truth, "target": target, "tolerance": 1e-5}
    stopwatch.add("H_1", total, K, **goal)
    stopwatch.add("H_1, precision float32", partial(total, precision="float32"), K, **goal)
    stopwatch.add("H_1, quadrature rtol 1e-5", partial(total, method="quadrature", rtol=1e-5), K, **goal)
    stopwatch.add(
        "H_1, quadrature rtol 1e-3", lambda K: renyi_entropy(K, **QUADRATURE).sum(), K, over=EIGH, truth=truth
    )
    stopwatch.add("H_2", lambda K: renyi_entropy(K, 2).sum(), K, over=EIGH)
    stopwatch.add("H_3", lambda K: renyi_entropy(K, 3).sum(), K, over=EIGH)
    truth = _truth(sum_of_tcr, K.double())
    stopwatch.add(SLOGDET, sum_of_tcr, K, truth=truth)
    stopwatch.add("TCR", lambda K: matrix_tcr(K).sum(), K, over=SLOGDET, truth=truth)


def _dense(device: str, n: int, stopwatch: Stopwatch) -> None:
    """The target is the quadrature: five times ``torch.linalg.eigh`` at a relative error of 1e-3, from n = 2048."""
    K = kernel_matrix(n, device=device)
    K64 = kernel_matrix(n, torch.float64, device=device)
    with_gradient = n <= _LARGEST_FOR_GRADIENT_CHECK
    eigenvalues = None if with_gradient else torch.linalg.eigvalsh(K64)

    def truth(alpha: float) -> tuple[Tensor, Tensor | None]:
        if eigenvalues is None:
            return _truth(lambda K: renyi_entropy(K, alpha, method="eigh"), K64)
        return entropy_of_eigenvalues(eigenvalues, alpha), None

    one = truth(1.0)
    stopwatch.add(EIGH, entropy_by_eigh, K, truth=one)
    stopwatch.add("H_1", renyi_entropy, K, over=EIGH, truth=one)
    for alpha, true in ((1.0, one), (0.5, truth(0.5)), (1.5, truth(1.5))):
        function = partial(renyi_entropy, alpha=alpha, **QUADRATURE)
        name, target = f"H_{alpha:g}, quadrature rtol 1e-3", 5.0 if n >= 2048 else None
        stopwatch.add(name, function, K, over=EIGH, truth=true, target=target)
    for alpha in (2, 3):
        stopwatch.add(f"H_{alpha}", partial(renyi_entropy, alpha=alpha), K, over=EIGH, truth=truth(alpha))
    stopwatch.add("H_inf", partial(renyi_entropy, alpha=float("inf")), K, over=EIGH)
    stopwatch.add(SLOGDET, slogdet_tcr, K)
    stopwatch.add("TCR", matrix_tcr, K, over=SLOGDET)


def _features(device: str, n: int, d: int, stopwatch: Stopwatch) -> None:
    Z = features(n, d, device=device)
    truth = _truth(lambda Z: plain_entropy(Z.mT @ Z, 1.0), Z.double())
    gram = "torch Gram + eigh"
    stopwatch.add(gram, lambda Z: entropy_by_eigh(Z @ Z.mT), Z, truth=truth)
    stopwatch.add("torch d x d by hand", lambda Z: plain_entropy(Z.mT @ Z, 1.0), Z, over=gram, truth=truth)
    stopwatch.add("ours", lambda Z: renyi_entropy(Gram(Z)), Z, over=gram, truth=truth)


def _large_features(device: str, n: int, d: int, width: int, stopwatch: Stopwatch) -> None:
    """Too many samples for a Gram matrix; and one sentence, which has few."""
    Z = features(n, d, device=device)
    by_hand = "H_1, torch d x d by hand"
    stopwatch.add(by_hand, lambda Z: plain_entropy(Z.mT @ Z, 1.0), Z)
    stopwatch.add("H_1", lambda Z: renyi_entropy(Gram(Z)), Z, over=by_hand)
    stopwatch.add("H_2", lambda Z: renyi_entropy(Gram(Z), 2), Z, over=by_hand)
    first, second = features(n, 16, device=device), features(n, 8, seed=1, device=device)
    stopwatch.add("joint H_1, d1 d2 = 128", lambda A, B: joint_entropy(Gram(A), Gram(B)), first, second)
    hidden = features(width // 32, width, device=device)
    stopwatch.add(RECIPE, lambda Z: diff_erank_recipe(Z, vectors=False), hidden)
    stopwatch.add(
        "Diff-eRank", lambda Z: effective_rank(Gram(Z - Z.mean(0), normalize=True)), hidden, over=RECIPE
    )


def _reach(device: str, quick: bool, stopwatch: Stopwatch) -> None:
    """Kernels that are never formed. A time grows with the square of n, which says whether the next one fits."""
    last, size = 0.0, 0
    sizes = (500, 1000) if quick else (100_000, 300_000, 1_000_000)
    for alpha, n in itertools.product((2.0, 1.0), sizes):
        X = torch.randn(n, 64, generator=torch.Generator().manual_seed(0)).to(device)

        def run(X: Tensor = X, alpha: float = alpha) -> str:
            seed = torch.Generator(device=device).manual_seed(0)
            K = KernelOperator(X, precision="float32")
            found = estimate_entropy(K, alpha, rtol=1e-2, generator=seed)
            return (
                f"{found.value:.5f}, error bar {found.error() / found.value:.1e}, converged {found.converged}"
            )

        expected = last * (n / size) ** 2 if size and size < n else 1.0
        stopwatch.once(f"H_{alpha:g}, n = {n:,}", run, estimate=1.2 * expected)
        last, size = stopwatch.rows[-1]["seconds"] or expected, n


def _mmae(device: str, batch: int, width: int, stopwatch: Stopwatch) -> None:
    F = features(batch, width, device=device)
    truth = _truth(released_mmae_loss, F.double())
    stopwatch.add("released code", released_mmae_loss, F, truth=truth)
    stopwatch.add("ours", mmae_tcr_loss, F, over="released code", truth=truth)


def _truth(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Value and gradient in float64 on the same device (the checks compare the device with the CPU)."""
    return gradient_of(function, *inputs)()
