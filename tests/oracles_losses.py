"""Naive definitions of the losses in 50-digit arithmetic: object arrays of mpmath numbers, one formula after the other.

As `oracles.py`: nothing here imports the package, and nothing is clever. Samples are rows; equations are named in the
docstrings of the package. Settings have the names and the defaults of the package, which the tests compare.
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


def barlow_twins(Z1, Z2, *, lambda_=5.1e-3, center=True):
    A, B = (Z - mean(Z, 0) if center else Z for Z in (Z1, Z2))
    C = unit(A.T) @ unit(B.T).T
    return ((1 - np.diag(C)) ** 2).sum() + lambda_ * (off_diagonal(C) ** 2).sum()


def vicreg(Z1, Z2, *, invariance=25.0, variance=25.0, covariance=1.0, form="paper"):
    def spread(Z):
        U = Z - mean(Z, 0)
        C = U.T @ U / (len(Z) - 1)
        hinges = [max(mp.mpf(0), 1 - mp.sqrt(c + mp.mpf(1e-4))) for c in np.diag(C)]
        halved = 2 if form == "code" else 1
        return (variance * sum(hinges) / halved + covariance * (off_diagonal(C) ** 2).sum()) / len(C)

    return invariance * mean((Z1 - Z2) ** 2) + spread(Z1) + spread(Z2)


def infonce(Z1, Z2, *, temperature=1.0, reduction="mean"):
    C = unit(Z1) @ unit(Z2).T / mp.mpf(temperature)
    terms = -np.r_[np.diag(log_softmax(C)), np.diag(log_softmax(C.T))]
    return mean(terms) if reduction == "mean" else terms.sum()


def ntxent(Z1, Z2, *, temperature=0.5, reduction="mean"):
    n = len(Z1)
    rows = unit(np.r_[Z1, Z2])
    C = rows @ rows.T / mp.mpf(temperature)
    total = mp.mpf(0)
    for i in range(2 * n):
        others = np.delete(C[i], i)
        total += mp.log(exp(others).sum()) - C[i, (i + n) % (2 * n)]
    return total / (2 * n) if reduction == "mean" else total


def spectral_contrastive(Z1, Z2, *, lambda_=1.0):
    a, b = unit(Z1), unit(Z2)
    return ((a - b) ** 2).sum() + lambda_ * (off_diagonal(a @ b.T) ** 2).sum()


def byol(p1, p2, t1, t2):
    p1, p2, t1, t2 = map(unit, (p1, p2, t1, t2))
    return 4 - 2 * mean((p1 * t2).sum(1) + (p2 * t1).sum(1))


def simsiam(*rows):
    return (byol(*rows) - 4) / 4


def dino(students, teachers, center, *, student_temperature=0.1, teacher_temperature=0.04):
    log_q = log_softmax(students / mp.mpf(student_temperature))
    p = exp(log_softmax((teachers - center) / mp.mpf(teacher_temperature)))
    pairs = [-mean((p[t] * log_q[v]).sum(-1)) for t in range(len(p)) for v in range(len(log_q)) if t != v]
    return sum(pairs) / len(pairs)


def sinkhorn(S, *, epsilon=0.05, iterations=3):
    Q = exp((S - S.max()) / mp.mpf(epsilon))
    for _ in range(iterations):
        Q = Q / Q.sum(0)
        Q = Q / Q.sum(1, keepdims=True)
    return Q


def swav(S1, S2, *, temperature=0.1, epsilon=0.05, iterations=3, queue1=None, queue2=None):
    terms = []
    for own, other, queue in ((S1, S2, queue1), (S2, S1, queue2)):
        pool = own if queue is None else np.r_[own, exact(queue)]
        codes = sinkhorn(pool, epsilon=epsilon, iterations=iterations)[: len(own)]
        terms.append(-mean((codes * log_softmax(other / mp.mpf(temperature))).sum(1)))
    return sum(terms) / 2


def deepcluster(S, assignments, *, temperature=0.1):
    """Of one head, or the mean of several; -1 is no assignment."""
    heads = []
    for rows, labels in zip(S if S.ndim == 3 else [S], np.atleast_2d(assignments), strict=True):
        log_p = log_softmax(rows / mp.mpf(temperature))
        terms = [-row[a] for row, a in zip(log_p, labels, strict=True) if a >= 0]
        heads.append(sum(terms) / len(terms) if terms else mp.mpf(0))
    return sum(heads) / len(heads)


def mcr2(Z, labels, *, eps2=0.5):
    """Of labels, or of memberships (n, k)."""
    F, n = unit(Z), len(Z)
    W = exact(labels) if labels.ndim == 2 else exact(labels[:, None] == np.unique(labels))
    parts = [m / n * rate(root(w * n / m)[:, None] * F, eps2) for w in W.T if (m := w.sum())]
    return sum(parts) - rate(F, eps2)


def emp_ssl(views, *, eps2=0.2, invariance=200.0):
    F = [unit(Z) for Z in views]
    middle = unit(sum(F) / len(F))
    cosines = [mean((Z * middle).sum(1)) for Z in F]
    return -(invariance * sum(cosines) + sum(rate(Z, eps2) for Z in F)) / len(F)


def continued_log_det(S, ridge):
    """The logarithm is continued by its tangent below a hundredth of the ridge."""
    floor = ridge / 100
    x = eigenvalues(S) + ridge
    return sum(mp.log(v) if v >= floor else mp.log(floor) + (v - floor) / floor for v in x)


def taylor_log(Q, order):
    """The logarithm's series around the identity, cut."""
    X, power, total = Q - identity(len(Q)), identity(len(Q)), 0 * Q
    for k in range(1, order + 1):
        power = power @ X
        total = total + (-1) ** (k + 1) * power / k
    return total


def mec(Z1, Z2, *, eps2=64.0, scale="code", taylor=None):
    n, d = Z1.shape
    lambda_ = mp.mpf(d) / (n * mp.mpf(eps2))
    C = lambda_ * (unit(Z1) @ unit(Z2).T)
    if taylor is None:
        value = continued_log_det((C + C.T) / 2, mp.mpf(1))
    else:
        value = np.trace(taylor_log(identity(n) + C, taylor))
    return -value / (lambda_ * n) if scale == "code" else -value * mp.mpf(n + d) / (2 * n)


def matrix_log(S):
    values, Q = mp.eigsy(mp.matrix(S.tolist()))
    return np.array((Q * mp.diag([mp.log(x) for x in values]) * Q.T).tolist(), dtype=object)


def matrix_ssl(Z1, Z2, *, gamma=1.0, lambda_=0.5, mu=0.5, form="code", taylor=None):
    n, d = Z1.shape
    A, B = (Z - mean(Z, 0) for Z in (unit(Z1), unit(Z2)))
    mu = mp.mpf(mu)
    C = A.T @ B / n
    Q, P = (Z.T @ Z / n + mu * identity(d) for Z in (A, B))
    if taylor is None:
        log_trace, log_Q = continued_log_det((C + C.T) / 2, mu), matrix_log(Q)
    else:
        log_trace, log_Q = np.trace(taylor_log(C + mu * identity(d), taylor)), taylor_log(Q, taylor)
    alignment = -np.trace(P @ log_Q)
    if form == "code":
        return -mp.mpf(lambda_) * log_trace + gamma * alignment
    uniformity = -(mp.mpf(1) / d + mu) * log_trace + np.trace(C) + d * mu
    return uniformity + gamma * (alignment + np.trace(Q))


def vne(Z):
    F = unit(Z)
    return -entropy(F @ F.T) if (F != 0).any() else mp.mpf(0)


def vmf_log_constant(d, kappa):
    half, kappa = mp.mpf(d) / 2, mp.mpf(kappa)
    bessel = mp.besseli(half - 1, kappa, maxterms=10**6)
    return (half - 1) * mp.log(kappa) - half * mp.log(2 * mp.pi) - mp.log(bessel)


def sphere_entropy(Z, *, kappa=10.0, reduction="average"):
    F = unit(Z)
    densities = mean(exp(mp.mpf(kappa) * (F @ F.T)), 1) * mp.exp(vmf_log_constant(Z.shape[1], kappa))
    if reduction == "average":
        return -mean(log(densities))
    return -(densities / densities.sum() * log(densities)).sum()


def sphere_reconstruction(Z1, Z2, *, kappa=10.0):
    return -mp.mpf(kappa) * mean((unit(Z1) * unit(Z2)).sum(1)) - vmf_log_constant(Z1.shape[1], kappa)


def er(Z1, Z2, *, kappa=10.0, reduction="average"):
    entropy_ = sphere_entropy(Z2, kappa=kappa, reduction=reduction)
    return sphere_reconstruction(Z1, Z2, kappa=kappa) - entropy_


def discrete_er(p, q, *, reduction="expectation", eps=1e-7):
    eps = mp.mpf(eps)
    reconstruction = -mean((p * log(q + eps) + q * log(p + eps)).sum(1)) / 2
    usage = [mean(x, 0) for x in (p, q)]
    weights = [u if reduction == "expectation" else mp.mpf(1) / len(u) for u in usage]
    return reconstruction + sum((w * log(u + eps)).sum() for w, u in zip(weights, usage, strict=True)) / 2


def mask_infonce(views, *, temperature=0.1):
    pairs = [(i, j) for i in range(len(views)) for j in range(i)]
    return sum(infonce(views[i], views[j], temperature=temperature) for i, j in pairs) / len(pairs)


def patch_normalize(target):
    U = target - mean(target, -1)[..., None]
    return U / root((U * U).sum(-1) / (target.shape[-1] - 1) + mp.mpf(1e-6))[..., None]


def masked_reconstruction(pred, target, mask, *, norm_pix=True):
    goal = patch_normalize(target) if norm_pix else target
    return mean(((pred - goal) ** 2)[mask.astype(bool)])


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


def sigreg(Z, form="limit"):
    """`B sqrt(2 pi) (mean_bc M(|z_b - z_c|^2/2) - sqrt(2) mean_b M(|z_b|^2/4) + 1/sqrt(3))`."""
    d = Z.shape[1]

    def M(x):
        return mp.exp(-x) if d == 1 else mp.hyp1f1(mp.mpf(1) / 2, mp.mpf(d) / 2, -x)

    pairs = mean(np.array([M(((a - b) ** 2).sum() / 2) for a in Z for b in Z]))
    own = mean(np.array([M((a * a).sum() / 4) for a in Z]))
    return len(Z) * mp.sqrt(2 * mp.pi) * (pairs - mp.sqrt(2) * own + 1 / mp.sqrt(3))


def bhep(Z, *, beta=0.1):
    b, d = mp.mpf(beta) ** 2, mp.mpf(Z.shape[1])
    pairs = mean(np.array([mp.exp(-b / 2 * ((x - y) ** 2).sum()) for x in Z for y in Z]))
    own = mean(np.array([mp.exp(-b / (2 + 2 * b) * (x * x).sum()) for x in Z]))
    return pairs - 2 * (1 + b) ** (-d / 2) * own + (1 + 2 * b) ** (-d / 2)


def simdino(students, teachers, *, eps2=0.5, gamma=1.0):
    (s, w), (n, d) = ([unit(Z) for Z in views] for views in (students, teachers)), students[0].shape
    cosines = [mean((s[v] * w[k]).sum(1)) for k in range(len(w)) for v in range(len(s)) if v != k]
    rates = [rate(s[v], eps2) for v in range(len(w))]
    return -sum(cosines) / len(cosines) - gamma * mp.mpf(n + d) / (n * d) * sum(rates) / len(rates)


def singular_values(Z):
    lam = eigenvalues(Z @ Z.T if len(Z) < Z.shape[1] else Z.T @ Z)
    return root(np.where(lam > 0, lam, mp.mpf(0)))


def mmcr(views, *, lambda_=0.0):
    F = [unit(Z) for Z in views]
    own = [singular_values(np.stack(rows)).sum() for rows in zip(*F, strict=True)] if lambda_ else [0]
    return lambda_ * sum(own) / len(own) - singular_values(sum(F) / len(F)).sum()


def corinfomax(Z1, Z2, R1, R2, *, invariance=1.0, covariance=1.0, eps=1e-8):
    d = Z1.shape[1]
    volumes = [log_det(R + mp.mpf(eps) * identity(d)) / d for R in (R1, R2)]
    return invariance * mean((Z1 - Z2) ** 2) - covariance * sum(volumes)


def whiten(Z, shrinkage):
    """Rows times the inverse of the covariance's Cholesky factor, and the covariance's condition number."""
    U, shrinkage = Z - mean(Z, 0), mp.mpf(shrinkage)
    C = (1 - shrinkage) * (U.T @ U) / (len(Z) - 1) + shrinkage * identity(Z.shape[1])
    inverse = mp.inverse(mp.cholesky(mp.matrix(C.tolist())))
    lam = eigenvalues(C)
    return U @ np.array(inverse.T.tolist(), dtype=object), max(lam) / min(lam)


def wmse(Z1, Z2, *, shrinkage=0.0, normalize=True, together=False):
    groups = [np.r_[Z1, Z2]] if together else [Z1, Z2]
    white = np.concatenate([whiten(Z, shrinkage)[0] for Z in groups])
    A, B = white[: len(Z1)], white[len(Z1) :]
    return 2 - 2 * mean((unit(A) * unit(B)).sum(1)) if normalize else mean((A - B) ** 2)


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


def umae_uniformity(Z, *, form="code"):
    F = unit(Z)
    squares = (F @ F.T) ** 2
    return mean(squares) if form == "code" else off_diagonal(squares).sum()


def mmae_tcr(Z, *, mu=1.0, scale="code", centering=False):
    F, (n, d), mu = unit(Z), Z.shape, mp.mpf(mu)
    F = F - mean(F, 0) if centering else F
    K = F @ F.T if n < d else F.T @ F
    printed = d * mp.log(mu) if scale == "paper" else 0
    return -log_det(identity(len(K)) + K * (mu / d if scale == "code" else 1 / mu)) - printed
