"""From the training logs of runs to a verdict on every statement: smallest slack, violations, tightness."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainlib.environment import environments
from trainlib.errors import UsageError
from trainlib.logs import NAME, read_metrics
from trainlib.run import read_pretraining_config
from trainlib.tables import aligned, grouped
from trainlib.theorems.catalogue import METHODS, OPERANDS_OF, statements_of
from trainlib.theorems.from_loss import informative_below
from trainlib.theorems.statement import TOLERANCE, Statement, column
from trainlib.theorems.two_views import MU

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The training log of one run, known to hold every number that its statements need."""

    folder: Path
    method: str
    records: list[Record]

    def numbers(self, key: str, form: str = "") -> list[float]:
        """One column of the log."""
        return [record[column(key, form)] for record in self.records]

    @property
    def steps(self) -> list[int]:
        """The logged steps."""
        return [record["step"] for record in self.records]


def read_run(folder: Path) -> Run:
    """A run folder, refused in one line if a number is missing."""
    method = read_pretraining_config(folder, "RUN").method.method
    if method not in METHODS:
        raise UsageError(
            "RUN", f"{folder} is a run of {method}, of which no statement speaks", f"name one of {', '.join(METHODS)}"
        )  # fmt: skip
    records = [record for record in read_metrics(folder) if record["kind"] == "train"]
    if not records:
        raise UsageError(
            "RUN", f"{folder / NAME} holds no line of training", "train it with check_theorems.py"
        )
    needed = [name for statement in statements_of(method) for name in statement.columns]
    for operand in OPERANDS_OF.get(method, ()):
        needed += [column(f"{operand}/{name}") for name in ("loss", "n", "lambda_")]
    for record in records:
        missing = [name for name in needed if name not in record]
        if missing:
            raise UsageError(
                "RUN",
                f"{folder / NAME} lacks {missing[0]} and {len(missing) - 1} more of {len(needed)} numbers at step "
                f"{record['step']}",
                "train it with check_theorems.py, which logs them",
            )
    return Run(folder, method, records)


def judge(runs: list[Run]) -> list[Record]:
    """One record a statement and run, with one entry a form."""
    return [_judge_one(statement, run) for run in runs for statement in statements_of(run.method)]


def _judge_one(statement: Statement, run: Run) -> Record:
    values, known = run.numbers(statement.key), None
    if column(statement.key, "trivial") in run.records[0]:
        known = run.numbers(statement.key, "trivial")
    first = next(iter(statement.forms))
    # The sign of a bound that says more than what is known.
    better = 1 if statement.side == "at least" else -1
    first_gaps: list[float] = []
    forms: Record = {}
    for form, text in statement.forms.items():
        bounds = run.numbers(statement.key, form)
        slacks = [statement.slack(v, b) for v, b in zip(values, bounds, strict=True)]
        worst = min(range(len(slacks)), key=slacks.__getitem__)
        bad = [statement.is_violated(v, b) for v, b in zip(values, bounds, strict=True)]
        gaps = [abs(slack) for slack in slacks]
        first_gaps = first_gaps or gaps
        ratios = [g / p for g, p in zip(gaps, first_gaps, strict=True) if p > 0]
        share = None
        if known is not None:
            share = statistics.fmean(better * (b - k) > 1e-9 for b, k in zip(bounds, known, strict=True))
        forms[form] = {
            "bound": text,
            "smallest_slack": slacks[worst],
            "step": run.steps[worst],
            "violated_at": [step for step, is_bad in zip(run.steps, bad, strict=True) if is_bad],
            "median_gap": statistics.median(gaps),
            "median_gap_ratio": statistics.median(ratios) if ratios and form != first else None,
            "informative_share": share,
        }
    return {
        "number": statement.number,
        "claim": statement.claim,
        "key": statement.key,
        "group": statement.group,
        "side": statement.side,
        "guaranteed": statement.guaranteed,
        "method": run.method,
        "folder": str(run.folder),
        "steps": len(values),
        "value_first": values[0],
        "value_last": values[-1],
        "forms": forms,
        **_thresholds(statement, run),
    }


def _thresholds(statement: Statement, run: Run) -> Record:
    """For bounds of a loss: the least loss of the run, and the loss below which each form says something."""
    operand, _, key = statement.key.partition("/")
    if "printed" not in statement.forms:
        return {}
    losses = run.numbers(f"{operand}/loss")
    n, lambda_ = int(run.numbers(f"{operand}/n")[0]), run.numbers(f"{operand}/lambda_")[0]
    below = informative_below(n, operand, lambda_, MU)[key]
    return {"n": n, "lambda": lambda_, "smallest_loss": min(losses), "informative_below": below}


def violations(verdicts: list[Record], *, guaranteed: bool = True) -> list[Record]:
    """The verdicts whose statement failed somewhere, of those that are claimed to hold or of the others."""
    return [
        v
        for v in verdicts
        if v["guaranteed"] is guaranteed and any(f["violated_at"] for f in v["forms"].values())
    ]


def table(verdicts: list[Record]) -> str:
    """One row a statement, over all runs and operands that it speaks of, as aligned Markdown."""
    header = ["statement", "claim", "smallest slack", "where", "of the sharpest", "violated", "gap, sharper : first",
              "says something"]  # fmt: skip
    groups = grouped(verdicts, lambda verdict: (verdict["number"], verdict["claim"]))
    return aligned([header, *(_row(*names, group) for names, group in groups.items())])


def _row(number: str, claim: str, group: list[Record]) -> list[str]:
    names = list(group[0]["forms"])
    first, last = names[0], names[-1]
    least = min(group, key=lambda v: v["forms"][first]["smallest_slack"])
    sharpest = min(v["forms"][last]["smallest_slack"] for v in group)
    ratios = [
        f"{name} {_number(statistics.median(r))}"
        for name in names[1:]
        if (r := [x for v in group if (x := v["forms"][name]["median_gap_ratio"]) is not None])
    ]
    shares = [
        f"{name} {100 * statistics.fmean(v['forms'][name]['informative_share'] for v in group):.0f} %"
        for name in names
        if group[0]["forms"][name]["informative_share"] is not None
    ]
    return [
        number,
        claim,
        _number(least["forms"][first]["smallest_slack"]),
        f"{least['method']} {least['key'].partition('/')[0]}, step {least['forms'][first]['step']}",
        _number(sharpest) if len(names) > 1 else "",
        _violated(group),
        ", ".join(ratios),
        ", ".join(shares),
    ]


def _violated(group: list[Record]) -> str:
    bad = sum(len(set().union(*(f["violated_at"] for f in v["forms"].values()))) for v in group)
    steps = sum(v["steps"] for v in group)
    if group[0]["guaranteed"]:
        return f"YES, {bad} of {steps}" if bad else "no"
    return f"not promised; {bad} of {steps}"


def _number(x: float) -> str:
    return f"{x:.1e}" if x != 0 and (abs(x) < 1e-3 or abs(x) >= 1e5) else f"{x:.4g}"


def comparisons(verdicts: list[Record]) -> int:
    """How often a value was held against a bound."""
    return sum(v["steps"] * len(v["forms"]) for v in verdicts)


def conclusion(verdicts: list[Record]) -> str:
    """One line below the table."""
    bad = len(violations(verdicts))
    return (
        f"{comparisons(verdicts):,} comparisons in float64; violated is what fails by more than {TOLERANCE:g} of "
        f"1 + |value| + |bound|, the rounding of eigenvalues. Violated of what is claimed to hold: {bad or 'none'}."
    )


def summary(runs: list[Run], verdicts: list[Record]) -> Record:
    """Everything for machines."""
    return {
        "environments": environments(run.folder for run in runs),
        "tolerance": TOLERANCE,
        "comparisons": comparisons(verdicts),
        "runs": [
            {"folder": str(r.folder), "method": r.method, "lines": len(r.records), "last_step": r.steps[-1]}
            for r in runs
        ],
        "violated": [f"{v['number']}: {v['claim']} ({v['folder']})" for v in violations(verdicts)],
        "failed_as_feared": [
            f"{v['number']}: {v['claim']} ({v['folder']})" for v in violations(verdicts, guaranteed=False)
        ],
        "statements": verdicts,
    }
