"""Where Proposition 4.7 c fails: the smallest labels, smaller general matrices, and every order but 0 and 1."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import search
import torch
from formulas import H, I
from matrices import partition, partition_pair
from strategies import gram

from matinfo import conditional_mutual_information, mutual_information

SMALLEST = {  # order: samples, counts, information
    2.0: (4, [[1, 0], [2, 1]], -0.04082),
    3.0: (4, [[1, 0], [2, 1]], -0.10147),
    1.75: (4, [[1, 0], [2, 1]], -0.01660),
    1.5: (5, [[1, 0], [3, 1]], -0.01349),
    1.25: (7, [[1, 0], [5, 1]], -0.00223),
    0.5: (10, [[2, 1], [5, 2]], -0.00130),
    0.25: (9, [[5, 1], [2, 1]], -0.00019),
    0.1: (8, [[4, 1], [2, 1]], -0.00013),
    5.0: (3, [[1, 0], [1, 1]], -0.10034),
    math.inf: (3, [[1, 0], [1, 1]], -0.28768),
}


def same(table, other):
    """Whether two tables are one up to the order of rows, of columns, and of the two labels."""
    table, other = np.asarray(table), np.asarray(other)
    flips = [other, other[::-1], other[:, ::-1], other[::-1, ::-1]]
    return any(np.array_equal(table, f) or np.array_equal(table, f.T) for f in flips)


# --- the search ----------------------------------------------------------------------------------------------


def canonical(table):
    """The same for tables that differ in the order of rows and columns only."""
    return min(tuple(sorted(zip(*rows, strict=True))) for rows in itertools.permutations(table))


def test_search_lists_every_pair_of_labels():
    # Their number up to the order of rows and of columns is known: 1, 4, 10, 33, 91, ... (OEIS A007716).
    assert [len({canonical(table) for table in search.tables(n)}) for n in range(1, 6)] == [1, 4, 10, 33, 91]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.5, 2.0, math.inf])
def test_search_computes_the_information_of_the_package(alpha):
    for table in sorted(search.tables(4)):
        K, L = partition_pair(table)
        assert search.information(table, alpha) == pytest.approx(I(K, L, alpha), abs=1e-9)


@pytest.mark.parametrize(
    "alpha", [pytest.param(a, marks=pytest.mark.slow) if n > 7 else a for a, (n, *_) in SMALLEST.items()]
)
def test_search_finds_the_smallest_counterexample(alpha):
    n, table, value = SMALLEST[alpha]
    found_n, found_value, found_table = search.smallest_counterexample(alpha, n)
    assert found_n == n
    assert found_value == pytest.approx(value, abs=5e-6)
    assert same(found_table, table)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_search_finds_none_at_orders_zero_and_one(alpha):
    assert search.smallest_counterexample(alpha, 7) is None


@pytest.mark.parametrize(("alpha", "example"), SMALLEST.items())
def test_package_has_negative_information_on_the_smallest_counterexamples(alpha, example):
    n, table, value = example
    K, L = partition_pair(table)
    assert len(K) == n
    assert I(K, L, alpha) == pytest.approx(value, abs=5e-6)
    assert I(K, L, 1) > 0


def test_search_script_prints_what_it_finds(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["search.py", "--alpha", "2", "--alpha", "1", "--largest", "4"])
    search.main()
    assert capsys.readouterr().out.splitlines() == [
        "alpha = 2: n = 4, I = -0.04082, counts [[2, 1], [1, 0]]",
        "alpha = 1: none up to n = 4",
    ]


# --- smaller than labels: general matrices ---------------------------------------------------------------------


def three_vectors(c):
    """Two samples with a common product c with a third, all in a plane."""
    s = math.sqrt(1 - c * c)
    return gram(np.array([[c, s], [c, -s], [1.0, 0.0]]))


@pytest.mark.parametrize("c", [0.8, 0.9, 0.95])
def test_three_samples_suffice_for_matrices_that_are_no_partitions(c):
    # 8 c^4 - 13 c^2 + 5 < 0, that is 5/8 < c^2 < 1, with K = partition {1, 2}, {3}.
    K, L = partition([0, 0, 1]), three_vectors(c)
    assert I(K, L, 2) < -1e-3
    assert I(K, L, 2) == pytest.approx(_information_of_order_two(c), abs=1e-12)


@pytest.mark.parametrize("c", [0.5, 0.79, math.sqrt(5 / 8) - 1e-3])
def test_three_samples_do_not_suffice_outside_that_range(c):
    assert I(partition([0, 0, 1]), three_vectors(c), 2) > 0


def _information_of_order_two(c):
    x, y = (2 * c * c - 1) ** 2, c * c
    return 2 * math.log(3) - math.log(5 * (3 + 2 * x + 4 * y) / (3 + 2 * x))


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.5, 2.0, 5.0, math.inf])
def test_two_samples_never_suffice(alpha):
    # All 2 x 2 matrices are circulant: the joint spectrum is that of a product of independent signs.
    off = torch.linspace(-1, 1, 21, dtype=torch.float64)
    K = torch.eye(2, dtype=torch.float64) + off[:, None, None] * torch.eye(2, dtype=torch.float64).flip(0)
    assert (mutual_information(K[:, None], K[None, :], alpha) > -1e-7).all()


# --- every order but 0 and 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.7, 0.9, 0.97, 1.03, 1.1, 1.3, 1.9, 2.7, 10.0])
def test_information_is_negative_next_to_every_independent_pair_that_is_not_uniform(alpha):
    # Moving mass e along the diagonal of an independent table changes I_alpha to first order, but at 0 and 1.
    a, b, scale = 3, 4, 100_000
    table = scale * np.outer([a, 1], [b, 1])
    signs = []
    for step in (-50, 50):
        moved = table + step * np.array([[1, -1], [-1, 1]])
        signs.append(search.information(tuple(map(tuple, moved.tolist())), alpha) < -1e-12)
    assert sorted(signs) == [False, True]


def test_the_same_step_leaves_information_of_order_one_positive():
    for step in (-50, 50):
        moved = 100_000 * np.outer([3, 1], [4, 1]) + step * np.array([[1, -1], [-1, 1]])
        assert search.information(tuple(map(tuple, moved.tolist())), 1.0) > 0


# --- the wider failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "value"),
    [
        (2.0, math.log(32) - 2 * math.log(17 / 2)),  # H_2 = log(1024/272)
        (math.inf, math.log(32) - 2 * math.log(16)),
        (1.0, math.log(2)),
    ],
)
def test_two_disjoint_blocks_are_far_below_zero(alpha, value):
    K, L = np.eye(32), np.eye(32)
    K[:16, :16], L[16:, 16:] = 1.0, 1.0
    assert I(K, L, alpha) == pytest.approx(value, abs=1e-12)


def test_conditional_information_of_order_zero_can_be_negative():
    # Given label 0, the two others are free bits; given label 1, constants: log 3 + log 3 - log 5 - log 2.
    given, first, second = partition([0, 0, 0, 0, 1]), partition([0, 0, 1, 1, 0]), partition([0, 1, 0, 1, 0])
    value = float(conditional_mutual_information(first, second, given, 0))
    assert value == pytest.approx(math.log(9 / 10), abs=1e-12)


def test_data_processing_fails_with_subadditivity():
    # Forgetting K = ones changes nothing, so a factor with negative information lowers it.
    K, L = partition_pair([[1, 0], [2, 1]])
    ones = np.ones_like(K)
    assert float(mutual_information(ones * K, L, 2)) < float(mutual_information(ones, L, 2)) - 0.04


def test_entropy_of_order_two_is_not_concave_for_six_eigenvalues():
    p, q = np.r_[0.424, np.full(5, 0.1152)], np.eye(6)[0]
    gap = H(np.diag((p + q) / 2), 2) - (H(np.diag(p), 2) + H(np.diag(q), 2)) / 2
    assert gap == pytest.approx(-0.053, abs=1e-3)


def test_information_says_nothing_about_alignment():
    # Orthonormal views whose pairs are all wrong: information is maximal, and the loss is as large as it gets there.
    A = np.eye(6)
    B = np.roll(A, 1, axis=0)
    assert I(gram(A), gram(B), 2) == pytest.approx(math.log(6))
    assert ((A - B) ** 2).sum() == pytest.approx(12)


def test_features_and_their_gram_matrix_have_different_effective_ranks():
    from matinfo import Gram, effective_rank, rankme

    Z = np.diag([3.0, 1.0])
    assert float(rankme(Z)) - float(effective_rank(Gram(Z))) > 0.3
