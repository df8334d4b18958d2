"""Tables, comparison and the summary of several runs."""

from __future__ import annotations

import json
import shutil
import statistics

import pytest
import summarize_runs
from protocol_runs import changed, refused, rows_of
from trainlib.config import MaskedRunConfig, resolve, to_dict
from trainlib.files import write_json
from trainlib.run import create_run_dir
from trainlib.siamese.config import SiameseRunConfig
from trainlib.tables import aggregate, group_by_method, results_table, spread


def summary(method: str, seed: int, rank: float, **changes) -> dict:
    config = resolve(changed(MaskedRunConfig(), method=method, **changes))
    values = {"effective_rank": rank, "rankme": 2 * rank, "entropy": 0.5}
    values |= {"knn_accuracy": 40.0, "probe_accuracy": 50.0}
    features = {"cls": values, "pooled": {**values, "effective_rank": 3.0}}
    return {
        "label": config.label(),
        "method": to_dict(config)["method"],
        "seed": seed,
        "features": features,
        "seconds": 10.0 + seed,
        "cpu_seconds": 5.0,
    }


def test_spread_is_mean_and_sample_standard_deviation():
    assert spread([1.0, 2.0, 4.0], 2) == f"2.33 ± {statistics.stdev([1, 2, 4]):.2f}"
    assert spread([1.0], 2) == "1.00"


def test_method_label_names_what_distinguishes_a_run():
    assert summary("mae", 0, 1.0, lambda_=0.5)["label"] == "MAE"
    assert summary("umae", 0, 1.0, lambda_=0.1)["label"] == "U-MAE 0.1"
    assert (
        summary("mmae", 0, 1.0, mu=3.0, tcr_scale="paper", centering=True)["label"]
        == "M-MAE 0.01 mu 3 paper scale centred"
    )


def test_results_table_has_a_row_per_method_and_feature_in_the_papers_order():
    table = results_table(
        [summary("mmae", 0, 7.0), summary("mae", 1, 3.0), summary("mae", 0, 2.0), summary("umae", 0, 6.0)]
    )
    rows = rows_of(table)
    titles = "method|seeds|feature|eff. rank|RankMe|entropy (nats)|kNN %|probe %|seconds|CPU s"
    assert rows[0] == titles.split("|")
    assert [row[:4] for row in rows[1:]] == [
        ["MAE", "2", "cls", "2.50 ± 0.71"], ["MAE", "2", "pooled", "3.00 ± 0.00"],
        ["U-MAE 0.01", "1", "cls", "6.00"],
        ["U-MAE 0.01", "1", "pooled", "3.00"], ["M-MAE 0.01", "1", "cls", "7.00"],
        ["M-MAE 0.01", "1", "pooled", "3.00"],
    ]  # fmt: skip
    assert len({len(line) for line in table.splitlines()}) == 1


def test_aggregate_gives_the_tables_numbers_to_machines():
    records = aggregate([summary("mae", 0, 2.0), summary("mae", 1, 4.0)])
    cell = records[0]["features"]["cls"]["effective_rank"]
    assert cell == {"mean": 3.0, "sd": pytest.approx(2**0.5), "values": [2.0, 4.0]}
    assert records[0]["seeds"] == [0, 1]


def test_group_by_method_orders_weights():
    groups = group_by_method(
        [summary("mmae", 0, 1.0, lambda_=0.1), summary("mmae", 0, 1.0), summary("mae", 0, 1.0)]
    )
    assert list(groups) == ["MAE", "M-MAE 0.01", "M-MAE 0.1"]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, run_script):
    """Folder and output of one comparison; tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "comparison"
    options = ["--seeds", "0,2", "--epochs", "1", "--rank-images", "100"]
    code, stdout, stderr = run_script("--compare", *options, "--out", folder)
    assert code == 0, stderr
    return folder, stdout


def test_comparison_trains_the_three_methods_from_the_same_seeds(comparison):
    folder, stdout = comparison
    assert {p.name for p in folder.iterdir()} == {
        "study.json", "summary.json", "table.md", "effective_rank.png",
        *(f"{m}-seed{s}" for m in ("mae", "umae", "mmae") for s in (0, 2)),
    }  # fmt: skip
    lines = [line for line in stdout.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines[2::2]] == ["MAE", "U-MAE 0.01", "M-MAE 0.01"]
    assert all("±" in line for line in lines[2:])
    assert (folder / "table.md").read_text() in stdout
    assert f"picture: {folder / 'effective_rank.png'}" in stdout
    first = {
        m: json.loads((folder / f"{m}-seed2" / "metrics.jsonl").read_text().splitlines()[0])
        for m in ("mae", "umae", "mmae")
    }
    assert len({r["cls_effective_rank"] for r in first.values()}) == 1  # equal weights before the first step
    machine = json.loads((folder / "summary.json").read_text())
    assert len(machine["runs"]) == 6
    (made,) = machine["environments"]  # one for all six
    assert {"commit", "python", "versions", "processor", "threads"} <= set(made)
    assert [m["seeds"] for m in machine["methods"]] == [[0, 2]] * 3


def test_summarize_runs_reproduces_the_table_of_a_comparison(comparison, tmp_path, capsys):
    folder, stdout = comparison
    assert summarize_runs.main([str(folder), "--out", str(tmp_path / "report")]) == 0
    table = capsys.readouterr().out
    assert table in stdout
    assert {p.name for p in (tmp_path / "report").iterdir()} == {
        "summary.json",
        "table.md",
        "effective_rank.png",
    }
    parts = [str(folder / f"{m}-seed0") for m in ("mae", "mmae")]
    assert summarize_runs.main([*parts, "--out", str(tmp_path / "two")]) == 0
    assert "U-MAE" not in capsys.readouterr().out


def test_summarize_runs_refuses_what_cannot_be_compared(comparison, tmp_path):
    folder, _ = comparison
    copy = tmp_path / "copy"
    shutil.copytree(folder / "mae-seed0", copy)

    def problem(*folders) -> str:
        said = refused(summarize_runs.main, *folders, "--out", tmp_path / "none")
        assert not (tmp_path / "none").exists()
        return said

    assert "are both MAE with seed 0; give each run once" in problem(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["optim"]["epochs"] = 7
    (copy / "config.json").write_text(json.dumps(config))
    assert "has epochs 7" in problem(folder, copy)
    (copy / "summary.json").unlink()
    assert "holds no finished run; finish it with --resume" in problem(copy)


def test_summarize_runs_refuses_a_mean_over_what_one_label_hides(tmp_path):
    for seed, lr in ((0, 1e-3), (1, 2e-3)):
        config = changed(resolve(SiameseRunConfig()), seed=seed, lr=lr)
        create_run_dir(tmp_path / str(seed), config)
        summary = {"label": config.label(), "seed": seed, "epochs": 1, "features": {}}
        write_json(tmp_path / str(seed) / "summary.json", summary)
    said = refused(summarize_runs.main, tmp_path / "0", tmp_path / "1", "--out", tmp_path / "none")
    assert "has --lr 0.002" in said
    assert "has 0.001, and both are SimCLR" in said
