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

import numpy as np
import pytest
import torch

import matinfo
from matinfo import Gram
from matinfo.cli import main
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


@pytest.mark.parametrize("columns", [(3, 4), (6, 9)], ids=["streamed", "in memory"])
def test_report_of_two_files_has_the_numbers_of_the_library(tmp_path, capsys, columns):
    data = [features(40, d, seed=i) for i, d in enumerate(columns)]
    files = [save(tmp_path, f"{i}.npy", Z) for i, Z in enumerate(data)]
    found = numbers(report(capsys, *files, "--batch-rows", "9")["pair"]["quantities"])
    K1, K2 = (Gram(rows_of(Z)) for Z in data)
    for alpha in ORDERS:
        key = "inf" if alpha == math.inf else alpha
        information = float(matinfo.mutual_information(K1, K2, alpha))
        assert found["mutual_information", key] == pytest.approx(information, abs=1e-9)
        joint = float(matinfo.joint_entropy(K1, K2, alpha=alpha))
        assert found["joint_entropy", key] == pytest.approx(joint, abs=1e-9)
    assert found["spectrum_js", None] == pytest.approx(float(matinfo.spectrum_js(K1, K2)), abs=1e-9)
    assert found["matrix_kl", None] is found["matrix_js", None] is None


def test_report_of_two_files_of_one_width_compares_second_moments(tmp_path, capsys):
    data = [features(30, 5), features(45, 5, seed=1)]
    files = [save(tmp_path, f"{i}.npy", Z) for i, Z in enumerate(data)]
    quantities = report(capsys, *files)["pair"]["quantities"]
    M1, M2 = (Z.mT @ Z / len(Z) for Z in map(rows_of, data))
    by_call = {q["call"]: q for q in quantities}
    forward, backward = (
        by_call[f"matrix_kl({a}/tr {a}, {b}/tr {b})"]["value"] for a, b in (("M1", "M2"), ("M2", "M1"))
    )
    assert forward == pytest.approx(float(matinfo.matrix_kl(M1, M2)), rel=1e-9)
    assert backward == pytest.approx(float(matinfo.matrix_kl(M2, M1)), rel=1e-9)
    assert by_call["matrix_js(M1, M2)"]["value"] == pytest.approx(float(matinfo.matrix_js(M1, M2)), rel=1e-9)
    information = by_call["mutual_information(K1, K2, alpha=1)"]
    assert information["value"] is None
    assert "30 and 45 rows" in information["reason"]


def test_report_of_two_matrices_has_the_numbers_of_the_library(tmp_path, capsys):
    Ks = [(Z := torch.from_numpy(features(7, 9, seed=i))) @ Z.mT for i in range(2)]
    files = [save(tmp_path, f"{i}.npy", K.numpy()) for i, K in enumerate(Ks)]
    by_call = {
        q["call"]: q["value"]
        for q in report(capsys, *files, "--kind", "matrix", "--alpha", "1")["pair"]["quantities"]
    }
    assert by_call == {
        "mutual_information(K1, K2, alpha=1)": pytest.approx(
            float(matinfo.mutual_information(*Ks)), abs=1e-10
        ),
        "joint_entropy(K1, K2, alpha=1)": pytest.approx(float(matinfo.joint_entropy(*Ks)), abs=1e-10),
        "matrix_kl(K1, K2)": pytest.approx(float(matinfo.matrix_kl(*Ks)), rel=1e-10),
        "matrix_kl(K2, K1)": pytest.approx(float(matinfo.matrix_kl(*Ks[::-1])), rel=1e-10),
        "matrix_js(K1, K2)": pytest.approx(float(matinfo.matrix_js(*Ks)), rel=1e-10),
        "spectrum_js(K1, K2)": pytest.approx(float(matinfo.spectrum_js(*Ks)), rel=1e-10),
    }


def test_report_infinite_divergence_is_null_with_a_reason_and_inf_in_text(tmp_path, capsys):
    files = [save(tmp_path, "full.npy", np.eye(3)), save(tmp_path, "part.npy", np.eye(3)[:2])]
    values = {q["call"]: q for q in report(capsys, *files)["pair"]["quantities"]}
    forward = values["matrix_kl(M1/tr M1, M2/tr M2)"]
    assert forward["value"] is None
    assert forward["reason"].startswith("infinite")
    assert values["matrix_kl(M2/tr M2, M1/tr M1)"]["value"] == pytest.approx(math.log(1.5))
    assert main(["report", *files]) == 0
    assert re.search(r"KL divergence, 1 from 2 +inf", capsys.readouterr().out)


def test_report_infinite_divergence_names_the_file_that_has_more_in_both_directions(tmp_path, capsys):
    full, part = save(tmp_path, "full.npy", np.eye(3)), save(tmp_path, "part.npy", np.eye(3)[:2])
    reasons = [
        q["reason"]
        for files in ((full, part), (part, full))
        for q in report(capsys, *files)["pair"]["quantities"]
        if q["name"] == "matrix_kl" and q["value"] is None
    ]
    assert reasons == ["infinite: full.npy has directions that part.npy lacks"] * 2


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


def test_report_of_more_memory_than_allowed_gives_a_reason(tmp_path, capsys):
    files = [save(tmp_path, f"{i}.npy", features(200, 20, seed=i)) for i in range(2)]
    content = report(
        capsys, *files, "--memory", "0.0001"
    )  # 105 kB: holds 20 x 20, not 200 x 200 or 400 x 400
    reasons = {q["name"]: q.get("reason", "") for q in content["pair"]["quantities"]}
    assert "--memory" in reasons["mutual_information"]
    assert reasons["matrix_js"] == ""


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
    heading, first, second = captured.out.splitlines()[2:]
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
    lines = capsys.readouterr().out.splitlines()[3:]
    assert [line.split()[0] for line in lines] == files


# Files that are written


def test_report_json_file_equals_standard_output_and_text_stays(tmp_path, capsys):
    file, out = save(tmp_path, "a.npy", features()), tmp_path / "out.json"
    content = report(capsys, file)
    assert main(["report", file, "--json", str(out)]) == 0
    assert capsys.readouterr().out.startswith("a.npy: 50 rows")
    assert json.loads(out.read_text(encoding="utf-8")) == content
    assert (content["schema"], content["schema_version"]) == ("matinfo-report", 1)
    assert content["matinfo"] == matinfo.__version__
    assert content["settings"]["alphas"] == [0.5, 1, 2, "inf"]
    assert content["pair"] is None


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_report_plot_writes_the_kind_of_picture_asked_for(tmp_path, capsys, suffix, start):
    out = tmp_path / f"out{suffix}"
    assert main(["report", save(tmp_path, "a.npy", features()), "--plot", str(out), "--theme", "dark"]) == 0
    assert out.read_bytes().startswith(start)


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
    lines = [line.rsplit("  ", 1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    texts = Page(out.read_text(encoding="utf-8")).texts
    shown = [value.split()[0] for title, value in lines if "eigenvalues" not in title]
    assert len(shown) > 20
    assert [number for number in shown if number not in texts] == []


@pytest.mark.parametrize("flag", ["--plot", "--html"])
def test_report_pictures_without_matplotlib_name_the_extra(tmp_path, capsys, monkeypatch, flag):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = tmp_path / ("out.png" if flag == "--plot" else "out.html")
    monkeypatch.setattr(
        "matinfo.cli.errors.importlib.import_module",
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
