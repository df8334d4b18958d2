"""The benchmarks run, judge rightly and count planted failures; the committed tables show the committed numbers."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import matrices
import mpmath as mp
import numpy as np
import pytest
import torch
from helpers import t

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

import matinfo  # noqa: E402
from benchmarks import accuracy, failures, gpu, gpu_checks, oracle, reach, report  # noqa: E402
from benchmarks.case import OURS, Case, Target, gradient_of, value_of  # noqa: E402
from benchmarks.cli import Options, parse  # noqa: E402
from benchmarks.families import NAMES, hard_features  # noqa: E402
from benchmarks.machine import Rates  # noqa: E402
from benchmarks.measure import MET, MISSED, NO_PEER, NOT_JUDGED, run_case  # noqa: E402
from benchmarks.memory import peak_mebibytes  # noqa: E402
from benchmarks.peers import Peers, diff_erank_recipe, mcr2_rate_reduction, released_mmae_loss  # noqa: E402
from benchmarks.run import STEM, _measured_apart, main  # noqa: E402
from benchmarks.timing import round_robin  # noqa: E402

COMMITTED = ROOT / "benchmarks" / "results"


def run(module, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


# --- the oracle of the failure table ---------------------------------------------------------------------------


def entropy_mp(Z, alpha):
    """H_alpha of ``Z Z^T`` in 50 digits (features with fewer rows than columns: full rank on that side)."""
    lam = mp.eigsy(Z * Z.T, eigvals_only=True)
    total = mp.fsum(lam)
    p = [x / total for x in lam]
    if alpha == 1:
        return -mp.fsum(x * mp.log(x) for x in p)
    return mp.log(mp.fsum(x**alpha for x in p)) / (1 - alpha)


def coding_rate_mp(Z, mu):
    return mp.fsum(mp.log(mu + x) for x in mp.eigsy(Z * Z.T, eigvals_only=True)) + (Z.cols - Z.rows) * mp.log(
        mu
    )


@pytest.mark.parametrize("quantity", [0.75, 1.0, 2.0, "tcr"])
def test_oracle_equals_50_digit_arithmetic(quantity):
    array = matrices.features(3, 5, seed=1)
    if quantity == "tcr":
        value, gradient = oracle.coding_rate_and_gradient(array, 0.5)
    else:
        value, gradient = oracle.entropy_and_gradient(array, quantity)
    with mp.workdps(50):
        Z, h = mp.matrix(array.tolist()), mp.mpf(10) ** -20

        def exact(Z):
            return coding_rate_mp(Z, mp.mpf(1) / 2) if quantity == "tcr" else entropy_mp(Z, mp.mpf(quantity))

        assert abs(value - exact(Z)) < 1e-13
        for i in range(3):
            for j in range(5):
                up, down = Z.copy(), Z.copy()
                up[i, j] += h
                down[i, j] -= h
                slope = (exact(up) - exact(down)) / (2 * h)
                assert abs(gradient[i, j] - slope) < 1e-12


def test_oracle_leaves_zero_singular_values_out():
    full = matrices.features(3, 5, seed=2)
    padded = np.vstack([full, np.zeros((2, 5))])
    value, gradient = oracle.entropy_and_gradient(full, 0.75)
    value_padded, gradient_padded = oracle.entropy_and_gradient(padded, 0.75)
    assert abs(value - value_padded) < 1e-14
    assert np.abs(gradient_padded[:3] - gradient).max() < 1e-14
    assert not gradient_padded[3:].any()


# --- failures are counted --------------------------------------------------------------------------------------


def breaks(K):
    raise RuntimeError("failed to converge")


def is_not_a_number(K):
    return K.sum() * torch.nan


def is_off_in_value(K):
    return matinfo.renyi_entropy(K) + 0.1


def is_off_in_gradient(K):
    H = matinfo.renyi_entropy(K)
    return H + (H - H.detach())


@pytest.mark.parametrize(
    ("function", "kinds"),
    [
        (breaks, {"exceptions"}),
        (is_not_a_number, {"non-finite"}),
        (is_off_in_value, {"wrong values"}),
        (is_off_in_gradient, {"wrong gradients"}),
        (matinfo.renyi_entropy, set()),
    ],
)
def test_attempt_names_the_planted_failure(function, kinds):
    Z = hard_features("dead_relu_batch_8", 32, 0)
    found = failures.attempt(function, t(Z), oracle.entropy_and_gradient(Z, 1.0))
    assert set(found) == kinds


def test_attempt_of_a_value_only_peer_needs_no_gradient():
    Z = hard_features("dead_relu_batch_8", 32, 0)
    truth = oracle.entropy_and_gradient(Z, 1.0)
    assert failures.attempt(lambda K: truth[0], t(Z), truth, differentiable=False) == {}


def test_failure_table_has_no_failure_of_ours():
    table = failures.failure_table(Peers.none(), quick=True)
    ours = [row for row in table["rows"] if row["contender"] == OURS]
    assert len(NAMES) == 16
    assert {row["problems"] for row in ours} == {16}
    assert {row["quantity"] for row in ours} == {"H_0.75", "H_1", "H_2", "TCR"}
    assert [row[kind] for row in ours for kind in failures.KINDS] == [0] * (len(ours) * 4)


# --- accuracy: the grid's spectrum is the product of its axes' --------------------------------------------------


def test_accuracy_reference_is_the_spectrum_of_the_grid():
    axes = accuracy._axes(3)
    X = torch.cartesian_prod(*axes).double()
    K = matinfo.kernels.rbf(X, bandwidth=accuracy.BANDWIDTH)
    product = [1.0]
    for axis in axes:
        product = [a * float(b) for a in product for b in accuracy._spectrum(axis)]
    expected = torch.tensor(sorted(product), dtype=torch.float64)
    assert (torch.linalg.eigvalsh(K) / len(X) - expected).abs().max() < 1e-15


def test_accuracy_of_our_recommended_call_meets_its_target():
    result = accuracy.accuracy(Peers.none(), quick=True)
    assert [row["status"] for row in result["rows"] if "target" in row] == ["met"] * 3


# --- peers compute what they should ----------------------------------------------------------------------------


def test_restated_formulas_agree_with_ours():
    Z = t(matrices.features(12, 6, seed=3))
    labels = torch.arange(12) % 3
    torch.testing.assert_close(released_mmae_loss(Z, 2.0), matinfo.losses.mmae_tcr_loss(Z, mu=2.0))
    torch.testing.assert_close(mcr2_rate_reduction(Z, labels), matinfo.rate_reduction(Z, labels))
    ours = matinfo.effective_rank(matinfo.Gram(Z - Z.mean(0), normalize=True))
    torch.testing.assert_close(diff_erank_recipe(Z), ours)
    torch.testing.assert_close(diff_erank_recipe(Z, vectors=False), ours)


@pytest.mark.filterwarnings("ignore:Please import `csr_matrix`:DeprecationWarning")  # vendi-score's own
def test_every_peer_that_is_installed_gives_the_entropy_of_a_unit_diagonal_matrix():
    K = t(matrices.random_correlation(8, seed=4))
    for alpha in (0.5, 1.0, 2.0, 3.0):
        for name, function in Peers().entropies(alpha, 8, gradient=False).items():
            assert abs(float(function(K)) - float(matinfo.renyi_entropy(K, alpha))) < 1e-10, name


# --- timing, memory, judgement ---------------------------------------------------------------------------------


def work(repetitions):
    x = torch.ones(1000)

    def call():
        for _ in range(repetitions):
            x.sum()
        return x.sum(), None

    return call


def test_round_robin_times_in_turns_and_reports_a_contender_that_raises():
    samples, errors = round_robin(
        {"slow": work(400), "fast": work(20), "broken": lambda: breaks(None)}, rounds=3, seconds=5.0
    )
    assert set(samples) == {"slow", "fast"}
    assert errors == {"broken": "RuntimeError: failed to converge"}
    assert [len(s.cpu) for s in samples.values()] == [3, 3]
    assert samples["slow"].median("cpu") > 3 * samples["fast"].median("cpu")
    assert samples["fast"].calls > samples["slow"].calls


def test_round_robin_calls_a_contender_over_the_limit_once():
    count = []
    samples, _ = round_robin({"slow": lambda: count.append(work(2000)())}, rounds=5, seconds=1e-6)
    assert len(count) == 1
    assert len(samples["slow"].cpu) == 1


def test_peak_memory_sees_what_a_call_allocates_and_frees():
    peak, result = peak_mebibytes(lambda: float(torch.ones(8 * 2**20).sum()))  # 32 MiB
    assert result == 8 * 2**20
    if peak is None:
        pytest.skip("no peak memory on this system")
    assert 31 < peak < 40


@pytest.mark.parametrize(
    ("ratio", "quick", "status"), [(2.0, False, MET), (1e6, False, MISSED), (2.0, True, NOT_JUDGED)]
)
def test_target_is_judged(ratio, quick, status):
    case = Case(
        "c",
        "title",
        lambda: {OURS: work(2), "peer": work(40)},
        (Target(("peer", "absent"), ratio), Target(("absent",), ratio)),
    )
    record = run_case(case, Options(quick=quick, rounds=2), Rates("cpu"))
    assert [target["status"] for target in record["targets"]] == [status, NO_PEER]
    assert record["targets"][0]["over"] == "peer"
    assert record["targets"][0]["cpu"] > 2


def test_gradient_of_returns_value_and_gradient_and_value_of_the_value_alone():
    x = torch.tensor([1.0, 2.0])
    value, gradient = gradient_of(lambda x: x.square().sum(), x)()
    assert (float(value), gradient.tolist()) == (5.0, [2.0, 4.0])
    assert value_of(torch.sum, x)()[1] is None


# --- the programs ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_program_writes_numbers_tables_and_plot(tmp_path):
    cases = [
        "--case",
        "tcr",
        "--case",
        "mmae",
        "--case",
        "sweep-1-32",
        "--case",
        "accuracy",
        "--case",
        "scaling",
    ]
    done = run(
        "benchmarks", "--quick", "--rounds", "1", "--budget-seconds", "0.5", *cases, "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / f"{STEM}.json").read_text(encoding="utf-8"))
    assert [case["name"] for case in results["cases"]] == ["tcr", "sweep-1-32", "mmae"]
    for case in results["cases"]:
        for contender in case["contenders"].values():
            assert contender["cpu"] > 0
            assert contender["wall"] > 0
    assert set(results["environment"]) >= {"processor", "threads", "versions", "commit", "clock", "load"}
    assert results["environment"]["threads"] == 1
    table = (tmp_path / f"{STEM}.md").read_text(encoding="utf-8")
    assert "M-MAE regulariser" in table
    assert table == report.render(results)
    assert "</svg>" in (tmp_path / f"{STEM}.svg").read_text(encoding="utf-8")


def test_every_program_finds_what_it_imports():
    for path in (ROOT / "benchmarks").glob("[!_]*.py"):
        importlib.import_module(f"benchmarks.{path.stem}")


def test_program_refuses_an_unknown_case(capsys):
    assert main(parse(["--quick", "--case", "h17"])) == 2
    said = capsys.readouterr().out
    assert "h17" in said
    assert "--list" in said


def test_program_says_which_peers_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "vendi_score.vendi", None)  # an import of it raises
    assert "pip install vendi-score" in Peers().missing["vendi-score"]


def test_options_of_a_full_run_write_results_and_those_of_a_part_do_not():
    assert parse([]).out == COMMITTED
    assert parse(["--quick"]).out is None
    assert parse(["--case", "h2"]).out is None


def test_cases_measured_apart_replace_themselves_only_and_say_where_they_were_measured():
    all_of_them = {
        "environment": {"date": "then"},
        "cases": [{"name": "h1", "of": 1}, {"name": "h2", "of": 1}],
        "scaling": 1,
    }
    apart = {
        "environment": {"date": "now"},
        "cases": [{"name": "h1", "of": 2}, {"name": "new", "of": 2}],
        "scaling": 2,
    }
    found = _measured_apart(all_of_them, apart)
    assert [(case["name"], case["of"]) for case in found["cases"]] == [("h1", 2), ("h2", 1), ("new", 2)]
    assert (found["environment"], found["scaling"]) == ({"date": "then"}, 2)
    assert found["measured_apart"] == {name: {"date": "now"} for name in ("h1", "new", "scaling")}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("estimate", (64, "float32")),
        ("exact", (64,)),
        ("vendi", (64, 4, "matinfo")),
        ("steps", (40,)),
        ("information", ("mutual_information", 64, 4, 2.0)),
        ("permutations", ("hsic", 32, 2, 2.0, 2)),
    ],
)
def test_each_measurement_of_reach_has_a_time_and_names_its_size(name, arguments):
    found = reach.MEASUREMENTS[name](*arguments)
    assert set(reach.MEASUREMENTS) == {"estimate", "exact", "vendi", "steps", "information", "permutations"}
    assert found["seconds"] > 0
    assert found["n"] in arguments


@pytest.mark.slow
def test_gpu_program_runs_on_the_cpu(tmp_path, capsys):
    status = gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path)])
    assert status == 0, capsys.readouterr().out
    results = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert {check["status"] for check in results["checks"]} == {"ok"}
    assert len(results["checks"]) == 11
    for case in results["speed"]:
        assert case["status"] == "ok", case["detail"]
        for row in case["rows"]:
            assert row["seconds"], row["note"]
            assert row["value_error"] is None or row["value_error"] < 2e-3, row
    assert (tmp_path / "gpu.md").read_text(encoding="utf-8") == gpu.render(results)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_gpu_program_without_a_device_says_so(capsys):
    assert gpu.main([]) == 2
    assert capsys.readouterr().out.startswith("No CUDA device")


def test_gpu_part_that_fails_is_reported_and_one_too_late_is_skipped():
    failed = gpu._guarded("check", lambda: breaks(None), float("inf"))
    assert (failed["status"], failed["detail"]) == ("failed", "RuntimeError: failed to converge")
    assert gpu._guarded("late", lambda: "", 0.0)["status"] == "skipped"


def test_gpu_check_finds_a_function_that_loses_precision_and_one_that_leaks_nan(monkeypatch):
    checks = gpu_checks.checks("cpu", quick=True)
    monkeypatch.setitem(
        gpu_checks.MATRIX_FUNCTIONS,
        "coarse",
        lambda K: (K if K.dtype == torch.float64 else K.bfloat16().float()).square().sum(),
    )
    with pytest.raises(AssertionError, match="coarse: "):
        checks["matrix functions, float32, equal float64 on the CPU"]()
    monkeypatch.setitem(gpu_checks.MATRIX_FUNCTIONS, "coarse", lambda K: K.sum((-2, -1)) + 0.0 * K.sum())
    with pytest.raises(AssertionError, match="coarse: NaN leaked"):
        checks["NaN stays in its batch element"]()


# --- what is committed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stem", "render"), [(STEM, report.render), ("gpu", gpu.render)])
def test_committed_tables_are_those_of_the_committed_numbers(stem, render):
    path = COMMITTED / f"{stem}.json"
    if not path.is_file():
        pytest.skip(f"no {path.name} has been committed")
    results = json.loads(path.read_text(encoding="utf-8"))
    assert path.with_suffix(".md").read_text(encoding="utf-8") == render(results)


def test_committed_failure_table_has_no_failure_of_ours():
    path = COMMITTED / f"{STEM}.json"
    if not path.is_file():
        pytest.skip(f"no {path.name} has been committed")
    rows = json.loads(path.read_text(encoding="utf-8"))["failures"]["rows"]
    ours = [row for row in rows if row["contender"] == OURS]
    assert {row["problems"] for row in ours} == {160}
    assert not any(row[kind] for row in ours for kind in failures.KINDS)
