"""Every loss in each of its forms, as one of two views: its definition in 50 digits, derivatives, hard features."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import hypothesis
import numpy as np
import oracles_losses as oracles
import pytest
import torch
from contract_cases import LOSSES
from helpers import t
from hypothesis import given
from matrices import DEGENERATE, collapsed_features, features, orthogonal, seeds, views
from tolerances import EPS32, close
from torch.autograd import gradcheck, gradgradcheck

from matinfo import coding_rate, losses


@dataclass(frozen=True)
class Form:
    """How two views become the arguments of a loss, and what is true of it.

    Attributes:
        name: Of the loss, without "_loss", and of its definition among the oracles.
        arguments: Of two tensors ``(n, d)`` those of the loss.
        settings: Keywords of each form; none of the first, so that the defaults are compared too.
        least: Fewest samples and dimensions for which it is defined.
        reaches: Which of the two views get a gradient: no teacher, no target.
        invariant: Whether neither the order of the samples, nor lengths of rows, nor their basis matter.
        derivatives: How many there are.
        rounding: Of a float32 value, in its units.
        adapt: Of loss and definition, before either is called.
    """

    name: str
    arguments: Callable
    settings: tuple = ({},)
    least: tuple = (1, 1)
    reaches: tuple = (True, True)
    invariant: bool = False
    derivatives: int = 2
    rounding: float = 32.0
    adapt: Callable | None = None

    def _adapted(self, function):
        return self.adapt(function) if self.adapt else function

    @property
    def loss(self):
        return self._adapted(getattr(losses, f"{self.name}_loss", None) or getattr(losses, self.name))

    @property
    def oracle(self):
        return self._adapted(getattr(oracles, self.name))


def two(a, b):
    return a, b


def first(a, b):
    return (a,)


def second(a, b):
    return (b,)


def stacked(a, b):
    return (torch.stack([a, b, 2 * b]),)


def crossed(a, b):
    """Predictions of the first view, targets of the second."""
    return a, a.flip(-1), b, b


def labelled(a, b):
    return a, torch.arange(len(a)) % 3


def shared(a, b):
    """Memberships of three classes."""
    return a, torch.arange(3 * len(a), dtype=a.dtype).sin().reshape(-1, 3).softmax(-1)


def gaussian(a, b):
    """Log-variances are bounded, as of a network that ends with a tanh."""
    return a, torch.arange(a.numel(), dtype=a.dtype).reshape(a.shape).sin(), b


def distilled(a, b):
    """Three views of the student, two of the teacher."""
    return torch.stack([a, a.flip(0), a.flip(-1)]), torch.stack([b, b.flip(-1)])


def centred(a, b):
    return *distilled(a, b), b[0]


def assigned(a, b):
    """Two heads; in one of them every fourth sample has no assignment."""
    labels = torch.arange(len(a)) % a.shape[-1]
    return torch.stack([a, b]), torch.stack([labels, labels.where(torch.arange(len(a)) % 4 != 1, -1)])


def queued(a, b):
    return a, b, a - b


def masked(a, b):
    """Two images: of one every other patch is hidden, of the other the last."""
    last = torch.arange(len(a)).flip(0)
    return torch.stack([a, b]), torch.stack([b, a]), torch.stack([last % 2 == 0, last == 0])


def probabilities(a, b):
    return a.softmax(-1), b.softmax(-1)


def covariances(a, b):
    return a, b, *(Z.mT @ Z / len(Z) + torch.eye(Z.shape[1], dtype=Z.dtype) for Z in (a, b))


def with_queue(*names):
    def adapt(function):
        return lambda a, b, queue, **settings: function(a, b, **dict.fromkeys(names, queue), **settings)

    return adapt


def each(*together, **choices):
    """The defaults, then each choice of each setting alone, then some together."""
    return ({}, *({name: value} for name, values in choices.items() for value in values), *together)


FIRST, SECOND = (True, False), (False, True)
PAPER = {"scale": "paper"}
MEC = each(
    *(PAPER | more for more in ({"eps2": 2.0}, {"eps2": 0.02}, {"taylor": 4})),
    eps2=(4.0, 0.1),
    scale=("paper",),
    taylor=(1, 4, 7),
)
SSL = [{"gamma": 2.0, "form": "paper"} | more for more in ({"mu": 0.1}, {"mu": 0.02}, {"taylor": 4})]
MATRIX_SSL = each(*SSL, gamma=(0.3,), lambda_=(1.0,), mu=(1.0, 0.02), form=("paper",), taylor=(1, 4, 5))
MMAE = each(
    *(PAPER | more for more in ({"mu": 0.1}, {"mu": 3.0, "centering": True})),
    mu=(0.1, 768.0),
    scale=("paper",),
    centering=(True,),
)
WMSE = tuple({"shrinkage": 0.1} | more for more in ({}, {"normalize": False}, {"together": True}))
SOFTMAX = each(temperature=(0.1, 3.0), reduction=("sum",))
SPHERE = {"least": (1, 2), "invariant": True}
TEACHER = {"reaches": FIRST, "invariant": True, "rounding": 1.0}
FORMS = {
    "mcr2 of memberships": Form("mcr2", shared, reaches=FIRST),
    "swav with a queue": Form("swav", queued, derivatives=0, adapt=with_queue("queue1")),
    "swav with queues": Form("swav", queued, derivatives=0, adapt=with_queue("queue1", "queue2")),
} | {
    form.name: form
    for form in (
        Form("barlow_twins", two, each({"lambda_": 1.0, "center": False}, lambda_=(5e-3, 30.0))),
        Form(
            "vicreg",
            two,
            each(invariance=(1.0,), variance=(0.01, 40.0), covariance=(7.0,), form=("code",)),
            (2, 1),
        ),
        Form("spectral_contrastive", two, each(lambda_=(1e-3, 30.0)), invariant=True),
        Form("infonce", two, SOFTMAX, invariant=True),
        Form("ntxent", two, SOFTMAX, invariant=True),
        Form("byol", crossed, reaches=FIRST),
        Form("simsiam", crossed, reaches=FIRST),
        Form("dino", centred, each(student_temperature=(1.0,), teacher_temperature=(0.5,)), reaches=FIRST),
        Form("simdino", distilled, each(eps2=(0.1,), gamma=(0.3,)), reaches=FIRST),
        Form("swav", two, each(temperature=(0.5,), epsilon=(0.2, 1.0), iterations=(1, 7)), derivatives=0),
        Form("deepcluster", assigned, each(temperature=(1.0,))),
        Form("mcr2", labelled, each(eps2=(0.01, 3.0)), reaches=FIRST),
        Form("vne", first, reaches=FIRST, invariant=True),
        Form("emp_ssl", stacked, each(eps2=(1.0,), invariance=(0.5,)), invariant=True, rounding=1.0),
        Form("mec", two, MEC, **TEACHER),
        Form("matrix_ssl", two, MATRIX_SSL, **TEACHER),
        Form("mmae_tcr", first, MMAE, reaches=FIRST, invariant=True),
        Form("umae_uniformity", first, each(form=("paper",)), reaches=FIRST, invariant=True),
        Form(
            "sphere_entropy",
            second,
            each(kappa=(0.2, 60.0), reduction=("expectation",)),
            reaches=SECOND,
            **SPHERE,
        ),
        Form("sphere_reconstruction", two, each(kappa=(0.2, 60.0)), **SPHERE),
        Form("er", two, each(kappa=(0.2,), reduction=("expectation",)), **SPHERE),
        Form("discrete_er", probabilities, each(reduction=("average",), eps=(1e-2,))),
        Form("gaussian_nll", gaussian),
        Form("club", gaussian, reaches=SECOND),
        Form("mask_infonce", stacked, each(temperature=(1.0,)), invariant=True),
        Form("masked_reconstruction", masked, each(norm_pix=(False,)), (1, 2)),
        Form("sigreg", second, ({"form": "limit"},), reaches=SECOND),
        Form("bhep", second, each(beta=(0.7,)), reaches=SECOND),
        Form("mmcr", stacked, each(lambda_=(0.1,)), invariant=True, derivatives=1),
        Form("corinfomax", covariances, each(invariance=(2.0,), covariance=(3.0,), eps=(0.1,))),
        Form("wmse", two, WMSE, (2, 1)),
    )
}
ALL = [(name, more) for name, form in FORMS.items() for more in form.settings]
# Weights and temperatures branch nowhere; forms, and series instead of the exact values, do.
BRANCHES = [
    (name, more)
    for name, more in ALL
    if more is FORMS[name].settings[0] or any(isinstance(x, str | int) for x in more.values())
]
SHAPES = ((7, 4), (4, 7), (6, 6), (1, 4), (4, 1))
every_form = pytest.mark.parametrize(("name", "settings"), ALL, ids=str)
every_loss = pytest.mark.parametrize("name", FORMS)


def is_defined(name, shape):
    return all(least <= size for least, size in zip(FORMS[name].least, shape, strict=True))


def of_pair(name, settings, *pair):
    """The loss of two views."""
    return FORMS[name].loss(*FORMS[name].arguments(*pair), **settings)


def gradients(name, settings, *pair):
    """The value, and gradients of the views that get one."""
    value = of_pair(name, settings, *pair)
    return value, torch.autograd.grad(value, pair, allow_unused=True)


def test_every_loss_of_features_has_its_forms_here():
    assert {name.removesuffix("_loss") for name in LOSSES} - {"gram"} <= set(FORMS)  # in test_losses_newer.py


@pytest.mark.parametrize(
    ("name", "settings", "shape"),
    [
        (*form, shape)
        for form in ALL
        for shape in SHAPES
        if np.all(np.less_equal(FORMS[form[0]].least, shape))
    ],
    ids=str,
)
def test_loss_equals_its_definition(name, settings, shape):
    # Views that agree little, so that the continued logarithms are reached.
    form = FORMS[name]
    arguments = form.arguments(*(t(Z) for Z in views(*shape, noise=2.0)))
    exact = [oracles.exact(x) if x.is_floating_point() else x.numpy() for x in arguments]
    expected = np.ravel(form.oracle(*exact, **settings))[0]  # some say the size of their terms too
    close(form.loss(*arguments, **settings), expected, 1e-13 * (1 + abs(float(expected))))


@every_loss
def test_defaults_of_a_loss_are_those_of_its_definition(name):
    ours, theirs = (inspect.signature(f).parameters for f in (FORMS[name].loss, FORMS[name].oracle))
    keywords = {k: p.default for k, p in theirs.items() if p.kind == p.KEYWORD_ONLY}
    assert {k: ours[k].default for k in keywords} == keywords


# --- derivatives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        form if form in BRANCHES else pytest.param(*form, marks=pytest.mark.slow)
        for form in ALL
        if FORMS[form[0]].derivatives
    ],
    ids=str,
)
def test_loss_derivatives_are_exact(name, settings):
    pair = [
        t(Z).requires_grad_(reached)
        for Z, reached in zip(views(5, 3, noise=2.0), FORMS[name].reaches, strict=True)
    ]
    loss = partial(of_pair, name, settings)
    assert gradcheck(loss, pair)
    assert FORMS[name].derivatives == 1 or gradgradcheck(loss, pair)


@every_loss
def test_no_teacher_and_no_target_gets_a_gradient_and_every_other_view_does(name):
    _, found = gradients(name, FORMS[name].settings[0], *(t(Z).requires_grad_() for Z in views()))
    assert (
        tuple(gradient is not None and float(gradient.norm()) > 1e-3 for gradient in found)
        == FORMS[name].reaches
    )


# --- what it does not depend on ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "settings"), [form for form in ALL if FORMS[form[0]].invariant], ids=str)
@hypothesis.settings(max_examples=10)
@given(seed=seeds)
def test_loss_depends_neither_on_order_nor_lengths_nor_basis(name, settings, seed):
    pair, rng = views(), np.random.default_rng(seed)
    lengths, order, Q = 10.0 ** rng.uniform(-3, 3, (2, 8, 1)), rng.permutation(8), orthogonal(5, seed)
    value = float(of_pair(name, settings, *map(t, pair)))
    moved = [t((length * Z)[order] @ Q) for length, Z in zip(lengths, pair, strict=True)]
    close(of_pair(name, settings, *moved), value, 1e-12 * (1 + abs(value)))


@pytest.mark.parametrize("name", ["mcr2", "vne", "emp_ssl", "mmae_tcr", "umae_uniformity", "er"])
def test_a_descent_step_spreads_the_features(name):
    # lightly's EMP-SSL returns +TCR: minimising it collapses.
    pair = [t(collapsed_features(12, 6, clusters=2, noise=0.1)).requires_grad_() for _ in range(2)]
    value, found = gradients(name, {}, *pair)
    which = 1 if name == "er" else 0  # the other is what is to be predicted
    with torch.no_grad():
        before, step = pair[which].clone(), 1e-2 * found[which]
        pair[which] = before - step
        assert of_pair(name, {}, *pair) < value
        assert coding_rate(torch.nn.functional.normalize(before - step)) > coding_rate(before)


# --- precision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "case"),
    [
        (*form, case)
        for form in BRANCHES
        for case, Z in DEGENERATE.items()
        if is_defined(form[0], Z.shape) and (form[0], case) != ("vicreg", "huge")  # it has squares of squares
    ],
    ids=str,
)
def test_loss_and_gradient_are_finite_on_hard_features(name, settings, case):
    generic = features(*DEGENERATE[case].shape, 9)
    for dtype in (torch.float32, torch.float64):
        for other in (DEGENERATE[case], -DEGENERATE[case], generic):
            for pair in ((DEGENERATE[case], other), (other, DEGENERATE[case])):
                leaves = [t(Z, dtype).requires_grad_() for Z in pair]
                value = of_pair(name, settings, *leaves)
                found = torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else ()
                assert value.isfinite()
                assert all(gradient.isfinite().all() for gradient in found if gradient is not None)


@every_form
def test_loss_of_float32_features_is_correct_to_float32_rounding(name, settings):
    pair = [t(Z, torch.float32) for Z in views(64, 32)]
    expected = float(of_pair(name, settings, *(Z.double() for Z in pair)))
    close(of_pair(name, settings, *pair), expected, FORMS[name].rounding * EPS32 * (1 + abs(expected)))


@pytest.mark.parametrize(
    "name", [name for name, form in FORMS.items() if form.arguments is two and name != "swav"]
)
def test_losses_name_the_shapes_that_do_not_match(name):
    with pytest.raises(ValueError, match=r"features1 and features2.*\(4, 3\).*\(4, 2\)"):
        FORMS[name].loss(torch.randn(4, 3), torch.randn(4, 2))
