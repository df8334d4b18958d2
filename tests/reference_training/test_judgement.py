"""Verdicts on synthetic arms whose truth is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import judge_runs
import numpy as np
import pytest
from protocol_runs import done, refused, rows_of
from scipy import stats
from trainlib.fleet.training import SPECTRA
from trainlib.judgement import (
    LABEL_FREE,
    SAME_ORDER,
    Paired,
    agreement,
    detectable_effect,
    holm,
    paired,
    verdict,
)

from matinfo import spectrum
from matinfo.measures import MEASURES

ROOT = Path(__file__).parents[2]


def test_paired_is_the_t_test_of_equal_seeds():
    first, second = {0: 3.0, 1: 5.0, 2: 4.5, 9: 100.0}, {2: 3.0, 0: 2.5, 1: 3.5}
    found = paired(first, second)
    reference = stats.ttest_rel([3.0, 5.0, 4.5], [2.5, 3.5, 3.0])
    interval = reference.confidence_interval()
    assert found.seeds == 3
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("pairs", [3, 5, 10])
def test_detectable_effect_is_detected_four_times_in_five(pairs):
    source = np.random.default_rng(pairs)
    samples = source.normal(detectable_effect(pairs), 1.0, (20_000, pairs))
    share = float((stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05).mean())
    assert share == pytest.approx(0.8, abs=0.012)  # four standard errors


def test_holm_equals_the_hand_computation():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "expected"),
    [
        (2.0, 1.0, 3.0, 0.001, "yes"),
        (0.2, -0.4, 0.8, 0.5, "no"),
        (-2.0, -3.0, -1.0, 0.001, "no"),
        (1.0, -1.0, 3.0, 0.3, "underpowered"),
    ],
)
def test_verdict_follows_the_plan(difference, low, high, p, expected):
    assert verdict(Paired(5, difference, low, high, p, 1.0), p, 1.0) == expected


def test_agreement_of_a_perfect_and_of_a_reversed_order():
    target = [1.0, 2.0, 3.0, 4.0]
    assert agreement(target, target, range(4), draws=100)[:1] == (1.0,)
    reversed_order = agreement([-t for t in target], target, range(4), draws=100)
    assert (reversed_order.tau, reversed_order.regret) == (-1.0, 3.0)


@pytest.mark.parametrize("trials", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_agreement_interval_covers_the_truth_as_often_as_promised(trials):
    """Of Gaussian pairs with correlation r, tau is 2/pi asin(r)."""
    source, r, hits = np.random.default_rng(0), 0.6, 0
    for trial in range(trials):
        x = source.normal(size=40)
        y = r * x + math.sqrt(1 - r * r) * source.normal(size=40)
        found = agreement(x, y, range(40), draws=200, seed=trial)
        hits += found.tau_low <= 2 / math.pi * math.asin(r) <= found.tau_high
    assert hits >= 0.95 * trials - 3 * math.sqrt(0.95 * 0.05 * trials)


def moments(Z):
    """Eigenvalues of the second moments that runs keep: of the rows as they are, centred, and of unit length."""
    rows = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    kinds = {"raw": Z, "centred": Z - Z.mean(0), "rows": rows, "rows_centred": rows - rows.mean(0)}
    return {kind: np.linalg.eigvalsh(X.T @ X / len(X)) for kind, X in kinds.items()}


@pytest.mark.parametrize(("number", "signed"), [(n, m) for n, names in SAME_ORDER.items() for m in names])
def test_same_order_is_the_order_of_the_measure(number, signed):
    source, name = np.random.default_rng(3), signed.removeprefix("-")
    kind, of = LABEL_FREE[number]
    options = {"first": 3, "last": 12, "weighted": False} if name == "alpha_req" else {}
    ours, theirs = [], []
    for decay in source.uniform(0, 2, 20):
        Z = (source.normal(size=(60, 24)) + source.uniform(0, 2)) * np.arange(1.0, 25) ** -decay
        S = spectrum(Z, center="centred" in kind, normalize="rows" in kind)
        ours.append(of(moments(Z)[kind]))
        theirs.append(float(MEASURES[name].function(S, **options)) * (-1 if signed != name else 1))
    assert stats.kendalltau(ours, theirs).statistic == pytest.approx(1.0)


def test_guide_quotes_the_judged_runs(capsys):
    """The page has the tau of each measure with the probe, and says that every tau with kNN is positive."""
    summary = ROOT / "reference_training/results/cifar100_strength.json"
    assert judge_runs.main([str(summary), "--predict"]) == 0
    printed = [[c.strip() for c in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    found = {(c[1], c[2], c[3]): c[4] for c in printed if len(c) > 4}
    assert {cell[0] for (_, _, target), cell in found.items() if target == "kNN"} == {"+"}
    page = (ROOT / "docs/how-to/which-number.md").read_text(encoding="utf-8").splitlines()
    for number, names in SAME_ORDER.items():
        name = names[0].removeprefix("-")
        (row,) = [line for line in page if line.startswith("| `") and f"`{name}`" in line.split("|")[1]]
        assert f"{found['pooled', number, 'probe']}; CLS {found['cls', number, 'probe']}" in row


@pytest.mark.parametrize("judged", ["cifar100_matched", "imagenette_matched"])
def test_results_page_quotes_the_factors_of_the_probe(judged):
    runs = json.loads((ROOT / f"reference_training/results/{judged}.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    section = page[page.index("## Why the probe falls") :].split("## ")[1]
    for claim in runs["claims"]:
        if (claim["second"], claim["feature"]) == ("MAE", "cls") and claim["quantity"].startswith("probe"):
            quoted = f"{claim['difference']:+.2f} [{claim['low']:+.2f}, {claim['high']:+.2f}]"
            assert quoted in section, claim["quantity"]


def test_program_judges_a_summary_and_names_unknown_labels(tmp_path, capsys):
    runs = [
        {"label": label, "seed": seed, "epochs": 1, "features": {"cls": {"knn_accuracy": base + 0.01 * seed}}}
        for label, base in (("A", 60.0), ("B", 50.0))
        for seed in range(3)
    ]
    (tmp_path / "summary.json").write_text(json.dumps({"runs": runs}))
    options = ["--above", "A", "B", "--quantities", "knn_accuracy", "--picture", str(tmp_path / "p.png")]
    assert judge_runs.main([str(tmp_path / "summary.json"), *options]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert "+10.00" in line
    assert line.rstrip(" |").endswith("yes")
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert judge_runs.main([str(tmp_path / "summary.json"), "--above", "A", "C", *options[3:5]]) == 2
    assert "name two of: A, B" in capsys.readouterr().err
    assert judge_runs.main([str(tmp_path / "summary.json"), *options[:3], "--quantities", "loss"]) == 2
    assert "choose from knn_accuracy" in capsys.readouterr().err


def test_program_judges_only_what_can_be_paired(tmp_path):
    """One run twice, runs of unequal length, too few pairs, and numbers that an arm lacks are said in one line."""

    def run(label, seed, epochs=1, **features):
        return {
            "label": label,
            "seed": seed,
            "epochs": epochs,
            "features": features or {"cls": {"knn_accuracy": 1.0}},
        }

    def problem(*runs, quantity="knn_accuracy"):
        path = tmp_path / "summary.json"
        path.write_text(json.dumps({"runs": runs}))
        return refused(judge_runs.main, path, "--above", "A", "B", "--quantities", quantity)

    pairs = [run(label, seed) for label in "AB" for seed in range(2)]
    assert "are both A with seed 0; give each run once" in problem(*pairs, run("A", 0))
    assert "runs of A were trained for [1, 4] epochs" in problem(*pairs, run("A", 2, epochs=4))
    assert "'A' and 'B' have 1 seeds in common" in problem(*pairs[:3], run("B", 7))
    lacking = problem(*pairs[:3], run("B", 1, cls={"probe_accuracy": 2.0}, pooled={}))
    assert "no feature of all runs has 'knn_accuracy'" in lacking
    assert "summary.json is not the summary of a run" in problem({"label": "A"})
    (tmp_path / "list.json").write_text("[1]")
    assert "list.json is not the summary" in refused(
        judge_runs.main, tmp_path / "list.json", "--above", "A", "B"
    )


def kept_run(folder, label, seed, knn):
    """A run that keeps its eigenvalues, of one measurement; its probe is its rank."""
    folder.mkdir()
    eigenvalues = np.arange(1.0, 9.0) ** (2 - seed)
    kinds = ("raw", "centred", "rows", "rows_centred")
    np.savez(folder / SPECTRA, **{f"{f}/{kind}/1": eigenvalues for f in ("cls", "pooled") for kind in kinds})
    record = {"kind": "eval", "step": 1, "epoch": 1}
    for feature in ("cls", "pooled"):
        record |= {f"{feature}_quick_knn_accuracy": knn, f"{feature}_quick_probe_accuracy": 50.0 + seed}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    summary = {"label": label, "seed": seed, "epochs": 1, "features": {}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_program_has_no_tau_of_numbers_without_an_order(tmp_path, monkeypatch):
    """Equal accuracies, and arms with one checkpoint, have none: a dash, and null in the file."""
    monkeypatch.setitem(agreement.__kwdefaults__, "draws", 20)
    runs = [kept_run(tmp_path / label, label, seed, 40.0) for seed, label in enumerate("AB")]
    assert "alone has no order" in refused(judge_runs.main, runs[0], "--predict")
    stdout, _ = done(judge_runs.main, *runs, "--predict", "--json", tmp_path / "judged.json")
    rows = {(row[1], row[2]): row for row in rows_of(stdout)}
    assert rows["effective rank, order 1", "kNN"][3] == "-"
    assert rows["effective rank, order 1", "probe"][3] == "+1.00 [+1.00, +1.00]"
    assert {row[6] for row in rows.values()} == {"tau within arms", "-"}
    assert done(judge_runs.main, tmp_path / "judged.json", "--predict")[0] == stdout
