"""Nearest neighbours of pre-trained features: any k and temperature, tables over runs."""

from __future__ import annotations

import json
import math
import statistics

import knn
import numpy as np
import pytest
import torch
from protocol_runs import done, make_run, rows_of
from trainlib.evaluate import knn_accuracy
from trainlib.files import write_json


@pytest.fixture
def features():
    source = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 6, generator=source)
    labels = torch.randint(0, 4, (150,), generator=source)
    points = centres[labels] + 1.5 * torch.randn(150, 6, generator=source)
    return points[:100], labels[:100], points[100:], labels[100:]


@pytest.mark.parametrize(("neighbours", "temperature"), [(1, 0.07), (20, 0.07), (7, 0.5), (100, 0.02)])
def test_knn_equals_naive_weighted_vote_for_every_k_and_temperature(features, neighbours, temperature):
    train, train_labels, test, test_labels = (f.numpy() for f in features)
    correct = 0
    for point, label in zip(test, test_labels, strict=True):
        cosine = train @ point / np.linalg.norm(train, axis=1) / np.linalg.norm(point)
        nearest = np.argsort(-cosine)[:neighbours]
        votes = [
            sum(math.exp(cosine[i] / temperature) for i in nearest if train_labels[i] == c) for c in range(4)
        ]
        correct += int(np.argmax(votes)) == label
    accuracy = knn_accuracy(*features, classes=4, neighbours=neighbours, temperature=temperature)
    assert accuracy == pytest.approx(100 * correct / 50)
    assert 40 < accuracy < 100


def test_knn_at_a_very_low_temperature_is_the_nearest_neighbour(features):
    one = knn_accuracy(*features, classes=4, neighbours=1)
    assert knn_accuracy(*features, classes=4, neighbours=50, temperature=1e-5) == one  # exp(1e5) overflows
    assert knn_accuracy(*features, classes=4, neighbours=50, temperature=10.0) != one


def run(*options) -> str:
    return done(knn.main, *options)[0]


def test_table_and_json_hold_every_feature_and_k(tmp_path, make_config):
    make_run(tmp_path / "run", make_config())
    stdout = run(tmp_path / "run", "--k", "1", "5", "--device", "cpu")
    rows = rows_of(stdout)
    assert rows[0] == ["method", "runs", "feature", "k = 1 %", "k = 5 %"]
    assert [row[2] for row in rows[1:]] == ["cls", "pooled"]
    result = json.loads((tmp_path / "run" / "knn.json").read_text())
    values = result["accuracy_by_k"]
    assert {feature: set(by_k) for feature, by_k in values.items()} == {
        f: {"1", "5"} for f in ("cls", "pooled")
    }
    assert f"{values['cls']['1']:.2f}" in stdout
    assert result["protocol"]["knn"]["temperature"] == 0.07
    assert all(10 < v < 100 for by_k in values.values() for v in by_k.values())
    again = run(tmp_path / "run", "--feature", "pooled", "--out", tmp_path / "results", "--device", "cpu")
    assert "cls" not in again
    assert set(json.loads((tmp_path / "results" / "knn.json").read_text())["accuracy_by_k"]) == {"pooled"}
    assert (tmp_path / "results" / "knn.md").read_text() in again


def test_comparison_stands_for_its_runs(tmp_path, make_config):
    folder, names = tmp_path / "comparison", ["mae-seed0", "mmae-seed0", "mmae-seed1"]
    for name in names:
        make_run(folder / name, make_config(method=name.split("-")[0], seed=int(name[-1])))
    write_json(folder / "study.json", {"runs": names})
    stdout = run(folder, "--feature", "cls", "--device", "cpu")
    _, *rows = rows_of(stdout)
    assert [row[:3] for row in rows] == [["MAE", "1", "cls"], ["M-MAE 0.01", "2", "cls"]]
    values = [
        json.loads((folder / n / "knn.json").read_text())["accuracy_by_k"]["cls"]["20"] for n in names[1:]
    ]
    assert rows[1][3] == f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"


def test_runs_of_equal_name_under_one_out_get_their_own_folders(tmp_path, make_config):
    for parent, method in (("a", "mae"), ("b", "mmae")):
        make_run(tmp_path / parent / "run", make_config(method=method))
    run(tmp_path / "a" / "run", tmp_path / "b" / "run", "--out", tmp_path / "results", "--device", "cpu")
    assert {p.name for p in (tmp_path / "results").iterdir()} == {"a-run", "b-run", "knn.md"}


def test_run_that_is_not_finished_is_measured_and_said(tmp_path, make_config):
    make_run(tmp_path / "run", make_config(), epoch=1)
    assert f"note: {tmp_path / 'run'} is at epoch 1 of 2" in done(knn.main, tmp_path / "run", "--k", "1")[1]
