"""The first minutes with the package: what it lists, and what it answers to a name from elsewhere."""

import importlib
import inspect

import numpy as np
import pytest
import torch

import matinfo
from matinfo import Gram, dime, effective_rank, kernels, losses, renyi_entropy, tcr, vendi_score
from matinfo._keywords import _OTHER_NAMES
from matinfo.losses import barlow_twins_loss

Z = torch.eye(4)


def test_dir_lists_the_public_names_and_the_rooms_of_the_extras_only():
    names = dir(matinfo)
    assert {"metrics", "plot", "cli", "spectrum", "losses"} <= set(names)
    assert [name for name in names if name.startswith("_")] == ["__version__"]
    assert {"importlib", "Any", "spectral", "operands"}.isdisjoint(names)
    assert all(hasattr(matinfo, name) for name in names)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda: kernels.rbf(Z, gamma=1.0), r"'gamma'.*bandwidth=.*1/\(2 bandwidth\^2\)"),
        (lambda: kernels.laplacian(Z, sigma=1.0), "'sigma'. Did you mean bandwidth"),
        (lambda: barlow_twins_loss(Z, Z, lambd=1.0), "'lambd'. Did you mean lambda_"),
        (lambda: losses.ntxent_loss(Z, Z, tau=0.1), "'tau'. Did you mean temperature"),
        (lambda: dime(Z, Z, n_permutations=3), "'n_permutations'. Did you mean permutations"),
        (lambda: renyi_entropy(Z, order=2), "'order'. Did you mean alpha"),
        (lambda: vendi_score(Z, alpha=2), "'alpha'. Did you mean q"),
        (lambda: tcr(Z, epsilon=0.1), "'epsilon'. Did you mean mu"),
        (lambda: renyi_entropy(Z, bsae=2), "'bsae'. Did you mean base"),
        (lambda: renyi_entropy(Z, temperature=2), "'temperature'. It has K, alpha, base"),
    ],
)
def test_a_wrong_keyword_is_answered_with_the_right_one(call, answer):
    with pytest.raises(TypeError, match=answer):
        call()


@pytest.mark.parametrize(
    "room", ["", "metrics", *[name for name in matinfo.__all__ if inspect.ismodule(getattr(matinfo, name))]]
)
def test_every_public_function_answers_another_name_of_its_arguments(room):
    if room == "metrics":
        pytest.importorskip("torchmetrics")
    module = importlib.import_module(f"matinfo.{room}".rstrip("."))
    for name in set(module.__all__) - {"LayerReport"}:  # which layerwise makes
        call = getattr(module, name)
        if not callable(call) or (isinstance(call, type) and issubclass(call, BaseException)):
            continue
        parameters = inspect.signature(call).parameters
        needed = [
            p for p in parameters.values() if p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD
        ]
        for argument in _OTHER_NAMES.keys() & parameters.keys() - {p.name for p in needed}:
            for word in _OTHER_NAMES[argument] - parameters.keys():
                with pytest.raises(TypeError, match=f"{word}'.*(Did you mean|Give bandwidth=)"):
                    call(*[1.0] * len(needed), **{word: 1.0})


@pytest.mark.parametrize("normalize", [False, True])
def test_gram_centres_after_dividing_rows_by_their_length(normalize):
    features = np.random.default_rng(0).standard_normal((12, 3)) + 5
    rows = features / np.linalg.norm(features, axis=1, keepdims=True) if normalize else features
    expected = effective_rank(Gram(rows - rows.mean(0)))
    assert effective_rank(Gram(features, normalize=normalize, center=True)) == pytest.approx(
        expected, rel=1e-12
    )


def test_gram_centres_away_a_constant_column_without_a_trace_of_it():
    features = torch.cat(
        [torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), torch.full((50, 1), 1e6)], 1
    )
    assert float(effective_rank(Gram(features, center=True), 0)) == pytest.approx(2.0)
