"""Every row of docs/how-to/coming-from.md: our call against their formula and, where it is installed, their package."""

from __future__ import annotations

import importlib
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerances import relative_error

import matinfo

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "coming-from.md"
DIGITS = 1e-9
CLOSER_LOOK = {  # rows whose verdict says that fewer digits agree
    "`ku.gaussianKernel(X, X)`": 1e-6,
    "reptrix `get_rankme`": 1e-4,
}


def rows() -> list[tuple[str, str, str]]:
    """Their call, our call, verdict: the rows of the tables whose second column is code."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [(theirs, ours.strip("`"), verdict) for theirs, ours, verdict in cells if ours.startswith("`")]


ROWS = rows()


# --- their formulas, in NumPy ------------------------------------------------------------------------------------


def shares(K):
    p = np.linalg.eigvalsh(K)
    p = p[p > 0]
    return p / p.sum()


def shannon(p):
    return -(p * np.log(p)).sum()


def renyi(p, alpha):
    return np.log((p**alpha).sum()) / (1 - alpha)


def vendi_of(K, q=1.0):
    """Eigenvalues of K/n, not divided by their sum."""
    w = np.linalg.eigvalsh(K / len(K))
    w = w[w > 0]
    return np.exp(shannon(w) if q == 1 else renyi(w, q))


def unit_rows(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def centred(X):
    return X - X.mean(0)


def gauss(X, sigma):
    return np.exp(-((X[:, None] - X[None]) ** 2).sum(-1) / (2 * sigma**2))


def distance_kernels(v):
    return [-np.linalg.norm(Z[:, None] - Z, axis=-1) / 2 for Z in (v.X, v.Y)]


def biased_hsic(K, L):
    H = np.eye(len(K)) - 1 / len(K)
    return np.trace(K @ H @ L @ H) / (len(K) - 1) ** 2


def unbiased_hsic(K, L):
    """U-centred matrices, the other way to write it."""
    n = len(K)

    def u(A):
        A = A - np.diag(np.diag(A))
        rows, total = A.sum(0), A.sum()
        A = A - rows / (n - 2) - rows[:, None] / (n - 2) + total / ((n - 1) * (n - 2))
        return A - np.diag(np.diag(A))

    return (u(K) * u(L)).sum() / (n * (n - 3))


def rank_of_singular_values(X, offset):
    s = np.linalg.svd(X, compute_uv=False)
    p = s / s.sum() + offset
    return np.exp(shannon(p))


def sentence(R):
    """Diff-eRank's matrix: centred tokens, rows of length one, width x width."""
    Z = unit_rows(centred(R))
    s = np.linalg.svd(Z.T @ Z / np.trace(Z.T @ Z), compute_uv=False)
    return s[s > 0]


def doe(K, L, alpha, count=10):
    joint, total = renyi(shares(K * L), alpha), 0.0
    for _ in range(count):
        order = torch.randperm(len(L)).numpy()
        total += renyi(shares(K * L[order][:, order]), alpha)
    return total / count - joint


def rate(X, mu):
    return np.linalg.slogdet(np.eye(X.shape[1]) + mu * X.T @ X)[1]


FORMULAS = {
    "`itl.vonNeumannEntropy(K)`": lambda v: shannon(shares(v.K)),
    "`itl.matrixAlphaEntropy(K, 1.5)`": lambda v: renyi(shares(v.K), 1.5),
    "`itl.matrixAlphaEntropy(K, 2)`": lambda v: -np.log((v.K**2).sum() / len(v.K) ** 2),
    "`itl.matrixAlphaEntropy(W, 2)`": lambda v: -np.log((v.W**2).sum() / len(v.W) ** 2),
    "`itl.matrixAlphaJointEntropy([K, L], 1.5)`": lambda v: renyi(shares(v.K * v.L), 1.5),
    "`itl.matrixAlphaConditionalEntropy(K, L, 1.5)`": lambda v: (
        renyi(shares(v.K * v.L), 1.5) - renyi(shares(v.L), 1.5)
    ),
    "`itl.matrixAlphaMutualInformation(K, L, 1.5)`": lambda v: (
        renyi(shares(v.K), 1.5) + renyi(shares(v.L), 1.5) - renyi(shares(v.K * v.L), 1.5)
    ),
    "`itl.repMutualInformation(X, Y)`": lambda v: (
        shannon(shares(v.X @ v.X.T))
        + shannon(shares(v.Y @ v.Y.T))
        - shannon(shares((v.X @ v.X.T) * (v.Y @ v.Y.T)))
    ),
    "`doe.doe(K, L, 1.5)`": lambda v: doe(v.K, v.L, 1.5),
    "`div.repJSD(X, Y)`": lambda v: (
        shannon(shares(v.X.T @ v.X + v.Y.T @ v.Y))
        - (shannon(shares(v.X.T @ v.X)) + shannon(shares(v.Y.T @ v.Y))) / 2
    ),
    "`ku.gaussianKernel(X, X, 2.0)`": lambda v: gauss(v.X, 2.0),
    "`ku.gaussianKernel(X, X)`": lambda v: gauss(v.X, float(np.float32(np.sqrt(v.X.shape[1] / 2)))),
    "`ku.factorizedLaplacianKernel(X, X, 2.0)`": lambda v: np.exp(
        -np.abs(v.X[:, None] - v.X[None]).sum(-1) / (np.sqrt(2) * 2.0)
    ),
    "`vendi.score_K(K)`": lambda v: vendi_of(v.K),
    "`vendi.score_K(K, q=2)`": lambda v: vendi_of(v.K, 2),
    '`vendi.score_K(K, q="inf")`': lambda v: len(v.K) / np.linalg.eigvalsh(v.K)[-1],
    "`vendi.score_K(D, q=0)`": lambda v: vendi_of(v.D, 0),
    "`vendi.score_K(W, normalize=True)`": lambda v: vendi_of(
        v.W / np.sqrt(np.outer(np.diag(v.W), np.diag(v.W)))
    ),
    "`vendi.score_K(W)`": lambda v: vendi_of(v.W),
    "`vendi.score_K(K, p=p)`": lambda v: vendi_of(len(v.K) * v.K * np.sqrt(np.outer(v.p, v.p))),
    "`vendi.score_X(X)`": lambda v: vendi_of(unit_rows(v.X) @ unit_rows(v.X).T),
    "`vendi.score_X(X, q=2)`": lambda v: vendi_of(unit_rows(v.X) @ unit_rows(v.X).T),
    "`vendi.score_dual(X, q=2)`": lambda v: vendi_of(unit_rows(v.X) @ unit_rows(v.X).T, 2),
    "`vendi.score_dual(X, normalize=False)`": lambda v: vendi_of(v.X @ v.X.T),
    "`vendi.score(list(X), np.dot, normalize=True)`": lambda v: vendi_of(unit_rows(v.X) @ unit_rows(v.X).T),
    "RankMe, Garrido et al., with their 1e-7": lambda v: rank_of_singular_values(v.X, 1e-7),
    "effective rank of `X`, Roy and Vetterli": lambda v: rank_of_singular_values(v.X, 0.0),
    "stable-pretraining, uncentred, with its 1e-5": lambda v: rank_of_singular_values(v.X, 1e-5),
    "stable-pretraining, newer, centred": lambda v: rank_of_singular_values(centred(v.X), 1e-5),
    "reptrix `get_rankme`": lambda v: np.exp(shannon(shares(centred(v.X).T @ centred(v.X)) + 1e-7)),
    "RankMe, for `effective_rank` of Tan et al.": lambda v: rank_of_singular_values(v.X, 0.0),
    "`compute(hidden)`": lambda v: np.exp(shannon(sentence(v.hidden))),
    "`compute(untrained) - compute(hidden)`": lambda v: (
        np.exp(shannon(sentence(v.untrained))) - np.exp(shannon(sentence(v.hidden)))
    ),
    "exponential of the mean entropy over a data set": lambda v: np.exp(
        (shannon(sentence(v.hidden)) + shannon(sentence(v.untrained))) / 2
    ),
    "`dcor.u_distance_covariance_sqr(X, Y)`": lambda v: 4 * unbiased_hsic(*distance_kernels(v)),
    "`dcor.distance_covariance_sqr(X, Y)`": lambda v: (
        4 * (1 - 1 / len(v.X)) ** 2 * biased_hsic(*distance_kernels(v))
    ),
    "HSIC, Gretton et al. 2005": lambda v: biased_hsic(v.K, v.L),
    "HSIC, Song et al. 2012, unbiased": lambda v: unbiased_hsic(v.K, v.L),
    "linear CKA, Kornblith et al.": lambda v: (
        np.linalg.norm(centred(v.X).T @ centred(v.Y)) ** 2
        / np.linalg.norm(centred(v.X).T @ centred(v.X))
        / np.linalg.norm(centred(v.Y).T @ centred(v.Y))
    ),
    "kernel CKA, Kornblith et al.": lambda v: (
        biased_hsic(v.K, v.L) / np.sqrt(biased_hsic(v.K, v.K) * biased_hsic(v.L, v.L))
    ),
    "M-MAE: `mu / d`, log-determinant of the d × d matrix": lambda v: -rate(unit_rows(v.X), 1 / v.X.shape[1]),
    "U-MAE uniformity": lambda v: ((unit_rows(v.X) @ unit_rows(v.X).T) ** 2).mean(),
    "MCR², rate of `X` at `eps`": lambda v: rate(v.X, v.X.shape[1] / (len(v.X) * 0.5)) / 2,
}


class Values:
    """The operands of the page, in NumPy."""

    def __init__(self):
        rng = np.random.default_rng(7)
        self.X, self.Y = unit_rows(rng.standard_normal((12, 4))), unit_rows(rng.standard_normal((12, 4)))
        self.X_long = self.X * rng.uniform(0.5, 2.0, (12, 1))
        self.K, self.L = gauss(self.X, 0.8), gauss(self.Y, 0.8)
        scale = rng.uniform(0.5, 2.0, 12)
        self.W = self.K * np.outer(scale, scale)
        B = unit_rows(rng.standard_normal((12, 3)))
        self.D = B @ B.T
        self.p = rng.dirichlet(np.ones(12))
        self.hidden, self.untrained = rng.standard_normal((9, 16)) + 1.0, rng.standard_normal((9, 16))


def values_for(theirs: str) -> Values:
    """Rows of length one only where the page says so: everywhere else they hold for any length."""
    v = Values()
    if "repJSD" not in theirs:
        v.X = v.X_long
    return v


def namespace(v: Values, *, torch_values: bool) -> dict:
    convert = (lambda a: torch.tensor(a)) if torch_values else (lambda a: a)
    operands = {
        name: convert(getattr(v, name)) for name in ("X", "Y", "K", "L", "W", "D", "p", "hidden", "untrained")
    }
    public = {name: getattr(matinfo, name) for name in matinfo.__all__}
    return {**public, **operands, "np": np, "math": math, "torch": torch}


def in_numpy(theirs: str, ours: str) -> bool:
    """Rows of a NumPy package are evaluated on arrays."""
    return theirs.startswith("`vendi.")


def our_value(theirs: str, ours: str, v: Values) -> np.ndarray:
    torch.manual_seed(3)
    return np.asarray(eval(ours, namespace(v, torch_values=not in_numpy(theirs, ours))))


def check(theirs, expected, ours, verdict):
    gap = relative_error(torch.as_tensor(np.array(ours)), np.array(expected))
    if verdict.startswith("equal"):
        assert gap < CLOSER_LOOK.get(theirs, DIGITS)
    else:
        assert verdict.startswith("no: ")
        assert gap > 1e-3


def test_every_row_has_its_formula():
    assert sorted(theirs for theirs, _, _ in ROWS) == sorted(FORMULAS)


@pytest.mark.parametrize(("theirs", "ours", "verdict"), ROWS, ids=[row[0] for row in ROWS])
def test_our_call_gives_the_number_of_their_formula(theirs, ours, verdict):
    v = values_for(theirs)
    value = our_value(theirs, ours, v)
    torch.manual_seed(3)  # doe and dime draw the same permutations
    check(theirs, FORMULAS[theirs](v), value, verdict)


CALLS = [row for row in ROWS if re.match(r"`(itl|ku|doe|div|vendi|dcor)\.", row[0])]


def peer_modules(prefix: str) -> dict:
    """The modules that a call names, or skip."""
    wanted = (
        {prefix: {"vendi": "vendi_score.vendi", "dcor": "dcor"}[prefix]}
        if prefix in ("vendi", "dcor")
        else {
            "itl": "repitl.matrix_itl",
            "ku": "repitl.kernel_utils",
            "doe": "repitl.difference_of_entropies",
            "div": "repitl.divergences",
        }
    )
    try:
        return {name: importlib.import_module(module) for name, module in wanted.items()}
    except ImportError as missing:
        pytest.skip(f"not installed ({missing})")


@pytest.mark.parametrize(("theirs", "ours", "verdict"), CALLS, ids=[row[0] for row in CALLS])
def test_our_call_gives_the_number_of_their_package(theirs, ours, verdict, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # dcor would compile for seconds what one small call needs
    threads = torch.get_num_threads()
    prefix = theirs.strip("`").split(".")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages' own
        modules = peer_modules(prefix)
        v = values_for(theirs)
        value = our_value(theirs, ours, v)
        torch.manual_seed(3)
        expected = eval(
            theirs.strip("`"), {**namespace(v, torch_values=prefix not in ("vendi", "dcor")), **modules}
        )
        torch.set_num_threads(threads)  # dcor has started threads of its own
    check(theirs, np.asarray(expected), value, verdict)


def test_a_wrong_row_is_noticed():
    v = Values()
    with pytest.raises(AssertionError):
        check("", 1.0, our_value("", "renyi_entropy(K)", v), "equal")
    with pytest.raises(AssertionError):
        check("", shannon(shares(v.K)), our_value("", "renyi_entropy(K)", v), "no: it is equal")
