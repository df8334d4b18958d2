"""Arbitrary input: every call returns a value in its range, or NaN for non-finite input, or a documented exception.

Run with HYPOTHESIS_PROFILE=thorough for thousands of examples of each function.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from contract_cases import ALL_CASES, MATRIX_CASES
from hypothesis import given
from hypothesis import strategies as st

from matinfo import Gram, renyi_entropy

SPECIAL = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    1e-300,
    -1e-300,
    1e300,
    1e-38,
    1e38,
    1e19,
    1e-23,
    math.nan,
    math.inf,
    -math.inf,
)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@st.composite
def arrays(draw, square):
    """A float64 array of random shape filled with ordinary or special numbers, often symmetric or a Gram matrix."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 5))
    d = n if square and draw(st.integers(0, 9)) else draw(st.integers(0, 5))
    shape = (*draw(st.sampled_from([(), (), (), (2,), (0,), (1, 2)])), n, d)
    kind = draw(st.sampled_from(["gram", "gram", "symmetric", "general", "special", "sparse", "constant"]))
    x = rng.standard_normal(shape)
    if kind == "special":
        x = rng.choice(SPECIAL, shape)
    elif kind == "sparse":
        x = x * (rng.random(shape) < 0.3)
    elif kind == "constant":
        x = np.full(shape, rng.choice(SPECIAL))
    if square and n == d and kind != "general":
        x = x @ np.swapaxes(x, -1, -2) if kind in ("gram", "sparse") else (x + np.swapaxes(x, -1, -2)) / 2
    return x * 10.0 ** draw(st.sampled_from([0, 0, 0, -5, 5, -30, 30]))


@st.composite
def arguments(draw, name):
    """Arguments for one case: tensors, arrays or Grams, of one shape more often than not."""
    case, square = ALL_CASES[name], name in MATRIX_CASES
    dtype = draw(st.sampled_from(DTYPES))
    wrap = draw(st.sampled_from(["tensor", "tensor", "numpy", "gram"]))
    first = draw(arrays(square))
    others = (
        first[..., ::-1, ::-1].copy() if draw(st.booleans()) else draw(arrays(square))
        for _ in range(case.arguments - 1)
    )
    out = [first, *others]
    if wrap == "numpy":
        return out
    tensors = [torch.as_tensor(x).to(dtype) for x in out]
    return [lambda x=x: Gram(x) for x in tensors] if wrap == "gram" and square else tensors


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("name", ALL_CASES)
@given(data=st.data())
def test_function_of_arbitrary_input_returns_a_value_or_a_documented_exception(name, data):
    given_arguments = data.draw(arguments(name))
    try:
        values = [x() if callable(x) else x for x in given_arguments]
        result = np.asarray(ALL_CASES[name](*values), dtype=np.float64)
    except (ValueError, TypeError) as error:
        if not str(error).startswith("Expected"):
            pytest.fail(f"not a message of ours: {error!r}")
        return
    data_of = [x.terms[0][0] if isinstance(x, Gram) else torch.as_tensor(x) for x in values]
    finite = all(bool(x.isfinite().all()) for x in data_of)
    largest = max((float(x.double().abs().max()) for x in data_of if x.numel()), default=0.0)
    if finite and largest < 1e100:  # squares of larger numbers need not exist
        assert not np.isnan(result).any(), "NaN for finite input"
    if name.startswith(("renyi", "von_neumann", "joint", "matrix_js", "spectrum_js")):
        n = max(x.shape[-1] if isinstance(x, Gram) else x.shape[-2] for x in values)
        assert (result[~np.isnan(result)] >= -1e-3).all()
        assert (result[~np.isnan(result)] <= math.log(max(n, 2)) + 1e-3).all()


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_renyi_entropy_of_any_order_is_in_range_or_refused(alpha, n, seed):
    Z = np.random.default_rng(seed).standard_normal((n, n))
    try:
        value = float(renyi_entropy(torch.as_tensor(Z @ Z.T), alpha))
    except ValueError:
        if math.isnan(alpha) or alpha < 0:
            return
        raise
    assert -1e-9 <= value <= math.log(n) + 1e-9
