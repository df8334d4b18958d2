"""A report as JSON: finite numbers only, null with a reason where there is none."""

from __future__ import annotations

import json
import math
from typing import Any

import matinfo
from matinfo.cli.arguments import Options
from matinfo.cli.as_text import describe, describe_pair, terms
from matinfo.cli.report import ArrayReport, Report, setup_of, setup_of_pair
from matinfo.cli.value import Value, order_name

SCHEMA, VERSION = "matinfo-report", 2
"""The version changes when a reader of the old one would go wrong."""


def json_text(report: Report, options: Options) -> str:
    """The report as text in ASCII, keys in a fixed order; a byte of a name that is no character is a lone surrogate."""
    pair, features = None, options.kind == "features"
    if report.pair is not None:
        first, second = (array.measured.source.name for array in report.arrays)
        pair = {
            "first": first,
            "second": second,
            "operands": describe_pair(report, options),
            "rows": report.pair.rows,
            "setup": setup_of_pair(report, options),
            "quantities": _values(report.pair.values),
        }
    content = {
        "schema": SCHEMA,
        "schema_version": VERSION,
        "matinfo": matinfo.__version__,
        "settings": {
            "kind": options.kind,
            "operand": describe(options),
            "alphas": [_order(alpha) for alpha in options.alphas],
            "mu": options.mu,
            "normalize": options.normalize if features else None,
            "center": options.center if features else None,
            "base": options.base,
            "nan": options.nan,
            "drop": list(options.drop),
            "rows": options.rows,
            "seed": options.seed,
        },
        "arrays": [_array(array) for array in report.arrays],
        "pair": pair,
        "terms": terms(report),
        "notes": report.notes,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _array(array: ArrayReport) -> dict[str, Any]:
    m = array.measured
    return {
        "name": m.source.name,
        "file": str(m.source.file),
        "key": m.source.key,
        "rows": m.rows,
        "skipped_rows": m.skipped,
        "rows_in_file": m.total,
        "columns": m.source.columns,
        "dtype": m.source.dtype,
        "setup": setup_of(m),
        "quantities": _values(array.values),
        "eigenvalues": [_finite(value) for value in m.S.eigenvalues.tolist()],
    }


def _values(values: list[Value]) -> list[dict[str, Any]]:
    return [
        {
            "name": v.name,
            **({} if v.alpha is None else {"alpha": _order(v.alpha)}),
            "value": _finite(v.value),
            "unit": v.unit,
            "call": v.call,
            **({} if v.chance is None else {"chance": vars(v.chance)}),
            **({"reason": v.reason} if v.reason else {}),
        }
        for v in values
    ]


def _order(alpha: float) -> float | str:
    return order_name(alpha) if alpha == math.inf else alpha


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
