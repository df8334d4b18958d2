"""The peers: installed packages behind one signature, and published formulas in plain PyTorch.

Adapters only bring the input into the form that the peer expects (a density matrix, a NumPy array) and call it.
Formulas of papers and of released training code are written here the way their authors compute them, slow steps
included: that is what a user of them runs.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PLAIN = "torch eigvalsh"
PLAIN64 = "torch eigvalsh in float64"
BARE = "bare function"
REPITL = "repitl"
VENDI = "vendi-score"
PENNYLANE = "PennyLane"
QUTIP = "QuTiP"

_MODULES = {
    REPITL: "repitl.matrix_itl",
    VENDI: "vendi_score.vendi",
    PENNYLANE: "pennylane.math",
    QUTIP: "qutip",
}
_REMEDIES = {
    REPITL: "its wheel holds no module: check out its repository and name it with --peer-path",
    VENDI: "pip install vendi-score",
    PENNYLANE: "pip install pennylane",
    QUTIP: "pip install qutip",
}


class Peers:
    """The installed packages.

    Attributes:
        modules: Name to module, for those that import.
        missing: Name to a line that says why a peer is left out.
    """

    def __init__(self, paths: tuple[str, ...] = ()) -> None:
        for path in paths:
            root = Path(path).resolve()
            sys.path += [str(folder) for folder in (root / "src", root) if folder.is_dir()]
        self.modules: dict[str, Any] = {}
        self.missing: dict[str, str] = {}
        for name, module in _MODULES.items():
            try:
                self.modules[name] = importlib.import_module(module)
            except Exception as error:  # a broken installation must not stop the others
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                self.missing[name] = f"{name} skipped: {reason} ({_REMEDIES[name]})"

    @classmethod
    def none(cls) -> Peers:
        """Plain PyTorch alone."""
        peers = cls.__new__(cls)
        peers.modules, peers.missing = {}, {}
        return peers

    def entropies(self, alpha: float, n: int, *, gradient: bool) -> dict[str, Callable[[Tensor], Any]]:
        """Functions of a unit-diagonal matrix of order n that give its entropy of order alpha, in nats."""
        found: dict[str, Callable[[Tensor], Any]] = {
            PLAIN: lambda K: plain_entropy(K, alpha),
            PLAIN64: lambda K: plain_entropy(K.double(), alpha),
            BARE: lambda K: bare_entropy(K, alpha),
        }
        if REPITL in self.modules:
            found[REPITL] = lambda K: self.modules[REPITL].matrixAlphaEntropy(K, alpha)
        if PENNYLANE in self.modules and alpha == 1 and n & (n - 1) == 0:  # qubits: powers of two
            found[PENNYLANE] = self._pennylane_entropy
        if not gradient and VENDI in self.modules:
            found[VENDI] = lambda K: self._vendi_entropy(K, alpha)
        if not gradient and QUTIP in self.modules and alpha == 1:
            found[QUTIP] = self._qutip_entropy
        return found

    def _vendi_entropy(self, K: Tensor, alpha: float) -> float:
        unit_mean_diagonal = (K * (K.shape[-1] / K.trace())).numpy()
        return math.log(self.modules[VENDI].score_K(unit_mean_diagonal, q=alpha))

    def _pennylane_entropy(self, K: Tensor) -> Tensor:
        qubits = K.shape[-1].bit_length() - 1
        return self.modules[PENNYLANE].vn_entropy(K / K.trace(), indices=list(range(qubits)))

    def _qutip_entropy(self, K: Tensor) -> float:
        density = (K / K.trace()).numpy()
        return self.modules[QUTIP].entropy_vn(self.modules[QUTIP].Qobj(density))


# --- what a careful user writes in a few lines -------------------------------------------------------------------


def entropy_of_eigenvalues(eigenvalues: Tensor, alpha: float) -> Tensor:
    """Negative ones cut off, and the textbook formula."""
    p = eigenvalues.clamp_min(torch.finfo(eigenvalues.dtype).tiny)
    p = p / p.sum(-1, keepdim=True)
    return -(p * p.log()).sum(-1) if alpha == 1 else p.pow(alpha).sum(-1).log() / (1 - alpha)


def plain_entropy(K: Tensor, alpha: float) -> Tensor:
    """Of the eigenvalues, and of nothing else."""
    return entropy_of_eigenvalues(torch.linalg.eigvalsh(K), alpha)


def entropy_by_eigh(K: Tensor) -> Tensor:
    """Order one with the eigenvectors in the forward pass, as users of ``torch.linalg.eigh`` have it; summed."""
    return entropy_of_eigenvalues(torch.linalg.eigh(K)[0], 1.0).sum()


def bare_entropy(K: Tensor, alpha: float) -> Tensor:
    """The least that a function with the right derivative does: nothing is checked, nothing is guarded."""
    return _Bare.apply(K, alpha)


class _Bare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, K: Tensor, alpha: float) -> Tensor:
        eigenvalues, Q = torch.linalg.eigh(K)
        p = eigenvalues.clamp_min(torch.finfo(K.dtype).tiny)
        total = p.sum()
        p = p / total
        value = entropy_of_eigenvalues(p, alpha)
        ctx.save_for_backward(p, Q, value, total)
        ctx.alpha = alpha
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        p, Q, value, total = ctx.saved_tensors
        e = ctx.alpha - 1
        deviation = p.log() + value
        h = deviation if e == 0 else ctx.alpha / e * torch.expm1(e * deviation)
        return (Q * (h * (-grad / total))) @ Q.mT, None


def norm_entropy(K: Tensor) -> Tensor:
    """Order two without eigenvalues."""
    return 2 * K.trace().log() - K.square().sum().log()


def normalised_norm_entropy(K: Tensor) -> Tensor:
    """Order two as repitl has it: a matrix divided by its trace, and its Frobenius norm."""
    return -torch.linalg.norm(K / K.trace(), ord="fro").square().log()


def eigh_entropy(K: Tensor) -> Tensor:
    """Order one: eigenvalues of the matrix divided by its trace, negative ones cut off, ``-p log p``."""
    return torch.special.entr(torch.linalg.eigvalsh(K / K.trace()).clamp_min(0.0)).sum()


def product_entropy(K: Tensor) -> Tensor:
    """Order three by one matrix product."""
    return (3 * K.trace().log() - ((K @ K) * K).sum().log()) / 2


def eigenvalue_tcr(K: Tensor, mu: float = 1.0) -> Tensor:
    """``log det(mu I + K)`` from eigenvalues."""
    return (torch.linalg.eigvalsh(K) + mu).log().sum()


def slogdet_tcr(K: Tensor, mu: float = 1.0) -> Tensor:
    """The same by LU."""
    return torch.linalg.slogdet(K + mu * torch.eye(K.shape[-1], dtype=K.dtype, device=K.device))[1]


def cholesky_tcr_of(Z: Tensor, mu: float = 1.0) -> Tensor:
    """``log det(mu I + Z^T Z)`` of features, nothing but a product and a Cholesky factorisation."""
    A = Z.mT @ Z
    A.diagonal().add_(mu)
    return 2 * torch.linalg.cholesky(A).diagonal().log().sum()


def cholesky_tcr(K: Tensor, mu: float = 1.0) -> Tensor:
    """The same by Cholesky, differentiated by PyTorch."""
    A = K + mu * torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    return 2 * torch.linalg.cholesky(A).diagonal().log().sum()


# --- formulas of papers and released code ------------------------------------------------------------------------


def released_mmae_loss(features: Tensor, mu: float = 1.0) -> Tensor:
    """M-MAE's regulariser: rows to length one, a d x d second moment, LU log-determinant of ``I + mu/d F^T F``."""
    F = torch.nn.functional.normalize(features)
    d = F.shape[1]
    return -torch.logdet(torch.eye(d, dtype=F.dtype, device=F.device) + mu / d * (F.mT @ F))


def mcr2_rate_reduction(features: Tensor, labels: Tensor, eps: float = 0.5) -> Tensor:
    """MCR²: rate of all features less the weighted rates of the classes, each a d x d LU log-determinant."""
    n, d = features.shape
    identity = torch.eye(d, dtype=features.dtype, device=features.device)
    rate = torch.logdet(identity + d / (n * eps**2) * (features.mT @ features)) / 2
    for label in labels.unique():
        members = features[labels == label]
        count = members.shape[0]
        inside = torch.logdet(identity + d / (count * eps**2) * (members.mT @ members))
        rate = rate - count / (2 * n) * inside
    return rate


def diff_erank_recipe(hidden: Tensor, *, vectors: bool = True) -> Tensor:
    """Effective rank of one sentence ``(tokens, width)``: centred, scaled rows; SVD of the width x width matrix."""
    Z = torch.nn.functional.normalize(hidden - hidden.mean(0))
    A = Z.mT @ Z / Z.shape[0]
    A = A / A.trace()
    sigma = torch.linalg.svd(A, full_matrices=False)[1] if vectors else torch.linalg.svdvals(A)
    return (-(sigma * sigma.log()).nansum()).exp()
