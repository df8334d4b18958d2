"""Is everything right on the device? Each check returns a line of detail, or raises with what is wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import matinfo
from benchmarks.case import OURS, gradient_of
from benchmarks.failures import KINDS, TOLERANCES, errors, failure_table
from benchmarks.families import NAMES, hard_features
from benchmarks.gpu_stability import stability_table
from benchmarks.inputs import features, kernel_matrix
from benchmarks.machine import waiting_is_an_error
from benchmarks.oracle import coding_rate_and_gradient, entropy_and_gradient
from benchmarks.peers import Peers
from matinfo import Gram, matrix_tcr, renyi_entropy
from matinfo.losses import mmae_tcr_loss, umae_uniformity_loss

INF = math.inf
MATRIX_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        f"renyi_entropy {alpha:g}": partial(renyi_entropy, alpha=alpha)
        for alpha in (0.5, 1.0, 1.5, 2.0, 3.0, INF)
    },
    "joint_entropy": lambda K: matinfo.joint_entropy(K, 0.5 * torch.eye(K.shape[-1]).to(K) + 0.5),
    "mutual_information": lambda K: matinfo.mutual_information(K, 0.5 * torch.eye(K.shape[-1]).to(K) + 0.5),
    "matrix_kl": lambda K: matinfo.matrix_kl(K, torch.eye(K.shape[-1]).to(K)),
    "matrix_js": lambda K: matinfo.matrix_js(K, torch.eye(K.shape[-1]).to(K)),
    "effective_rank": matinfo.effective_rank,
    "participation_ratio": matinfo.participation_ratio,
    "matrix_tcr": matrix_tcr,
}
FEATURE_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy of Gram": lambda Z: renyi_entropy(Gram(Z)),
    "entropy of Gram, order 2": lambda Z: renyi_entropy(Gram(Z), 2),
    "joint entropy of Grams": lambda Z: matinfo.joint_entropy(Gram(Z[:, :4]), Gram(Z[:, 4:8])),
    "rankme": matinfo.rankme,
    "tcr": matinfo.tcr,
    "coding_rate": matinfo.coding_rate,
    "rate_reduction": lambda Z: matinfo.rate_reduction(Z, (torch.arange(len(Z)) % 4).to(Z.device)),
    "mmae_tcr_loss": mmae_tcr_loss,
    "umae_uniformity_loss": umae_uniformity_loss,
}
AGREEMENT = {torch.float32: (1e-5, 2e-3), torch.float64: (1e-10, 1e-8)}
"""Largest accepted relative error of value and gradient against float64 on the CPU."""

Check = Callable[[], str]


def checks(device: str, *, quick: bool) -> dict[str, Check]:
    """Name to check."""
    n = 24 if quick else 256
    seeds = 1 if quick else 3
    found: dict[str, Check] = {}
    for dtype in AGREEMENT:
        name = str(dtype)[6:]
        found[f"matrix functions, {name}, equal float64 on the CPU"] = partial(
            _agreement, MATRIX_FUNCTIONS, kernel_matrix(n, torch.float64), dtype, device
        )
        found[f"feature functions, {name}, equal float64 on the CPU"] = partial(
            _agreement, FEATURE_FUNCTIONS, features(n, n // 4, dtype=torch.float64), dtype, device
        )
    found["no host synchronisation where it is an error"] = partial(_no_synchronisation, device, n)
    found["more than 65,535 matrices"] = partial(_many, device, 72 if quick else 72_000)
    found["NaN stays in its batch element"] = partial(_nan_stays, device)
    found["quadrature keeps its bound"] = partial(_quadrature, device, n)
    found["16 hard families, one matrix at a time"] = partial(_hard_families, device, seeds, quick)
    found["16 hard families, as one batch"] = partial(_hard_batch, device, seeds, 32 if quick else 128)
    found["values and gradients against 50 digits"] = partial(_fifty_digits, device, quick)
    return found


def _agreement(
    functions: dict[str, Callable[[Tensor], Tensor]], x: Tensor, dtype: torch.dtype, device: str
) -> str:
    """The input is rounded to the dtype first, so that both see the same numbers."""
    x = x.to(dtype)
    worst = {"value": (0.0, ""), "gradient": (0.0, "")}
    wrong = []
    for name, function in functions.items():
        value, gradient = gradient_of(function, x.to(device))()
        true_value, true_gradient = gradient_of(function, x.double())()
        errors = {
            "value": abs(float(value) - float(true_value)) / (1 + abs(float(true_value))),
            "gradient": float(
                (gradient.double().cpu() - true_gradient).norm() / (1e-12 + true_gradient.norm())
            ),
        }
        for (kind, error), limit in zip(errors.items(), AGREEMENT[dtype], strict=True):
            worst[kind] = max(worst[kind], (error, name))
            if not error <= limit:
                wrong.append(f"{name}: {kind} off by {error:.1e}")
        if value.dtype != x.dtype or value.device.type != device:
            wrong.append(f"{name}: result is {value.dtype} on {value.device}")
    if wrong:
        raise AssertionError("; ".join(wrong))
    return "largest error: " + ", ".join(
        f"{kind} {error:.0e} ({name})" for kind, (error, name) in worst.items()
    )


def _no_synchronisation(device: str, n: int) -> str:
    K, F = kernel_matrix(n, device=device), features(n, 2 * n, device=device)
    calls = {
        "matrix_tcr": gradient_of(matrix_tcr, K),
        "tcr": gradient_of(matinfo.tcr, F),
        "coding_rate": gradient_of(matinfo.coding_rate, F),
        "mmae_tcr_loss": gradient_of(mmae_tcr_loss, F),
        "entropy of order 2": gradient_of(partial(renyi_entropy, alpha=2), K),
        "entropy of order 1": gradient_of(renyi_entropy, K),
        "entropy of order 1 of features": gradient_of(lambda F: renyi_entropy(Gram(F)), F),
        "quadrature": gradient_of(partial(renyi_entropy, method="quadrature"), K),
    }
    wrong = []
    for name, call in calls.items():
        call()  # libraries may synchronise while they are loaded
        try:
            with waiting_is_an_error(device):
                call()
        except RuntimeError as error:
            wrong.append(f"{name}: {error}".splitlines()[0])
    if wrong:
        raise AssertionError("; ".join(wrong))
    return ", ".join(calls) if device == "cuda" else "not applicable on the CPU"


def _many(device: str, batch: int) -> str:
    Z = features(64, 4, device=device).reshape(8, 8, 4)
    K = (Z @ Z.mT).repeat(-(-batch // 8), 1, 1)[:batch]
    value, gradient = gradient_of(lambda K: renyi_entropy(K).sum(), K)()
    one = float(renyi_entropy(K[:8].double().cpu()).sum()) * batch / 8
    assert abs(float(value) / one - 1) < 1e-3, f"sum {float(value)}, true about {one}"
    assert gradient.isfinite().all()
    return f"{batch:,} of order 8"


def _nan_stays(device: str) -> str:
    K = torch.stack([kernel_matrix(16, device=device)] * 3)
    K[1, 2, 3] = K[1, 3, 2] = math.nan
    for name, function in MATRIX_FUNCTIONS.items():
        leaf = K.clone().requires_grad_()
        value = function(leaf)
        value.sum().backward()
        assert value[1].isnan(), f"{name}: the value of the NaN element is {value[1].item()}"
        assert value[[0, 2]].isfinite().all(), f"{name}: NaN leaked into the values of others"
        assert leaf.grad is not None
        assert leaf.grad[[0, 2]].isfinite().all(), f"{name}: NaN leaked into the gradients of others"
    return f"{len(MATRIX_FUNCTIONS)} functions"


def _quadrature(device: str, n: int) -> str:
    """A refusal (the documented error) is fine, an answer beyond the bound is not."""
    worst, refused, asked = 0.0, 0, 0
    Z = features(n, n // 2, device=device)
    for K in (kernel_matrix(n, device=device), Z @ Z.mT, kernel_matrix(n, torch.float64, device)):
        for alpha, rtol in itertools.product((0.5, 1.0, 1.5, 1.9, 2.0), (1e-2, 1e-3, 1e-4)):
            asked += 1
            true = float(renyi_entropy(K.double(), alpha, method="eigh"))
            try:
                found = float(renyi_entropy(K, alpha, method="quadrature", rtol=rtol))
            except ValueError:
                refused += 1
                continue
            worst = max(worst, abs(found - true) / true / rtol)
    assert worst <= 1, f"an error of {worst:.1e} times the tolerance"
    assert refused < asked / 3, f"{refused} of {asked} refused"
    return f"largest error {worst:.2f} times the tolerance; {refused} of {asked} refused"


def _hard_families(device: str, seeds: int, quick: bool) -> str:
    table = failure_table(Peers.none(), quick=quick, device=device, seeds=seeds)
    counts = {}
    for row in table["rows"]:
        failures = sum(row[kind] or 0 for kind in KINDS)
        counts[row["contender"]] = counts.get(row["contender"], 0) + failures
    examples = [f"{what}, {where}" for what, where in table["examples"].items() if what.startswith(OURS)]
    assert counts[OURS] == 0, "; ".join(examples)
    return ", ".join(f"{name}: {count} failures" for name, count in counts.items())


def _hard_batch(device: str, seeds: int, n: int) -> str:
    """All families and seeds in one call: batched drivers fail in other ways than single ones."""
    wrong = []
    for dtype, tolerance in TOLERANCES.items():
        members = [torch.from_numpy(hard_features(name, n, seed)) for name in NAMES for seed in range(seeds)]
        rows = max(len(Z) for Z in members)
        Z = torch.stack([torch.nn.functional.pad(Z, (0, 0, 0, rows - len(Z))) for Z in members]).to(dtype)
        for alpha in (1.0, 2.0, None):
            leaf = Z.to(device, copy=True).requires_grad_()
            K = leaf.mT @ leaf
            value = matrix_tcr(K) if alpha is None else renyi_entropy(K, alpha)
            value.sum().backward()
            assert leaf.grad is not None
            for i, features_ in enumerate(Z.double().numpy()):
                truth = (
                    coding_rate_and_gradient(features_, 1.0)
                    if alpha is None
                    else entropy_and_gradient(features_, alpha)
                )
                found = float(value[i].detach()), leaf.grad[i].double().cpu().numpy()
                off = errors(*found, truth, float(Z[i].norm()))
                if not max(off) <= tolerance:
                    family = f"{NAMES[i // seeds]} {i % seeds}"
                    wrong.append(f"{family}, {str(dtype)[6:]}: {off[0]:.0e}, {off[1]:.0e}")
    if wrong:
        raise AssertionError(f"{len(wrong)} wrong: " + "; ".join(wrong[:3]))
    return f"{len(NAMES) * seeds} matrices of order {n}, H_1, H_2 and TCR, both precisions"


def _fifty_digits(device: str, quick: bool) -> str:
    """Features, and float64 matrices; a matrix formed in float32 has lost what its gradient in the features needs."""
    table = stability_table(device, quick=quick)
    counts = [f"{r['contender']} ({r['dtype']}) {r['failures']} of {r['problems']}" for r in table["rows"]]
    failed = [row for row in table["rows"] if row["contender"].startswith(OURS) and row["failures"]]
    failed = [row for row in failed if (row["contender"], row["dtype"]) != (f"{OURS}, matrix", "float32")]
    assert not failed, "; ".join(table["examples"])
    return "failures: " + ", ".join(counts)
