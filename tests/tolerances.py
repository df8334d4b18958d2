"""Error bounds derived from dtype and conditioning, so that no test carries an arbitrary tolerance.

A symmetric eigensolver is backward stable: its eigenvalues are those of a matrix that differs by a small multiple of
`eps * lambda_max`. A value may therefore differ from the truth by as much as the quantity itself moves when every
eigenvalue moves by that much in the worst direction. Nothing beyond that is forgiven.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np
import oracles
import pytest

EPS64 = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)

# Eigenvalue errors in units of eps * lambda_max: below 12 for healthy spectra, and n is small here.
NOISE = 16


def entropy_tolerance(lam, alpha, *, eps=EPS64, noise=NOISE) -> float:
    """Worst movement of H_alpha when each eigenvalue moves by `noise * eps * lambda_max`, plus result rounding.

    `eps` is the working precision of the solver; rounding of the result itself is the caller's to add.
    """
    p = oracles.probabilities_mp([max(mp.mpf(float(x)), mp.mpf(0)) for x in lam])
    value = oracles.entropy_of_spectrum_mp(p, alpha)
    rounding = 8 * eps * (1 + float(value))
    delta = noise * mp.mpf(eps) * max(p)
    if alpha == 0:
        return rounding
    if np.isinf(alpha):
        return float(delta / max(p) + len(p) * delta) + rounding
    gradient = oracles.entropy_gradient_of_spectrum_mp([max(x, delta) for x in p], alpha)
    moves = []
    for sign in (1, -1):
        moved = [max(x + sign * delta * mp.sign(g), mp.mpf(0)) for x, g in zip(p, gradient, strict=True)]
        moves.append(abs(oracles.entropy_of_spectrum_mp(moved, alpha) - value))
    return float(max(moves)) + rounding


def approx(expected, *, rel=None, abs=0.0):
    """`pytest.approx` without its hidden absolute tolerance of 1e-12, which passes anything small."""
    return pytest.approx(expected, rel=rel, abs=abs)


def close(actual, expected, tolerance, what="") -> None:
    """Assert |actual - expected| <= tolerance with a message that shows all three; NaN never passes."""
    actual, expected = (float(x.detach() if hasattr(x, "detach") else x) for x in (actual, expected))
    error = abs(actual - expected)
    message = f"{what}: got {actual!r}, expected {expected!r}, error {error:.3e} > {float(tolerance):.3e}"
    assert error <= tolerance, message


def relative_error(actual, expected) -> float:
    """Frobenius-norm relative error of two arrays."""
    actual, expected = (
        np.asarray(x.detach() if hasattr(x, "detach") else x, dtype=np.float64) for x in (actual, expected)
    )
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
