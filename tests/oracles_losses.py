"""Naive definitions of the losses in 50-digit arithmetic: object arrays of mpmath numbers, one formula after the other.

As `oracles.py`: nothing here imports the package, and nothing is clever. Samples are rows; equations are named in the
docstrings of the package.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np

exact = np.vectorize(lambda x: mp.mpf(float(x)), otypes=[object])
exp, log, root = (np.vectorize(f, otypes=[object]) for f in (mp.exp, mp.log, mp.sqrt))


def mean(x, axis=None):
    return x.sum(axis) / mp.mpf(x.size if axis is None else x.shape[axis])


def unit(Z):
    """Rows of length one; zero rows stay zero."""
    lengths = root((Z * Z).sum(1))
    return Z / np.where(lengths == 0, mp.mpf(1), lengths)[:, None]


def centred_unit_columns(Z):
    return unit((Z - mean(Z, 0)).T).T


def off_diagonal(C):
    return C * (1 - np.eye(len(C), dtype=int))


def log_softmax(S):
    S = S - S.max(-1, keepdims=True)
    return S - log(exp(S).sum(-1, keepdims=True))


def eigenvalues(S):
    return np.array(list(mp.eigsy(mp.matrix(S.tolist()), eigvals_only=True)), dtype=object)


def log_det(S):
    """Of a positive definite matrix, by its eigenvalues."""
    return log(eigenvalues(S)).sum()


def identity(n):
    return exact(np.eye(n))


def rate(F, eps2):
    """`1/2 log det(I + d/(n eps2) F^T F)` on the smaller side."""
    n, d = F.shape
    K = F @ F.T if n < d else F.T @ F
    return log_det(identity(len(K)) + mp.mpf(d) / (n * mp.mpf(eps2)) * K) / 2


def entropy(K):
    """Von Neumann entropy of a positive semi-definite matrix."""
    p = eigenvalues(K)
    p = p / p.sum()
    return -mp.fsum(x * mp.log(x) for x in p if x > mp.mpf(10) ** -40)


def barlow_twins(Z1, Z2, lambda_=5.1e-3):
    C = centred_unit_columns(Z1).T @ centred_unit_columns(Z2)
    return ((1 - np.diag(C)) ** 2).sum() + lambda_ * (off_diagonal(C) ** 2).sum()


def vicreg(Z1, Z2):
    def spread(Z):
        U = Z - mean(Z, 0)
        C = U.T @ U / (len(Z) - 1)
        hinges = [max(mp.mpf(0), 1 - mp.sqrt(c + mp.mpf(1e-4))) for c in np.diag(C)]
        return 25 * sum(hinges) / len(C) + (off_diagonal(C) ** 2).sum() / len(C)

    return 25 * mean((Z1 - Z2) ** 2) + spread(Z1) + spread(Z2)


def infonce(Z1, Z2, temperature=1.0):
    C = unit(Z1) @ unit(Z2).T / mp.mpf(temperature)
    return -mean(np.r_[np.diag(log_softmax(C)), np.diag(log_softmax(C.T))])


def ntxent(Z1, Z2):
    n = len(Z1)
    rows = unit(np.r_[Z1, Z2])
    C = rows @ rows.T * 2
    total = mp.mpf(0)
    for i in range(2 * n):
        others = np.delete(C[i], i)
        total += mp.log(exp(others).sum()) - C[i, (i + n) % (2 * n)]
    return total / (2 * n)


def spectral_contrastive(Z1, Z2):
    a, b = unit(Z1), unit(Z2)
    return ((a - b) ** 2).sum() + (off_diagonal(a @ b.T) ** 2).sum()


def byol(p1, p2, t1, t2):
    p1, p2, t1, t2 = map(unit, (p1, p2, t1, t2))
    return 4 - 2 * mean((p1 * t2).sum(1) + (p2 * t1).sum(1))


def dino(students, teachers, center):
    log_q = log_softmax(students / mp.mpf(0.1))
    p = exp(log_softmax((teachers - center) / mp.mpf(0.04)))
    pairs = [-mean((p[t] * log_q[v]).sum(-1)) for t in range(len(p)) for v in range(len(log_q)) if t != v]
    return sum(pairs) / len(pairs)


def sinkhorn(S, epsilon=0.05):
    Q = exp((S - S.max()) / mp.mpf(epsilon))
    for _ in range(3):
        Q = Q / Q.sum(0)
        Q = Q / Q.sum(1, keepdims=True)
    return Q


def swav(S1, S2):
    terms = [-mean((sinkhorn(own) * log_softmax(other * 10)).sum(1)) for own, other in ((S1, S2), (S2, S1))]
    return sum(terms) / 2


def deepcluster(S, assignments):
    return -mean(np.array([row[a] for row, a in zip(log_softmax(S * 10), assignments, strict=True)]))


def mcr2(Z, labels):
    F = unit(Z)
    parts = [mp.mpf(int((labels == j).sum())) / len(F) * rate(F[labels == j], 0.5) for j in set(labels)]
    return sum(parts) - rate(F, 0.5)


def emp_ssl(views):
    F = [unit(Z) for Z in views]
    middle = unit(sum(F) / len(F))
    cosines = [mean((Z * middle).sum(1)) for Z in F]
    return (-200 * sum(cosines) - sum(rate(Z, 0.2) for Z in F)) / len(F)


def continued_log_det(S, ridge):
    """The logarithm is continued by its tangent below a hundredth of the ridge."""
    floor = ridge / 100
    x = eigenvalues(S) + ridge
    return sum(mp.log(v) if v >= floor else mp.log(floor) + (v - floor) / floor for v in x)


def mec(Z1, Z2):
    n, d = Z1.shape
    lambda_ = mp.mpf(d) / (n * 64)
    C = lambda_ * (unit(Z1) @ unit(Z2).T)
    return -continued_log_det((C + C.T) / 2, mp.mpf(1)) / (lambda_ * n)


def matrix_log(S):
    values, Q = mp.eigsy(mp.matrix(S.tolist()))
    return np.array((Q * mp.diag([mp.log(x) for x in values]) * Q.T).tolist(), dtype=object)


def matrix_ssl(Z1, Z2):
    n, d = Z1.shape
    A, B = (Z - mean(Z, 0) for Z in (unit(Z1), unit(Z2)))
    half = mp.mpf(0.5)
    C = A.T @ B / n
    Q, P = (Z.T @ Z / n + half * identity(d) for Z in (A, B))
    return -half * continued_log_det((C + C.T) / 2, half) - np.trace(P @ matrix_log(Q))


def vne(Z):
    F = unit(Z)
    return -entropy(F @ F.T) if (F != 0).any() else mp.mpf(0)


def vmf_log_constant(d, kappa=10):
    return (
        (mp.mpf(d) / 2 - 1) * mp.log(kappa)
        - mp.mpf(d) / 2 * mp.log(2 * mp.pi)
        - mp.log(mp.besseli(mp.mpf(d) / 2 - 1, kappa))
    )


def sphere_entropy(Z, kappa=10):
    F = unit(Z)
    densities = log(mean(exp(kappa * (F @ F.T)), 1)) + vmf_log_constant(Z.shape[1])
    return -mean(densities)


def sphere_reconstruction(Z1, Z2, kappa=10):
    return -kappa * mean((unit(Z1) * unit(Z2)).sum(1)) - vmf_log_constant(Z1.shape[1])


def er(Z1, Z2):
    F = unit(Z2)
    densities = log(mean(exp(10 * (F @ F.T)), 1))
    return -10 * mean((unit(Z1) * F).sum(1)) + mean(densities)


def mask_infonce(views):
    pairs = [(i, j) for i in range(len(views)) for j in range(i)]
    return sum(infonce(views[i], views[j], 0.1) for i, j in pairs) / len(pairs)


def patch_normalize(target):
    U = target - mean(target, 1)[:, None]
    return U / root((U * U).sum(1) / (target.shape[1] - 1) + mp.mpf(1e-6))[:, None]


def masked_reconstruction(pred, target, hidden):
    return mean(((pred - patch_normalize(target)) ** 2)[hidden])


def gaussian_nll(m, s, h):
    return mean(((h - m) ** 2 * exp(-s) + s + mp.log(2 * mp.pi)).sum(1)) / 2


def club(m, s, h):
    """With the size of its terms, which have both signs."""
    total = size = mp.mpf(0)
    for i in range(len(h)):
        negative = sum(((h[j] - m[i]) ** 2 * exp(-s[i])).sum() for j in range(len(h))) / len(h)
        positive = ((h[i] - m[i]) ** 2 * exp(-s[i])).sum()
        total, size = total + negative - positive, size + negative + positive
    return total / (2 * len(h)), size / (2 * len(h))


def sigreg_limit(Z):
    """`B sqrt(2 pi) (mean_bc M(|z_b - z_c|^2/2) - sqrt(2) mean_b M(|z_b|^2/4) + 1/sqrt(3))`."""
    d = Z.shape[1]

    def M(x):
        return mp.exp(-x) if d == 1 else mp.hyp1f1(mp.mpf(1) / 2, mp.mpf(d) / 2, -x)

    pairs = mean(np.array([M(((a - b) ** 2).sum() / 2) for a in Z for b in Z]))
    own = mean(np.array([M((a * a).sum() / 4) for a in Z]))
    return len(Z) * mp.sqrt(2 * mp.pi) * (pairs - mp.sqrt(2) * own + 1 / mp.sqrt(3))


def bhep(Z, beta):
    b, d = mp.mpf(beta) ** 2, mp.mpf(Z.shape[1])
    pairs = mean(np.array([mp.exp(-b / 2 * ((x - y) ** 2).sum()) for x in Z for y in Z]))
    own = mean(np.array([mp.exp(-b / (2 + 2 * b) * (x * x).sum()) for x in Z]))
    return pairs - 2 * (1 + b) ** (-d / 2) * own + (1 + 2 * b) ** (-d / 2)


def simdino(first, second, teacher):
    """Of two views of the student, the first of which is the teacher's."""
    F, (n, d) = unit(first), first.shape
    return -mean((unit(second) * unit(teacher)).sum(1)) - mp.mpf(n + d) / (n * d) * rate(F, 0.5)


def singular_values(Z):
    lam = eigenvalues(Z @ Z.T if len(Z) < Z.shape[1] else Z.T @ Z)
    return root(np.where(lam > 0, lam, mp.mpf(0)))


def mmcr(views):
    return -singular_values(sum(map(unit, views)) / len(views)).sum()


def corinfomax(Z1, Z2, volume):
    """With `volume` the mean log-eigenvalue of both covariances plus the ridge."""
    return mean((Z1 - Z2) ** 2) - 2 * volume


def wmse(Z1, Z2, shrinkage):
    """With the largest condition number of a covariance."""
    whitened, conditions = [], []
    for Z in (Z1, Z2):
        U = Z - mean(Z, 0)
        C = (1 - mp.mpf(shrinkage)) * (U.T @ U) / (len(Z) - 1) + mp.mpf(shrinkage) * identity(Z.shape[1])
        inverse = mp.inverse(mp.cholesky(mp.matrix(C.tolist())))
        whitened.append(U @ np.array(inverse.T.tolist(), dtype=object))
        conditions.append(max(eigenvalues(C)) / min(eigenvalues(C)))
    return 2 - 2 * mean((unit(whitened[0]) * unit(whitened[1])).sum(1)), max(conditions)


def gram_volumes(Z1, Z2):
    """`sqrt(det(V V^T))` of two vectors a sample."""
    A, B = unit(Z1), unit(Z2)
    squares = (A * A).sum(1) * (B * B).sum(1) - (A * B).sum(1) ** 2
    return root(np.where(squares > 0, squares, mp.mpf(0)))


def gram(anchors, others, smoothing=0.1):
    n = len(anchors)
    S = np.array([gram_volumes(np.repeat(anchors[i : i + 1], n, 0), others) for i in range(n)])
    S = np.where((unit(anchors) ** 2).sum(1)[:, None] > 0, S, (unit(others) ** 2).sum(1))
    terms = []
    for scores in (-S, -S.T):
        log_p = log_softmax(scores)
        terms.append(-(1 - mp.mpf(smoothing)) * mean(np.diag(log_p)) - mp.mpf(smoothing) * mean(log_p))
    return sum(terms) / 2


def rankme(Z):
    s = singular_values(Z)
    p = s / s.sum()
    return mp.exp(-mp.fsum(x * mp.log(x) for x in p if x > 0))


def umae(Z):
    F = unit(Z)
    return mean((F @ F.T) ** 2)


def mmae(Z):
    F = unit(Z)
    n, d = F.shape
    K = F @ F.T if n < d else F.T @ F
    return -log_det(identity(len(K)) + K / mp.mpf(d))
