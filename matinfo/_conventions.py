"""What reports have in common: the phrase for the matrix that is measured, and how a table is set."""

from __future__ import annotations


def describe_rows(*, center: bool | str, normalize: bool) -> str:
    """How the rows of Z were prepared before ``K = Z Z^T`` was measured.

    The defaults of everything that prepares rows itself are rows of length one and no centring: K then has a unit
    diagonal, so that no sample weighs more than another, and samples that have fallen onto one point have rank 1, where
    centring would leave noise of any rank. With both the length comes first, because a stream is read once.
    """
    if center == "first" and normalize:
        return "rows of Z less their mean, then divided by their length"
    rows = "rows of Z divided by their length" if normalize else "rows of Z as they are"
    return f"{rows}, {'less their mean' if center else 'not centred'}"


def set_table(rows: list[list[str]]) -> str:
    """Lines of a table: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for first, *rest in rows
    )
