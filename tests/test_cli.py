"""``matinfo report``: its numbers are the library's, its outputs can be read by programs, browsers and people."""

import base64
import html.parser
import json
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file

import matinfo
from matinfo import Gram, measures
from matinfo.cli import load, main
from matinfo.measures import MEASURES
from matinfo.operands import normalize_rows

ROOT = Path(__file__).resolve().parents[1]
ORDERS = (0.5, 1.0, 2.0, math.inf)


def features(rows=50, columns=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, columns)) / np.arange(1, columns + 1) + 0.2


def save(folder, name, array):
    path = folder / name
    np.save(path, array)
    return str(path)


def report(capsys, *arguments):
    """The JSON report of a run that has to succeed."""
    assert main(["report", *arguments, "--quiet", "--json", "-"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def numbers(quantities):
    return {(q["name"], q.get("alpha")): q["value"] for q in quantities}


def rows_of(Z, *, normalize=True, center=False):
    Z = torch.from_numpy(np.asarray(Z, dtype=np.float64))
    Z = normalize_rows(Z) if normalize else Z
    return Z - Z.mean(0) if center else Z


# Numbers


@pytest.mark.parametrize("shape", [(50, 6), (5, 12)], ids=["streamed", "in memory"])
@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {}),
        (["--no-normalize"], {"normalize": False}),
        (["--center"], {"center": True}),
        (["--no-normalize", "--center"], {"normalize": False, "center": True}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_report_of_features_has_the_numbers_of_the_library(tmp_path, capsys, shape, flags, options):
    data = features(*shape)
    (array,) = report(capsys, save(tmp_path, "a.npy", data), *flags, "--mu", "0.5", "--batch-rows", "7")[
        "arrays"
    ]
    Z = rows_of(data, **options)
    K = Gram(Z)
    found = numbers(array["quantities"])
    for alpha in ORDERS:
        key = "inf" if alpha == math.inf else alpha
        assert found["renyi_entropy", key] == pytest.approx(float(matinfo.renyi_entropy(K, alpha)), abs=1e-9)
    assert found["effective_rank", None] == pytest.approx(float(matinfo.effective_rank(K)), rel=1e-9)
    assert found["participation_ratio", None] == pytest.approx(
        float(matinfo.participation_ratio(K)), rel=1e-9
    )
    # singular values from the roots of eigenvalues: half the digits, where centring has made one zero
    assert found["rankme", None] == pytest.approx(float(matinfo.rankme(Z)), rel=1e-6)
    assert found["tcr", None] == pytest.approx(float(matinfo.tcr(Z, 0.5)), rel=1e-9)
    eigenvalues = np.sort(np.linalg.svd(Z.numpy(), compute_uv=False) ** 2)[::-1]
    np.testing.assert_allclose(array["eigenvalues"], eigenvalues, atol=1e-9 * eigenvalues[0])
    assert (array["rows"], array["columns"], array["dtype"]) == (*shape, "float64")


def test_report_of_a_matrix_has_the_numbers_of_the_library(tmp_path, capsys):
    K = torch.from_numpy(features(8, 8)) @ torch.from_numpy(features(8, 8)).mT
    content = report(
        capsys, save(tmp_path, "K.npy", K.numpy()), "--kind", "matrix", "--alpha", "0.7,3", "--mu", "2"
    )
    found = numbers(content["arrays"][0]["quantities"])
    assert found["renyi_entropy", 0.7] == pytest.approx(float(matinfo.renyi_entropy(K, 0.7)), abs=1e-10)
    assert found["renyi_entropy", 3] == pytest.approx(float(matinfo.renyi_entropy(K, 3)), abs=1e-10)
    assert found["matrix_tcr", None] == pytest.approx(float(matinfo.matrix_tcr(K, 2.0)), rel=1e-12)
    assert found["rankme", None] is None
    assert content["settings"]["normalize"] is None


def test_report_base_divides_every_logarithm(tmp_path, capsys):
    file = save(tmp_path, "a.npy", features())
    nats, bits = (report(capsys, file, *flags)["arrays"][0]["quantities"] for flags in ([], ["--base", "2"]))
    for before, after in zip(nats, bits, strict=True):
        factor = math.log(2) if before["unit"] == "nats" else 1
        assert after["value"] * factor == pytest.approx(before["value"], rel=1e-12)
        assert after["unit"] == {"nats": "bits"}.get(before["unit"], before["unit"])


def in_columns(K):
    return pa.table({f"c{i}": column for i, column in enumerate(K.T)})


MATRIX_FILES = {
    "K.npy": lambda p, K: np.save(p, K.numpy()),
    "big-endian.npy": lambda p, K: np.save(p, K.numpy().astype(K.numpy().dtype.newbyteorder(">"))),
    "K.npz": lambda p, K: np.savez(p, K=K.numpy()),
    "sparse.npz": lambda p, K: scipy.sparse.save_npz(p, scipy.sparse.csr_array(K.float().numpy())),
    "K.pt": lambda p, K: torch.save(K, p),
    "K.safetensors": lambda p, K: save_file({"K": K}, p),
    "K.parquet": lambda p, K: pq.write_table(in_columns(K.numpy()), p),
    "mixed.parquet": lambda p, K: pq.write_table(
        in_columns(K.numpy()).set_column(0, "c0", pa.array(K[:, 0].double().numpy())), p
    ),
}
HALF, SINGLE, BRAIN = torch.float16, torch.float32, torch.bfloat16


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in MATRIX_FILES if name != "sparse.npz" for dtype in (HALF, SINGLE)]
    + [("sparse.npz", SINGLE), ("K.pt", BRAIN), ("K.safetensors", BRAIN)],
)
def test_report_of_a_matrix_knows_the_rounding_of_its_file(tmp_path, capsys, name, dtype):
    z = torch.from_numpy(np.exp(2 * features(60, 1)))
    K = (z @ z.mT / z.square().max()).to(dtype)
    file = str(tmp_path / name)
    MATRIX_FILES[name](file, K)
    (array,) = report(capsys, file, "--kind", "matrix", "--alpha", "0")["arrays"]
    assert numbers(array["quantities"])["renyi_entropy", 0] == 0.0
    loaded = load(file, kind="matrix")  # with which the calls of the report give its numbers
    assert torch.equal(torch.as_tensor(np.asarray(loaded) if dtype != BRAIN else loaded), K)
    assert torch.as_tensor(loaded).dtype == dtype


def test_report_of_two_coarse_matrices_compares_them_with_each_other_and_with_chance(tmp_path, capsys):
    """Their rounding is no negative eigenvalue, of products and in another order of the samples neither."""
    files = []
    for seed in (0, 1):
        Z = normalize_rows(torch.from_numpy(features(40, 3, seed)))
        files.append(str(tmp_path / f"{seed}.pt"))
        torch.save((Z @ Z.mT).to(BRAIN), files[-1])
    pair = report(capsys, *files, "--kind", "matrix", "--alpha", "1", "--permutations", "5")["pair"]
    K1, K2 = (load(file, kind="matrix") for file in files)
    found = numbers(pair["quantities"])
    assert found["mutual_information", 1] == pytest.approx(
        float(matinfo.mutual_information(K1, K2)), abs=1e-6
    )
    assert found["matrix_js", None] == pytest.approx(float(matinfo.matrix_js(K1, K2)), abs=1e-6)


def test_report_takes_a_centred_column_for_constant_that_the_library_does(tmp_path, capsys):
    Z = np.c_[features(30, 3), 1e4 * (1 + 1e-7 * features(30, 1))].astype(np.float32)
    file = save(tmp_path, "Z.npy", Z)
    for rows in (Z, np.concatenate([Z] * 3)):  # held in memory, and added up
        file = save(tmp_path, "Z.npy", rows)
        arguments = (file, "--center", "--no-normalize", "--alpha", "0")
        (array,) = report(capsys, *arguments)["arrays"]
        expected = float(matinfo.renyi_entropy(Gram(rows, center=True), 0))
        assert numbers(array["quantities"])["renyi_entropy", 0] == pytest.approx(expected) == math.log(3)


def test_report_infinite_divergence_is_null_with_a_reason_and_inf_in_text(tmp_path, capsys):
    files = [save(tmp_path, "full.npy", np.eye(3)), save(tmp_path, "part.npy", np.eye(3)[:2])]
    for order, infinite, finite in ((files, "M1, M2", "M2, M1"), (files[::-1], "M2, M1", "M1, M2")):
        values = {q["call"]: q for q in report(capsys, *order)["pair"]["quantities"]}
        assert values[f"matrix_kl({infinite})"]["value"] is None
        reason = values[f"matrix_kl({infinite})"]["reason"]
        assert reason == "infinite: full.npy has directions that part.npy lacks"
        assert values[f"matrix_kl({finite})"]["value"] == pytest.approx(math.log(1.5))
    assert main(["report", *files]) == 0
    assert re.search(r"KL divergence, 1 from 2 +inf", capsys.readouterr().out)


def test_report_of_one_file_twice_names_it(tmp_path, capsys):
    file = save(tmp_path, "a.npy", features())
    assert main(["report", file, file, "--alpha", "1"]) == 0
    out = capsys.readouterr().out
    assert "None" not in out
    assert f"1: {file}  2: {file}" in out


@pytest.mark.parametrize("columns", [7, 700], ids=["streamed", "in memory"])
@pytest.mark.parametrize("flags", [[], ["--no-normalize"]], ids=" ".join)
def test_report_of_equal_rows_has_no_centred_spectrum(tmp_path, capsys, columns, flags):
    row = np.random.default_rng(0).normal(size=columns)
    file = save(tmp_path, "a.npy", np.tile(row, (100, 1)))
    assert main(["report", file, "--center", "--batch-rows", "7", *flags]) == 2
    assert "positive trace, got 0" in capsys.readouterr().err


def test_report_of_more_memory_than_allowed_is_of_a_sample_and_says_so(tmp_path, capsys):
    data = [features(200, 20, seed=i) for i in range(2)]
    files = [save(tmp_path, f"{i}.npy", Z) for i, Z in enumerate(data)]
    small = report(capsys, *files, "--memory", "0.0001")  # 105 kB: holds 20 x 20, not four times 200 x 200
    rows = small["pair"]["rows"]
    assert 50 < rows < 60
    assert [a["rows"] for a in small["arrays"]] == [200, 200]
    assert any(f"the same {rows} rows of both files, drawn at random" in note for note in small["notes"])
    assert (
        small["pair"]["quantities"]
        == report(capsys, *files, "--rows", str(rows))["pair"]["quantities"][:8]
        + (small["pair"]["quantities"][8:])
    )
    wide = report(capsys, save(tmp_path, "wide.npy", features(30, 5000)), "--memory", "0.0005")
    assert 10 < wide["arrays"][0]["rows"] < 14
    assert wide["arrays"][0]["rows_in_file"] == 30
    assert "drawn at random (--rows, --seed)" in wide["notes"][0]


@pytest.mark.parametrize("batch", ["3", "1000"])
def test_report_rows_draws_the_same_rows_whatever_the_batches_and_others_with_another_seed(
    tmp_path, capsys, batch
):
    first, second = features(90, 3), features(90, 40, seed=1)
    files = [save(tmp_path, "1.npy", first), save(tmp_path, "2.npy", second)]
    Z1, Z2 = load(*files, rows=20, seed=5)
    chosen = [np.flatnonzero((rows_of(first).numpy() == z).all(1)).item() for z in Z1]
    assert chosen == sorted(set(chosen))
    np.testing.assert_array_equal(Z2, rows_of(second)[chosen])
    found = report(capsys, *files, "--rows", "20", "--seed", "5", "--batch-rows", batch)
    information = numbers(found["pair"]["quantities"])["mutual_information", 1]
    assert information == pytest.approx(float(matinfo.mutual_information(Gram(Z1), Gram(Z2))), abs=1e-12)
    assert not np.array_equal(load(files[0], rows=20, seed=6), Z1)


def test_report_information_stands_beside_its_chance_level(tmp_path, capsys):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(60, 3))
    data = {"same": first + 0.1 * rng.normal(size=(60, 3)), "other": rng.normal(size=(60, 3))}
    files = {name: save(tmp_path, f"{name}.npy", Z) for name, Z in {"first": first, **data}.items()}
    found = {}
    for name in data:
        quantities = report(capsys, files["first"], files[name], "--alpha", "1,2")["pair"]["quantities"]
        found[name] = [q for q in quantities if q["name"] == "mutual_information"]
    for same, other in zip(found["same"], found["other"], strict=True):
        assert same["chance"]["permutations"] == 99
        assert same["chance"]["p_value"] == 0.01
        assert same["value"] > same["chance"]["mean"] + 10 * same["chance"]["std"]
        assert other["chance"]["p_value"] > 0.05
        assert abs(other["value"] - other["chance"]["mean"]) < 4 * other["chance"]["std"]
    arguments = [
        "report",
        files["first"],
        files["same"],
        "--permutations",
        "9",
        "--plot",
        str(tmp_path / "p.svg"),
    ]
    with mpl.rc_context({"svg.fonttype": "none"}):
        assert main(arguments) == 0
    assert re.search(
        r"mutual information, order 1 .* by chance .* ± .*, p = 0.1, the least of 9 permutations",
        capsys.readouterr().out,
    )
    picture = (tmp_path / "p.svg").read_text(encoding="utf-8")
    assert "60 rows as they are" in picture
    assert "by chance: 9 permutations" in picture


def test_report_chance_level_is_that_of_the_test_of_independence(tmp_path, capsys):
    files = [save(tmp_path, f"{i}.npy", features(50, 4, seed=i)) for i in (1, 2)]
    flags = ["--alpha", "0.5,1,2", "--permutations", "9", "--seed", "3", "--base", "2"]
    content = report(capsys, *files, *flags)
    found = content["pair"]["quantities"][:3]
    K1, K2 = map(Gram, load(*files))
    tests = matinfo.independence_test(K1, K2, alpha=[0.5, 1, 2], permutations=9, seed=3)
    for value, test in zip(found, tests, strict=True):
        names = {}
        exec("\n".join(content["pair"]["setup"]), names)
        again = eval(value["chance"].pop("call"), names)
        assert (again.null_mean, again.p_value) == (test.null_mean, test.p_value)
        assert value["chance"] == {
            "mean": pytest.approx(test.null_mean / math.log(2)),
            "std": pytest.approx(test.null_std / math.log(2)),
            "p_value": test.p_value,
            "permutations": 9,
        }


SETTINGS = [
    [],
    ["--no-normalize", "--mu", "0.3"],
    ["--center", "--base", "2"],
    ["--rows", "31", "--seed", "2", "--alpha", "0,0.333333333333,inf"],
    ["--nan", "skip"],
    ["--kind", "matrix", "--mu", "2"],
    ["--measures", ",".join(MEASURES), "--permutations", "0"],
    ["--measures", ",".join(MEASURES), "--permutations", "0", "--kind", "matrix"],
]


@pytest.mark.parametrize("flags", SETTINGS, ids=" ".join)
@pytest.mark.parametrize("shapes", [((50, 6), (50, 6)), ((50, 90), (50, 4))], ids=str)
def test_report_calls_run_and_give_the_numbers(tmp_path, capsys, flags, shapes):
    data = [features(*shape, seed=i) for i, shape in enumerate(shapes)]
    if "matrix" in flags:
        data = [Z @ Z.T for Z in data]
    if "skip" in flags:
        data[0][3, 1] = math.nan
    files = [save(tmp_path, f"{i}.npy", Z) for i, Z in enumerate(data)]
    content = report(capsys, *files, *flags)
    checked = 0
    for part in [*content["arrays"], content["pair"]]:
        names = {}
        exec("\n".join(part["setup"]), names)
        for quantity in part["quantities"]:
            if quantity["value"] is not None:
                again = float(eval(quantity["call"], names))
                assert quantity["value"] == pytest.approx(again, rel=1e-7, abs=1e-9), quantity["call"]
                checked += 1
    assert checked >= 12


def test_report_takes_any_measure_by_name(tmp_path, capsys):
    file = save(tmp_path, "a.npy", features(3000, 6))
    content = report(
        capsys, file, "--measures", "two_nn,stable_rank,curvature,nesum,effective_rank", "--base", "2"
    )
    found = numbers(content["arrays"][0]["quantities"])
    Z = load(file)
    assert found["stable_rank", None] == pytest.approx(float(measures.stable_rank(Gram(Z))), rel=1e-9)
    assert found["curvature", None] == pytest.approx(float(measures.curvature(Z)), rel=1e-9)
    assert found["two_nn", None] == pytest.approx(float(measures.two_nn(load(file, rows=2048))), rel=1e-9)
    assert [q["name"] for q in content["arrays"][0]["quantities"]].count("effective_rank") == 1
    assert content["notes"] == [
        "a.npy: measures of rows (R in their calls) are of 2048 of them.",
        "a.npy: nesum: defined for rows that are centred; here they are not.",
    ]
    assert content["terms"]["stable rank"].endswith("(1 to min(n, d))")


def test_report_of_what_cannot_be_compared_is_one_line(tmp_path, capsys):
    files = [save(tmp_path, "1.npy", features(30, 3)), save(tmp_path, "2.npy", features(40, 5))]
    assert main(["report", *files]) == 0
    out = capsys.readouterr().out
    assert out.count("needs the same samples in both files, got 30 and 40 rows") == 1
    assert re.search(r"mutual information, joint entropy +-  needs", out)


def test_report_says_in_words_what_each_number_is(tmp_path, capsys):
    assert main(["report", save(tmp_path, "a.npy", features())]) == 0
    out = capsys.readouterr().out
    for term in (
        "entropy",
        "effective rank",
        "Vendi score",
        "RankMe",
        "participation ratio",
        "total coding rate",
    ):
        assert f"\n{term}: " in out
    assert "rows of Z divided by their length, not centred" in out
    assert "mutual information" not in out


def test_report_leaves_out_one_bad_array_among_many(tmp_path, capsys):
    bad = features()
    bad[2, 3] = math.inf
    np.savez(tmp_path / "a.npz", good=features(), bad=bad, zero=np.zeros((5, 3)), other=features(seed=1))
    content = report(capsys, str(tmp_path / "a.npz"))
    assert [a["key"] for a in content["arrays"]] == ["good", "other"]
    assert [note.split(":")[2] for note in content["notes"]] == ["bad", "zero"]
    assert main(["report", str(tmp_path / "a.npz"), "--key", "bad"]) == 2


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_report_never_writes_onto_an_input(tmp_path, capsys, link):
    file = tmp_path / "a.npy"
    np.save(file, features())
    before = file.read_bytes()
    for option, name in (("--json", "out.json"), ("--html", "out.html"), ("--plot", "out.png")):
        getattr(tmp_path / name, link)(file)
        assert main(["report", str(file), option, str(tmp_path / name)]) == 2
        assert "is the input" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_report_outputs_replace_what_a_link_leads_to_and_leave_nothing_beside(tmp_path, capsys):
    (tmp_path / "site").mkdir()
    old, out = tmp_path / "site" / "old.json", tmp_path / "out.json"
    old.write_text("{}", encoding="utf-8")
    out.symlink_to(old)
    assert main(["report", save(tmp_path, "a.npy", features()), "--json", str(out)]) == 0
    assert out.is_symlink()
    assert json.loads(old.read_text(encoding="utf-8"))["schema"] == "matinfo-report"
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["old.json"]


@pytest.mark.parametrize(
    "labels", [[0, 1] * 25, list(range(50)), list(range(49, -1, -1))], ids=["label", "range", "down"]
)
def test_report_warns_of_a_column_that_looks_like_an_index_or_a_label(tmp_path, capsys, labels):
    Z = np.column_stack([features(), labels])
    (note,) = report(capsys, save(tmp_path, "a.npy", Z))["notes"]
    assert "column 6 holds whole numbers, others hold fractions" in note
    assert report(capsys, save(tmp_path, "b.npy", np.round(Z)))["notes"] == []


def test_report_nan_skip_leaves_out_samples_of_both_files(tmp_path, capsys):
    first, second = features(40, 3), features(40, 2, seed=1)
    first[5, 1], second[[5, 20], 0] = math.nan, math.inf
    files = [save(tmp_path, "1.npy", first), save(tmp_path, "2.npy", second)]
    content = report(capsys, *files, "--nan", "skip")
    assert [(a["rows"], a["skipped_rows"]) for a in content["arrays"]] == [(39, 1), (38, 2)]
    good = [i for i in range(40) if i not in {5, 20}]
    expected = matinfo.mutual_information(*(Gram(rows_of(Z[good])) for Z in (first, second)))
    found = numbers(content["pair"]["quantities"])
    assert found["mutual_information", 1] == pytest.approx(float(expected), abs=1e-9)
    assert any("1 of 40 rows" in note for note in content["notes"])


# Notes


@pytest.mark.parametrize(("negative", "noted"), [(False, True), (True, False)])
def test_report_notes_a_kernel_given_as_features(tmp_path, capsys, negative, noted):
    K = features(6, 6) @ features(6, 6).T
    K[0, 0] *= -1 if negative else 1
    notes = report(capsys, save(tmp_path, "K.npy", K))["notes"]
    assert any("--kind matrix" in note for note in notes) is noted


def test_report_notes_go_to_standard_error_unless_quiet(tmp_path, capsys):
    file = save(tmp_path, "K.npy", np.eye(4))
    assert main(["report", file]) == 0
    assert capsys.readouterr().err.startswith("matinfo: note: K.npy is square")
    assert main(["report", file, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


# Text


def test_report_text_shows_shape_numbers_and_spectrum(tmp_path, capsys):
    assert (
        main(["report", save(tmp_path, "a.npy", np.repeat(np.eye(4), 3, 0)), "--alpha", "1", "--base", "2"])
        == 0
    )
    out = capsys.readouterr().out
    assert "a.npy: 12 rows, 4 columns, float64" in out
    assert re.search(r"entropy, order 1 +2 bits", out)
    assert re.search(r"RankMe +4 dimensions", out)
    assert re.search(r"largest eigenvalues / trace +0.25 0.25 0.25 0.25\n", out)
    assert re.search(r"90 %, 99 % of the trace +4, 4\n", out)


def test_report_of_layers_is_a_table_with_a_row_each(tmp_path, capsys):
    np.savez(tmp_path / "layers.npz", block1=features(), block2=features(columns=3), labels=np.arange(50))
    assert main(["report", str(tmp_path / "layers.npz"), "--alpha", "1"]) == 0
    captured = capsys.readouterr()
    heading, first, second, *_ = captured.out.splitlines()[2:]
    assert heading.split()[:3] == ["array", "rows", "columns"]
    assert first.split()[:4] == [
        "block1",
        "50",
        "6",
        f"{float(matinfo.renyi_entropy(Gram(rows_of(features())))):.6g}",
    ]
    assert second.split()[:3] == ["block2", "50", "3"]
    assert "labels" in captured.err


def test_report_of_three_files_is_a_table_and_two_of_one_name_show_their_folders(tmp_path, capsys):
    (tmp_path / "x").mkdir()
    files = [
        save(tmp_path, "a.npy", features()),
        save(tmp_path / "x", "a.npy", features()),
        save(tmp_path, "b.npy", features()),
    ]
    assert main(["report", *files]) == 0
    lines = capsys.readouterr().out.splitlines()[3:6]
    assert [line.split()[0] for line in lines] == files


# Files that are written


def test_report_json_file_equals_standard_output_and_text_stays(tmp_path, capsys):
    file, out = save(tmp_path, "a.npy", features()), tmp_path / "out.json"
    content = report(capsys, file)
    assert main(["report", file, "--json", str(out)]) == 0
    assert capsys.readouterr().out.startswith("a.npy: 50 rows")
    assert json.loads(out.read_text(encoding="utf-8")) == content
    assert (content["schema"], content["schema_version"]) == ("matinfo-report", 2)
    assert content["matinfo"] == matinfo.__version__
    assert content["settings"]["alphas"] == [0.5, 1, 2, "inf"]
    assert content["pair"] is None


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_report_plot_writes_the_kind_of_picture_asked_for(tmp_path, capsys, suffix, start):
    out = tmp_path / f"out{suffix}"
    assert main(["report", save(tmp_path, "a.npy", features()), "--plot", str(out), "--theme", "dark"]) == 0
    assert out.read_bytes().startswith(start)


def test_report_plot_names_what_it_shows_and_starts_at_zero(tmp_path, capsys):
    out = tmp_path / "out.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):
        assert main(["report", save(tmp_path, "a.npy", features()), "--plot", str(out), "--base", "2"]) == 0
        one = out.read_text(encoding="utf-8")
        np.savez(tmp_path / "b.npz", **{f"layer{i}": features(seed=i) for i in range(7)})
        assert main(["report", str(tmp_path / "b.npz"), "--plot", str(out), "--center"]) == 0
        many = out.read_text(encoding="utf-8")
    assert "a.npy: n = 50, d = 6. K = Z Z^T, rows of Z divided by their length, not centred" in one
    assert "log d = 2.58" in one
    assert "log n = 5.64 (above)" in one
    assert "b.npz: n = 50, d = 6. K = Z Z^T, rows of Z divided by their length, less their mean" in many
    assert many.count(">d = 6<") == many.count(">n = 50 (above)<") == 2  # of effective rank and RankMe
    assert "log d = 1.79" in many
    assert "total coding rate, mu = 1" in many
    assert (
        many.count(">0<") + many.count(">0.0<") + many.count(">0.00<") == 4
    )  # the lowest number of each panel


class Page(html.parser.HTMLParser):
    """What a page refers to, its text, and whether its tags close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.references, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in {"meta", "source", "img"}:
            self.open.append(tag)
        self.references += [value for name, value in attributes if name in {"src", "srcset", "href"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_report_html_is_one_page_with_two_pictures_and_escaped_names(tmp_path, capsys):
    name = "<script>alert(1)</script> & $x$"
    torch.save(
        {name: torch.from_numpy(features()), "b": torch.from_numpy(features(seed=1))}, tmp_path / "a.pt"
    )
    out = tmp_path / "out.html"
    assert main(["report", str(tmp_path / "a.pt"), "--html", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert name in page.texts
    assert len(page.references) == 2
    for reference in page.references:
        kind, _, data = reference.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert b"<svg" in base64.b64decode(data)
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text


def test_report_html_of_a_pair_holds_the_numbers_of_the_text(tmp_path, capsys):
    files = [save(tmp_path, f"{i}.npy", features(seed=i, columns=3)) for i in range(2)]
    out = tmp_path / "out.html"
    assert main(["report", *files, "--html", str(out)]) == 0
    text, _, _ = capsys.readouterr().out.partition("\nentropy: ")
    lines = [line.rsplit("  ", 1) for line in text.splitlines() if line.startswith("  ")]
    texts = Page(out.read_text(encoding="utf-8")).texts
    assert [text for text in texts if "nats" in text and text != "nats"] == []  # units are units
    assert texts.count("by chance") == 1
    shown = [value.split()[0] for title, value in lines if "eigenvalues" not in title]
    assert len(shown) > 20
    assert [number for number in shown if number not in texts] == []


@pytest.mark.parametrize("flag", ["--plot", "--html"])
def test_report_pictures_without_matplotlib_name_the_extra(tmp_path, capsys, monkeypatch, flag):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = tmp_path / ("out.png" if flag == "--plot" else "out.html")
    monkeypatch.setattr(
        "importlib.import_module",
        lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name=name.split(".")[0])),
    )
    assert main(["report", save(tmp_path, "a.npy", features()), flag, str(out)]) == 2
    assert "pip install 'matinfo[plot]'" in capsys.readouterr().err


# The program


def test_python_m_matinfo_runs_the_command(tmp_path):
    command = [sys.executable, "-m", "matinfo", "report", save(tmp_path, "a.npy", np.eye(3)), "--progress"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "effective rank" in done.stdout
    assert "a.npy: " in done.stderr  # the bar


def test_python_m_matinfo_returns_the_status(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["matinfo", "report", str(tmp_path / "absent.npy")])
    with pytest.raises(SystemExit, match="^2$"):
        runpy.run_module("matinfo", run_name="__main__")
    assert capsys.readouterr().err == f"matinfo: error: {tmp_path / 'absent.npy'}: no such file.\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["report", "--help"]])
def test_help_and_version_are_no_errors(capsys, arguments):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert matinfo.__version__ in out or "usage: matinfo" in out
