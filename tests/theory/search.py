"""The smallest failures of subadditivity, found by looking at every pair of labellings.

Two labels on n samples are, up to the names of labels and the order of samples, a table of counts without empty rows
and columns. Their partition matrices have the label frequencies as spectra, and the Hadamard product those of the pair
of labels. So ``I_alpha < 0`` for two labels is a failure of ``H_alpha(K1, K2) <= H_alpha(K1) + H_alpha(K2)``; and
every table with n samples comes from one with n - 1 by adding a sample, which is how they are listed here.

    python tests/theory/search.py --alpha 2 --alpha 1.5 --largest 8
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Iterable

Table = tuple[tuple[int, ...], ...]


def entropy(counts: Iterable[int], alpha: float) -> float:
    """Rényi entropy of label frequencies, in nats."""
    counts = [count for count in counts if count]
    n = sum(counts)
    if alpha == 0:
        return math.log(len(counts))
    if alpha == 1:
        return -sum(c / n * math.log(c / n) for c in counts)
    if math.isinf(alpha):
        return math.log(n / max(counts))
    return math.log(sum((c / n) ** alpha for c in counts)) / (1 - alpha)


def information(table: Table, alpha: float) -> float:
    """`H_alpha(rows) + H_alpha(columns) - H_alpha(cells)`."""
    rows, columns = [sum(row) for row in table], [sum(column) for column in zip(*table, strict=True)]
    cells = [count for row in table for count in row]
    return entropy(rows, alpha) + entropy(columns, alpha) - entropy(cells, alpha)


def _tidy(table: Table) -> Table:
    """Rows and columns in a standard order. Equal tables up to relabelling mostly, not always, become equal."""
    rows = table
    for _ in range(3):
        rows = tuple(sorted(rows, key=lambda row: (-sum(row), sorted(row, reverse=True), row)))
        rows = tuple(zip(*rows, strict=True))
    return tuple(zip(*rows, strict=True))


def _with_one_more_sample(table: Table) -> Iterable[Table]:
    height, width = len(table), len(table[0])
    for i in range(height + 1):
        for j in range(width + 1):
            larger = [list(row) + [0] * (j == width) for row in table] + [[0] * (width + (j == width))] * (
                i == height
            )
            larger[i] = [count + (k == j) for k, count in enumerate(larger[i])]
            yield _tidy(tuple(map(tuple, larger)))


@functools.cache
def tables(n: int) -> frozenset[Table]:
    """Every table of n samples up to relabelling, some of them in more than one arrangement."""
    if n == 1:
        return frozenset({((1,),)})
    return frozenset(larger for table in tables(n - 1) for larger in _with_one_more_sample(table))


def least_information(n: int, alpha: float) -> tuple[float, Table]:
    """The least `I_alpha` of two labels on n samples, and a table that has it."""
    return min((information(table, alpha), table) for table in tables(n))


def smallest_counterexample(alpha: float, largest: int) -> tuple[int, float, Table] | None:
    """`(n, I_alpha, table)` for the smallest n up to `largest` with negative information; None if there is none."""
    for n in range(1, largest + 1):
        value, table = least_information(n, alpha)
        if value < -1e-12:
            return n, value, table
    return None


def main() -> None:
    """Print the smallest counterexample for each order asked for."""
    parser = argparse.ArgumentParser(
        description="Smallest pairs of labels with negative Rényi mutual information."
    )
    parser.add_argument("--alpha", type=float, action="append", help="an order; may be repeated")
    parser.add_argument(
        "--largest", type=int, default=8, help="largest number of samples to look at (default 8)"
    )
    arguments = parser.parse_args()
    for alpha in arguments.alpha or [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf]:
        found = smallest_counterexample(alpha, arguments.largest)
        if found is None:
            print(f"alpha = {alpha:g}: none up to n = {arguments.largest}")  # noqa: T201
        else:
            n, value, table = found
            print(f"alpha = {alpha:g}: n = {n}, I = {value:.5f}, counts {[list(row) for row in table]}")  # noqa: T201


if __name__ == "__main__":
    main()
