"""Every number, count and choice that a public function takes: outside its domain it is refused by its name."""

from __future__ import annotations

import inspect
import math
import re

import pytest
import torch

import matinfo
from matinfo import bounds, estimate, kernels, losses, measures

Z = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
K = kernels.rbf(Z, bandwidth=1.0)
VIEWS = torch.stack([Z, Z + 0.1, Z - 0.1])

OPERANDS = [
    (K, "K K1 K2 K3 condition K_inputs K_latents K_targets W"),
    (Z, "features features1 features2 X Z1 Z2 mean log_variance targets scores scores1 scores2 anchors"),
    (VIEWS, "views others students teachers"),
    (Z.softmax(-1), "probabilities1 probabilities2"),
    (torch.eye(3, dtype=torch.float64), "covariance1 covariance2"),
    (0.1, "distance overlap loss rate1 rate2"),
    (torch.arange(8) % 2, "labels assignments"),
    (torch.zeros(3), "center"),
    (matinfo.mutual_information, "quantity"),
]
ARGUMENTS = {name: value for value, names in OPERANDS for name in names.split()}
"""Something that fits for every argument that is no setting."""

INTERVALS_AND_LEAST_INTEGERS = [
    ("[0, inf]", "alpha q"),
    (
        "(0, inf)",
        "mu eps eps2 rtol atol bandwidth kappa temperature gamma epsilon lambda_ beta delta eta t t_max",
    ),
    ("(0, inf)", "time nu invariance variance covariance student_temperature teacher_temperature"),
    (
        "(0, inf)",
        "estimate_entropy.alpha estimate_information.alpha stochastic_entropy.alpha alignment.alpha",
    ),
    ("[0, inf)", "offset coef0 mmcr_loss.lambda_"),
    ("[0.5, inf]", "sandwiched_mutual_information.alpha"),
    ("[1, inf)", "polynomial.degree"),
    ("(1, inf)", "base"),
    ("(0, 1)", "discard"),
    ("[0, 1)", "shrinkage momentum numerical_rank.rtol"),
    ("[0, 1]", "smoothing isoscore_star.shrinkage"),
    (
        1,
        "n count permutations keep neighbours first last size degree taylor iterations slices n_features landmarks",
    ),
    (1, "DINOCenter.dim RunningCovariance.dim"),
    (2, "probes repeats nodes power dim mle_dimension.neighbours estimate_tcr.degree"),
    (6, "estimate_tcr.probes estimate_trace_power.probes"),
]
DOMAINS = {name: domain for domain, names in INTERVALS_AND_LEAST_INTEGERS for name in names.split()}

FUNCTIONS = {
    name: getattr(room, name)
    for room in (matinfo, kernels, measures, estimate, bounds, losses)
    for name in room.__all__
    if callable(getattr(room, name))
}


def settings_of(function):
    """Names of the settings and their defaults; none of a function that takes something unknown."""
    parameters = inspect.signature(function).parameters.values()
    rest = [
        p for p in parameters if p.name not in ARGUMENTS and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if any(p.default is p.empty and p.name not in DOMAINS for p in rest):
        return {}
    return {p.name: p.default for p in rest if p.name in DOMAINS or isinstance(p.default, str)}


def call(function, **settings):
    """The function of something that fits, with settings of ours."""
    parameters = inspect.signature(function).parameters.values()
    operands = []
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL:
            operands += [K, K]
        elif p.name in ARGUMENTS and p.default is p.empty:
            operands.append(ARGUMENTS[p.name])
    needed = {p.name: 4 for p in parameters if p.default is p.empty and p.name in DOMAINS}
    return function(*operands, **needed | settings)


SETTINGS = [(name, key) for name, function in FUNCTIONS.items() for key in settings_of(function)]


def test_settings_are_found():
    assert len(SETTINGS) > 200
    assert {("renyi_entropy", "alpha"), ("independence_test", "statistic"), ("DINOCenter", "momentum")} < set(
        SETTINGS
    )


@pytest.mark.parametrize(("name", "key"), SETTINGS)
def test_setting_outside_its_domain_is_refused_by_its_name(name, key):
    function = FUNCTIONS[name]
    domain, default = DOMAINS.get(f"{name}.{key}", DOMAINS.get(key)), settings_of(function)[key]
    wrong = []
    if isinstance(default, str):
        wrong.append(("nonsense", ValueError, "to be one of '"))
    if isinstance(domain, int):
        wrong.append((domain - 1, ValueError, f">= {domain}, got {domain - 1}"))
        wrong += [(x, TypeError, f"to be an integer, got {type(x).__name__}") for x in (2.5, True, "3")]
    elif domain:
        low, high = map(float, domain[1:-1].split(","))
        ends = [end for end, mark in ((low, domain[0]), (high, domain[-1])) if mark in "()"]
        wrong += [(x, ValueError, f"in {domain}, got {x}") for x in (low - 1, math.nan, *ends)]
        kinds = (True, 1j) if isinstance(default, str) else (True, 1j, "0.5")
        wrong += [(x, TypeError, f"to be a number in {domain}, got {type(x).__name__}") for x in kinds]
    for value, error, message in wrong:
        with pytest.raises(error, match=re.escape(f"Expected {key} {message}")):
            call(function, **{key: value})
