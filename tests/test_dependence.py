"""DiME, the difference of matrix-based entropies."""

from __future__ import annotations

import math
from itertools import permutations

import matrices
import numpy as np
import oracles
import pytest
import torch
from helpers import t
from hypothesis import given
from tolerances import close

import matinfo
from matinfo import Gram, cka, dime, hsic, mutual_information
from matinfo.losses import hsic_bottleneck_loss


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def dime_oracle(K1, K2, alpha, orders):
    """The definition with the permutations given."""
    joint = oracles.joint_entropy_mp(K1, K2, alpha=alpha)
    permuted = [oracles.joint_entropy_mp(K1, K2[np.ix_(o, o)], alpha=alpha) for o in orders]
    return float(sum(permuted) / len(permuted) - joint)


def drawn(n, count, seed=0):
    generator = seeded(seed)
    return [torch.randperm(n, generator=generator).numpy() for _ in range(count)]


def correlated(n=30, d=3, noise=0.3, seed=0):
    """RBF matrices of a sample and of a noisy copy of it."""
    X = matrices.features(n, d, seed)
    Y = X + noise * matrices.features(n, d, seed + 1)
    return [np.exp(-((Z[:, None] - Z[None]) ** 2).sum(-1) / 2) for Z in (X, Y)]


# --- definition ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.01, 2.0, 3.0, math.inf])
def test_dime_equals_its_definition(alpha):
    K1, K2 = (matrices.random_correlation(6, seed) for seed in (0, 1))
    expected = dime_oracle(K1, K2, alpha, drawn(6, 4))
    close(dime(t(K1), t(K2), alpha=alpha, permutations=4, generator=seeded()), expected, 1e-12)


@pytest.mark.parametrize("shape", [(6, 3), (30, 2)])
def test_dime_of_grams_is_that_of_their_matrices(shape):
    # Only Gram matrices may be multiplied: the product of the d x d covariances is something else.
    first, second = (Gram(t(matrices.features(*shape, seed)), normalize=True) for seed in (0, 1))
    expected = dime(first.dense(), second.dense(), generator=seeded())
    close(dime(first, second, generator=seeded()), expected, 1e-11)
    close(dime(first * second, second + first, generator=seeded(1)),
          dime((first * second).dense(), (second + first).dense(), generator=seeded(1)), 1e-11)  # fmt: skip


def test_defaults_are_those_of_the_documentation():
    K1, K2 = (t(matrices.random_correlation(6, seed)) for seed in (0, 1))
    close(dime(K1, K2, generator=seeded()), dime(K1, K2, alpha=1.0, permutations=10, generator=seeded()), 0.0)


# --- reproducibility -----------------------------------------------------------------------------------------


def test_equal_generators_give_equal_results_and_advance():
    K1, K2 = (t(matrices.random_correlation(9, seed)) for seed in (0, 1))
    generator = seeded(3)
    first, second = (dime(K1, K2, permutations=2, generator=generator) for _ in range(2))
    assert first == dime(K1, K2, permutations=2, generator=seeded(3))
    assert first != second
    torch.manual_seed(5)
    by_global = dime(K1, K2, permutations=2)
    torch.manual_seed(5)
    assert by_global == dime(K1, K2, permutations=2)


def test_a_given_generator_leaves_the_global_one_alone():
    K = t(matrices.random_correlation(5))
    before = torch.get_rng_state()
    dime(K, K, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


# --- meaning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("scales", [(1e-160, 1.0), (1e-300, 1e300), (1e160, 1e20), (1e300, 1e300)])
def test_alignment_does_not_see_the_scale_of_a_matrix(scales, estimator):
    """At 1e-160 it was 1.015 of equal matrices, at 1e300 0.0 or NaN."""
    X = matrices.features(12, 3, 1)
    K, L = (
        torch.as_tensor(Z @ Z.T / np.abs(Z @ Z.T).max()) for Z in (X, X + 0.3 * matrices.features(12, 3, 2))
    )
    expected = cka(K, L, estimator=estimator)
    first = (scales[0] * K).requires_grad_()
    found = cka(first, scales[1] * L, estimator=estimator)
    close(found, expected.item(), 1e-12)
    assert torch.autograd.grad(found, first)[0].isfinite().all()
    close(cka(Gram(t(X) * scales[0] ** 0.5), Gram(t(X) * scales[1] ** 0.5), estimator=estimator), 1.0, 1e-12)


def test_hsic_is_the_product_of_scales_or_infinite_and_never_nan():
    K = torch.as_tensor(matrices.random_correlation(6, 1))
    for first, second in ((1e-300, 1e300), (1e200, 1e-20), (1e150, 1e150)):
        close(hsic(first * K, second * K) / first / second, hsic(K, K).item(), 1e-12)
    assert hsic(1e200 * K, 1e200 * K).item() == math.inf
    assert hsic_bottleneck_loss(1e200 * K, 1e200 * K, 1e200 * K).item() == -math.inf
    for statistic, expected in (("hsic", 1e150 * hsic(K, K).item()), ("cka", 1.0)):
        test = matinfo.independence_test(1e150 * K, K, statistic=statistic, permutations=19)
        assert test.statistic == pytest.approx(expected)


def test_constant_and_identity_matrices_share_nothing():
    K = t(matrices.random_correlation(7))
    for trivial in (torch.ones(7, 7).double(), torch.eye(7).double()):
        for alpha in (1.0, 2.0):
            assert dime(K, trivial, alpha=alpha) == 0
            close(dime(trivial, K, alpha=alpha), 0.0, 1e-13)
    assert mutual_information(K, torch.eye(7).double()) > 0.1  # which is why DiME exists


def test_dime_of_dependent_samples_is_positive_and_of_shuffled_ones_near_zero():
    K1, K2 = map(t, correlated())
    dependent = float(dime(K1, K2, permutations=20, generator=seeded()))
    assert dependent > 0.2
    order = torch.randperm(30, generator=seeded(9))
    shuffled = dime(K1, K2[order][:, order], permutations=20, generator=seeded())
    assert abs(float(shuffled)) < 0.1 * dependent


def test_dime_approaches_the_mean_over_all_permutations():
    K1, K2 = (matrices.random_correlation(4, seed) for seed in (0, 1))
    exact = dime_oracle(K1, K2, 1.0, [list(o) for o in permutations(range(4))])
    # The entropies of the 24 permutations differ by less than 0.1, and 2000 of them are averaged.
    close(dime(t(K1), t(K2), permutations=2000, generator=seeded()), exact, 5e-3)


@given(seed=matrices.seeds)
def test_dime_is_at_most_the_mutual_information_at_order_one(seed):
    K1, K2 = (t(matrices.random_correlation(5, (seed + i) % 2**32)) for i in range(2))
    assert dime(K1, K2, permutations=3, generator=seeded(seed)) <= mutual_information(K1, K2) + 1e-12


def test_dime_decreases_as_noise_hides_the_dependence():
    values = [
        float(dime(*map(t, correlated(noise=noise)), generator=seeded())) for noise in (0.1, 0.5, 1.0, 3.0)
    ]
    assert values == sorted(values, reverse=True)


# --- interface -----------------------------------------------------------------------------------------------


def test_reordered_gram_has_the_rows_and_columns_of_the_matrix_in_that_order():
    gram = Gram(t(matrices.features(5, 2))) * Gram(t(matrices.features(5, 3, 1))) + Gram(
        t(matrices.features(5, 2, 2))
    )
    order = torch.tensor([3, 1, 4, 0, 2])
    close((gram.reordered(order).dense() - gram.dense()[order][:, order]).abs().max(), 0.0, 1e-15)
