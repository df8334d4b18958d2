"""Arbitrary input to every public function: the right number, NaN for what is not finite, or an error of ours.

Every example has a seed of its own, so that a failure is repeated by its number. The default run is bounded;
``python -m pytest -m slow tests/test_fuzz.py`` draws a hundred times as many.
"""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import oracles
import oracles_losses as losses
import pytest
import torch
from contract_cases import ALL_CASES, fixed
from tolerances import entropy_tolerance

import matinfo
from matinfo import Gram

EXAMPLES, MANY = 20, 400
SCALES = (*(0,) * 6, -5, 5, -20, 19, -39, 30, 38, -45, 150, -155, 300, -300, -320)
ORDERS = (0.0, 0.3, 0.5, 0.9, 1.0, 1 + 1e-9, 1.5, 2.0, 3.0, 7.0, 64.0, 1000.0, math.inf)
FLOATS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


# --- the quantities, and what they are by definition -------------------------------------------------------------


def entropies(*terms):
    """A quantity that is a sum of entropies, each with its coefficient."""
    return terms


def joint(*Ks):
    out = Ks[0]
    for K in Ks[1:]:
        out = mp.matrix([[out[i, j] * K[i, j] for j in range(K.cols)] for i in range(K.rows)])
    return out


def over_trace(K):
    total = mp.fsum(K[i, i] for i in range(K.rows))
    return K / total if total else None


def of_pairs(K, L):
    K, L = over_trace(K), over_trace(L)
    return (
        None if K is None or L is None else entropies((1, (K + L) / 2), (mp.mpf(-0.5), K), (mp.mpf(-0.5), L))
    )


def of_spectra(K, L):
    """Of the sorted eigenvalues alone, as diagonal matrices."""
    spectra = [sorted(max(x, mp.mpf(0)) for x in mp.eigsy(K, eigvals_only=True)) for K in (K, L)]
    return of_pairs(*map(mp.diag, spectra))


def of_permutations(K, L):
    """Joint entropies in the two orders of the samples that a generator of seed 0 gives, less that of the pairs."""
    random = torch.Generator().manual_seed(0)
    orders = [torch.randperm(K.rows, generator=random).tolist() for _ in range(2)]
    shuffled = [mp.matrix([[L[i, j] for j in order] for i in order]) for order in orders]
    return entropies(*((mp.mpf(0.5), joint(K, M)) for M in shuffled), (-1, joint(K, L)))


INFORMATION = {
    "renyi_entropy": (1, lambda K: entropies((1, K))),
    "joint_entropy": (2, lambda K, L: entropies((1, joint(K, L)))),
    "conditional_entropy": (2, lambda K, L: entropies((1, joint(K, L)), (-1, L))),
    "mutual_information": (2, lambda K, L: entropies((1, K), (1, L), (-1, joint(K, L)))),
    "conditional_mutual_information": (
        3,
        lambda K, L, M: entropies((1, joint(K, M)), (1, joint(L, M)), (-1, joint(K, L, M)), (-1, M)),
    ),
    "total_correlation": (3, lambda K, L, M: entropies((1, K), (1, L), (1, M), (-1, joint(K, L, M)))),
    "dual_total_correlation": (
        3,
        lambda K, L, M: entropies((1, joint(L, M)), (1, joint(K, M)), (1, joint(K, L)), (-2, joint(K, L, M))),
    ),
    "dime": (2, of_permutations),
    "dib_loss": (2, lambda K, L: entropies((1, K), (1, L), (-1, joint(K, L)))),
    "effective_rank": (1, lambda K: entropies((1, K))),
    "vendi_score": (1, lambda K: entropies((1, K))),
}
WITHOUT_ORDER = {
    "von_neumann_entropy": (1, 1.0, lambda K: entropies((1, K))),
    "participation_ratio": (1, 2.0, lambda K: entropies((1, K))),
    "matrix_js": (2, 1.0, of_pairs),
    "spectrum_js": (2, 1.0, of_spectra),
}
# The same divided by a number made of other sums.
SHARES = {
    "normalized_mutual_information": (
        *INFORMATION["mutual_information"],
        lambda K, L: (entropies((1, K)), entropies((1, L))),
        min,
    ),
    "normalized_total_correlation": (
        *INFORMATION["total_correlation"],
        lambda *Ks: tuple(entropies((1, K)) for K in Ks),
        lambda found: mp.fsum(found) - max(found),
    ),
    "normalized_dual_total_correlation": (
        *INFORMATION["dual_total_correlation"],
        lambda *Ks: (entropies((1, joint(*Ks))),),
        max,
    ),
}
EXPONENTIAL = ("effective_rank", "vendi_score", "participation_ratio")


def labels_of(Z):
    return np.arange(len(Z)) % 3


def constant(*shape):
    return losses.exact(fixed(np.empty(0), shape))


def views_of(Z):
    return [Z, Z[:, ::-1]]


def with_noise(Z, scale, weight):
    """``weight log det(I + scale Z Z^T)``, and by how much more it is if the Gram matrix is rounded in float64."""
    lam = losses.eigenvalues(Z @ Z.T if len(Z) < Z.shape[1] else Z.T @ Z) * scale
    value = mp.fsum(mp.log(1 + x) for x in lam) * weight
    cut = mp.mpf(2) ** -48 * max(lam)
    # An eigenvalue within the noise may be seen as anything up to it.
    noise = mp.fsum(mp.log1p(cut) if x < cut else mp.log1p(cut / (1 + x)) for x in lam)
    return value, value, noise * weight


def reduction(Z):
    parts = [Z[labels_of(Z) == j] for j in range(min(3, len(Z)))]
    rates = [with_noise(F, mp.mpf(4 * F.shape[1]) / len(F), 0.5 * len(F) / len(Z)) for F in (Z, *parts)]
    whole, sizes, noises = zip(*rates, strict=True)
    return 2 * whole[0] - sum(whole), sum(sizes), sum(noises)


def wmse(Z1, Z2):
    if len(Z1) < 2:
        return None
    condition = max(losses.whiten(Z, 0.1)[1] for Z in (Z1, Z2))
    sizes = [np.abs(Z).max() for Z in (Z1, Z2)]
    noise = condition * max(1, *sizes) * 1e-12
    subnormal = any(0 < size < 1e-290 for size in sizes)
    return ... if subnormal or noise > 1e-3 else (losses.wmse(Z1, Z2, shrinkage=0.1), mp.mpf(4), noise)


LOSS_ORACLES = {
    "rankme": lambda Z: losses.rankme(Z) if (Z != 0).any() else None,
    "rate_reduction": reduction,
    "sigreg_loss": losses.sigreg,
    "bhep_loss": lambda Z: losses.bhep(Z, beta=0.5),
    "simdino_loss": lambda Z: losses.simdino(views_of(Z), constant(2, *Z.shape)[:1]),
    "mmcr_loss": lambda Z: losses.mmcr(views_of(Z)),
    "corinfomax_loss": lambda a, b: losses.corinfomax(a, b, *[2 * losses.identity(a.shape[1])] * 2),
    "wmse_loss": wmse,
    "gram_volume": lambda Z: losses.gram_volumes(*views_of(Z)).sum(),
    # The square of a sine is one less that of a cosine, which leaves half the digits of a small one.
    "gram_loss": lambda a, b: (losses.gram(a, b), mp.mpf(1), mp.mpf(1e-7)),
    "tcr": lambda Z: with_noise(Z, 1.0, 1.0),
    "coding_rate": lambda Z: with_noise(Z, mp.mpf(4 * Z.shape[1]) / len(Z), 0.5),
    "mmae_tcr_loss": losses.mmae_tcr,
    "umae_uniformity_loss": losses.umae_uniformity,
    "vne_loss": losses.vne,
    "barlow_twins_loss": losses.barlow_twins,
    "vicreg_loss": lambda a, b: losses.vicreg(a, b) if len(a) > 1 else None,
    "infonce_loss": losses.infonce,
    "ntxent_loss": losses.ntxent,
    "spectral_contrastive_loss": losses.spectral_contrastive,
    "byol_loss": lambda a, b: losses.byol(a, b, a, b),
    "simsiam_loss": lambda a, b: losses.simsiam(a, b, a, b),
    "dino_loss": lambda S: losses.dino(np.stack([S, S]), constant(2, *S.shape), constant(S.shape[1])),
    "swav_loss": losses.swav,
    "deepcluster_loss": lambda S: losses.deepcluster(S, np.arange(len(S)) % S.shape[1]),
    "mcr2_loss": lambda Z: losses.mcr2(Z, labels_of(Z)),
    "emp_ssl_loss": lambda Z: losses.emp_ssl(views_of(Z)),
    "mec_loss": lambda a, b: losses.mec(a, b) + losses.mec(b, a),
    "matrix_ssl_loss": lambda a, b: losses.matrix_ssl(a, b) + losses.matrix_ssl(b, a),
    "sphere_entropy": lambda Z: losses.sphere_entropy(Z) if Z.shape[1] > 1 else None,
    "sphere_reconstruction": lambda a, b: losses.sphere_reconstruction(a, b) if a.shape[1] > 1 else None,
    "er_loss": losses.er,
    "mask_infonce_loss": lambda Z: losses.mask_infonce(views_of(Z)),
    "masked_reconstruction_loss": lambda p, t: (
        losses.masked_reconstruction(p, t, h)
        if t.shape[1] > 1 and (h := fixed(np.empty(0), (1, len(p)))[0] > 0).any()
        else None
    ),
    "gaussian_nll": losses.gaussian_nll,
    "club_loss": losses.club,
}
# The lowest power of ten of which a loss cannot be computed without overflow, as documented.
NOT_SCALE_FREE = {
    "vicreg_loss",
    "swav_loss",
    "deepcluster_loss",
    "dino_loss",
    "masked_reconstruction_loss",
    "gaussian_nll",
    "club_loss",
    "corinfomax_loss",
}
# Where the case of the contract is a sum of several, or not a number.
ALONE = {
    "club_loss": matinfo.losses.club_loss,
    "sigreg_loss": lambda Z: matinfo.losses.sigreg_loss(Z, form="limit"),
    "gram_volume": lambda Z: ALL_CASES["gram_volume"](Z).sum(),
}


# --- inputs ------------------------------------------------------------------------------------------------------


class Draw:
    """Random choices of one example."""

    def __init__(self, *key):
        self.rng = np.random.default_rng(
            [sum(map(ord, str(part))) if isinstance(part, str) else part for part in key]
        )

    def one_of(self, choices):
        return list(choices)[self.rng.integers(len(choices))]

    def chance(self, share):
        return self.rng.random() < share

    def size(self):
        return int(self.one_of((0, 1, 1, 2, 3, 3, 4, 4)))

    def rows(self, n, d):
        """Features in float64: generic, of low rank, equal, one-hot, sparse, or zero."""
        kind = self.one_of(
            ("generic", "generic", "generic", "low rank", "equal", "one-hot", "sparse", "zero")
        )
        Z = self.rng.standard_normal((n, d))
        if n == 0 or d == 0:
            return Z
        if kind == "low rank":
            Z = np.outer(self.rng.standard_normal(n), self.rng.standard_normal(d))
        elif kind == "equal":
            Z = np.repeat(Z[:1], n, 0)
        elif kind == "one-hot":
            Z = np.eye(d)[self.rng.integers(d, size=n)]
        elif kind == "sparse":
            Z = Z * (self.rng.random((n, d)) < 0.4)
        elif kind == "zero":
            Z = 0.0 * Z
        return Z

    def scaled(self, x):
        with np.errstate(over="ignore", under="ignore"):
            return x * 10.0 ** self.one_of(SCALES)

    def layout(self, x):
        """The same numbers in another order of memory."""
        kind = self.one_of(("plain", "plain", "transposed", "strided", "expanded", "reversed"))
        if isinstance(x, np.ndarray):
            return {
                "transposed": lambda: np.asfortranarray(x),
                "strided": lambda: np.stack([x, x], -1)[..., 0],
                "reversed": lambda: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
                "expanded": lambda: np.broadcast_to(x, x.shape),
            }.get(kind, lambda: x)()
        return {
            "transposed": lambda: x.mT.contiguous().mT,
            "strided": lambda: torch.stack([x, x], -1)[..., 0],
            "expanded": lambda: (
                x[:1].expand(x.shape) if len(x) and torch.equal(x, x[:1].expand(x.shape)) else x
            ),
        }.get(kind, lambda: x)()

    def converted(self, x, numpy):
        """In the framework and a dtype, mixed more often than not."""
        if numpy:
            with np.errstate(over="ignore"):
                x = x.astype(self.one_of((np.float64, np.float32, np.float16)))
            return self.layout(x)
        return self.layout(torch.as_tensor(x).to(FLOATS[self.one_of(FLOATS)]))

    def spoiled(self, arguments):
        """One argument in the wrong type, and what every error about it must start with."""
        index = self.rng.integers(len(arguments))
        x = arguments[index]
        wrong = {
            "list": lambda: np.asarray(x).tolist() if isinstance(x, np.ndarray) else x.double().tolist(),
            "none": lambda: None,
            "integers": lambda: x.astype(int) if isinstance(x, np.ndarray) else x.long(),
            "complex": lambda: x.astype(complex) if isinstance(x, np.ndarray) else x.to(torch.complex64),
            "cubed": lambda: x[None, None],
            "flat": lambda: x.reshape(-1),
            "masked": lambda: np.ma.masked_array(x, x > 0) if isinstance(x, np.ndarray) else x,
            "other shape": lambda: np.ones((7, 3)) if isinstance(x, np.ndarray) else torch.ones(7, 3),
        }
        with np.errstate(invalid="ignore"):
            return [*arguments[:index], wrong[self.one_of(wrong)](), *arguments[index + 1 :]]


def values_of(x):
    """The numbers of an array, a tensor or the features of a Gram in float64; exact, also of half precision."""
    if isinstance(x, Gram):
        x = x.terms[0][0]
    return np.asarray(x.detach().double() if isinstance(x, torch.Tensor) else x, dtype=np.float64)


def matrix_of(x):
    """What an operand stands for, exactly."""
    Z = oracles.to_mp(values_of(x))
    return Z * Z.T if isinstance(x, Gram) else Z


def finfo_of(x):
    dtype = x.given_dtype if isinstance(x, Gram) else x.dtype
    return np.finfo(dtype) if isinstance(dtype, np.dtype) else torch.finfo(dtype)


def precision_of(arguments, result):
    """Round-off of the coarsest argument: whatever was computed from it cannot be better."""
    of = [2.0**-52, 2.0**-23 if getattr(result, "dtype", None) == torch.float32 else 0.0]
    for x in arguments:
        finfo = finfo_of(x)
        smallest = float(getattr(finfo, "smallest_subnormal", None) or finfo.tiny * finfo.eps)
        largest = np.abs(values_of(x)).max(initial=0.0)
        # Subnormal numbers have been rounded by more than their dtype's unit; so have products of small features.
        of += [float(finfo.eps), smallest / largest if largest else 0.0]
        of.append(1e-12 if 0 < largest < 1e-290 else 0.0)
    return max(of)


def largest_of(result):
    """Beyond which its dtype has infinity alone."""
    return float(torch.finfo(result.dtype).max) if isinstance(result, torch.Tensor) else 1.7e308


def digits_of(arrays):
    """Digits of the oracle, so many that 1 is not lost beside the squares of the largest entries."""
    sizes = np.concatenate([np.abs(x).ravel() for x in arrays])
    sizes = sizes[sizes > 0]
    return oracles.DIGITS + 2 * int(np.abs(np.log10(sizes)).max(initial=0.0))


def call(function, arguments):
    """The result, or None for a refusal in our words; anything else fails."""
    try:
        return function(*arguments)
    except (ValueError, TypeError) as error:
        if not str(error).startswith("Expected"):
            pytest.fail(f"not a message of ours: {error!r}")
        return None


# --- quantities of matrices ----------------------------------------------------------------------------------------


def total_of(terms, order, eps):
    """Value and tolerance of a sum of entropies; None where one has no spectrum to normalise, or none that is sure."""
    value, tolerance = mp.mpf(0), 0.0
    for coefficient, K in terms:
        lam = [max(x, mp.mpf(0)) for x in mp.eigsy(K, eigvals_only=True)]
        top = max(lam)
        if top <= 0:
            return None
        lam = [x / top for x in lam]
        noise = 64 * K.rows * eps
        if noise > 0.1:  # subnormal numbers of a digit or none
            return None
        if order < 1 and any(mp.mpf(10) ** -40 < x < noise for x in lam):
            return None  # zero or not: at low orders that is the answer
        lam = [x if x >= noise or order >= 1 else mp.mpf(0) for x in lam]
        if not any(lam):
            return None
        value += coefficient * oracles.entropy_of_spectrum_mp(lam, order)
        if order > 0:
            tolerance += abs(coefficient) * entropy_tolerance(lam, order, eps=eps, noise=64)
        # The logarithm of a sum of large or small numbers is rounded as the large logarithm that it is.
        tolerance += float(abs(coefficient)) * 2.0**-50 * abs(float(mp.log(top)))
    return value, float(tolerance) + 64 * eps


def share_of(part, units, combine, order, eps):
    """A sum of entropies over what others combine to; None where that is within their noise."""
    found = [total_of(terms, order, eps) for terms in (part, *units)]
    if any(x is None for x in found):
        return None
    (value, tolerance), *others = found
    whole, noise = combine([x for x, _ in others]), max(x for _, x in others)
    if whole <= 20 * noise + 1e-6:
        return None
    share = value / whole
    return share, 1.2 * float((tolerance + len(others) * noise * abs(share)) / whole)


def relative_entropy(K, L, eps):
    """`tr[K (log K - log L)] - tr K + tr L` by eigenvectors; None where a direction may be there or not."""
    (lam, U), (mu, V) = mp.eigsy(K), mp.eigsy(L)
    traces = [mp.fsum(M[i, i] for i in range(M.rows)) for M in (K, L)]
    least = max(mp.mpf(1e-5), 64 * K.rows * eps)
    if any(mp.mpf(10) ** -40 * max(x) < abs(y) < least * max(x) for x in (lam, mu) for y in x):
        return None
    zero = [max(x) * mp.mpf(10) ** -40 for x in (lam, mu)]
    value = mp.fsum(x * mp.log(x) for x in lam if x > zero[0]) + traces[1] - traces[0]
    for x, i in zip(lam, range(K.rows), strict=True):
        for y, j in zip(mu, range(K.rows), strict=True):
            mass = x * mp.fsum(U[k, i] * V[k, j] for k in range(K.rows)) ** 2 if x > zero[0] else mp.mpf(0)
            if y > zero[1]:
                value -= mass * mp.log(y)
            elif mass > 1e-6 * traces[0]:
                return mp.inf, 0.0
            elif mass > mp.mpf(10) ** -30 * traces[0]:
                return None
    logs = [abs(mp.log(x)) for x in (*lam, *mu) if x > 0]
    size = traces[0] * (40 + max(logs, default=0) + 1 / least) + traces[1]
    return value, float(64 * K.rows * eps * size) + 1e-140


def sandwiched(K, L, order, eps):
    """`log tr[(n P^(1/a) o Q^(1/a))^a]/(a - 1)`; at infinity of the projectors on the ranges."""
    if order == 1:
        return total_of(INFORMATION["mutual_information"][1](K, L), 1.0, eps)
    n, least, powers = K.rows, mp.mpf(1), []
    s = mp.mpf(0) if order == math.inf else 1 / mp.mpf(order)
    for M in (over_trace(K), over_trace(L)):
        if M is None:
            return None
        lam, Q = mp.eigsy(M)
        if any(mp.mpf(10) ** -40 < abs(x) < 1e3 * n * eps for x in lam):
            return None
        lam = [x if x > mp.mpf(10) ** -40 else None for x in lam]
        least = min(least, *(x for x in lam if x is not None))
        powers.append(Q * mp.diag([mp.mpf(0) if x is None else x**s for x in lam]) * Q.T)
    lam = [max(x, mp.mpf(0)) for x in mp.eigsy(n * joint(*powers), eigvals_only=True)]
    top = max(lam)
    if top < 1e-6:
        return None
    if order == math.inf:
        value, factor = mp.log(top), mp.mpf(1)
    else:
        value = (order * mp.log(top) + mp.log(mp.fsum((x / top) ** order for x in lam))) / (order - mp.mpf(1))
        factor = order / abs(order - mp.mpf(1))
    return value, float(256 * n**2 * eps * (1 + s) * least ** min(s - 1, 0) * factor * (1 + 1 / top))


def centred_product(K, L):
    """`tr(K H L H)/(n - 1)^2`, and the sum of the sizes of what is added up."""
    n = K.rows
    H = mp.eye(n) - mp.ones(n) / n
    C = H * L * H
    sizes = [mp.sqrt(mp.fsum(x * x for x in M)) for M in (K, L)]
    value = mp.fsum(K[i, j] * C[j, i] for i in range(n) for j in range(n))
    return value / (n - 1) ** 2, 4 * sizes[0] * sizes[1] / (n - 1) ** 2


def bottleneck(K, L, M, eps):
    (first, size), (second, other) = centred_product(K, L), centred_product(L, M)
    return first - 100 * second, float(64 * K.rows * eps * (size + 100 * other)) + 1e-300


OTHERS = {
    "matrix_kl": (2, None, lambda Ks, order, eps: relative_entropy(*Ks, eps)),
    "sandwiched_mutual_information": (
        2,
        (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 7.0, 64.0, math.inf),
        lambda Ks, order, eps: sandwiched(*Ks, order, eps),
    ),
    "hsic_bottleneck_loss": (3, None, lambda Ks, order, eps: bottleneck(*Ks, eps)),
}


def check_information(name, draw):
    """A quantity that is a sum of entropies, a share of one, or has a definition of its own."""
    orders = OTHERS[name][1] if name in OTHERS else None if name in WITHOUT_ORDER else ORDERS
    order = draw.one_of(orders) if orders else WITHOUT_ORDER.get(name, (0, 1.0))[1]
    function = getattr(matinfo, name, None) or getattr(matinfo.losses, name)
    options = {} if orders is None else {"q" if name == "vendi_score" else "alpha": order}
    if name == "dime":
        options |= {"permutations": 2, "generator": torch.Generator().manual_seed(0)}
    count, terms = {**INFORMATION, **{k: v[::2] for k, v in WITHOUT_ORDER.items()}, **SHARES, **OTHERS}[name][
        :2
    ]
    n, numpy, gram = draw.size(), draw.chance(0.3), draw.chance(0.5)
    operands = []
    for _ in range(count):
        Z = draw.scaled(draw.rows(n, draw.size()))
        with np.errstate(over="ignore", invalid="ignore"):
            x = draw.converted(Z if gram else Z @ Z.T, numpy)
        operands.append(x)
    if draw.chance(0.15) and n:
        call(lambda *Ks: function(*Ks, **options), draw.spoiled(operands))
        return
    if gram:
        operands = [call(Gram, [x]) for x in operands]
        if any(x is None for x in operands):
            return  # empty
    result = call(lambda *Ks: function(*Ks, **options), operands)
    if n == 0:
        assert result is None
        return
    if not all(np.isfinite(values_of(x)).all() for x in operands):
        assert result is None or not math.isfinite(float(result))
        return
    Ks = [matrix_of(x) for x in operands]
    found = tuple((1, K) for K in (*Ks, joint(*Ks))) if name in OTHERS else terms(*Ks)
    eps = precision_of(operands, result)
    if result is None:  # only where there is no spectrum, or where rounding to half precision has spoiled it
        one = name == "hsic_bottleneck_loss" and n == 1
        assert one or found is None or any(zero_or_indefinite(K, operands) for _, K in found)
        return
    assert not math.isnan(float(result)), "NaN of finite input"
    if name in OTHERS:
        expected = OTHERS[name][2](Ks, order, eps)
    elif name in SHARES:
        expected = share_of(found, SHARES[name][2](*Ks), SHARES[name][3], order, eps)
    else:
        expected = None if found is None else total_of(found, order, eps)
    if expected is None:
        return
    value, tolerance = expected
    share = 1e-20 if name == "matrix_kl" else 0.99  # of which the terms are larger than their sum
    if math.isinf(float(result)) and abs(value) > share * largest_of(result):
        return  # as large as can be, or larger
    value = mp.exp(value) if name in EXPONENTIAL else value
    tolerance = tolerance * float(value) * math.exp(tolerance) if name in EXPONENTIAL else tolerance
    assert abs(float(result) - float(value)) <= tolerance, (float(result), float(value), tolerance, order)


def zero_or_indefinite(K, operands):
    """Whether there is nothing to normalise, or a negative eigenvalue beyond the rounding of the operands' dtypes.

    Subnormal numbers are coarser than their dtype: then an operand is indefinite by itself, whatever the other is.
    """
    coarsest = max(float(finfo_of(x).eps) for x in operands)
    matrices = [(K, coarsest), *((matrix_of(x), float(finfo_of(x).eps)) for x in operands)]
    for matrix, rounding in matrices:
        lam = mp.eigsy(matrix, eigvals_only=True)
        if max(lam) <= 0 or min(lam) < -rounding * matrix.rows * max(lam) / 4:
            return True
    return False


def check_losses(name, draw):
    case, oracle, count = ALONE.get(name, ALL_CASES[name]), LOSS_ORACLES[name], ALL_CASES[name].arguments
    n, d, numpy = draw.size(), draw.size(), draw.chance(0.3)
    first = draw.rows(n, d)
    features = [first, *(first if draw.chance(0.2) else draw.rows(n, d) for _ in range(count - 1))]
    arguments = [draw.converted(draw.scaled(Z), numpy) for Z in features]
    if draw.chance(0.15) and n and d:
        call(case, draw.spoiled(arguments))
        return
    result = call(case, arguments)
    if n == 0 or d == 0:
        assert result is None
        return
    exact = [values_of(x) for x in arguments]
    if not all(np.isfinite(x).all() for x in exact):
        return
    with mp.workdps(digits_of(exact)):
        expected = oracle(*map(losses.exact, exact))
    if result is None:
        assert expected is None or expected is ...
        return
    if expected is ...:
        assert not math.isnan(float(result)), "NaN of finite input"
        return
    expected, terms, *noise = expected if isinstance(expected, tuple) else (expected, abs(expected))
    value = float(result)
    assert not math.isnan(value), "NaN of finite input"
    largest = largest_of(result)
    if name in NOT_SCALE_FREE and (terms > largest / 1e4 or not math.isfinite(value)):
        assert terms > largest / 1e9
        return
    working = 2.0**-23 if isinstance(result, torch.Tensor) and result.dtype == torch.float32 else 2.0**-52
    # Sums of numbers of both signs: round-off relative to the terms, which the largest score or weight bounds.
    size = 1 + float(terms) + (max(float(np.abs(x).max()) for x in exact) / 0.04 if name in SCORES else 0.0)
    tolerance = 4e3 * working * size * WEIGHT.get(name, 1.0) + float(sum(noise))
    assert abs(value - float(expected)) <= tolerance, (value, float(expected), tolerance)


SCORES = ("dino_loss", "swav_loss", "deepcluster_loss")
WEIGHT = {"emp_ssl_loss": 200.0, "sphere_entropy": 10.0, "er_loss": 10.0, "vicreg_loss": 25.0}


CHECKS = {
    **dict.fromkeys((*INFORMATION, *WITHOUT_ORDER, *SHARES, *OTHERS), check_information),
    **dict.fromkeys(LOSS_ORACLES, check_losses),
}


@pytest.mark.parametrize("name", CHECKS)
def test_function_of_arbitrary_input_is_right_or_refuses(name):
    for seed in range(EXAMPLES):
        CHECKS[name](name, Draw(name, seed))


@pytest.mark.slow
@pytest.mark.parametrize("share", range(4))
@pytest.mark.parametrize("name", CHECKS)
def test_function_of_much_arbitrary_input_is_right_or_refuses(name, share):
    for seed in range(EXAMPLES + share, MANY, 4):
        CHECKS[name](name, Draw(name, seed))


@pytest.mark.parametrize("name", ["renyi_entropy", "mutual_information", "matrix_js"])
def test_fuzz_notices_a_quantity_that_is_slightly_wrong(name, monkeypatch):
    right = getattr(matinfo, name)
    monkeypatch.setattr(matinfo, name, lambda *args, **kwargs: right(*args, **kwargs) + 1e-3)
    with pytest.raises(AssertionError):
        test_function_of_arbitrary_input_is_right_or_refuses(name)


@pytest.mark.parametrize("name", ["barlow_twins_loss", "vne_loss", "mec_loss", "gaussian_nll"])
def test_fuzz_notices_a_definition_that_is_slightly_different(name, monkeypatch):
    oracle = LOSS_ORACLES[name]

    monkeypatch.setitem(LOSS_ORACLES, name, lambda *arguments: oracle(*arguments) * mp.mpf("1.01"))
    with pytest.raises(AssertionError):
        test_function_of_arbitrary_input_is_right_or_refuses(name)


@pytest.mark.parametrize("wrong", [math.nan, RuntimeError("size mismatch"), AttributeError("no attribute")])
def test_fuzz_notices_nan_and_exceptions_that_are_not_ours(wrong, monkeypatch):
    def broken(K, alpha):
        if isinstance(wrong, Exception):
            raise wrong
        return torch.tensor(wrong)

    monkeypatch.setattr(matinfo, "renyi_entropy", broken)
    with pytest.raises((AssertionError, RuntimeError, AttributeError)):
        test_function_of_arbitrary_input_is_right_or_refuses("renyi_entropy")
