"""The scalar functions behind the spectral routes, against 50 digits: value, derivative, divided difference of it."""

import mpmath as mp
import pytest
import torch
from helpers import t
from tolerances import EPS64

from matinfo.spectral.functions import ContinuedLog, LogShift, Power, Tsallis

ROUNDING = 1e-13
"""A few hundred roundings."""

ORDERS = [0.25, 0.5, 0.999, 1.0, 1.0 + 1e-9, 1.5, 2.0, 3.0, 5.0]
POINTS = [1e-12, 3e-7, 0.02, 0.3, 0.31, 0.9, 1.0]
RATIOS = [1.0 + 2**-40, 1.0 + 1e-6, 1.5, 2.9, 3.1, 40.0, 1e9]


def tsallis(alpha):
    e = mp.mpf(alpha) - 1

    def value(x):
        if x == 0:
            return mp.mpf(0)
        return x * mp.log(x) if e == 0 else (x ** mp.mpf(alpha) - x) / e

    def derivative(x):
        return mp.log(x) + 1 if e == 0 else (mp.mpf(alpha) * x**e - 1) / e

    return value, derivative, lambda x: mp.mpf(alpha) * x ** (e - 1)


def power(alpha):
    a = mp.mpf(alpha)
    return (lambda x: x**a), (lambda x: a * x ** (a - 1)), (lambda x: a * (a - 1) * x ** (a - 2))


def log_shift(mu):
    mu = mp.mpf(mu)
    return (lambda x: mp.log(mu + x)), (lambda x: 1 / (mu + x)), (lambda x: -1 / (mu + x) ** 2)


CASES = [
    *((Tsallis(alpha), tsallis(alpha)) for alpha in ORDERS),
    *((Power(alpha), power(alpha)) for alpha in ORDERS),
    *((LogShift(mu), log_shift(mu)) for mu in (0.05, 0.8, 20.0)),
]


def identity(case):
    return repr(case[0])


@pytest.fixture(autouse=True)
def _digits_to_spare():
    with mp.workdps(120):  # 1 - (1e-21)^4 shall keep fifty
        yield


def agrees(actual, expected, absolute=None):
    expected = t([float(x) for x in expected])
    tolerance = ROUNDING * expected.abs() + (0.0 if absolute is None else absolute)
    assert ((actual - expected).abs() <= tolerance).all(), f"{actual.tolist()} is not {expected.tolist()}"


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_value_is_that_of_fifty_digits(case):
    function, (value, _, _) = case
    agrees(function.value(t(POINTS)), [value(mp.mpf(x)) for x in POINTS])


@pytest.mark.parametrize("alpha", ORDERS)
def test_an_eigenvalue_of_zero_has_the_value_zero(alpha):
    assert Tsallis(alpha).value(t([0.0])).item() == 0.0
    assert Power(alpha).value(t([0.0])).item() == 0.0


@pytest.mark.parametrize("alpha", [alpha for alpha in ORDERS if alpha != 1])
def test_tsallis_has_a_gradient_at_zero_that_does_not_reach_the_other_eigenvalues(alpha):
    x = t([0.0, 0.25]).requires_grad_()
    (gradient,) = torch.autograd.grad(Tsallis(alpha).value(x)[1], x)
    agrees(gradient[1:], [tsallis(alpha)[1](mp.mpf(0.25))])
    assert gradient[0].item() == 0.0


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_derivative_is_that_of_fifty_digits(case):
    function, (_, derivative, _) = case
    points = [x for x in POINTS if abs(derivative(mp.mpf(x))) > 0.05]  # zeros of a derivative keep no digits
    agrees(function.derivative(t(points)), [derivative(mp.mpf(x)) for x in points])


@pytest.mark.parametrize("case", CASES, ids=identity)
@pytest.mark.parametrize("ratio", RATIOS)
def test_divided_difference_is_that_of_fifty_digits_and_symmetric(case, ratio):
    function, (_, derivative, _) = case
    a = t(POINTS)
    b = a / ratio
    exact = [
        (derivative(x) - derivative(y)) / (x - y)
        for x, y in zip(map(mp.mpf, a.tolist()), map(mp.mpf, b.tolist()), strict=True)
    ]
    # Eigenvalues within a factor three lose nothing; beyond, the rounding of the two derivatives remains.
    slopes = function.derivative(a).abs() + function.derivative(b).abs()
    lost = 0.0 if ratio < 3 else 8 * EPS64 * slopes / (a - b).abs()
    agrees(function.divided_difference(a, b), exact, lost)
    agrees(function.divided_difference(b, a), exact, lost)


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_divided_difference_of_equal_eigenvalues_is_the_second_derivative(case):
    function, (_, _, second) = case
    a = t(POINTS)
    agrees(function.divided_difference(a, a.clone()), [second(mp.mpf(x)) for x in POINTS])


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0, 5.0])
def test_divided_difference_of_a_power_with_zero_is_the_quotient(alpha):
    b = t([0.25, 1.0])
    agrees(
        Power(alpha).divided_difference(torch.zeros(2, dtype=b.dtype), b),
        [alpha * x ** (alpha - 2) for x in b],
    )


@pytest.mark.parametrize("alpha", [0.5, 1.25, 1.5, 3.0])
def test_divided_difference_of_a_power_at_two_zeros_is_zero(alpha):
    zero = t([0.0])
    assert Power(alpha).divided_difference(zero, zero).item() == 0.0


def test_the_null_space_is_projected_out_where_the_derivative_at_zero_is_infinite_or_nearly():
    assert all(Tsallis(alpha).projects_null_space for alpha in ORDERS)
    assert [Power(alpha).projects_null_space for alpha in (0.5, 1.25, 1.26, 2.0)] == [
        True,
        True,
        False,
        False,
    ]
    assert not LogShift(1.0).projects_null_space
    assert not ContinuedLog(0.0, 0.1).projects_null_space


@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.01])
def test_continued_log_is_the_logarithm_above_the_floor_and_its_tangent_below(shift):
    floor = 0.125
    x = t([floor - shift, 0.7, 0.9, 3.0])  # the first lies on the floor up to rounding
    function = ContinuedLog(shift, floor)
    agrees(function.value(x), [mp.log(mp.mpf(shift) + mp.mpf(y)) for y in x.tolist()])
    agrees(function.derivative(x), [1 / (mp.mpf(shift) + mp.mpf(y)) for y in x.tolist()])
    below = t([-2.0, 0.0, 0.1]) - shift
    agrees(
        function.value(below), [mp.log(floor) + (mp.mpf(shift) + y - floor) / floor for y in below.tolist()]
    )
    agrees(function.derivative(below), [1 / floor] * 3)


def test_divided_difference_of_the_continued_log_knows_both_of_its_pieces():
    function = ContinuedLog(-0.5, 0.125)
    slope = {0.5: 8.0, 0.6: 8.0, 0.625: 8.0, 0.75: 4.0, 1.5: 1.0}  # 1 / max(x - 1/2, 1/8)
    points = t(list(slope))
    a, b = (grid.flatten() for grid in torch.meshgrid(points, points, indexing="ij"))
    distinct = a != b
    a, b = a[distinct], b[distinct]
    exact = [(slope[x] - slope[y]) / (x - y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    agrees(function.divided_difference(a, b), exact)
    equal = t([0.5, 0.625, 0.75, 1.5])
    agrees(function.divided_difference(equal, equal.clone()), [0.0, -64.0, -16.0, -1.0])
