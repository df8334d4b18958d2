"""Measures without labels: naive oracles, closed forms, invariances, gradients, batches, what is not finite."""

import math
import time
from pathlib import Path

import numpy as np
import oracles_measures as naive
import pytest
import torch
from helpers import seeded, t

import matinfo
from matinfo import Gram, Spectrum, kernels, measures, spectrum
from matinfo.measures import MEASURES
from matinfo.streaming import LidarAccumulator

SHAPES = [(40, 6), (6, 40), (12, 12), (9, 8)]


def features(shape=(40, 6), seed=0, dtype=torch.float64):
    mixing = torch.randn(shape[1], shape[1], dtype=torch.float64, generator=seeded(99))
    return (torch.randn(*shape, dtype=torch.float64, generator=seeded(seed)) @ mixing + 0.5).to(dtype)


def kernel_matrix(n=12, seed=0):
    return kernels.rbf(features((n, 3), seed), bandwidth=3.0).numpy()


LABELS = np.arange(40) % 3
OF_FEATURES = {
    "uniformity": (lambda Z: measures.uniformity(Z, t=0.7), lambda Z: naive.uniformity(Z, 0.7)),
    "mean_cosine": (measures.mean_cosine, naive.mean_cosine),
    "coherence": (measures.coherence, naive.coherence),
    "curvature": (measures.curvature, lambda Z: naive.curvature(Z, False)),
    "curvature, absolute": (
        lambda Z: measures.curvature(Z, absolute=True),
        lambda Z: naive.curvature(Z, True),
    ),
    "matrix_nuclear_norm": (measures.matrix_nuclear_norm, naive.matrix_nuclear_norm),
    "nesum": (measures.nesum, lambda Z: (x := naive.eigenvalues(naive.centred(Z))).sum() / x[0]),
    "isoscore": (measures.isoscore, naive.isoscore),
    "isoscore_star": (
        lambda Z: measures.isoscore_star(Z, shrinkage=0.0),
        naive.isoscore,
    ),
    "self_clustering": (measures.self_clustering, naive.self_clustering),
    "two_nn": (lambda Z: measures.two_nn(Z, discard=0.2), lambda Z: naive.two_nn(Z, 0.2)),
    "mle_dimension": (
        lambda Z: measures.mle_dimension(Z, neighbours=4),
        lambda Z: naive.mle_dimension(Z, 4, "inverse"),
    ),
    "mle_dimension, mean": (
        lambda Z: measures.mle_dimension(Z, neighbours=3, average="mean"),
        lambda Z: naive.mle_dimension(Z, 3, "mean"),
    ),
    "local_participation_ratio": (
        lambda Z: measures.local_participation_ratio(Z, 3),
        lambda Z: naive.local_participation_ratio(Z, 3),
    ),
    "stable_rank": (
        lambda Z: measures.stable_rank(Gram(Z)),
        lambda Z: (x := naive.eigenvalues(Z)).sum() / x[0],
    ),
    "numerical_rank": (lambda Z: measures.numerical_rank(Gram(Z)), lambda Z: np.linalg.matrix_rank(Z)),
    "condition_number": (
        lambda Z: measures.condition_number(Gram(Z)),
        lambda Z: np.linalg.cond(Z) ** 2,
    ),
    "normalized_entropy": (
        lambda Z: measures.normalized_entropy(Gram(Z)),
        lambda Z: naive.von_neumann(Z @ Z.T) / math.log(min(Z.shape)),
    ),
    "nuclear_norm": (lambda Z: measures.nuclear_norm(Gram(Z)), lambda Z: np.linalg.norm(Z, "nuc")),
    "alpha_req": (
        lambda Z: measures.alpha_req(Gram(Z), first=2),
        lambda Z: naive.power_law(naive.eigenvalues(Z), 2, 100, True)[0],
    ),
    "truncated_vendi": (
        lambda Z: measures.truncated_vendi(Gram(Z), 3, q=1.5),
        lambda Z: naive.truncated_vendi(Z @ Z.T, 3, 1.5),
    ),
}
WITHOUT_GRADIENT = {"coherence", "numerical_rank", "two_nn", "mle_dimension", "mle_dimension, mean"}
WITHOUT_GRADIENT |= {"local_participation_ratio"}
DIFFERENTIABLE = [name for name in OF_FEATURES if name not in WITHOUT_GRADIENT]
every_measure = pytest.mark.parametrize("name", OF_FEATURES)


@every_measure
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_measure_equals_its_definition(name, shape):
    ours, definition = OF_FEATURES[name]
    Z = features(shape).numpy()
    assert ours(Z) == pytest.approx(definition(Z), rel=1e-9)


@every_measure
def test_measure_keeps_batches_frameworks_and_dtypes(name):
    ours, _ = OF_FEATURES[name]
    stack = torch.stack([features(seed=s) for s in range(6)])
    values = ours(stack.reshape(2, 3, *stack.shape[1:]))
    assert values.shape == (2, 3)
    torch.testing.assert_close(
        values.flatten(), torch.stack([ours(Z) for Z in stack]), rtol=1e-11, atol=1e-13
    )
    assert isinstance(ours(stack[0].numpy()), np.float64)
    assert ours(stack[0].bfloat16()).dtype == torch.float32
    assert ours(stack[:0]).shape == (0,)


@every_measure
def test_what_is_not_finite_is_nan_and_leaves_the_others_alone(name):
    ours, _ = OF_FEATURES[name]
    Z = torch.stack([features(), features()])
    Z[1, 7, 2] = torch.nan
    values = ours(Z)
    assert values[1].isnan()
    assert values[0].item() == pytest.approx(float(ours(Z[0])), rel=1e-12)


@every_measure
def test_measure_does_not_see_the_scale_but_for_norms(name):
    ours, _ = OF_FEATURES[name]
    factor = 1e3 if "nuclear_norm" in name else 1
    assert ours(1e3 * features()).item() == pytest.approx(factor * ours(features()).item(), rel=1e-9)


@every_measure
def test_measure_does_not_see_a_rotation_of_the_features(name):
    if name == "matrix_nuclear_norm":
        pytest.skip("depends on the basis, and says so")
    ours, _ = OF_FEATURES[name]
    Q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=seeded(3))).Q
    assert ours(features() @ Q).item() == pytest.approx(ours(features()).item(), rel=1e-9)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_measure_has_the_right_gradient(name):
    ours, _ = OF_FEATURES[name]
    shape = (9, 4) if name != "alpha_req" else (9, 6)
    assert torch.autograd.gradcheck(ours, features(shape).requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("name", sorted(WITHOUT_GRADIENT))
def test_measure_without_a_gradient_has_none(name):
    assert not OF_FEATURES[name][0](features().requires_grad_()).requires_grad


# The table of names


@pytest.mark.parametrize("name", [name for name, m in MEASURES.items() if m.of == "spectrum"])
def test_named_measure_of_a_spectrum_equals_that_of_prepared_features(name):
    function, rows = MEASURES[name].function, MEASURES[name].rows
    Z = features((30, 20))
    prepared = Z - Z.mean(0) if rows == "centred" else torch.nn.functional.normalize(Z, dim=-1)
    takes_features = name in {"nesum", "isoscore", "self_clustering", "rankme", "tcr", "coding_rate"}
    ours = function(spectrum(Gram(prepared)))
    torch.testing.assert_close(
        ours, function(prepared if takes_features else Gram(prepared)), rtol=1e-8, atol=0
    )
    zero = spectrum(Gram(torch.zeros(4, 3)))
    if MEASURES[name].at_zero:
        assert torch.isfinite(function(zero))
    elif name in {"alpha_req", "condition_number"}:
        assert not torch.isfinite(function(zero))
    else:
        with pytest.raises(ValueError, match="positive trace"):
            function(zero)


def test_the_guide_tells_what_every_measure_sees():
    page = (Path(__file__).resolve().parents[1] / "docs" / "how-to" / "which-number.md").read_text(
        encoding="utf-8"
    )
    names = {*MEASURES, *(n for n in measures.__all__ if n[0].islower())} - {"measure"}
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


def test_all_named_measures_come_from_one_decomposition():
    Z = features((30, 10)).requires_grad_()
    with matinfo.explain() as log:
        values = measures.measure(Z, center=True)
    assert [step.route for step in log.steps] == ["eigh"]
    assert set(values) == {name for name, m in MEASURES.items() if m.of == "spectrum"}
    assert values["nesum"].item() == pytest.approx(measures.nesum(Z).item())
    assert all(isinstance(v, np.float64) for v in measures.measure(Z.detach().numpy(), MEASURES).values())
    with pytest.raises(ValueError, match="Expected names among .*got 'erank'"):
        measures.measure(Z, ["erank"])


@pytest.mark.parametrize("name", MEASURES)
def test_named_measure_is_public_and_lies_in_its_bounds(name):
    Z = features((50, 12))
    value = float(measures.measure(Z, [name], center=True, normalize=True)[name])
    low, high = MEASURES[name].bounds.replace("below 0", "-1").split(" to ", 1)
    scope = {"n": 50, "d": 12, "mu": 1.0, "t": 2.0, "rank": 12, "min": min, "log": math.log, "pi": math.pi}
    scope["infinity"] = math.inf
    bounds = [low, high.removesuffix(" for unit rows")]
    bounds = [b.replace("log min(n, d)", "log(min(n, d))").replace("log mu", "* log(mu)") for b in bounds]
    ends = [eval(b.replace("-4 t", "-4 * t"), scope) for b in bounds]
    assert ends[0] - 1e-12 <= value <= ends[1] + 1e-12
    assert getattr(measures, name, getattr(matinfo, name, None)) is MEASURES[name].function


@pytest.mark.slow
def test_all_measures_of_a_spectrum_cost_less_than_a_tenth_of_the_decomposition():
    def processor_time(function):
        start = time.process_time()
        function()
        return time.process_time() - start

    K = features((1024, 1024))
    S = spectrum(Gram(K))
    functions = [m.function for m in MEASURES.values() if m.of == "spectrum"]
    pairs = [
        (processor_time(lambda: spectrum(Gram(K))), processor_time(lambda: [f(S) for f in functions]))
        for _ in range(5)
    ]
    assert np.median([measuring / decomposing for decomposing, measuring in pairs]) < 0.1


# Of one spectrum


@pytest.mark.parametrize("weighted", [True, False])
def test_power_law_and_its_error_equal_the_regression(weighted):
    lam = np.arange(1, 61) ** -1.3 * np.exp(0.1 * np.random.default_rng(0).normal(size=60))
    lam = np.sort(lam)[::-1]
    fit = measures.power_law(Spectrum(lam.copy()), first=3, last=40, weighted=weighted)
    exponent, error = naive.power_law(lam, 3, 40, weighted)
    assert (fit.exponent, fit.error) == (pytest.approx(exponent, rel=1e-10), pytest.approx(error, rel=1e-10))
    assert (fit.first, fit.last) == (3, 40)
    assert 0.9 < fit.r2 < 1


def test_power_law_ends_where_round_off_begins_and_says_so():
    lam = np.r_[np.arange(1, 21) ** -2.0, np.full(30, 1e-20)]
    fit = measures.power_law(Spectrum(lam), first=2)
    assert fit.last == 20
    assert fit.exponent == pytest.approx(2.0, rel=1e-12)
    assert fit.r2 == pytest.approx(1.0)
    assert np.isnan(measures.power_law(Spectrum(lam[:7]), first=6).exponent)  # two eigenvalues in range


def test_condition_numbers_share_the_derivative_among_ties():
    x = t([4.0, 4.0, 2.0, 2.0]).requires_grad_()
    measures.condition_number(Spectrum(x)).backward()
    torch.testing.assert_close(x.grad, t([0.25, 0.25, -0.5, -0.5]))
    low_rank = Gram(torch.eye(4)[:, :2] @ torch.ones(2, 3))
    assert measures.condition_number(low_rank).isinf()
    assert measures.condition_number(low_rank, pseudo=True).item() == pytest.approx(1.0)


def test_isoscore_is_one_for_a_sphere_and_zero_for_a_line():
    assert measures.isoscore(torch.cat([torch.eye(5), -torch.eye(5)])).item() == pytest.approx(1.0)
    assert measures.isoscore(torch.outer(torch.arange(9.0), torch.ones(5))).item() == pytest.approx(
        0.0, abs=1e-6
    )
    with pytest.raises(ValueError, match="knows their width"):
        measures.isoscore(spectrum(torch.eye(3)))


def test_isoscore_star_shrinks_towards_the_reference():
    Z = features((9, 4))
    for reference in (None, torch.diag(t([4.0, 3.0, 2.0, 1.0]))):
        target = torch.eye(4, dtype=torch.float64) if reference is None else reference
        C = 0.7 * torch.cov(Z.mT) + 0.3 * target
        expected = (matinfo.participation_ratio(C) - 1) / 3
        ours = measures.isoscore_star(Z, shrinkage=0.3, reference=reference)
        assert ours.item() == pytest.approx(expected.item(), rel=1e-12)


# Of rows


def test_alignment_is_the_mean_distance_with_zero_gradient_at_zero():
    A, B = features(seed=1), features(seed=2)
    gap = np.linalg.norm(naive.unit(A.numpy()) - naive.unit(B.numpy()), axis=1)
    assert measures.alignment(A, B, alpha=1.3).item() == pytest.approx((gap**1.3).mean(), rel=1e-12)
    A.requires_grad_()
    measures.alignment(A, A.detach().clone(), alpha=1.0).backward()
    assert A.grad.abs().max() == 0
    with pytest.raises(ValueError, match="same shape"):
        measures.alignment(A, B[:3])


def test_curvature_is_exact_at_straight_and_reversed_steps():
    straight = torch.outer(torch.arange(6.0), torch.ones(3)).requires_grad_()
    value = measures.curvature(straight)
    value.backward()
    assert value.item() == 0
    assert straight.grad.isfinite().all()
    to_and_fro = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    assert measures.curvature(to_and_fro).item() == pytest.approx(math.pi)
    assert measures.curvature(to_and_fro, absolute=True).item() == 0
    pause = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    assert measures.curvature(pause).item() == 0  # the two angles at the pause are left out
    assert measures.curvature(torch.zeros(5, 2)).isnan()


def test_coherence_lies_between_one_and_the_number_of_samples_over_the_rank():
    assert measures.coherence(torch.eye(4).repeat(3, 1)).item() == pytest.approx(1.0)
    lonely = torch.zeros(10, 3)
    lonely[0, 0], lonely[1:, 1] = 1.0, 1.0
    assert measures.coherence(lonely).item() == pytest.approx(5.0)  # n/r
    assert measures.coherence(torch.zeros(3, 3)).isnan()


# Of neighbours


@pytest.mark.parametrize("d", [1, 2, 4])
def test_dimensions_of_a_cube_are_found(d):
    cube = torch.rand(3000, d, dtype=torch.float64, generator=seeded(d))
    Q = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64, generator=seeded(1))).Q[:d]
    assert measures.two_nn(cube @ Q).item() == pytest.approx(d, rel=0.1)
    assert measures.mle_dimension(cube @ Q).item() == pytest.approx(d, rel=0.12)


def test_dimension_leaves_copies_out():
    Z = torch.rand(200, 2, dtype=torch.float64, generator=seeded())
    doubled = torch.cat([Z, Z[:20]])
    assert measures.two_nn(doubled).item() == pytest.approx(measures.two_nn(Z).item(), rel=0.3)
    assert measures.mle_dimension(doubled).isfinite()
    assert measures.two_nn(torch.ones(30, 2)).isnan()
    labels = torch.cat([torch.zeros(200), torch.zeros(20)]).long()
    assert measures.cluster_learnability(doubled, labels) == 1


def test_dimension_far_from_the_origin_is_that_near_it():
    Z = torch.rand(300, 3, dtype=torch.float64, generator=seeded())
    assert measures.two_nn(Z + 1e6).item() == pytest.approx(measures.two_nn(Z).item(), rel=1e-6)


@pytest.mark.parametrize("k", [1, 4])
def test_cluster_learnability_equals_leave_one_out(k):
    Z, labels = features().numpy(), LABELS
    ours = measures.cluster_learnability(Z, labels, neighbours=k)
    assert ours == naive.cluster_learnability(Z, labels, k)


# LiDAR


@pytest.mark.parametrize("shape", [(3, 30, 5), (2, 6, 8)])
@pytest.mark.parametrize("offset", [0.0, 1e-7])
def test_lidar_equals_its_equations_and_its_stream(shape, offset):
    V, n, d = shape
    views = features((n, d)) + 0.3 * torch.randn(V, n, d, dtype=torch.float64, generator=seeded(5))
    expected = naive.lidar(views.numpy(), 1e-4, offset)
    assert measures.lidar(views, offset=offset).item() == pytest.approx(expected, rel=1e-8)
    stream, rest = LidarAccumulator(d), LidarAccumulator(d)
    stream.update(views[:, :4])
    rest.update(views[:, 4:5])
    rest.update(views[:, 5:])
    total = stream + rest
    assert total.count == n
    assert total.lidar(offset=offset).item() == pytest.approx(expected, rel=1e-8)


def test_lidar_gradient_and_batches():
    views = features((6, 3)) + torch.randn(2, 3, 6, 3, dtype=torch.float64, generator=seeded(5))
    assert measures.lidar(views).shape == (2,)
    assert torch.autograd.gradcheck(lambda x: measures.lidar(x, delta=0.1), views.requires_grad_(), atol=1e-6)


def test_lidar_stream_leaves_out_or_refuses_what_is_not_finite():
    views = torch.randn(2, 5, 3, dtype=torch.float64, generator=seeded())
    broken = views.clone()
    broken[1, 2] = torch.inf
    skipping = LidarAccumulator(3, nan="skip")
    skipping.update(broken)
    assert (skipping.count, skipping.skipped) == (4, 1)
    assert skipping.lidar().item() == pytest.approx(measures.lidar(views[:, [0, 1, 3, 4]]).item())
    with pytest.raises(ValueError, match="Expected finite features"):
        LidarAccumulator(3).update(broken)
    with pytest.raises(ValueError, match="shape"):
        LidarAccumulator(4).update(views)
    with pytest.raises(ValueError, match="at least one row"):
        LidarAccumulator(3).lidar()


# Samples, references, conditions, classes


def test_conditional_vendi_of_order_two_is_conditional_rke():
    K, C = kernel_matrix(seed=1), kernel_matrix(seed=2)
    expected = (C**2).sum() / ((K * C) ** 2).sum()
    assert measures.conditional_vendi(K, C, 2) == pytest.approx(expected, rel=1e-12)
    gain = matinfo.vendi_score(K) / measures.conditional_vendi(K, C)
    assert gain == pytest.approx(math.exp(matinfo.mutual_information(K, C)), rel=1e-12)


@pytest.mark.parametrize("q", [1, 2])
def test_class_vendi_is_the_score_of_each_class(q):
    K, labels = kernel_matrix(), np.arange(12) % 3
    expected = [matinfo.vendi_score(K[labels == c][:, labels == c], q) for c in range(3)]
    assert measures.class_vendi(K, labels, q) == pytest.approx(expected)
    Z = features((12, 4))
    ours = measures.class_vendi(Gram(Z), torch.as_tensor(labels), q)
    torch.testing.assert_close(ours, measures.class_vendi(Z @ Z.mT, torch.as_tensor(labels), q))


@pytest.mark.parametrize("eta", [0.5, 1.0, 3.0])
def test_ken_equals_the_general_matrix(eta):
    K = kernel_matrix(14)
    assert measures.ken(K, 6, eta=eta) == pytest.approx(naive.ken(K, 6, eta), rel=1e-8)
    Z = features((14, 4))
    assert measures.ken(Gram(Z), 6, eta=eta).item() == pytest.approx(
        naive.ken((Z @ Z.mT).numpy(), 6, eta), rel=1e-8
    )


def test_ken_of_the_reference_itself_is_zero():
    X = features((8, 3))
    assert measures.ken(kernels.rbf(torch.cat([X, X]), bandwidth=1.0), 8).item() == pytest.approx(
        0, abs=1e-12
    )


def test_relative_rke_equals_its_definition_and_vanishes_for_the_same_samples():
    K = kernel_matrix(14)
    assert measures.relative_rke(K[:6, 6:]) == pytest.approx(naive.relative_rke(K[:6, 6:]), rel=1e-10)
    assert measures.relative_rke(K) == pytest.approx(0, abs=1e-12)


def test_truncated_vendi_of_all_eigenvalues_is_the_vendi_score():
    K = kernel_matrix()
    for q in (0.5, 1, 2, math.inf):
        assert measures.truncated_vendi(K, 12, q) == pytest.approx(matinfo.vendi_score(K, q), rel=1e-10)


def test_fkea_comes_near_the_score_of_the_kernel():
    X = features((200, 2))
    exact = matinfo.vendi_score(kernels.rbf(X, bandwidth=4.0)).item()
    ours = measures.fkea(X, bandwidth=4.0, n_features=1024)
    assert ours.value == pytest.approx(exact, rel=0.03)
    assert ours.low <= ours.value <= ours.high
    assert 0 < ours.standard_error < 0.05 * exact
    assert ours == measures.fkea(X, bandwidth=4.0, n_features=1024)  # the seed


def test_vendi_interval_holds_the_score_of_fresh_samples():
    fresh = [
        matinfo.vendi_score(kernels.rbf(features((30, 2), seed), bandwidth=2.0)).item()
        for seed in range(1, 41)
    ]
    ours = measures.vendi_interval(kernels.rbf(features((600, 2)), bandwidth=2.0), 30)
    covered = sum(ours.low <= value <= ours.high for value in fresh)
    assert covered >= 32  # of 40, at a level of 0.95
    Z = features((60, 3))
    of_gram, of_matrix = (measures.vendi_interval(K, 20) for K in (Gram(Z), Z @ Z.mT))
    assert of_gram.value == pytest.approx(of_matrix.value)


# Two of a kind


def test_entropy_difference_ratio_takes_spectra_and_is_zero_between_constants():
    A, B = Gram(features(seed=1)), Gram(features((30, 3), seed=2))
    first, second = (matinfo.von_neumann_entropy(K).item() for K in (A, B))
    expected = abs(first - second) / max(first, second)
    assert measures.entropy_difference_ratio(A, B).item() == pytest.approx(expected)
    assert measures.entropy_difference_ratio(spectrum(A), B).item() == pytest.approx(expected)
    assert measures.entropy_difference_ratio(torch.ones(3, 3), torch.ones(2, 2)) == 0


def test_representation_js_equals_that_of_the_covariances():
    Z = torch.nn.functional.normalize(features((14, 4)), dim=-1)
    expected = naive.representation_js(Z.numpy(), 6)
    for K in (Gram(Z), Z @ Z.mT):
        assert measures.representation_js(K, 6).item() == pytest.approx(expected, rel=1e-9)
    C_x, C_y = Z[:6].mT @ Z[:6] / 6, Z[6:].mT @ Z[6:] / 8
    assert measures.representation_js(Gram(Z), 6).item() == pytest.approx(matinfo.matrix_js(C_x, C_y).item())
    assert torch.autograd.gradcheck(
        lambda x: measures.representation_js(Gram(x), 6), Z.requires_grad_(), atol=1e-6
    )


def test_representation_js_of_samples_of_one_law_under_a_narrow_kernel_is_corrected():
    narrow = kernels.rbf(features((80, 3)), bandwidth=0.3)
    plain = measures.representation_js(narrow, 40)
    assert plain > 0.6
    assert plain <= math.log(2) + 1e-9
    assert measures.representation_js(narrow, 40, keep=80).item() == pytest.approx(plain.item())
    assert abs(measures.representation_js(narrow, 40, keep=4)) < 0.1


@pytest.mark.parametrize("kind", ["heat", "matern"])
def test_semantic_kernel_equals_its_definition(kind):
    W = np.abs(kernel_matrix(6))
    ours = measures.semantic_kernel(W, kind=kind, time=0.7, nu=1.5, kappa=0.8)
    np.testing.assert_allclose(ours, naive.semantic_kernel(W, kind, 0.7, 1.5, 0.8), rtol=1e-10, atol=1e-13)
    alike = measures.semantic_kernel(np.full((5, 5), 100.0))
    assert matinfo.von_neumann_entropy(alike) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measures.power_law(torch.eye(4), first=5, last=5), "first < last"),
        (lambda: measures.isoscore_star(torch.ones(4, 3), shrinkage=0.1, reference=torch.eye(2)), "reference of shape"),
        (lambda: measures.uniformity(torch.ones(1, 3)), "at least 2 rows"),
        (lambda: measures.curvature(torch.ones(2, 3)), "at least 3 rows"),
        (lambda: measures.two_nn(torch.ones(3, 2)), "at least four"),
        (lambda: measures.mle_dimension(torch.ones(9, 2)), "more rows than neighbours"),
        (lambda: measures.cluster_learnability(torch.ones(9, 2), torch.ones(8).long()), "labels of shape"),
        (lambda: measures.class_vendi(torch.eye(3), torch.ones(2).long()), "labels of shape"),
        (lambda: measures.ken(torch.eye(3), 3), "count below"),
        (lambda: measures.representation_js(torch.eye(3), 3), "count below"),
        (lambda: measures.vendi_interval(torch.eye(3), 4), "size of at most"),
        (lambda: measures.semantic_kernel(-torch.eye(3)), "weights >= 0"),
        (lambda: measures.lidar(torch.ones(2, 4, 3)), "positive trace"),
    ],
)  # fmt: skip
def test_arguments_outside_their_domain_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_layers_take_every_measure_by_name():
    hidden = [torch.randn(24, 7, 6, generator=seeded(s)) for s in range(2)]
    report = matinfo.layers.layerwise(hidden, quantities=list(MEASURES), pairs=False)
    assert set(report.quantities) == set(MEASURES)
    of_gram = {"stable_rank": measures.stable_rank, "isoscore": measures.isoscore}
    of_gram |= {"uniformity": lambda K: measures.uniformity(K.features(), normalize=False)}
    direct = matinfo.layers.layerwise(hidden, quantities=of_gram, pairs=False)
    for name in of_gram:
        torch.testing.assert_close(report.quantities[name], direct.quantities[name])


def test_self_clustering_counts_zero_rows_as_its_formula_does():
    W = np.concatenate([np.random.default_rng(0).normal(size=(12, 4)), np.zeros((3, 4))])
    rows = W / np.maximum(np.linalg.norm(W, axis=1, keepdims=True), 1e-300)
    n, expected = 15, 15 + 15 * 14 / 4
    value = (((rows @ rows.T) ** 2).sum() - expected) / (n**2 - expected)
    assert measures.self_clustering(W) == pytest.approx(value, rel=1e-9)
    filled = W[:12]
    for features in (Gram(filled, normalize=True), spectrum(filled, normalize=True)):
        assert measures.self_clustering(features) == pytest.approx(measures.self_clustering(filled), rel=1e-9)


@pytest.mark.parametrize("function", [measures.class_vendi, measures.cluster_learnability])
@pytest.mark.parametrize(
    "labels", [[0, 0, 1, 1], torch.tensor([0.0, 0.0, 1.0, math.nan])], ids=["list", "float"]
)
def test_labels_that_are_no_whole_numbers_are_refused(function, labels):
    with pytest.raises(TypeError, match="labels"):
        function(torch.eye(4), labels)
