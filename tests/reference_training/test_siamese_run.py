"""Whole joint-embedding runs: what they measure and leave, how they resume, and that they learn."""

from __future__ import annotations

import contextlib
import json
import math

import numpy as np
import pretrain_siamese
import pytest
import torch
from protocol_runs import done, equal_states, image_folder, interrupted, rows_of, run_program
from siamese_options import TINY_SIAMESE, siamese_config, siamese_method
from trainlib.config import differences, from_dict, to_dict
from trainlib.data import load_dataset
from trainlib.logs import read_metrics
from trainlib.method import StepOutput
from trainlib.siamese.base import branch_information, measured_views
from trainlib.siamese.config import SiameseRunConfig
from trainlib.siamese.registry import METHOD_CLASSES

import matinfo
from matinfo.losses import sphere_entropy


def run_siamese(*options) -> str:
    """Run ``pretrain_siamese.py`` with tiny defaults, which must succeed; gives its stdout."""
    return done(pretrain_siamese.main, *TINY_SIAMESE, *options)[0]


# --- the instrument ------------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    source = torch.Generator().manual_seed(0)
    first = torch.randn(50, 6, generator=source) @ torch.randn(6, 6, generator=source)
    return first, first + 0.5 * torch.randn(50, 6, generator=source)


def naive_entropy(K: np.ndarray) -> float:
    p = np.linalg.eigvalsh(K / np.trace(K))
    return float(-(p * np.log(p)).sum())


def test_shared_information_equals_its_definition_on_column_normalised_features(pair):
    K1, K2 = (
        (lambda z: z.T @ z)(z.double().numpy() / np.linalg.norm(z.double().numpy(), axis=0)) for z in pair
    )
    joint = naive_entropy(K1 * K2)
    values = branch_information(*pair)
    assert values["joint_entropy"] == pytest.approx(joint, rel=1e-5)
    assert values["mutual_information"] == pytest.approx(
        naive_entropy(K1) + naive_entropy(K2) - joint, rel=1e-5
    )
    mixed = naive_entropy((K1 + K2) / 2)
    assert values["matrix_js"] == pytest.approx(mixed - (naive_entropy(K1) + naive_entropy(K2)) / 2, rel=1e-4)


def test_training_line_measures_the_projections_of_the_batch(pair):
    output, method = StepOutput(torch.zeros(()), {}, pair[0], pair), siamese_method()
    K1, K2 = (matinfo.correlation(z) for z in pair)
    assert method.instrument(siamese_config(), output) == {
        "batch_mutual_information": float(matinfo.mutual_information(K1, K2)),
        "batch_joint_entropy": float(matinfo.joint_entropy(K1, K2)),
    }
    assert method.instrument(siamese_config(instrument=False), output) == {}


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_measurements_are_matinfos_of_online_and_target_branch(name):
    dataset = load_dataset(siamese_config(name))
    method = siamese_method(name, rank_images=100)
    method.prepare(dataset)
    if method.target is not None:
        for parameter in method.target.parameters():
            parameter.data.mul_(1.5)
    method.eval()
    measured = method.measure(dataset, contextlib.nullcontext)
    first, second = dataset.evaluation_views(method.measured_views, 100)
    with torch.no_grad():
        online, other = method.online(first), (method.target or method.online)(second)
    for place, kind in enumerate(("backbone", "projector")):
        K1, K2 = matinfo.correlation(online[place]), matinfo.correlation(other[place])
        values = measured[kind]
        assert values["mutual_information"] == float(matinfo.mutual_information(K1, K2))
        assert values["joint_entropy"] == float(matinfo.joint_entropy(K1, K2))
        assert values["matrix_js"] == float(matinfo.matrix_js(K1, K2))
        assert values["spectrum_js"] == float(matinfo.spectrum_js(K1, K2))
        assert values["sphere_entropy"] == float(sphere_entropy(other[place]))
        assert values["mutual_information"] <= math.log(len(K1)) + 1e-5
        assert 0 <= values["knn_accuracy"] <= 100


# --- runs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Folder and output of one comparison; tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "comparison"
    return folder, run_siamese("--compare", "--temperature", "0.3", "--out", folder)


def test_comparison_trains_the_three_methods_and_draws_their_information(comparison):
    folder, stdout = comparison
    runs = {"simclr-seed0", "barlow_twins-seed0", "byol-seed0"}
    files = {"study.json", "summary.json", "table.md", "effective_rank.png", "information.png"}
    assert {p.name for p in folder.iterdir()} == runs | files
    assert [row[:3] for row in rows_of(stdout)[1:]] == [
        [label, "1", feature]
        for label in ("SimCLR temperature 0.3", "Barlow Twins", "BYOL")
        for feature in ("backbone", "projector")
    ]
    assert "I (nats)" in stdout
    configs = {run: json.loads((folder / run / "config.json").read_text()) for run in runs}
    assert configs["simclr-seed0"]["method"]["temperature"] == 0.3
    assert configs["byol-seed0"]["method"]["temperature"] is None
    assert configs["byol-seed0"]["method"]["ema"] == 0.99
    assert configs["byol-seed0"]["method"]["augmentation"] == "asymmetric"
    assert {c["model"]["projector_width"] for c in configs.values()} == {8}
    starts = [read_metrics(folder / run)[0]["backbone_effective_rank"] for run in sorted(runs)]
    assert len(set(starts)) == 1  # equal weights before the first step


def test_run_leaves_a_summary_with_the_information(comparison):
    folder = comparison[0] / "byol-seed0"
    assert {p.name for p in folder.iterdir()} == {
        "checkpoint.pt", "checkpoint.previous.pt", "config.json", "environment.json", "metrics.jsonl", "summary.json",
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    for feature in ("backbone", "projector"):
        values = summary["features"][feature]
        assert {
            "mutual_information", "joint_entropy", "matrix_js", "spectrum_js", "sphere_entropy",
            "sphere_reconstruction", "effective_rank", "rankme", "knn_accuracy", "probe_accuracy",
        } <= set(values)  # fmt: skip
        assert f"{feature}_knn_accuracy" in summary["untrained"]
    assert 0 < summary["measure_percent"] < 100
    records = read_metrics(folder)
    last = [r for r in records if r["kind"] == "eval"][-1]
    assert last["projector_mutual_information"] == summary["features"]["projector"]["mutual_information"]
    train = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in train] == [5, 10]
    assert {"loss", "probe_accuracy", "batch_mutual_information", "batch_joint_entropy"} <= set(train[0])


def test_instrument_can_be_left_out(tmp_path):
    run_siamese("--no-instrument", "--epochs", "1", "--out", tmp_path / "run")
    line = [r for r in read_metrics(tmp_path / "run") if r["kind"] == "train"][-1]
    assert "batch_mutual_information" not in line
    assert "batch_effective_rank" in line


def test_mixed_precision_runs(tmp_path):
    run_siamese("--precision", "bf16", "--method", "byol", "--epochs", "1", "--out", tmp_path / "run")


@pytest.mark.parametrize("name", ["dino", "swav", "deepcluster"])
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name, tmp_path):
    options = ["--method", name, "--eval-every", "1"]
    options += ["--queue", "300"] if name == "swav" else []
    run_siamese(*options, "--out", tmp_path / "whole")
    with interrupted(METHOD_CLASSES[name], "after_step", 8):  # in the second epoch of five steps
        code, _, _ = run_program(
            pretrain_siamese.main, *TINY_SIAMESE, *options, "--out", tmp_path / "stopped"
        )
    assert code == 130
    done(pretrain_siamese.main, "--resume", tmp_path / "stopped")
    equal_states(tmp_path / "stopped", tmp_path / "whole", moment="exp_avg_sq")
    whole, stopped = (
        [{k: v for k, v in r.items() if k != "images_per_second"} for r in read_metrics(tmp_path / f)]
        for f in ("whole", "stopped")
    )
    assert whole == stopped


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simclr", "barlow_twins", "byol"])
def test_digits_are_told_apart_better_than_by_random_features(name, tmp_path):
    """Half of the default recipe: 84 % before, 95 to 97 % after."""
    options = ["--method", name, "--epochs", "50", "--no-tensorboard", "--threads", "1"]
    done(pretrain_siamese.main, *options, "--out", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    before, after = (
        summary["untrained"]["backbone_knn_accuracy"],
        summary["features"]["backbone"]["knn_accuracy"],
    )
    assert after > before + 5


# --- options -------------------------------------------------------------------------------------------------


def test_configuration_survives_json_and_names_differences():
    config = siamese_config("byol", ema=0.9)
    assert from_dict(SiameseRunConfig, to_dict(config)) == config
    assert differences(config, siamese_config("byol", ema=0.99)) == [("--ema", 0.9, 0.99)]


def test_label_names_the_options_that_are_not_the_methods_own():
    assert siamese_config("byol").label() == "BYOL"
    assert siamese_config("simclr", temperature=0.3, augmentation="weak").label() == (
        "SimCLR augmentation weak temperature 0.3"
    )
    assert siamese_config("spectral", lambda_=0.5).label() == "Spectral lambda 0.5"


def test_crop_is_the_data_sets_else_the_augmentations():
    assert siamese_config("vicreg").data.crop_min == 0.4  # digits
    for name, expected in (("vicreg", 0.2), ("simclr", 0.08)):
        assert siamese_config(name, data="cifar10").data.crop_min == expected


def test_held_out_views_are_equal_for_all_methods_and_options():
    for data in ("digits", "cifar10"):
        recipes = {
            measured_views(siamese_config(name, data=data, **options))
            for name, options in (("simclr", {}), ("vicreg", {}), ("byol", {"crop_min": 0.7, "flip": False}))
        }
        assert len(recipes) == 1


def test_image_folders_give_two_views_and_pictures(tmp_path, drawn):
    image_folder(tmp_path / "data", train=8, val=4)
    options = ["--data", "imagefolder", "--data-dir", tmp_path / "data", "--image-size", "16", "--batch", "8"]
    options += ["--workers", "0", "--backbone", "convnet", "--width", "4", "--epochs", "1"]
    with drawn():
        table = run_siamese(*options, "--out", tmp_path / "run")
    assert "SimCLR" in table
    for picture in ("views.png", "training.png"):
        assert (tmp_path / "run" / picture).read_bytes().startswith(b"\x89PNG")
