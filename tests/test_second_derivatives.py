"""First and second derivatives of every public function by every way that torch has to ask: right or refused."""

from __future__ import annotations

import matrices
import pytest
import torch
from contract_cases import ALL_CASES, LOSSES, MATRIX_CASES, tensors
from torch.func import grad, jvp

from matinfo import Gram

# Single eigenvalues have no second derivative where they repeat; ours of a power of a matrix is not given.
REFUSED = (
    "renyi_entropy_infinity",
    "spectrum_js",
    "rankme",
    "sandwiched_mutual_information_two",
    "mmcr_loss",
)
STEP = 1e-5


def by_backward_twice(f, x, v):
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
    if not gradient.requires_grad:  # of a linear function, as HSIC is of each matrix
        return torch.zeros_like(x)
    return torch.autograd.grad((gradient * v).sum(), leaf)[0]


WAYS = {
    "backward twice": by_backward_twice,
    "forward over reverse": lambda f, x, v: jvp(grad(f), (x,), (v,))[1],
    "reverse over forward": lambda f, x, v: grad(lambda y: jvp(f, (y,), (v,))[1])(x),
    "forward over forward": lambda f, x, v: jvp(lambda y: jvp(f, (y,), (v,))[1], (x,), (v,))[1],
}


def as_function_of(name, index, arguments, operand):
    """The case as a scalar function of one argument; matrices are kept symmetric, arrays weighted to a scalar."""

    def f(x):
        given = [*arguments[:index], x, *arguments[index + 1 :]]
        if operand == "matrix":
            given = [(K + K.mT) / 2 for K in given]
        values = ALL_CASES[name](*(Gram(Z) for Z in given)) if operand == "gram" else ALL_CASES[name](*given)
        weights = torch.arange(1.0, values.numel() + 1, dtype=values.dtype).reshape(values.shape).sin()
        return (values * weights).sum()

    return f


FEW = ("backward twice", "forward over forward")
OTHERS = ("forward over reverse", "reverse over forward")


def cases():
    """Every way for the first argument of the functions of matrices, two by default for the others."""
    for name, case in ALL_CASES.items():
        # The bandwidth is a constant of differentiation, so that differences of gradients are none of derivatives;
        # torch.cdist has no second derivative in forward mode.
        if not case.differentiable or name in ("rbf", "laplacian"):
            continue
        operand = "matrix" if name in MATRIX_CASES else "features"
        for index in {0, case.arguments - 1}:
            yield name, index, operand, tuple(WAYS) if operand == "matrix" and index == 0 else FEW
            if operand == "features" or index:
                yield pytest.param(name, index, operand, OTHERS, marks=pytest.mark.slow)
        if name in MATRIX_CASES:
            yield name, 0, "gram", FEW


@pytest.mark.parametrize(("name", "index", "operand", "ways"), list(cases()))
def test_first_derivative_is_right_and_the_second_too_or_refused(name, index, operand, ways):
    arguments = tensors(name, n=5)
    if operand == "gram":
        arguments = [torch.as_tensor(matrices.features(5, 7, i)) for i in range(len(arguments))]
    f, x = as_function_of(name, index, arguments, operand), arguments[index]
    v = torch.as_tensor(matrices.features(*x.shape, 5))
    slope, chord = (grad(f)(x) * v).sum(), (f(x + STEP * v) - f(x - STEP * v)) / (2 * STEP)
    # Of losses in test_losses_forms.py: where a view is its own target, differences see what gradients do not.
    assert name in LOSSES or abs(slope - chord) < 1e-7 * (1 + abs(slope))
    difference = (grad(f)(x + STEP * v) - grad(f)(x - STEP * v)) / (2 * STEP)
    for way in ways:
        if name in REFUSED:
            with pytest.raises(NotImplementedError, match="first derivative only"):
                WAYS[way](f, x, v)
            continue
        expected = (difference * v).sum() if way == "forward over forward" else difference
        found = WAYS[way](f, x, v)
        assert (found - expected).norm() < 1e-6 * expected.norm().clamp(min=1e-3), way


def test_yardstick_sees_a_second_derivative_of_zero():
    f = as_function_of("renyi_entropy", 0, tensors("renyi_entropy", n=5), "matrix")
    x, v = tensors("renyi_entropy", n=5)[0], torch.as_tensor(matrices.features(5, 5, 5))
    difference = (grad(f)(x + STEP * v) - grad(f)(x - STEP * v)) / (2 * STEP)
    assert difference.norm() > 1e-2
    assert abs((difference * v).sum()) > 1e-3
