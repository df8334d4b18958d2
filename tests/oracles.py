"""Naive definitions of every quantity, written from the formulas alone.

Two kinds of oracle live here. Those that end in ``_mp`` work in 50-digit arithmetic (mpmath) and are the truth.
The others are plain float64 NumPy loops for quantities that need no more digits (losses, kernels).
Nothing here imports the package, and nothing here is clever: a definition is copied out as it stands.

Equation numbers are those of Tan et al., "Information Flow in Self-Supervised Learning" (ICML 2024), unless a
line names another source. Natural logarithm throughout. Samples are rows.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np

DIGITS = 50
mp.mp.dps = DIGITS


# --- spectra -------------------------------------------------------------------------------------------------


def to_mp(array) -> mp.matrix:
    """An exact mpmath copy of a float matrix."""
    return mp.matrix([[mp.mpf(float(x)) for x in row] for row in np.asarray(array)])


def eigenvalues_mp(K, *, zero: float = 0.0) -> list:
    """Ascending eigenvalues of a symmetric matrix; those below ``zero * lambda_max`` are set to exactly 0.

    ``zero`` is for matrices that are singular by design but were rounded to float64 on the way here.
    """
    lam = sorted(mp.eigsy(to_mp(K), eigvals_only=True))
    cut = mp.mpf(zero) * max(lam)
    return [x if x > cut else mp.mpf(0) for x in lam]


def probabilities_mp(lam) -> list:
    """A spectrum divided by its sum: `p = eig(K) / tr K`."""
    lam = [mp.mpf(float(x)) if not isinstance(x, mp.mpf) else x for x in lam]
    total = mp.fsum(lam)
    return [x / total for x in lam]


def entropy_of_spectrum_mp(lam, alpha=1.0):
    """Rényi entropy of a spectrum, Def. 3.1, with its four limits (Hartley, Shannon, collision, minimum)."""
    p = [x for x in probabilities_mp(lam) if x > 0]
    if alpha == 0:
        return mp.log(len(p))
    if alpha == 1:
        return -mp.fsum(x * mp.log(x) for x in p)
    if mp.isinf(alpha):
        return -mp.log(max(p))
    a = mp.mpf(alpha)
    return mp.log(mp.fsum(x**a for x in p)) / (1 - a)


def entropy_gradient_of_spectrum_mp(lam, alpha=1.0) -> list:
    """dH_alpha/dlambda_i of a strictly positive, un-normalised spectrum, the trace term included.

    Def. 3.1 written as `H = (log sum lambda^a - a log sum lambda) / (1 - a)` and differentiated by hand.
    """
    lam = [mp.mpf(x) for x in lam]
    trace = mp.fsum(lam)
    if alpha == 1:
        entropy = entropy_of_spectrum_mp(lam, 1)
        return [-(mp.log(x / trace) + entropy) / trace for x in lam]
    a = mp.mpf(alpha)
    power_sum = mp.fsum(x**a for x in lam)
    return [a / (1 - a) * (x ** (a - 1) / power_sum - 1 / trace) for x in lam]


def entropy_hessian_product(lam, Q, alpha, E):
    """Directional derivative of the gradient of H_alpha at Q diag(lam) Q^T, all in mpmath scalars.

    H is a symmetric function of the spectrum, so the derivative of its gradient along E is
    Q [diag(H'' e) + (g_i - g_j)/(l_i - l_j) o E'] Q^T, E' = Q^T E Q, e = diag E'; at l_i = l_j the quotient is the
    derivative of the common function (Daleckii-Krein).
    """
    lam = [mp.mpf(float(x)) for x in lam]
    n, trace, a = len(lam), mp.fsum(lam), mp.mpf(alpha)
    gradient = entropy_gradient_of_spectrum_mp(lam, alpha)
    rotated = Q.T @ E @ Q
    out = np.zeros((n, n))
    if alpha == 1:
        common = [-1 / (x * trace) for x in lam]
        entropy = entropy_of_spectrum_mp(lam, 1)

        def cross(i, j):  # d g_i / d l_j without the i = j term `common`
            p = lambda k: mp.log(lam[k] / trace)  # noqa: E731
            return (1 + p(i) + entropy) / trace**2 + (p(j) + entropy) / trace**2
    else:
        power = mp.fsum(x**a for x in lam)
        common = [a * x ** (a - 2) * -1 / power for x in lam]  # a/(1-a) (a-1) l^(a-2) / S

        def cross(i, j):
            return a / (1 - a) * (1 / trace**2 - a * (lam[i] * lam[j]) ** (a - 1) / power**2)

    for i in range(n):
        for j in range(n):
            if i == j:
                total = common[i] * rotated[i, i] + mp.fsum(cross(i, k) * rotated[k, k] for k in range(n))
                out[i, i] = float(total)
            elif lam[i] == lam[j]:
                out[i, j] = float(common[i]) * rotated[i, j]
            else:
                out[i, j] = float((gradient[i] - gradient[j]) / (lam[i] - lam[j])) * rotated[i, j]
    return Q @ out @ Q.T


# --- entropy and information ---------------------------------------------------------------------------------


def renyi_entropy_mp(K, alpha=1.0, *, zero: float = 0.0):
    """Matrix Rényi entropy `1/(1-a) log tr((K/tr K)^a)`, Def. 3.1."""
    return entropy_of_spectrum_mp(eigenvalues_mp(K, zero=zero), alpha)


def hadamard(*Ks) -> np.ndarray:
    """Entrywise product in float64 (the operand of Def. 3.3)."""
    out = np.asarray(Ks[0], dtype=np.float64)
    for K in Ks[1:]:
        out = out * np.asarray(K, dtype=np.float64)
    return out


def joint_entropy_mp(*Ks, alpha=1.0, zero: float = 0.0):
    """`H_a(K_1 o ... o K_m)`, Def. 3.3."""
    return renyi_entropy_mp(hadamard(*Ks), alpha, zero=zero)


def conditional_entropy_mp(K1, K2, alpha=1.0):
    """`H_a(K1 | K2) = H_a(K1, K2) - H_a(K2)` (Sanchez Giraldo et al. 2014)."""
    return joint_entropy_mp(K1, K2, alpha=alpha) - renyi_entropy_mp(K2, alpha)


def mutual_information_mp(K1, K2, alpha=1.0, *, zero: float = 0.0):
    """`I_a = H_a(K1) + H_a(K2) - H_a(K1 o K2)`, Def. 3.2."""
    marginals = renyi_entropy_mp(K1, alpha, zero=zero) + renyi_entropy_mp(K2, alpha, zero=zero)
    return marginals - joint_entropy_mp(K1, K2, alpha=alpha, zero=zero)


def total_correlation_mp(*Ks, alpha=1.0):
    """`sum_i H_a(K_i) - H_a(K_1 o ... o K_m)` (Yu et al. 2019)."""
    return mp.fsum(renyi_entropy_mp(K, alpha) for K in Ks) - joint_entropy_mp(*Ks, alpha=alpha)


# --- divergences ---------------------------------------------------------------------------------------------


def _log_matrix_mp(K):
    lam, Q = mp.eigsy(to_mp(K))
    if min(lam) <= 0:
        raise ValueError("the logarithm needs a positive definite matrix")
    return Q * mp.diag([mp.log(x) for x in lam]) * Q.T


def _trace_mp(A):
    return mp.fsum(A[i, i] for i in range(A.rows))


def matrix_kl_mp(K1, K2):
    """`tr[K1 (log K1 - log K2)] - tr K1 + tr K2`, positive definite: Def. 4.9 in the general form of Bach (2022)."""
    A, B = to_mp(K1), to_mp(K2)
    return _trace_mp(A * (_log_matrix_mp(K1) - _log_matrix_mp(K2))) - _trace_mp(A) + _trace_mp(B)


def matrix_js_mp(K1, K2):
    """`H_1((A+B)/2) - (H_1(A) + H_1(B))/2` with A, B the trace-normalised arguments, Def. C.2."""
    A, B = to_mp(K1), to_mp(K2)
    A, B = A / _trace_mp(A), B / _trace_mp(B)
    entropies = [
        entropy_of_spectrum_mp([max(x, mp.mpf(0)) for x in mp.eigsy(M, eigvals_only=True)])
        for M in (A, B, (A + B) / 2)
    ]
    return entropies[2] - (entropies[0] + entropies[1]) / 2


def spectrum_js_mp(K1, K2):
    """Classical Jensen-Shannon divergence of the two sorted normalised spectra, App. C.3."""
    p, q = (sorted(probabilities_mp(eigenvalues_mp(K))) for K in (K1, K2))
    middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return entropy_of_spectrum_mp(middle) - (entropy_of_spectrum_mp(p) + entropy_of_spectrum_mp(q)) / 2


# --- coding rates --------------------------------------------------------------------------------------------


def matrix_tcr_mp(K, mu=1.0):
    """`log det(mu I + K)`, Def. 4.8 for a matrix, by the LU determinant."""
    K = to_mp(K)
    return mp.log(mp.det(K + mp.mpf(mu) * mp.eye(K.rows)))


def tcr_mp(Z, mu=1.0):
    """`log det(mu I_d + Z^T Z)`, Def. 4.8 with samples as rows."""
    Z = to_mp(Z)
    return mp.log(mp.det(mp.mpf(mu) * mp.eye(Z.cols) + Z.T * Z))


def coding_rate_mp(Z, eps=0.5):
    """`1/2 log det(I + d/(n eps^2) Z^T Z)` (Yu et al. 2020, Eq. 1)."""
    Z = to_mp(Z)
    scale = mp.mpf(Z.cols) / (Z.rows * mp.mpf(eps) ** 2)
    return mp.log(mp.det(mp.eye(Z.cols) + scale * (Z.T * Z))) / 2


def rate_reduction_mp(Z, memberships, eps=0.5):
    """`R - R_c` for memberships (n, k) in [0, 1] (Yu et al. 2020, Eqs. 1, 2 and 4).

    `R_c = sum_j tr(Pi_j)/(2n) log det(I + d/(tr(Pi_j) eps^2) Z^T Pi_j Z)`.
    """
    W, A = np.asarray(memberships, dtype=np.float64), to_mp(Z)
    n, d = A.rows, A.cols
    compressed = mp.mpf(0)
    for column in W.T:
        mass = mp.fsum(mp.mpf(float(w)) for w in column)
        if mass == 0:
            continue
        weighted = A.T * mp.diag([mp.mpf(float(w)) for w in column]) * A
        scale = mp.mpf(d) / (mass * mp.mpf(eps) ** 2)
        compressed += mass / (2 * n) * mp.log(mp.det(mp.eye(d) + scale * weighted))
    return coding_rate_mp(Z, eps) - compressed


# --- ranks ---------------------------------------------------------------------------------------------------


def effective_rank_mp(K, alpha=1.0, *, zero: float = 0.0):
    """`exp(H_a)` of a PSD matrix, whose singular values are its eigenvalues (Def. 5.1, Roy & Vetterli 2007)."""
    return mp.exp(renyi_entropy_mp(K, alpha, zero=zero))


def rankme_mp(Z, *, zero: float = 0.0):
    """`exp(H(sigma / sum sigma))`, sigma the singular values of the features (Def. 5.1; Garrido et al. 2023)."""
    Z = np.asarray(Z)
    gram = to_mp(Z).T * to_mp(Z) if Z.shape[0] >= Z.shape[1] else to_mp(Z) * to_mp(Z).T
    lam = mp.eigsy(gram, eigvals_only=True)
    cut = mp.mpf(zero) * max(lam)
    return mp.exp(entropy_of_spectrum_mp([mp.sqrt(x) if x > cut else mp.mpf(0) for x in lam]))


# --- matrices built from features ----------------------------------------------------------------------------


def correlation(Z, *, center: bool = False) -> np.ndarray:
    """d x d matrix of the l2-normalised columns, section 3.2; a zero column has diagonal 1 and zeros beside it."""
    Z = np.asarray(Z, dtype=np.float64)
    n, d = Z.shape
    columns = [[float(Z[i, j]) for i in range(n)] for j in range(d)]
    if center:
        columns = [[x - sum(c) / n for x in c] for c in columns]
    out = np.eye(d)
    for j in range(d):
        for k in range(d):
            norms = np.sqrt(sum(x * x for x in columns[j])) * np.sqrt(sum(x * x for x in columns[k]))
            if j != k:
                out[j, k] = (
                    sum(x * y for x, y in zip(columns[j], columns[k], strict=True)) / norms
                    if norms > 0
                    else 0.0
                )
    return out


def kernel_matrix(function, X, Y=None) -> np.ndarray:
    """The matrix of `function(x_i, y_j)`, one pair at a time."""
    X = np.asarray(X, dtype=np.float64)
    Y = X if Y is None else np.asarray(Y, dtype=np.float64)
    return np.array([[function(x, y) for y in Y] for x in X])


def median_distance(X) -> float:
    """Median Euclidean distance over the n(n-1)/2 distinct pairs."""
    X = np.asarray(X, dtype=np.float64)
    n = len(X)
    return float(np.median([np.sqrt(((X[i] - X[j]) ** 2).sum()) for i in range(n) for j in range(i)]))


def unit_rows(F) -> np.ndarray:
    """Rows divided by their Euclidean norm; zero rows stay zero."""
    F = np.asarray(F, dtype=np.float64)
    norms = np.sqrt((F**2).sum(axis=1, keepdims=True))
    return np.divide(F, norms, out=np.zeros_like(F), where=norms > 0)
