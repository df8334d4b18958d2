"""What runs of several arms and seeds allow one to say: paired differences, their intervals, and a verdict in words.

A verdict is one of three, given the ``margin``, the smallest difference that would matter to a reader:

- ``yes``: the difference has the claimed sign, and its p-value, corrected for the number of tests, is below 0.05;
- ``no``: the interval lies below the margin (there may be a difference, but none of the size that matters);
- ``underpowered``: neither. More seeds are needed; ``detectable`` says how large a difference these could have seen.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats

from matinfo import Spectrum, effective_rank, participation_ratio
from matinfo.measures import alpha_req
from trainlib.config import WEIGHT
from trainlib.environment import environments
from trainlib.errors import UsageError
from trainlib.files import SUMMARY, is_summary, read_json, read_summary, write_json
from trainlib.fleet.training import SPECTRA
from trainlib.logs import read_metrics
from trainlib.pictures import COLOURS, Figure, save
from trainlib.run import refuse_twins
from trainlib.tables import grouped, of_records
from trainlib.validate import require, require_within

LEVEL = 0.05
POWER = 0.8


class Paired(NamedTuple):
    """A difference of two arms over their common seeds."""

    seeds: int
    difference: float  # mean of first minus second
    low: float  # ends of the 95 % interval
    high: float
    p: float  # two-sided, paired t
    detectable: float  # smallest difference that such pairs show with 80 % power


def paired(first: dict[int, float], second: dict[int, float]) -> Paired:
    """Compare two arms ``{seed: value}`` by the differences of equal seeds."""
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        raise ValueError(
            f"Expected at least two common seeds, got {len(seeds)}. Train more seeds of both arms."
        )
    differences = np.array([first[s] - second[s] for s in seeds], dtype=float)
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    error = sd / math.sqrt(len(seeds))
    half = float(stats.t.ppf(1 - LEVEL / 2, len(seeds) - 1)) * error
    p = float(stats.ttest_1samp(differences, 0.0).pvalue) if sd > 0 else float(mean == 0)
    return Paired(len(seeds), mean, mean - half, mean + half, p, sd * detectable_effect(len(seeds)))


def detectable_effect(pairs: int) -> float:
    """The difference, in standard deviations of the differences, that a paired t-test shows with 80 % power.

    The power at effect d is that of a noncentral t with noncentrality ``d sqrt(n)``; its far tail adds nothing.
    """
    limit = stats.t.ppf(1 - LEVEL / 2, pairs - 1)
    return float(
        optimize.brentq(lambda d: stats.nct.sf(limit, pairs - 1, d * math.sqrt(pairs)) - POWER, 0.05, 15.0)
    )


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): each is at most LEVEL while the chance of one error is."""
    order = np.argsort(values)
    corrected = [0.0] * len(order)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * values[index]))
        corrected[index] = largest
    return corrected


def verdict(found: Paired, corrected: float, margin: float) -> str:
    """``yes``, ``no`` or ``underpowered`` for the claim that the first arm is above the second."""
    if found.difference > 0 and corrected < LEVEL:
        return "yes"
    return "no" if found.high < margin else "underpowered"


class Agreement(NamedTuple):
    """How well one number orders runs by another, with 95 % intervals over resampled groups of runs."""

    tau: float
    tau_low: float
    tau_high: float
    regret: float  # what choosing by the number loses against the best run
    regret_low: float
    regret_high: float


def agreement(
    number: Sequence[float], target: Sequence[float], groups: Sequence[Any], *, draws: int = 2000, seed: int = 0
) -> Agreement:  # fmt: skip
    """Kendall's tau-b and top-1 regret of choosing the run with the highest ``number``.

    Runs of one group (a seed, or the checkpoints of one run) are not independent: whole groups are resampled.
    """
    x, y, of = np.asarray(number, dtype=float), np.asarray(target, dtype=float), np.asarray(groups)
    names = np.unique(of)
    places = {name: np.flatnonzero(of == name) for name in names}
    source = np.random.default_rng(seed)
    drawn = np.array(
        [
            _agreement(x[index], y[index])
            for index in (
                np.concatenate([places[name] for name in source.choice(names, len(names))])
                for _ in range(draws)
            )
        ]
    )
    tau, regret = _agreement(x, y)
    return Agreement(tau, *_interval_of(drawn[:, 0]), regret, *_interval_of(drawn[:, 1]))


def _interval_of(drawn: np.ndarray) -> tuple[float, float]:
    """95 % of the numbers that are none of NaN, if there are any."""
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (math.nan, math.nan)
    return float(low), float(high)


def _agreement(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    tau = stats.kendalltau(x, y).statistic if len(x) > 1 else math.nan
    return float(tau), float(y.max() - y[np.argmax(x)])


def _decay(values: np.ndarray) -> float:
    """Alpha-ReQ over ranks 3 to a half of the spectrum, all of one weight."""
    return float(alpha_req(Spectrum(values), first=3, last=max(5, len(values) // 2), weighted=False))


# Numbers that need no labels, from a run's eigenvalues: name -> (which second moment of the features, function).
# Row-normalised moments are those of matinfo's Gram; RankMe is of the raw one's square roots.
LABEL_FREE: dict[str, tuple[str, Callable[[np.ndarray], float]]] = {
    "effective rank, order 1": ("rows", lambda v: float(effective_rank(Spectrum(v), 1))),
    "effective rank, order 2": ("rows", lambda v: float(effective_rank(Spectrum(v), 2))),
    "effective rank, order inf": ("rows", lambda v: float(effective_rank(Spectrum(v), math.inf))),
    "effective rank, centred": ("rows_centred", lambda v: float(effective_rank(Spectrum(v), 1))),
    "RankMe": ("raw", lambda v: float(effective_rank(Spectrum(np.sqrt(v)), 1))),
    "participation ratio, centred": ("centred", lambda v: float(participation_ratio(Spectrum(v)))),
    "decay exponent, negative": ("centred", lambda v: -_decay(v)),
}

# Measures of ``matinfo.measures`` that order features of one shape as a number above does, whatever the features: their
# tau is its tau. A minus is the reversed order; alpha_req is over the same ranks. The rest are not among the numbers.
SAME_ORDER: dict[str, tuple[str, ...]] = {
    "effective rank, order 1": (
        "effective_rank", "renyi_entropy", "von_neumann_entropy", "normalized_entropy", "vendi_score",
    ),
    "effective rank, order 2": ("-self_clustering",),
    "effective rank, order inf": ("stable_rank",),
    "RankMe": ("rankme",),
    "participation ratio, centred": ("participation_ratio", "isoscore"),
    "decay exponent, negative": ("-alpha_req",),
}  # fmt: skip


def judge(arguments: argparse.Namespace) -> str:
    """Carry out the command line of ``judge_runs.py``: the tables as Markdown."""
    require_within(WEIGHT, "--margin", arguments.margin)
    runs = _read(arguments.runs)
    if not (arguments.above or arguments.predict or arguments.json):
        problem = f"nothing to judge of {', '.join(sorted({run['label'] for run in runs}))}"
        raise UsageError("--above", problem, "name two of them, or give --predict")
    texts, content = [], {"runs": runs, "margin": arguments.margin}
    if arguments.above:
        rows = _claims(runs, arguments)
        content["claims"] = rows
        texts.append(_claims_table(rows))
        if arguments.picture is not None:
            _draw(rows, arguments.picture)
    if arguments.predict:
        content["predictions"] = _predictions(arguments.runs)
        texts.append(_predictions_table(content["predictions"]))
    if arguments.json is not None:
        write_json(arguments.json, content | {"environments": environments(arguments.runs)})
    return "\n\n".join(texts)


def _read(paths: list[Path]) -> list[dict[str, Any]]:
    """Label, seed and features of all finished runs, of which no two may be one and none of a label longer."""
    found, places = [], []
    for path in paths:
        file = path / SUMMARY if path.is_dir() else path
        if not file.is_file():
            raise UsageError("PATH", f"{path} holds no finished run", "finish it, or leave it out")
        value = read_json(file)
        for run in value.get("runs", [value]) if isinstance(value, dict) else [value]:
            if not is_summary(run):
                problem = f"{file} is not the summary of a run, of a comparison or of this program"
                raise UsageError("PATH", problem, "name one, or folders of finished runs")
            found.append({key: run[key] for key in ("label", "seed", "epochs", "features")})
            places.append((run["label"], run["seed"], path))
    refuse_twins("PATH", places)
    for label, own in grouped(found, lambda run: run["label"]).items():
        epochs = sorted({run["epochs"] for run in own})
        require(
            len(epochs) == 1, "PATH", f"runs of {label} were trained for {epochs} epochs", "name runs of one recipe"
        )  # fmt: skip
    return found


def _claims(runs: list[dict[str, Any]], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for first, second in arguments.above:
        for feature, quantity, a, b in _paired_values(runs, first, second, arguments.quantities):
            pairs = {str(seed): a[seed] - b[seed] for seed in a}
            rows.append({"first": first, "second": second, "feature": feature, "quantity": quantity,
                         "pairs": pairs, **paired(a, b)._asdict()})  # fmt: skip
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["corrected_p"] = p
        names = Paired._fields
        row["verdict"] = verdict(Paired(*(row[n] for n in names)), p, arguments.margin)
    return rows


def _paired_values(
    runs: list[dict[str, Any]], first: str, second: str, quantities: list[str]
) -> Iterator[tuple[str, str, dict[int, float], dict[int, float]]]:
    """By feature and quantity the numbers of both arms, by seed, of the seeds that both have."""
    arms = grouped(runs, lambda run: run["label"])
    for label in (first, second):
        require(
            label in arms,
            "--above",
            f"no run is labelled {label!r}",
            f"name two of: {', '.join(sorted(arms))}",
        )
    left, right = ({run["seed"]: run["features"] for run in arms[label]} for label in (first, second))
    seeds = sorted(left.keys() & right.keys())
    require(
        len(seeds) >= 2, "--above", f"{first!r} and {second!r} have {len(seeds)} seeds in common, of at least two",
        "train more seeds of both",
    )  # fmt: skip
    everyone = [arm[seed] for arm in (left, right) for seed in seeds]
    measured = {
        feature: [name for name in own if all(name in other.get(feature, {}) for other in everyone)]
        for feature, own in everyone[0].items()
    }
    for quantity in quantities:
        known = {name for names in measured.values() for name in names}
        problem = f"no feature of all runs has {quantity!r}"
        require(quantity in known, "--quantities", problem, f"choose from {', '.join(sorted(known))}")
    for feature, names in measured.items():
        for quantity in (name for name in quantities if name in names):
            yield feature, quantity, *({s: arm[s][feature][quantity] for s in seeds} for arm in (left, right))


def _claims_table(rows: list[dict[str, Any]]) -> str:
    return of_records([
        {
            "claim": f"{r['first']} above {r['second']}",
            "feature": r["feature"],
            "quantity": r["quantity"].removesuffix("_accuracy"),
            "seeds": str(r["seeds"]),
            "difference [95 %]": f"{r['difference']:+.2f} [{r['low']:+.2f}, {r['high']:+.2f}]",
            "p": f"{r['p']:.3f}",
            "corrected": f"{r['corrected_p']:.3f}",
            "detectable": f"{r['detectable']:.1f}",
            "verdict": r["verdict"],
        }
        for r in rows
    ])  # fmt: skip


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A line for each claim: the paired differences of single seeds, their mean and its 95 % interval."""
    figure = Figure(figsize=(8, 0.8 + 0.36 * len(rows)))
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        axes.plot(list(row["pairs"].values()), [place] * len(row["pairs"]), ".", color=COLOURS[0], alpha=0.7)
        axes.errorbar(
            row["difference"], place - 0.22, xerr=[[row["difference"] - row["low"]], [row["high"] - row["difference"]]],
            fmt="o", color=COLOURS[2], capsize=3, markersize=4,
        )  # fmt: skip
    names = [
        f"{r['first']} - {r['second']}: {r['quantity'].removesuffix('_accuracy')}, {r['feature']}"
        for r in rows
    ]
    axes.set_yticks(range(len(rows)), list(reversed(names)), fontsize=8)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_xlabel("difference in points: single seeds, mean, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    save(figure, path)


def _predictions(folders: list[Path]) -> list[dict[str, Any]]:
    """By feature, label-free number and target: agreement over the last checkpoints, and over all of them.

    A file that ``--json`` wrote holds them; from folders of runs they are computed.
    """
    points: dict[str, list[dict[str, Any]]] = {}
    for folder in folders:
        if folder.is_file() and (stored := read_json(folder).get("predictions")):
            return stored
        if not (folder / SPECTRA).is_file():
            raise UsageError("--predict", f"{folder} has no {SPECTRA}", "give runs of --scale cifar-medium")
        label = read_summary(folder)["label"]
        measured = [r for r in read_metrics(folder) if r["kind"] == "eval"]
        with np.load(folder / SPECTRA) as spectra:
            for record in measured:
                for feature in ("cls", "pooled"):
                    values = {
                        name: of(np.maximum(spectra[f"{feature}/{kind}/{round(record['epoch'])}"], 0))
                        for name, (kind, of) in LABEL_FREE.items()
                    }
                    points.setdefault(feature, []).append({
                        "run": str(folder), "label": label, "last": record is measured[-1], "numbers": values,
                        "probe": record[f"{feature}_quick_probe_accuracy"],
                        "kNN": record[f"{feature}_quick_knn_accuracy"],
                    })  # fmt: skip
    require(len(folders) > 1, "--predict", f"{folders[0]} alone has no order", "name several runs")
    rows = []
    for feature, own in points.items():
        last = [p for p in own if p["last"]]
        for name in LABEL_FREE:
            rows += [
                {
                    "feature": feature, "number": name, "target": target,
                    "last": _agree(last, name, target), "all": _agree(own, name, target),
                    "within_arms": _within(own, name, target),
                }
                for target in ("probe", "kNN")
            ]  # fmt: skip
    return rows


def _agree(points: list[dict[str, Any]], name: str, target: str) -> dict[str, float | None]:
    """The agreement for JSON, which knows no NaN: values that are all equal have no order, and so no tau."""
    found = agreement(
        [p["numbers"][name] for p in points], [p[target] for p in points], [p["run"] for p in points]
    )
    return {key: None if math.isnan(value) else value for key, value in found._asdict().items()}


def _within(points: list[dict[str, Any]], name: str, target: str) -> float | None:
    """Mean over the arms of tau among each arm's own checkpoints, of which an arm needs two that differ."""
    taus = []
    for own in grouped(points, lambda p: p["label"]).values():
        numbers, targets = np.array([(p["numbers"][name], p[target]) for p in own]).T
        taus.append(_agreement(numbers, targets)[0])
    known = [tau for tau in taus if not math.isnan(tau)]
    return statistics.fmean(known) if known else None


def _interval(found: dict[str, float | None], name: str, form: str) -> str:
    if any(found[name + end] is None for end in ("", "_low", "_high")):
        return "-"
    return f"{found[name]:{form}} [{found[f'{name}_low']:{form}}, {found[f'{name}_high']:{form}}]"


def _predictions_table(rows: list[dict[str, Any]]) -> str:
    return of_records([
        {
            "feature": r["feature"],
            "number": r["number"],
            "target": r["target"],
            "tau, last checkpoints": _interval(r["last"], "tau", "+.2f"),
            "regret, points": _interval(r["last"], "regret", ".1f"),
            "tau, all": _interval(r["all"], "tau", "+.2f"),
            "tau within arms": "-" if r["within_arms"] is None else f"{r['within_arms']:+.2f}",
            "measures of the same order": ", ".join(SAME_ORDER.get(r["number"], ())),
        }
        for r in rows
    ])  # fmt: skip
