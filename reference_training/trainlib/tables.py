"""Tables of results: one row per method and kind of feature, mean and standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from trainlib.config import NAMES
from trainlib.siamese.config import METHODS

Item = TypeVar("Item")
COLUMNS = (
    ("effective_rank", "eff. rank", 2),
    ("rankme", "RankMe", 2),
    ("entropy", "entropy (nats)", 3),
    ("knn_accuracy", "kNN %", 2),
    ("probe_accuracy", "probe %", 2),
    ("mutual_information", "I (nats)", 3),
    ("joint_entropy", "joint entropy (nats)", 3),
)


TIMES = (("seconds", "seconds"), ("cpu_seconds", "CPU s"))


def group_by_method(summaries: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Summaries of equal label together, in the order of ``NAMES`` (masked) and ``METHODS``, then by weight."""
    order = {name: i for i, name in enumerate([*NAMES, *METHODS])}

    def place(summary: dict[str, Any]) -> tuple:
        method = summary["method"]
        return order[method["method"]], method["lambda_"] or 0.0, summary["label"], summary["seed"]

    return grouped(sorted(summaries, key=place), lambda summary: summary["label"])


def grouped(items: Iterable[Item], key: Callable[[Item], Any]) -> dict[Any, list[Item]]:
    """Items of equal key together, in the order in which the keys appear."""
    groups: dict[Any, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def spread(values: list[float], digits: int) -> str:
    """Mean, and sample standard deviation where there is more than one value."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def columns(summaries: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """Key, title and digits of the quantities that all summaries hold."""
    held = [values.keys() for s in summaries for values in s["features"].values()]
    return [column for column in COLUMNS if all(column[0] in keys for keys in held)]


def results_table(summaries: list[dict[str, Any]]) -> str:
    """A Markdown table, aligned so that it also reads well on a terminal."""
    rows = []
    for label, group in group_by_method(summaries).items():
        for feature in group[0]["features"]:
            row = {"method": label, "seeds": str(len(group)), "feature": feature}
            for key, title, digits in columns(summaries):
                row[title] = spread([s["features"][feature][key] for s in group], digits)
            rows.append(row | {title: spread([s[key] for s in group], 0) for key, title in TIMES})
    return of_records(rows)


def aligned(rows: list[list[str]]) -> str:
    """Rows of text, the first one the header, as an aligned Markdown table."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def of_records(records: list[dict[str, str]]) -> str:
    """A table of records with equal keys, which are its header."""
    return aligned([list(records[0]), *(list(record.values()) for record in records)])


def aggregate(summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table's numbers for machines: mean, standard deviation and values per method and feature."""
    records = []
    for label, group in group_by_method(summaries).items():
        record: dict[str, Any] = {"label": label, "seeds": [s["seed"] for s in group], "features": {}}
        for feature in group[0]["features"]:
            record["features"][feature] = {
                key: mean_and_sd([s["features"][feature][key] for s in group]) for key, _, _ in columns(group)
            }
        for key, _ in TIMES:
            record[key] = mean_and_sd([s[key] for s in group])
        records.append(record)
    return records


def mean_and_sd(values: list[float]) -> dict[str, Any]:
    """Numbers for machines: mean, sample standard deviation where there are several, and all of them."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": sd, "values": values}
